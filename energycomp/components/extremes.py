"""The least and the greatest value of polynomials on an interval, by their Bernstein coefficients.

A polynomial on [0, 1] lies between its least and its greatest Bernstein coefficient, and the first and the last one are
its values at both ends. Halving the interval brings the coefficients to the values, quadratically in its length
(Lane and Riesenfeld, 1981).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

TOLERANCE = 1e-9  # of the least value


def extremes(values: Tensor) -> tuple[float, float]:
    """The least and the greatest value on [0, 1] of polynomials, each of degree d at most.

    Args:
        values: (N, d + 1), of each polynomial at d + 1 evenly spaced points from 0 to 1; at least 2.

    >>> tuple(round(value, 6) for value in extremes(torch.tensor([[1.0, 0.0, 1.0], [4.0, 2.5, 2.0]])))  # (2 x - 1)^2
    (0.0, 4.0)
    >>> round(extremes(torch.tensor([[0.25, 0.0, 0.25, 1.0]]) - 0.01)[0], 6)  # (1.5 x - 0.5)^2 - 0.01
    -0.01
    """
    coefficients = torch.linalg.solve(_basis(values.shape[1]), values.double().T).T
    return _least(coefficients), -_least(-coefficients)


def _basis(points: int) -> Tensor:
    """The Bernstein polynomials of degree d at d + 1 evenly spaced points (d + 1, d + 1)."""
    d = points - 1
    x = torch.linspace(0.0, 1.0, points, dtype=torch.float64)
    return torch.stack([math.comb(d, k) * x**k * (1 - x) ** (d - k) for k in range(points)], dim=1)


def _least(coefficients: Tensor) -> float:
    """The least value of polynomials with Bernstein coefficients (N, d + 1), by branch and bound."""
    least = math.inf
    while len(coefficients):
        # Bound from above: the values at the ends.
        least = min(least, float(coefficients[:, [0, -1]].min()))
        # Keep what may be below, since a coefficient is.
        below = coefficients[coefficients.amin(1) < least - TOLERANCE]
        # Branch: both halves of the interval.
        coefficients = torch.cat(_halves(below))
    return least


def _halves(coefficients: Tensor) -> tuple[Tensor, Tensor]:
    """The coefficients on both halves of the interval, by the algorithm of de Casteljau."""
    first, last = [], []
    while coefficients.shape[1]:
        first.append(coefficients[:, 0])
        last.append(coefficients[:, -1])
        coefficients = (coefficients[:, 1:] + coefficients[:, :-1]) / 2
    return torch.stack(first, dim=1), torch.stack(last[::-1], dim=1)
