"""How sure an answer is, in one number.

Notation: variable -> symbol
    posterior   p, the product of the posteriors of all words, and of the answer against its runner-up
    doubt       d, the greatest of what is left around a component or elsewhere, see the trace of a search
    unusual     z, how many standard deviations the error is above that of held-out images, in all or at its peak
    weights     (a, b, c, e), fitted on held-out images

    sure = sigmoid(a + b logit(p) + c log(d) + e z)

A posterior alone knows the answers that were compared. What is left in the image tells of those that nobody proposed.
"""

from __future__ import annotations

import math

from energycomp.inference.problem import Problem
from energycomp.inference.solution import Solution

LEAST = 1e-6  # of posteriors, and of their distance to 1


def posterior(solution: Solution, problem: Problem) -> float | None:
    """The posterior of a whole answer among those that it was compared with; None without an inverse temperature."""
    if problem.beta is None:
        return None
    found = 1.0
    for each in (solution.certainty, solution.probability):
        if each is not None and not bool(each.isnan().any()):
            found *= float(each.double().prod())
    if solution.difference is not None and math.isfinite(solution.difference):
        gap = problem.gap(solution.error, solution.difference)
        found /= 1 + math.exp(min(-problem.beta * gap, 700.0))
    return found


def features(posterior: float, doubts: list[float], unusual: float) -> tuple[float, float, float]:
    """What the certainty of an answer is fitted on: logit(p), log(d) and z.

    >>> features(0.5, [1.0], 2.0)
    (0.0, 0.0, 2.0)
    """
    p = min(max(posterior, LEAST), 1 - LEAST)
    doubt = math.log(max(max(doubts, default=1.0), LEAST))
    return math.log(p / (1 - p)), doubt, min(max(unusual, -5.0), 10.0)


def certainty_of(weights: tuple[float, ...], found: tuple[float, ...]) -> float:
    """The probability that an answer is right, of the fitted weights and the `features`.

    >>> round(certainty_of((0.0, 1.0, 0.0, 0.0), features(0.9, [], 0.0)), 3)
    0.9
    """
    bias, *slopes = weights
    total = bias + sum(slope * number for slope, number in zip(slopes, found, strict=True))
    return 1 / (1 + math.exp(min(-total, 700.0)))
