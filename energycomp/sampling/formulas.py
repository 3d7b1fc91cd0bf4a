"""The formulas of guidance, on predictions (B, C, H, W); sums are over the channels and pixels of a sample.

# Notation: variable -> symbol
#     cond      c = u + R(C), the prediction of a composition C at mass 1; R(C) = C - mass(C) u is its residual
#     uncond    u, the prediction of the unconditional leaf
#     scale     s; at 1 the prediction is c
#     guided    g, the prediction of classifier-free guidance
"""

from __future__ import annotations

from torch import Tensor

from energycomp.errors import InputError

LEAST = 1e-12  # of what is divided by


def classifier_free(cond: Tensor, uncond: Tensor, scale: float | Tensor) -> Tensor:
    """u + s (c - u), Ho and Salimans (2021).

    >>> classifier_free(Tensor([2.0]), Tensor([1.0]), 3.0).item()
    4.0
    """
    return uncond + scale * (cond - uncond)


def rescaled(guided: Tensor, cond: Tensor, share: float) -> Tensor:
    """(1 - phi + phi std(c) / std(g)) g, equations 15 and 16 of Lin et al. (2023).

    Raises:
        InputError: samples of one number, which have no deviation.

    >>> rescaled(Tensor([[-4.0, 4.0]]), Tensor([[-1.0, 1.0]]), 1.0)
    tensor([[-1.,  1.]])
    """
    if guided[0].numel() < 2:
        raise InputError("got samples of one number under the guidance 'rescale'; expected two or more; use 'cfg'")
    factor = _deviation(cond) / _deviation(guided).clamp(min=LEAST)
    return share * factor * guided + (1.0 - share) * guided


def adaptive_projected(
    cond: Tensor, difference: Tensor, scale: float, *, parallel: float, norm: float | None
) -> Tensor:
    """c + (s - 1) (d - (1 - eta) d_parallel), Algorithm 1 of Sadat et al. (2024).

    Args:
        difference: d = c - u, with momentum; it is shortened to `norm`.
        parallel: eta, the share of the part of d along c that is kept.

    >>> adaptive_projected(Tensor([[1.0, 0.0]]), Tensor([[5.0, 3.0]]), 2.0, parallel=0.0, norm=None)
    tensor([[1., 3.]])
    """
    if norm is not None:
        difference = difference * (norm / _length(difference).clamp(min=LEAST)).clamp(max=1.0)
    direction = cond / _length(cond).clamp(min=LEAST)
    along = _inner(difference, direction) * direction
    return cond + (scale - 1.0) * (difference - (1.0 - parallel) * along)


def zero_star(cond: Tensor, uncond: Tensor, scale: float) -> Tensor:
    """a u + s (c - a u) with a = <c, u> / |u|^2, Algorithm 1 of Fan et al. (2025).

    >>> zero_star(Tensor([[2.0, 1.0]]), Tensor([[1.0, 0.0]]), 3.0)
    tensor([[2., 3.]])
    """
    uncond = uncond * _inner(cond, uncond) / _inner(uncond, uncond).clamp(min=LEAST)
    return classifier_free(cond, uncond, scale)


def _inner(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).flatten(1).sum(1).reshape(-1, *[1] * (a.ndim - 1))


def _length(x: Tensor) -> Tensor:
    return _inner(x, x).sqrt()


def _deviation(x: Tensor) -> Tensor:
    return x.flatten(1).std(1).reshape(-1, *[1] * (x.ndim - 1))
