"""Standard errors of stratified draws, and the paired test that compares two answers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from energycomp.errors import InputError

ROUNDING = 1e-6  # of an error: differences below it come from float32 and not from the image


def standard_error(errors: Tensor, banks: Sequence[int] | None = None) -> tuple[float, float]:
    """The standard error of the mean of stratified draws (S,), and its degrees of freedom.

    Draws of a bank are stratified in the timestep. Their mean varies less than the spread of all draws suggests, so
    neighbours in timestep order estimate its variance: that of a draw is half the mean squared successive difference
    (von Neumann, 1941; Wolter, 2007, section 8.2). Draws in any other order give the larger variance of draws that are
    not stratified.

    Args:
        errors: of the draws, in the order of their bank.
        banks: the number of draws of each bank, where `errors` holds those of several, one after another. The degrees
            of freedom are Satterthwaite's then; infinity and 0 come back for a bank of fewer than 2 draws.

    >>> errors = torch.tensor([1.0, 2.0, 3.0, 4.0])  # a trend along the timesteps
    >>> standard_error(errors)[0], float(errors.std() / 2)
    (0.353..., 0.645...)
    """
    sizes = [len(errors)] if banks is None else list(banks)
    if errors.ndim != 1 or sum(sizes) != len(errors) or not sizes or min(sizes) < 1:
        got = f"got errors {tuple(errors.shape)} of banks of {sizes} draws"
        raise InputError(f"{got}; expected (S,), and banks whose draws add up to S; pass them in the order of banks")
    if min(sizes) < 2:
        return float("inf"), 0.0
    total, spread = 0.0, 0.0  # of the variances of the banks' means, and of their squares over degrees of freedom
    for part in errors.double().split(sizes):
        n = len(part)
        variance = float(part.diff().square().sum()) / (2 * (n - 1)) / n * (n / len(errors)) ** 2
        total += variance
        spread += variance**2 * (3 * n - 4) / (2 * (n - 1) ** 2)
    freedom = total**2 / spread if spread > 0 else float(len(errors) - len(sizes))
    return float(total**0.5), freedom


def paired(errors: Tensor, other: Tensor, banks: Sequence[int] | None = None) -> tuple[float, float, float]:
    """Mean, standard error and one-sided p-value of other - errors over the same draws (S,).

    A paired t-test: the difficulty of the draws cancels. The p-value is the probability of a difference at least as
    large, if both answers had the same expected error. Use draws that selected neither answer. The standard error is at
    least 1e-6 of the errors, so that rounding decides nothing.

    Args:
        errors, other: of the answer and of another one, on the same draws.
        banks: as for `standard_error`.

    >>> mean, stderr, p = paired(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, 3.1, 3.9]))
    >>> round(mean, 2), p < 0.01
    (1.0, True)
    """
    from scipy.special import stdtr  # scipy.stats takes three times as long to import

    if errors.shape != other.shape or not len(errors):
        raise InputError(f"got errors {tuple(errors.shape)} and {tuple(other.shape)}; expected (S,) of the same draws")
    gap = (other - errors).double()
    mean = float(gap.mean())
    stderr, freedom = standard_error(gap, banks)
    stderr = max(stderr, ROUNDING * float(torch.maximum(errors.abs(), other.abs()).double().mean()))
    if freedom == 0.0 or stderr == 0.0:
        return mean, stderr, 0.5
    return mean, stderr, float(stdtr(freedom, -mean / stderr))
