"""Measure the statistics of answers: coverage of intervals, errors of the tests, false alarms and their power.

python benchmarks/inference/reading_statistics.py [--only closed power halves intervals ...] [-n 500] [-o DIR]

closed, power, halves, intervals: a model in closed form, whose expected errors are known. coverage: `clevr-places`, the
intervals of a reading against the mean of the other readings of its image. alarms: `clevr-places`, held-out scenes and
other images.
"""

from __future__ import annotations

import argparse
import math
import warnings
from collections.abc import Callable, Iterator

import torch
from scipy import stats
from torch import Tensor
from torch.nn.functional import avg_pool2d
from tqdm import tqdm

from benchmarks.common.measure import table, write
from benchmarks.common.options import parser
from energycomp import Model, infer, load
from energycomp.images import to_unit
from energycomp.inference import Problem, make_problem, paired, standard_error
from energycomp.plugins import find
from energycomp.testing import attributes_model, labels_model, planted
from energycomp_lab.evaluation import dataset_of, true_values
from energycomp_solvers.enumerate import Enumerate
from energycomp_solvers.pursuit import Pursuit

COMMAND = "python benchmarks/inference/reading_statistics.py"
LEVELS = (0.05, 0.01)
IMAGES = 10  # that the readings of `coverage` share
MODEL = "clevr-places"
LEAD = 0.515  # share of a label in an image of two, which one test of 128 draws finds better in about 80 % of readings
CHANGES: dict[str, Callable[[Tensor], Tensor]] = {
    "rotated by 90 degrees": lambda image: image.rot90(1, (1, 2)),
    "rotated by 180 degrees": lambda image: image.rot90(2, (1, 2)),
    "flipped upside down": lambda image: image.flip(1),
    "upper and lower half exchanged": lambda image: image.roll(image.shape[1] // 2, 1),
    "negative": lambda image: -image,
    "half as bright": lambda image: (image + 1) / 2 - 1,
    "1.4 times as bright": lambda image: ((image + 1) * 1.4 - 1).clamp(-1, 1),
    "blurred": lambda image: avg_pool2d(image[None], 5, 1, 2)[0],
    "with noise of 0.2": lambda image: (
        image + 0.2 * torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
    ).clamp(-1, 1),
}
OTHERS = (("faces", "synthetic"), ("decomp", "synthetic"), ("clevr", "synthetic:textured:3-5"))


def seeded(seed: int) -> torch.Generator:
    """A generator of its own for every reading."""
    return torch.Generator().manual_seed(seed)


def share(found: list[bool]) -> str:
    """A share in percent, with its 95 % interval (Clopper and Pearson, 1934)."""
    low, high = stats.binomtest(sum(found), len(found)).proportion_ci(method="exact")
    return f"{sum(found) / len(found):.1%} ({low:.1%} to {high:.1%})"


def closed_form(readings: int) -> Iterator[list[str]]:
    """The test of `Enumerate` on an image between two labels: of equal errors, and where one label is closer."""
    labels = attributes_model(1, draws=64, spread=0.5)
    first, second = (planted(labels, torch.tensor([k])) for k in range(2))
    equal = _p_values(Enumerate(), (first + second) / 2, labels, readings)
    for level in LEVELS:
        what = f"one of two equal labels declared better at p < {level}"
        yield ["closed form", what, share([p < level for p in equal]), f"at most {level:.0%}"]


def power(readings: int) -> Iterator[list[str]]:
    """How often `Enumerate` finds that one of two close labels is better, and one test of the most draws."""
    labels = attributes_model(1, draws=64, spread=0.5)
    first, second = (planted(labels, torch.tensor([k])) for k in range(2))
    image = LEAD * first + (1 - LEAD) * second
    for name, solver in (("`Enumerate`", Enumerate()), ("one test of as many draws", Enumerate(p_value=1e-300))):
        found = _p_values(solver, image, labels, readings)
        for level in LEVELS:
            what = f"the better of two close labels found at p < {level}, {name}"
            yield ["closed form", what, share([p < level for p in found]), ""]


def _p_values(solver: Enumerate, image: Tensor, model: Model, readings: int) -> list[float]:
    found = []
    for seed in tqdm(range(readings), desc=repr(solver)):
        p_value = solver.solve(make_problem(image, model), generator=seeded(seed)).p_value
        found.append(1.0 if p_value is None else p_value)
    return found


def half_objects(readings: int) -> Iterator[list[str]]:
    """How often `Pursuit` counts a second object of which one half is there: one and two leave the same error."""
    objects = labels_model(4, draws=64, spread=0.5, solver="pursuit", counts=(0, 3))
    whole, pair = (planted(objects, torch.tensor(values)) for values in ([0], [0, 1]))
    image = to_unit((whole + pair) / 2)
    for level in LEVELS:
        solver, seeds = Pursuit(p_value=level), tqdm(range(readings), desc=f"half an object at {level}")
        two = [infer(image, objects, solver=solver, generator=seeded(seed)).count == 2 for seed in seeds]
        yield ["closed form", f"half an object counted at p < {level}", share(two), f"at most {level:.0%}"]


def intervals(readings: int) -> Iterator[list[str]]:
    """`Solution.stderr` of `Enumerate` after few draws, whose expected error is that of many draws."""
    model = labels_model(4, spread=0.5, counts=(1, 1))
    image, label = planted(model, torch.tensor([0])), torch.tensor([[0]])
    problem = make_problem(image, model)
    with torch.no_grad():
        truth = float(torch.cat([problem.errors(label, problem.draw(4000, seed))[0] for seed in range(8)]).mean())
    for draws in (4, 8, 32):
        solver, z = Enumerate(draws=draws, p_value=1e-300), []
        for seed in tqdm(range(readings), desc=f"{2 * draws} draws"):
            solution = solver.solve(make_problem(image, model), generator=seeded(seed))
            z.append((solution.error - truth) / solution.stderr)
        inside, what = share([abs(each) < 1.96 for each in z]), f"error ± 1.96 stderr covers it, {2 * draws} draws"
        yield ["closed form", what, inside, "95%"]
        yield ["closed form", "standard deviation of z", f"{float(torch.tensor(z).std()):.2f}", "1"]


def coverage(model: Model, readings: int) -> Iterator[list[str]]:
    """95 % intervals of the error and of differences, and the paired test where differences are centred."""
    names = ("error", "difference to one fewer", "difference to one more", "difference to one moved")
    inside: dict[str, list[bool]] = {name: [] for name in names}
    declared: dict[float, list[bool]] = {level: [] for level in LEVELS}
    source = find("datasets", dataset_of(model))()
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
    source = find("datasets", dataset_of(model))()
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


def foreign_images(model: Model, n: int) -> dict[str, list[Tensor]]:
    """n images (3, H, W) in [-1, 1] of each kind, by its description; changed scenes are the model's own kind."""
    height, width = model.processor.size
    generator = torch.Generator().manual_seed(0)
    tone = torch.linspace(-1, 1, n)
    found = {
        "one grey tone, black to white": [torch.full((3, height, width), float(t)) for t in tone],
        "uniform noise": [torch.rand(3, height, width, generator=generator) * 2 - 1 for _ in range(n)],
        "stripes": [(torch.arange(width) / (2.0 + k)).sin().sign().expand(3, height, width).clone() for k in range(n)],
        "coloured blocks": [_blocks(height, width, generator) for _ in range(n)],
    }
    scenes = [
        model.processor(e.image)[0]
        for e in find("datasets", dataset_of(model))().examples("synthetic:2-6", count=n, seed=77)
    ]
    found |= {f"scenes, {name}": [change(scene) for scene in scenes] for name, change in CHANGES.items()}
    for name, data in OTHERS:
        examples = find("datasets", name)().examples(data, count=n, seed=5)
        found[f"{name}, {data}"] = [model.processor(example.image)[0] for example in examples]
    return found


def _blocks(height: int, width: int, generator: torch.Generator) -> Tensor:
    blocks = torch.rand(3, 8, 8, generator=generator).mul(2).sub(1)
    return blocks.repeat_interleave(height // 8, 1).repeat_interleave(width // 8, 2)


def main() -> None:
    """Writes reading_statistics.md."""
    options = parser(
        __doc__, only=(list(PARTS), "all by default", list(PARTS)), n=(500, "readings"),
        scenes=(300, "held-out scenes for false alarms"), foreign=(5, "images of each other kind"),
        out="runs/benchmarks",
    ).parse_args()  # fmt: skip
    torch.set_num_threads(1)
    rows = [row for name in PARTS if name in options.only for row in PARTS[name](options)]
    note = f"`{COMMAND} -n {options.n} --scenes {options.scenes} --foreign {options.foreign}`, 95 % intervals."
    write(options.out / "reading_statistics", table(("model", "what", "measured", "aim"), rows, note))


PARTS: dict[str, Callable[[argparse.Namespace], Iterator[list[str]]]] = {
    "closed": lambda options: closed_form(options.n),
    "power": lambda options: power(options.n),
    "halves": lambda options: half_objects(options.n),
    "intervals": lambda options: intervals(options.n),
    "coverage": lambda options: coverage(load(MODEL), options.n),
    "alarms": lambda options: alarms(load(MODEL), options.scenes, options.foreign),
}

if __name__ == "__main__":
    main()
