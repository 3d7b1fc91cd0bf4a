"""How an answer is judged: by the error that it leaves on draws that did not select it.

Notation: variable -> symbol
    left        r, the scaled residual eps - eps_hat of the answer for each draw
    parts       mean over draws of r_k^2 - r^2, with r_k that of the answer without component k
    baseline    the error of the unconditional prediction for each draw
    posterior   p, that of the solver; or the product of the posteriors of all words, and of the answer against a
                runner-up of another count
    weights     (a, b), fitted on held-out images

    fit = 1 - mean |r|^2 / mean baseline
    sure = sigmoid(a + b logit(p))

`sure` is the scaling of Platt (1999): a posterior of many words that are judged apart is too sure, or not sure enough.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import attrs
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from energycomp.components import widen
from energycomp.images import ImageProcessor, guided
from energycomp.inference.compare import COMPONENT_PENALTY, as_normal, standard_error
from energycomp.inference.problem import Problem
from energycomp.inference.solution import OUT_OF_DISTRIBUTION, Solution
from energycomp.models.defaults import log_errors
from energycomp.models.model import Model

USUAL = 3.0  # standard deviations, up to which the error of an image is usual
FIT_DRAWS = 16  # draws that measure fit and typicality
LEAST = 1e-6  # of posteriors, and of their distance to 1


class Measured(NamedTuple):
    """Residuals (S, *shape), what each component explains of them (K, *shape), and the unconditional errors (S,)."""

    left: Tensor
    parts: Tensor | None
    baseline: Tensor | None

    def of_answer(self) -> dict[str, Any]:
        """The error of the answer, its standard error, and the gain of each component, by their names in a solution."""
        errors = self.left.flatten(1).square().sum(1)
        gain = None if self.parts is None else self.parts.flatten(1).sum(1).cpu()
        stderr = as_normal(*standard_error(errors))
        return {"error": float(errors.mean()), "stderr": stderr, "component_gain": gain}


def measured(solution: Solution, problem: Problem, generator: torch.Generator) -> Measured:
    """The residuals of an answer, on the draws that compared it where there are enough of them, else on new ones."""
    # Draws that compared the answer selected neither it nor its rival
    compared = solution.form if problem.has_empty and problem.has_baseline else None
    if compared is not None and compared.draws >= FIT_DRAWS // 2:
        left, parts = compared.explained()
        shape = problem.observation.shape[1:]
        left = left.reshape(-1, *shape)
        parts = None if parts is None else parts.reshape(-1, *shape)
        return Measured(left, parts, compared.c if solution.count else None)
    # New draws otherwise
    bank = problem.draw(FIT_DRAWS, generator)
    left, parts = problem.explained(solution.conditions, bank)
    return Measured(left, parts, problem.baseline_errors(bank) if solution.count else None)


def judge(solution: Solution, problem: Problem, model: Model, image: Any, residuals: Measured) -> Solution:
    """An answer of a solver with how well it fits and how sure it is. Costs no network evaluation."""
    left, parts, baseline = residuals

    # Fit: the share of the unconditional error that is explained, and that of each component in it.
    fit = share = None
    if baseline is not None:
        error = widen(left).square().sum(tuple(range(1, left.ndim))).mean()
        fit = 1.0 - float(error / widen(baseline).mean())
        if fit > 0 and parts is not None:
            share = parts.flatten(1).sum(1).cpu() / (fit * float(baseline.mean()))

    # Typicality: how unusual the error is among those of held-out images. Where it is unusual at one place alone, and
    # not in all, that place is wrong, and not the image.
    calibration = model.defaults.calibration
    typicality = missing = sure = None
    if calibration is not None:
        errors = log_errors(left)
        typicality = calibration.typicality(solution.count, errors)
        in_all, _ = calibration.unusual(solution.count, errors)
        if typicality < OUT_OF_DISTRIBUTION and in_all < USUAL:
            missing = _peak(left)

        # Certainty: the posterior of the whole answer, as often right as on held-out images.
        gain = solution.component_gain if parts is None else parts.flatten(1).sum(1).cpu()
        known = posterior(solution, problem, gain)
        if calibration.sure is not None and known is not None:
            sure = scaled(known, calibration.sure)

    return attrs.evolve(
        solution,
        fit=fit,
        typicality=typicality,
        missing=missing,
        sure=sure,
        at_count_limit=_at_limit(solution.count, problem),
        share=share,
        pixels=None if parts is None else _make_maps(parts.cpu(), model, image),
    )


def _at_limit(count: int, problem: Problem) -> bool:
    """Whether a count is an end of the range that was searched, beyond which there are other counts."""
    low, high = problem.counts
    if low == high:
        return False
    # Fewer: there may be none, where that is an answer
    if count == low and low > (0 if problem.has_empty else 1):
        return True
    # More: none where each listed value is taken, and at most once
    listed = problem.slots[0].candidates
    return count == high and not (problem.distinct and listed is not None and count >= len(listed))


def _peak(left: Tensor) -> tuple[float, float] | None:
    """Where residuals (S, C, H, W) are greatest, (x, y) in [0, 1]; None for data that are no pictures."""
    if left.ndim != 4:
        return None
    # The greatest mean squared residual of 3x3 pixels
    each = avg_pool2d(left.square().sum(1).mean(0)[None], 3, 1, 1, count_include_pad=False)[0]
    y, x = divmod(int(each.argmax()), each.shape[1])
    return (x + 0.5) / each.shape[1], (y + 0.5) / each.shape[0]


def _make_maps(parts: Tensor, model: Model, image: Any) -> Callable[[], Tensor]:
    """What makes maps of parts of the error (K, C, H, W) when they are asked for; others stay as they are."""
    if not isinstance(model.processor, ImageProcessor) or parts.ndim != 4:
        return partial(torch.clone, parts)
    return partial(_sharpen, parts.sum(1, keepdim=True), model.processor(image)[0])


def _sharpen(parts: Tensor, picture: Tensor) -> Tensor:
    """Parts (K, 1, h, w) at the resolution and with the edges of a picture (C, H, W), by the guided filter."""
    size = picture.shape[1:]
    maps = interpolate(parts, size, mode="bilinear")[:, 0]  # of latents; pixels stay as they are
    return guided(maps * (math.prod(parts.shape[2:]) / math.prod(size)), picture)


def posterior(solution: Solution, problem: Problem, gain: Tensor | None = None) -> float | None:
    """The posterior of a whole answer: that of the solver, or else one by energies.

    None where the solver knows none, and there is no inverse temperature, or the answer was compared with nothing.
    An answer that the solver compared with nothing, or a component of which explains nothing, is compared with the one
    without the component of least `gain`.
    """
    if solution.answer_posterior is not None:
        return solution.answer_posterior
    if problem.posterior.beta is None:
        return None
    # The words of each object, where their posterior is known
    found = 1.0
    known = False
    for each in (solution.certainty, solution.probability):
        if each is not None and each.numel() and not bool(each.isnan().any()):
            found *= float(widen(each).prod())
            known = True
    is_compared = solution.difference is not None and math.isfinite(solution.difference)
    if not known and not is_compared:
        return None
    if gain is not None and problem.counts[0] < solution.count and (not is_compared or float(gain.min()) <= 0):
        solution = _compare_with_fewer(solution, problem, gain)
        is_compared = True
    # The answer against its runner-up. As many components are the same ones in other words, and their doubt is in those
    # words already
    in_other_words = known and solution.runner_up is not None and len(solution.runner_up) == solution.count
    if solution.difference is not None and is_compared and not in_other_words:
        alone = torch.tensor([solution.error], dtype=torch.float64)
        error = problem.with_prior(alone, solution.conditions[None])
        lead = problem.posterior.gap(float(error), solution.difference)  # both with the prior
        # Each component that the other answer has more says its place, which costs what the search asks for one
        if solution.runner_up is not None and problem.slots[0].candidates is None:
            lead += COMPONENT_PENALTY * (len(solution.runner_up) - solution.count)
        found /= 1 + math.exp(min(-lead, 700.0))
    return found


def _compare_with_fewer(solution: Solution, problem: Problem, gain: Tensor) -> Solution:
    """The solution whose runner-up lacks the component without which the error rises least."""
    least = int(gain.argmin())
    rest = torch.cat([solution.conditions[:least], solution.conditions[least + 1 :]])
    errors = torch.tensor([solution.error, solution.error + float(gain[least])], dtype=torch.float64)
    here, there = (
        float(problem.with_prior(error[None], values[None]))
        for error, values in zip(errors, (solution.conditions, rest), strict=True)
    )
    return attrs.evolve(solution, runner_up=rest, difference=there - here)


def scaled(posterior: float, weights: tuple[float, ...]) -> float:
    """The probability that an answer with a posterior is right, by fitted weights.

    >>> round(scaled(0.9, (0.0, 1.0)), 3), round(scaled(0.9, (0.0, 0.5)), 3)
    (0.9, 0.75)
    """
    # Platt scaling: a line in the log-odds
    p = min(max(posterior, LEAST), 1 - LEAST)
    bias, slope = weights
    return 1 / (1 + math.exp(-bias - slope * math.log(p / (1 - p))))
