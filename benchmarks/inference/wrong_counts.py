"""Who is at fault where a count is wrong: the network, or the search.

python benchmarks/inference/wrong_counts.py [--model clevr-places] [--data synthetic:6-8] [-n 100] [--side 16]

The places of each wrong answer are corrected: those that are no object are left out, and those of the objects it lacks
are added. Where the corrected answer has the lower prediction error on draws of its own, the search missed it; where it
has the higher one, the network prefers the wrong answer, and no search can help. Prints one JSON line.
"""

from __future__ import annotations

import json
import warnings
from collections import Counter

import attrs
import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.common.measure import reading_arguments
from energycomp import Model, infer, load
from energycomp.evaluation import Example, near_pairs, true_values
from energycomp.images import to_unit
from energycomp.inference import make_problem
from energycomp.inference.infer import OutOfDistributionWarning
from energycomp.plugins import find
from energycomp.seeds import derived_seed
from energycomp_solvers.pursuit import Pursuit

DRAWS = 256
CLEAR = 2.0  # standard errors


def main() -> None:
    """Prints the line."""
    parser = reading_arguments(__doc__, n=100, model="a model of places")
    parser.add_argument("--data", default="synthetic:6-8", help="as `energycomp evaluate` takes it")
    parser.add_argument(
        "--side", type=int, default=attrs.fields(Pursuit).side.default, help="of the lattice of pursuit"
    )
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model, solver = load(options.model), Pursuit(side=options.side)
    examples = find("datasets", model.name)().examples(options.data, count=options.n, seed=options.seed)
    if not examples:
        parser.error(f"got no images of {options.data}; expected at least one; change -n or --data")
    faults, rows = Counter[str](), 0
    for index, example in enumerate(tqdm(examples, desc="reading")):
        fault, spent = read(model, solver, example, derived_seed(options.seed, "example", index))
        faults[fault] += 1
        rows += spent
    line = {"model": options.model, "data": options.data, "images": len(examples), "side": options.side}
    print(json.dumps(line | dict(faults) | {"rows_per_image": round(rows / len(examples))}), flush=True)


def read(model: Model, solver: Pursuit, example: Example, seed: int) -> tuple[str, int]:
    """What is wrong with the count of an image and who is at fault, and the network evaluations of the answer."""
    image = to_unit(example.image) if isinstance(example.image, Tensor) else example.image
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OutOfDistributionWarning)
        solution = infer(image, model, solver=solver, generator=seed, progress=False)
    answer, true = solution.conditions, true_values(example, model.conditioner)
    if len(answer) == len(true):
        return "right", solution.rows
    corrected = _corrected(answer, true)
    problem = make_problem(model.encode(model.given(image)), model, count=len(true))
    bank = problem.draw(DRAWS, torch.Generator().manual_seed(seed))
    form = problem.quadratic(torch.cat([answer, true]), bank)
    given = form.errors(range(len(answer)), problem.weighting(len(answer)))
    better = given - form.errors(corrected, problem.weighting(len(corrected)))
    clear = CLEAR * float(better.std()) / DRAWS**0.5
    fault = "search" if float(better.mean()) > clear else "network" if float(better.mean()) < -clear else "undecided"
    return f"too {'few' if len(answer) < len(true) else 'many'}, {fault}", solution.rows


def _corrected(answer: Tensor, true: Tensor) -> list[int]:
    """Indices into both: the places of the answer that are objects, and the objects that it lacks."""
    rows, columns = near_pairs(answer, true)
    lacking = sorted(set(range(len(true))) - set(columns.tolist()))
    return [*rows.tolist(), *(len(answer) + column for column in lacking)]


if __name__ == "__main__":
    main()
