"""Standard errors of stratified draws, and the paired test that compares two answers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from energycomp.components import widen
from energycomp.errors import InputError

ROUNDING = 1e-6  # of an error: differences below it come from float32 and not from the image
COMPONENT_PENALTY = (
    8.0  # nats that a component has to be worth: about what it takes to say its place to a fiftieth, log(50^2)
)


def standard_error(errors: Tensor, banks: Sequence[int] | None = None) -> tuple[float, float]:
    """The standard error of the mean of stratified draws (S,), and its degrees of freedom.

    Draws of a bank are stratified in the timestep: a trend along the timesteps changes their mean only by where in its
    stratum each draw is. Banks of as many draws share their strata, and the spread in each stratum estimates the
    variance. In a bank of a size of its own second differences of neighbours do, in which a straight trend cancels
    (Gasser, Sroka and Jennen-Steinmetz, 1986; Wolter, 2007, section 8.2). Both vary much for few draws, so that the
    variance is at least what the slope along the timesteps leads to within the strata. Draws in any other order give
    the larger variance of draws that are not stratified.

    Args:
        errors: of the draws, in the order of their bank.
        banks: the number of draws of each bank, where `errors` holds those of several, one after another. Infinity and
            0 come back for a bank of fewer than 2 draws.

    Returns:
        The standard error, and the degrees of freedom of Student's t, at most S (Satterthwaite, 1946). `as_normal` is
        one number for both.

    >>> errors = torch.tensor([1.0, 2.0, 3.0, 4.0])  # a trend along the timesteps
    >>> standard_error(errors)[0], float(errors.std() / 2)
    (0.144..., 0.645...)
    """
    sizes = [len(errors)] if banks is None else list(banks)
    if errors.ndim != 1 or sum(sizes) != len(errors) or not sizes or min(sizes) < 1:
        got = f"got errors {tuple(errors.shape)} of banks of {sizes} draws"
        raise InputError(f"{got}; expected (S,), and banks whose draws add up to S; pass them in the order of banks")
    if min(sizes) < 2:
        return float("inf"), 0.0
    parts = widen(errors).split(sizes)
    most = float(len(errors))
    total = 0.0  # of the variances of the sums of banks
    spread = 0.0  # of their squares over degrees of freedom
    for size in set(sizes):
        # The variance of the sum of such a bank, between banks of one size, or within a single one.
        same = torch.stack([part for part in parts if len(part) == size])
        measured, freedom = _in_strata(same) if len(same) > 1 else _of_neighbours(same[0])
        # It is at least what the slopes of the errors explain; that part needs no degrees of freedom.
        certain = _of_slopes(same, measured)
        total += len(same) * max(measured, certain)
        spread += (len(same) * max(measured - certain, 0.0)) ** 2 / freedom
    # Satterthwaite again: the degrees of freedom of a sum of variances, S at most
    freedom = min(total**2 / spread, most) if spread > 0 else most
    return total**0.5 / most, freedom


def _in_strata(banks: Tensor) -> tuple[float, float]:
    """The variance of the sum of a bank from several of them (g, n), and its degrees of freedom (Satterthwaite)."""
    g, n = banks.shape
    # The variance in each stratum, over banks
    variances = banks.var(0)
    variance = float(variances.sum())
    # Satterthwaite: degrees of freedom of a sum of variances that differ
    squares = float(variances.square().sum()) / (g + 1)
    found = variance**2 / squares - 2 if squares > 0 else float("inf")  # 2 for the chance in the variance itself
    return variance, max(1.0, min(found, (g - 1) * n / 2))


def _of_neighbours(bank: Tensor) -> tuple[float, float]:
    """The variance of the sum of a bank (n,) from differences of neighbours, and its degrees of freedom."""
    if len(bank) == 2:
        return float(bank.diff().square()), 1.0
    # Squared second differences, in which a straight trend cancels: mean 6 times the variance
    weights = _of_centres(bank)
    variance = float(weights @ bank.diff(n=2).square()) / 6
    # Degrees of freedom (Satterthwaite): second differences have the correlations -2/3 and 1/6 with the next two,
    # each of which counts twice, before and after
    squares = float(weights @ weights)
    if len(weights) > 1:
        squares += 2 * (2 / 3) ** 2 * float(weights[1:] @ weights[:-1])
    if len(weights) > 2:
        squares += 2 * (1 / 6) ** 2 * float(weights[2:] @ weights[:-2])
    return variance, len(bank) ** 2 / squares


def _of_slopes(banks: Tensor, variance: float) -> float:
    """The variance of the sum of a bank of uniform places in strata, (g, n), by the slopes across them."""
    bank = banks.mean(0)
    if len(bank) == 2:
        return 0.0
    # A slope moves a draw by a uniform place in its stratum, of variance 1/12
    slopes = (bank[2:] - bank[:-2]) / 2  # per stratum
    return max(0.0, float(_of_centres(bank) @ slopes.square()) - variance / (2 * len(banks))) / 12


def _of_centres(bank: Tensor) -> Tensor:
    """How many draws (n - 2,) each inner draw of a bank (n,) stands for: the first and the last for one more."""
    weights = torch.ones(len(bank) - 2, dtype=bank.dtype, device=bank.device)
    weights[0] += 1
    weights[-1] += 1
    return weights


def as_normal(stderr: float, freedom: float) -> float:
    """The standard error of a normal distribution that has the 95 % interval of Student's t.

    So 1.96 of them are half a 95 % interval, whatever the number of draws. Without degrees of freedom it is infinite.

    >>> round(as_normal(1.0, 4.0), 2), round(as_normal(1.0, 1000.0), 2)
    (1.42, 1.0)
    """
    from scipy.special import ndtri, stdtrit  # scipy.stats takes three times as long to import

    return float(stderr * stdtrit(freedom, 0.975) / ndtri(0.975)) if freedom > 0 else float("inf")


def paired(errors: Tensor, other: Tensor, banks: Sequence[int] | None = None) -> tuple[float, float, float]:
    """Mean, standard error and one-sided p-value of other - errors over the same draws (S,).

    A paired t-test: the difficulty of the draws cancels. The p-value is the probability of a difference at least as
    large, if both answers had the same expected error. Use draws that selected neither answer. The standard error is
    that of `as_normal`, from one of at least 1e-6 of the errors, so that rounding decides nothing.

    Args:
        errors, other: of the answer and of another one, on the same draws.
        banks: as for `standard_error`.

    >>> mean, stderr, p = paired(torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([2.0, 3.1, 3.9, 5.0]))
    >>> round(mean, 2), p < 0.05
    (1.0, True)
    """
    from scipy.special import stdtr  # scipy.stats takes three times as long to import

    if errors.shape != other.shape or not len(errors):
        raise InputError(f"got errors {tuple(errors.shape)} and {tuple(other.shape)}; expected (S,) of the same draws")
    # Paired differences: what is hard for both cancels
    gap = widen(other - errors)
    mean = float(gap.mean())
    # Their standard error, at least that of rounding
    stderr, freedom = standard_error(gap, banks)
    stderr = max(stderr, ROUNDING * float(widen(torch.maximum(errors.abs(), other.abs())).mean()))
    # Student's t; draws that tell nothing of their spread decide nothing
    if freedom == 0.0 or stderr == 0.0:
        return mean, as_normal(stderr, freedom), 0.5
    return mean, as_normal(stderr, freedom), float(stdtr(freedom, -mean / stderr))
