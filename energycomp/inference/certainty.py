"""How sure an answer is, in one number.

Notation: variable -> symbol
    posterior   p, the product of the posteriors of all words, and of the answer against its runner-up
    weights     (a, b), fitted on held-out images

    sure = sigmoid(a + b logit(p))

It is the scaling of Platt (1999): a posterior of many words that are judged apart is too sure, or not sure enough.
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


def scaled(posterior: float, weights: tuple[float, ...]) -> float:
    """The probability that an answer with a posterior is right, by fitted weights.

    >>> round(scaled(0.9, (0.0, 1.0)), 3), round(scaled(0.9, (0.0, 0.5)), 3)
    (0.9, 0.75)
    """
    p = min(max(posterior, LEAST), 1 - LEAST)
    bias, slope = weights
    return 1 / (1 + math.exp(-bias - slope * math.log(p / (1 - p))))
