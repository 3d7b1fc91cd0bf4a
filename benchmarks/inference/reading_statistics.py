"""Measure the statistics of answers: coverage of intervals, errors of the tests, false alarms and their power.

python benchmarks/inference/reading_statistics.py [--only closed coverage alarms] [-n 500] [-o runs/benchmarks]

closed: a model in closed form, whose expected errors are known to be equal. coverage: `clevr-places`, the intervals of
a reading against the mean of the other readings of its image. alarms: `clevr-places`, held-out scenes and other images.
"""

from __future__ import annotations

import argparse
import math
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from scipy import stats
from torch import Tensor
from tqdm import tqdm

from benchmarks.common import measure
from benchmarks.inference.foreign import foreign_images
from energycomp import Model, infer, load
from energycomp.images import to_unit
from energycomp.inference import Problem, make_problem, paired, standard_error
from energycomp.plugins import find
from energycomp.testing import attributes_model, labels_model, planted
from energycomp_lab.evaluation import true_values
from energycomp_solvers.enumerate import Enumerate
from energycomp_solvers.pursuit import Pursuit

COMMAND = "python benchmarks/inference/reading_statistics.py"
LEVELS = (0.05, 0.01)
IMAGES = 10  # that the readings of `coverage` share
MODEL = "clevr-places"


def seeded(seed: int) -> torch.Generator:
    """A generator of its own for every reading."""
    return torch.Generator().manual_seed(seed)


def share(found: list[bool]) -> str:
    """A share in percent, with its 95 % interval (Clopper and Pearson, 1934)."""
    low, high = stats.binomtest(sum(found), len(found)).proportion_ci(method="exact")
    return f"{sum(found) / len(found):.1%} ({low:.1%} to {high:.1%})"


def closed_form(readings: int) -> Iterator[list[str]]:
    """Tests on images between two answers that are exactly as good as each other."""
    labels = attributes_model(1, draws=64, spread=0.5)
    between = (planted(labels, torch.tensor([0])) + planted(labels, torch.tensor([1]))) / 2
    objects = labels_model(4, draws=64, spread=0.5, solver="pursuit", counts=(0, 3))
    whole, pair = (planted(objects, torch.tensor(values)) for values in ([0], [0, 1]))
    half = (whole + pair) / 2  # the second object is half there: one and two leave the same error
    for level in LEVELS:
        early, pursuit = Enumerate(p_value=level), Pursuit(p_value=level)
        sure, two = [], []
        for seed in tqdm(range(readings), desc=f"tests at {level}"):
            p = early.solve(make_problem(between, labels), generator=seeded(seed)).p_value
            sure.append(p is not None and p < level)
            two.append(infer(to_unit(half), objects, solver=pursuit, generator=seeded(seed)).count == 2)
        yield [
            "closed form",
            f"one of two equal labels declared better at p < {level}",
            share(sure),
            f"at most {level:.0%}",
        ]
        yield ["closed form", f"half an object counted at p < {level}", share(two), f"at most {level:.0%}"]


def coverage(model: Model, readings: int) -> Iterator[list[str]]:
    """95 % intervals of the error and of differences, and the paired test where differences are centred."""
    names = ("error", "difference to one fewer", "difference to one more", "difference to one moved")
    inside: dict[str, list[bool]] = {name: [] for name in names}
    declared: dict[float, list[bool]] = {level: [] for level in LEVELS}
    source = find("datasets", model.name)()
    for index, example in enumerate(tqdm(source.examples("synthetic:1-8", count=IMAGES, seed=5), desc="images")):
        problem = make_problem(model.encode(example.image), model)
        errors = _errors(problem, true_values(example, model.conditioner), readings // IMAGES, index)
        for name, values in zip(names, errors, strict=True):  # (N, S)
            means = values.mean(1)
            for reading, mean in zip(values, means, strict=True):
                others = (means.sum() - mean) / (len(means) - 1)
                stderr, freedom = standard_error(reading)
                stderr *= math.sqrt(1 + 1 / (len(means) - 1))  # the mean of the others varies, too
                inside[name].append(bool(abs(mean - others) < stats.t.ppf(0.975, freedom) * stderr))
                if name != "error":
                    p = paired(torch.zeros_like(reading), reading - others)[2]
                    for level in LEVELS:
                        declared[level].append(p < level)
    for name, found in inside.items():
        yield [MODEL, f"95 % interval of the {name} covers it", share(found), "95%"]
    for level, found in declared.items():
        yield [MODEL, f"paired test of equal answers below {level}", share(found), f"{level:.0%}"]


def _errors(problem: Problem, true: Tensor, readings: int, seed: int) -> Tensor:
    """Errors (4, N, S) of N banks: of the true answer; and how much more three others leave."""
    generator = seeded(seed)
    spare = torch.rand(1, *problem.value_shape, generator=generator)
    moved = (true[:1] + 0.03).clamp(0.02, 0.98)
    atoms, whole = torch.cat([true, spare, moved]), list(range(len(true)))
    found = []
    for _ in range(readings):
        form = problem.quadratic(atoms, problem.draw(problem.default_draws, generator))
        answer = form.errors(whole)
        others = (whole[1:], [*whole, len(true)], [*whole[1:], len(true) + 1])
        found.append(torch.stack([answer, *(form.errors(other) - answer for other in others)]))
    return torch.stack(found, dim=1)


def alarms(model: Model, scenes: int, foreign: int) -> Iterator[list[str]]:
    """How often images are called out of distribution."""
    source = find("datasets", model.name)()
    held_out = source.examples("synthetic:0-10", count=scenes, seed=2)
    found = [_is_foreign(example.image, model) for example in tqdm(held_out, desc="held-out scenes")]
    yield [MODEL, "held-out scenes of 0 to 10 objects, out of distribution", share(found), "1%"]
    for kind, images in tqdm(foreign_images(model, foreign).items(), desc="other kinds"):
        flagged = sum(_is_foreign(image, model) for image in images)
        yield [MODEL, f"{kind}, out of distribution", f"{flagged} of {len(images)}", ""]


def _is_foreign(image: Tensor, model: Model) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return infer(to_unit(image), model).out_of_distribution


def main() -> None:
    """Writes reading_statistics.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = ("closed", "coverage", "alarms")
    parser.add_argument("--only", nargs="+", choices=parts, default=parts)
    parser.add_argument("-n", type=int, default=500, help="readings")
    parser.add_argument("--scenes", type=int, default=300, help="held-out scenes for false alarms")
    parser.add_argument("--foreign", type=int, default=5, help="images of each other kind")
    parser.add_argument("-o", "--out", type=Path, default=Path("runs/benchmarks"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[list[str]] = []
    if "closed" in options.only:
        rows += closed_form(options.n)
    if "coverage" in options.only:
        rows += coverage(load(MODEL), options.n)
    if "alarms" in options.only:
        rows += alarms(load(MODEL), options.scenes, options.foreign)
    note = f"`{COMMAND} -n {options.n} --scenes {options.scenes} --foreign {options.foreign}`, 95 % intervals."
    text = measure.table(("model", "what", "measured", "aim"), rows, note)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "reading_statistics.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
