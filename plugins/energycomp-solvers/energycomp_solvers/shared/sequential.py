"""A test that is repeated while draws are added: when it may stop, and its p-value when it has stopped.

The p-value of a single test would be below a level too often, since there are several chances. Every look stops at the
same nominal p-value (Pocock, 1977), which the joint distribution of all looks gives (Armitage, McPherson and Rowe,
1969): looks share their earlier draws, so that they cost less than the same number of independent tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

NODES = 96  # of the quadrature over what the looks before have found
FURTHEST = 9.0  # standard deviations of its range
TINY = 1e-12  # p-values below it are multiplied by the number of looks, which is never too small


def nominal_level(draws: tuple[int, ...], level: float) -> float:
    """The two-sided p-value below which a look stops, so that equal answers stop any of them with probability `level`.

    >>> nominal_level((8,), 0.01), round(nominal_level((8, 16, 32, 64), 0.01), 4)
    (0.01, 0.0029)
    """
    return level if len(draws) == 1 else _nominal(draws, level)


@cache
def _nominal(draws: tuple[int, ...], level: float) -> float:
    # Between Bonferroni's level, which stops too rarely, and that of one look, which stops too often
    low = level / len(draws)
    high = level
    # Bisection: the probability to stop grows with the nominal level
    for _ in range(30):
        middle = (low + high) / 2
        if stopping(draws, [middle] * len(draws)) < level:
            low = middle
        else:
            high = middle
    return low


def sequential_p_value(draws: tuple[int, ...], level: float, found: float) -> float:
    """The p-value of a test that stopped with the two-sided p-value `found` of its last look alone.

    Equal answers lead to a p-value of at most a with probability a, for each a: had the looks stopped at a nominal
    level of `found`, or, where that is above the nominal level, so that all looks were made, had the last look alone.

    >>> [round(sequential_p_value((8, 16, 32, 64), 0.01, found), 4) for found in (0.0001, 0.0029, 0.04, 1.0)]
    [0.0004, 0.0099, 0.045, 1.0]
    """
    looks = len(draws)
    nominal = nominal_level(draws, level)
    if found < TINY:
        return looks * found
    return min(1.0, stopping(draws, [found] * looks if found <= nominal else [nominal] * (looks - 1) + [found]))


def stopping(draws: Sequence[int], nominal: Sequence[float]) -> float:
    """The probability that equal answers stop a test at any look, which has a two-sided nominal level each.

    Notation: z, the standardised difference at a look, normal; its correlation with that of the look before is the root
    of the ratio of their draws.

    >>> round(stopping([8, 16], [0.05, 0.0]), 6), round(stopping([8, 8000], [0.05, 0.05]), 3)
    (0.05, 0.097)
    """
    from scipy.special import ndtr, ndtri  # scipy.stats takes three times as long to import

    bounds = [float(-ndtri(level / 2)) for level in nominal]
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    # What goes on after the first look: values of z, and the probability of each
    reach = min(bounds[0], FURTHEST)
    z = reach * nodes
    mass = reach * weights * _normal(reach * nodes)
    total = nominal[0]
    for (before, now), bound in zip(pairwise(draws), bounds[1:], strict=True):
        # z given that of the look before: normal
        mean = (before / now) ** 0.5 * z
        spread = (1 - before / now) ** 0.5
        # Stop at this look: z beyond the bound on either side
        total += float(mass @ (ndtr((-bound - mean) / spread) + ndtr((mean - bound) / spread)))
        # Go on: the density of z within the bound, by quadrature
        reach = min(bound, FURTHEST)
        z = reach * nodes
        mass = reach * weights * (mass @ _normal((z - mean[:, None]) / spread)) / spread
    return total


def _normal(z: NDArray[np.float64]) -> NDArray[np.float64]:
    """The density of the standard normal distribution."""
    density: NDArray[np.float64] = np.exp(-z * z / 2) / (2 * np.pi) ** 0.5
    return density
