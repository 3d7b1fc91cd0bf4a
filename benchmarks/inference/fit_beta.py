"""Fit the inverse temperature of the posteriors softmax(-beta J), and measure their calibration error.

python benchmarks/inference/fit_beta.py [--model faces] [--data synthetic synthetic+changed] [-n 200] [--seed 1000]
    [--changed] [--log] [--distrust] [--timesteps LOW HIGH] [-o FOLDER]

With `--changed`, or of data whose name ends in "+changed", images are turned, scaled, moved, lit and tinted otherwise,
blurred and made noisy, so that beta does not trust the model as much as on images like those of its training. With
`--log`, the posteriors are softmax(-beta log J), which depend on ratios of errors only. With `--distrust`,
`Defaults.distrust` is fitted, too, as one of `DISTRUSTS`: best on images of several kinds. beta minimises the mean
-log p of the true values, per attribute, or of the true set if an image has a set of values. That mean and the
calibration error (15 bins) are measured on as many other images of each kind as it was fitted on. `-o` saves the model
with beta, and with the timesteps of its draws, if they are given.
"""

from __future__ import annotations

import json
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import attrs
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.nn import functional
from torchmetrics.functional.classification import binary_calibration_error
from tqdm import tqdm

from benchmarks.common.options import parser
from energycomp import load
from energycomp.components import groups_of
from energycomp.inference import make_problem
from energycomp.models import Model, save_pretrained
from energycomp.plugins import find
from energycomp_lab.evaluation import dataset_of, true_values
from energycomp_solvers.shared import all_errors, configurations, dictionary, marginals, memberships

DISTRUSTS = (0.0, 1.0, 2.0, 4.0, 6.0, 8.0, 10.0, 13.0, 16.0, 20.0)


def main() -> None:
    """Prints a JSON line for each kind of data."""
    parsed = parser(
        __doc__, model=("faces", "registered name or folder of a model of attributes"),
        source=("", "a registered dataset; the one of the model's name"), data=["synthetic"],
        n=(200, "images to fit on, and as many to judge on"), seed=1000, changed=(False, "fit on changed images"),
        log=(False, "posteriors of the logarithm of errors"), distrust=(False, "fit `Defaults.distrust`, too"),
        out=(None, "save the model with its beta here"),
    )  # fmt: skip
    parsed.add_argument("--timesteps", nargs=2, type=float, help="of the draws; those of the model")
    options = parsed.parse_args()
    model = load(options.model)
    timesteps = tuple(options.timesteps) if options.timesteps else model.defaults.timesteps
    defaults = attrs.evolve(model.defaults, timesteps=timesteps, log_errors=options.log)
    model = attrs.evolve(model, defaults=defaults)
    of_sets = groups_of(model.conditioner) is None
    read = sets if of_sets else table
    tables = dict[str, list[tuple[tuple[Any, ...], float]]]()
    for data in options.data:
        examples = tqdm(examples_of(options, model, data), desc=f"reading {data}")
        tables[data] = [read(model, example, options.seed + k) for k, example in enumerate(examples)]

    # The distrust with the least loss, each with its own beta
    asked = set_chance if of_sets else true_chance
    fitting = [one for kind in tables.values() for one in kind[: options.n]]
    found = []
    for distrust in DISTRUSTS if options.distrust else (0.0,):
        some = [tempered(one, fit, distrust) for one, fit in fitting]
        beta = fitted(some, asked)
        found.append((mean_surprise(some, asked, beta), distrust, beta))
    _, distrust, beta = min(found)

    for data, kind in tables.items():
        judging = [tempered(one, fit, distrust) for one, fit in kind[options.n :]]
        pairs = [found_members(*one, beta=beta) if of_sets else sure_chances(*one, beta=beta) for one in judging]
        confidence, right = (torch.cat(part) for part in zip(*pairs, strict=True))
        result = {"beta": beta, "distrust": distrust, "log_errors": options.log}
        result |= {"negative_log_likelihood": mean_surprise(judging, asked, beta)}
        result |= {"calibration_error": float(binary_calibration_error(confidence.float(), right.int(), n_bins=15))}
        result |= {"accuracy": float(right.double().mean()), "pictures": len(judging)}
        print(json.dumps({**result, "data": data, "changed": options.changed, "seed": options.seed}))
    if options.out:
        fitted_model = attrs.evolve(model, defaults=attrs.evolve(defaults, beta=beta, distrust=distrust or None))
        save_pretrained(fitted_model, options.out, dtype=torch.float16)


def examples_of(options: Any, model: Model, data: str) -> list[Any]:
    """The images to fit on and those to judge on, of one kind of data."""
    source = find("datasets", options.source or dataset_of(model))()
    spec = data.removesuffix("+changed")
    examples = list(source.examples(spec, count=2 * options.n, seed=options.seed))
    if not (options.changed or data != spec):
        return examples
    generator = torch.Generator().manual_seed(options.seed)
    return [attrs.evolve(one, image=changed(one.image, generator)) for one in examples]


def tempered(one: tuple[Any, ...], fit: float, distrust: float) -> tuple[Any, ...]:
    """What `table` or `sets` has of an image, with the energies as `Posterior.temper` weighs them.

    >>> tempered((torch.tensor([1.0, 2.0]), [[0, 1]], [0]), -math.log(2.0), 1.0)[0].tolist()
    [0.5, 1.0]
    """
    factor = math.exp(distrust * min(0.0, fit))
    energies, *others = one
    if isinstance(energies, torch.Tensor):
        return (factor * energies, *others)
    return ([(chosen, factor * each) for chosen, each in energies], *others)


def changed(image: Tensor, generator: torch.Generator) -> Tensor:
    """An image (3, H, W) in [-1, 1] as no training image is: turned by up to 15 degrees, scaled, moved, and so on."""

    def between(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(shape, generator=generator)

    angle, zoom, lit = between(-math.pi / 12, math.pi / 12), between(0.85, 1.2), between(0.7, 1.3)
    turned = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()]).view(2, 2) * zoom
    move = torch.cat([turned, between(-0.15, 0.15, 2, 1)], 1)[None]
    grid = functional.affine_grid(move, [1, *image.shape], align_corners=False)
    shown = functional.grid_sample(image[None], grid, padding_mode="border", align_corners=False)
    shown = (shown + 1) * lit - 1 + between(-0.2, 0.2, 1, 3, 1, 1)
    blurred = functional.avg_pool2d(functional.pad(shown, (1, 1, 1, 1), mode="replicate"), 3, 1)
    shown = torch.lerp(shown, blurred, between(0, 0.5))
    noise = between(0, 0.1) * torch.randn(shown.shape, generator=generator)
    return (shown + noise)[0].clamp(-1, 1)


def form_of(model: Model, example: Any, seed: int) -> tuple[Any, Any, Tensor, list[list[int]]]:
    """The problem of an image, the quadratic form of its errors, all values, and those of each component."""
    problem = make_problem(model.encode(example.image), model)
    atoms, slots = dictionary(problem)
    draws = problem.draw(problem.default_draws, torch.Generator().manual_seed(seed))
    return problem, problem.quadratic(atoms, draws), atoms, slots


def table(model: Model, example: Any, seed: int) -> tuple[tuple[Any, ...], float]:
    """The energies of all answers to an image, its slots, and its true values; and the fit of the best answer."""
    problem, form, _, slots = form_of(model, example, seed)
    errors = all_errors(form, slots)
    true = [int(value) for value in true_values(example, model.conditioner)]
    return (problem.posterior.energies(errors), slots, true), 1.0 - float(errors.min() / form.c.mean())


def sets(model: Model, example: Any, seed: int) -> tuple[tuple[Any, ...], float]:
    """The answers (N, K) of each count with energies (N,), the true one, sorted, and M; and the fit."""
    problem, form, atoms, slots = form_of(model, example, seed)
    seen = []
    least = math.inf
    for count in range(problem.counts[0], problem.counts[1] + 1):
        chosen = torch.tensor(list(configurations(problem, slots, count)), dtype=torch.long).view(-1, count)
        errors = form.mean().errors_of_each(chosen)[0]
        seen.append((chosen, problem.posterior.energies(errors)))
        least = min(least, float(errors.min()))
    true = true_values(example, model.conditioner).tolist()
    found = seen, sorted(atoms.tolist().index(value) for value in true), len(atoms)
    return found, 1.0 - least / float(form.c.mean())


def set_chance(seen: Sequence[tuple[Tensor, Tensor]], true: list[int], _: int, *, beta: float) -> Tensor:
    """The posterior of the true set (1,)."""
    logs = torch.cat([-beta * errors for _, errors in seen]).log_softmax(0)
    answers = [sorted(row) for chosen, _ in seen for row in chosen.tolist()]
    return logs[answers.index(true)].exp()[None]


def found_members(
    seen: Sequence[tuple[Tensor, Tensor]], true: list[int], atoms: int, *, beta: float
) -> tuple[Tensor, Tensor]:
    """Of each value of the best answer: its posterior to be in the set (K,), and whether it is."""
    chosen, _ = min(((rows[int(e.argmin())], float(e.min())) for rows, e in seen), key=operator.itemgetter(1))
    return memberships(seen, atoms, beta)[chosen], torch.isin(chosen, torch.tensor(true))


def fitted(tables: Sequence[tuple[Any, ...]], chance: Callable[..., Tensor] | None = None) -> float:
    """The beta under which the true answers to some pictures are most likely, of attributes unless told otherwise."""

    def loss(log_beta: float) -> float:
        return mean_surprise(tables, chance or true_chance, math.exp(log_beta))

    return math.exp(minimize_scalar(loss, bounds=(math.log(1e-5), math.log(1e4)), method="bounded").x)


def mean_surprise(tables: Sequence[tuple[Any, ...]], chance: Callable[..., Tensor], beta: float) -> float:
    """The mean -log p of the true answers to some pictures."""
    chances = torch.cat([chance(*one, beta=beta) for one in tables])
    return float(-chances.clamp(min=1e-12).log().mean())


def true_chance(errors: Tensor, slots: list[list[int]], true: list[int], *, beta: float) -> Tensor:
    """The posterior of each true value (K,)."""
    return true_chances(errors, slots, true, beta=beta)[0]


def sure_chances(errors: Tensor, slots: list[list[int]], true: list[int], *, beta: float) -> tuple[Tensor, Tensor]:
    """How sure an answer is of each attribute of two values, (K,), and whether it is right."""
    chance, right = true_chances(errors, slots, true, beta=beta)
    return torch.maximum(chance, 1 - chance), right


def true_chances(errors: Tensor, slots: list[list[int]], true: list[int], *, beta: float) -> tuple[Tensor, Tensor]:
    """The posterior of each true value, (K,), and whether it is the most probable one of its attribute."""
    posteriors = marginals(errors, list(map(len, slots)), beta)
    chances = [
        (p[slot.index(value)], p[slot.index(value)] >= p.max())
        for slot, p in zip(slots, posteriors, strict=True)
        for value in true
        if value in slot
    ]
    return torch.stack([chance for chance, _ in chances]), torch.stack([right for _, right in chances])


if __name__ == "__main__":
    main()
