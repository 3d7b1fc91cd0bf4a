"""Network evaluations (NFE) of an inference by stage, per image and per object.

python benchmarks/inference/evaluations.py [--model clevr-places] [--data synthetic:3-5 synthetic:6-8] [-n 20]

The stages of `pursuit` are those of `Solution.trace["rows"]`: the lattice, the pursuit with its Gauss-Newton steps, the
held-out draws that decide the count, the last steps, and the comparison with the runner-up. `infer` adds the attributes
of a model that has some, and the draws that measure fit and typicality.
"""

from __future__ import annotations

import time
import warnings

import torch

from benchmarks.common.measure import reading_arguments, table, write
from energycomp import Model, infer, load
from energycomp.components import mixed_of
from energycomp.images import to_unit
from energycomp.inference.infer import FIT_DRAWS, OutOfDistributionWarning
from energycomp.plugins import find
from energycomp.seeds import derived_seed
from energycomp_lab.evaluation import Example, match, true_values
from energycomp_lab.evaluation.scene_metrics import FOUND_WITHIN
from energycomp_solvers.pursuit import STAGES

HEAD = ("data", "objects", "found", *STAGES, "attributes", "fit", "NFE", "NFE per object", "s")
COMMAND = "python benchmarks/inference/evaluations.py"


def main() -> None:
    """Writes evaluations.md."""
    parser = reading_arguments(__doc__, n=20, model="a model with pursuit")
    parser.add_argument("--data", nargs="+", default=["synthetic:3-5", "synthetic:6-8"])
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model, lines = load(options.model), []
    for data in options.data:
        examples = find("datasets", model.name)().examples(data, count=options.n, seed=options.seed)
        numbers = torch.tensor([numbers_of(model, one, i, options.seed) for i, one in enumerate(examples)]).double()
        objects, found, *stages, seconds = numbers.mean(0).tolist()
        shown = [f"{part:,.0f}" for part in (*stages, sum(stages), sum(stages) / objects)]
        lines.append([data, f"{objects:.1f}", f"{found / objects:.3f}", *shown, f"{seconds:.2g}"])
    arguments = f"--model {options.model} --data {' '.join(options.data)} -n {options.n} --seed {options.seed}"
    text = table(HEAD, lines, f"`{COMMAND} {arguments}`: means over images, threads: {options.threads}.")
    write(options.out / "evaluations", text)


def numbers_of(model: Model, example: Example, index: int, seed: int) -> list[float]:
    """Objects, those found, the NFE of each stage, and seconds of one image."""
    true, mixed = true_values(example, model.conditioner), mixed_of(model.conditioner)
    generator = torch.Generator().manual_seed(derived_seed(seed, "example", index))
    started = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OutOfDistributionWarning)
        image = to_unit(example.image) if isinstance(example.image, torch.Tensor) else example.image
        solution = infer(image, model, generator=generator)
    seconds, width = time.perf_counter() - started, None if mixed is None else mixed.support.length
    found = int((match(solution.conditions[:, :width], true[:, :width]) < FOUND_WITHIN).sum())
    stages, fit = list(solution.trace["rows"]), FIT_DRAWS * (solution.count + 1)  # and u
    return [len(true), found, *stages, solution.rows - sum(stages) - fit, fit, seconds]


if __name__ == "__main__":
    main()
