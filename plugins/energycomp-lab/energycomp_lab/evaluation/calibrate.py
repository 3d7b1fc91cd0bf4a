"""Calibrate a model: how unusual an error is, measured on images that were held out of its training."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence

import attrs
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from energycomp.errors import InputError
from energycomp.inference import FIT_DRAWS, SCREEN_DRAWS, OutOfDistributionWarning, Solver, make_problem, read_image
from energycomp.inference.judge import LEAST as LEAST_POSTERIOR
from energycomp.models import Model, background_error, calibration_of, log_errors
from energycomp.progress import progress as shown
from energycomp.seeds import derived_seed
from energycomp_lab.evaluation.data import Example

LEAST = 10  # images of a count; fewer tell nothing about its tail


def calibrate(
    model: Model, examples: Sequence[Example], *, solver: Solver | None = None, seed: int = 0, progress: bool = True
) -> Model:
    """Calibrates a model, so that `infer` tells how unusual an image is (`Solution.typicality`).

    Every example is read once. Counts that fewer than 10 answers have are joined with the next ones.

    Args:
        examples: held-out images of the kind that the model was trained on, of all counts that it is to be used for.
        solver: that of the model's defaults when left out.
        seed: of the draws.

    Raises:
        InputError: fewer than 10 images.
    """
    found: dict[int, list[Tensor]] = defaultdict(list)
    for index, example in enumerate(shown(examples, "calibrating", unit="image", show=progress, leave=True)):
        generator = torch.Generator().manual_seed(derived_seed(seed, "calibration", index))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", OutOfDistributionWarning)
            solution = read_image(example.image, model, generator, solver=solver)
        problem = make_problem(model.encode(example.image), model)
        left = problem.residuals(solution.conditions, problem.draw(FIT_DRAWS, generator))
        found[solution.count].append(log_errors(left))
    calibration = attrs.evolve(calibration_of(join_counts(found)), background=measure_background(model, examples))
    return attrs.evolve(model, defaults=attrs.evolve(model.defaults, calibration=calibration))


def join_counts(found: Mapping[int, Sequence[Tensor]]) -> dict[int, Tensor]:
    """The `log_errors` of images by count, (N, 2) for each; few images of a count are joined with those of the next.

    Joined ones are of the count in their middle, and at least `LEAST`; `InputError` for fewer in all.

    >>> errors = {0: 12 * [torch.zeros(2)], 3: 2 * [torch.zeros(2)], 5: 9 * [torch.zeros(2)], 9: [torch.zeros(2)]}
    >>> {count: len(each) for count, each in join_counts(errors).items()}
    {0: 12, 5: 12}
    """
    groups: list[list[tuple[int, Tensor]]] = [[]]
    for count in sorted(found):
        if len(groups[-1]) >= LEAST:
            groups.append([])
        groups[-1] += [(count, each) for each in found[count]]
    if len(groups) > 1 and len(groups[-1]) < LEAST:
        last = groups.pop()
        groups[-1] += last
    if len(groups[0]) < LEAST:
        raise InputError(f"got {len(groups[0])} images; expected at least {LEAST}; give more examples")
    return {group[len(group) // 2][0]: torch.stack([each for _, each in group]) for group in groups}


def fit_sure(posteriors: Sequence[float], is_right: Sequence[bool]) -> tuple[float, float]:
    """The weights (a, b) of `Calibration.sure` under which answers that are right or wrong are likeliest (Platt, 1999).

    >>> from energycomp.inference.judge import scaled
    >>> a, b = fit_sure([0.9] * 40 + [0.1] * 40, [True] * 30 + [False] * 40 + [True] * 10)
    >>> round(scaled(0.9, (a, b)), 2), round(scaled(0.1, (a, b)), 2)
    (0.74, 0.26)
    """
    logits = torch.tensor(posteriors, dtype=torch.float64).clamp(LEAST_POSTERIOR, 1 - LEAST_POSTERIOR).logit()
    right = torch.tensor(is_right, dtype=torch.bool)
    # One more answer of each kind keeps weights finite where all are right
    hit = int(right.sum())
    miss = len(right) - hit
    targets = torch.where(right, (hit + 1) / (hit + 2), 1 / (miss + 2)).double()
    weights = torch.tensor([0.0, 1.0], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = binary_cross_entropy_with_logits(weights[0] + weights[1] * logits, targets)
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(closure)
    bias, slope = weights.tolist()
    return bias, slope


def measure_background(model: Model, examples: Sequence[Example]) -> tuple[float, float] | None:
    """Measures `Calibration.background`, by which images of another kind are refused; None without u.

    Costs `SCREEN_DRAWS` network evaluations per image, and no search.
    """
    errors = []
    for example in examples:
        problem = make_problem(model.encode(example.image), model)
        if not problem.has_baseline:
            return None
        errors.append(background_error(problem.unexplained(problem.draw(SCREEN_DRAWS, 0))))
    each = torch.tensor(errors, dtype=torch.float64)
    return float(each.mean()), max(float(each.std()), 1e-3)
