"""Guidance beyond classifier-free guidance: high scales that do not saturate colours, and flow matching.

Formulas are on predictions (B, C, H, W); sums are over the channels and pixels of a sample.

# Notation: variable -> symbol
#     cond      c = u + R(C), the prediction of a composition C at mass 1; R(C) = C - mass(C) u is its residual
#     uncond    u, the prediction of the unconditional leaf
#     scale     s; at 1 the prediction is c
#     guided    g, the prediction of classifier-free guidance
"""

from __future__ import annotations

import attrs
import torch
from torch import Tensor

from energycomp.components import scalar
from energycomp.errors import InputError
from energycomp.fields import FINITE, number
from energycomp.sampling import Guide, classifier_free

SCALE = 7.5  # the default of diffusers' guiders
LEAST = 1e-12  # of what is divided by


@attrs.frozen
class Rescaled:
    """Classifier-free guidance whose result has the standard deviation of c (Lin et al., 2023). The name `rescale`.

    On the type of prediction of the composition. Costs K + 1 network evaluations per sample and step.

    Args:
        scale: s.
        share: phi, the share of the rescaled prediction; 0 is classifier-free guidance.

    >>> c, u = torch.tensor([[2.0, 1.0]]), torch.tensor([[1.0, 0.0]])
    >>> Rescaled(3.0, share=0.0).guide(10).combine(c, u, torch.tensor([0.5]))
    tensor([[4., 3.]])
    """

    scale: float = attrs.field(default=SCALE, converter=scalar, validator=FINITE)
    share: float = attrs.field(default=0.7, converter=scalar, validator=number(least=0, most=1))

    def guide(self, num_inference_steps: int, /) -> Guide:  # noqa: ARG002
        return Guide(lambda c, u, _: rescaled(classifier_free(c, u, self.scale), c, self.share))


@attrs.frozen
class AdaptiveProjected:
    """Adaptive projected guidance (Sadat et al., 2024), on predictions of x0. The name `apg`.

    The part of c - u along c, which saturates colours, is removed; what is left is limited in length, and steps are
    taken against those before. Costs K + 1 network evaluations per sample and step.

    Args:
        scale: s.
        parallel: eta, the share that is kept of the part along c; 1 keeps it all.
        momentum: beta, of the running difference d <- c - u + beta d; below 0 it slows changes of one direction down.
        norm: r, the greatest length of the difference over all pixels; None for no limit.

    >>> c, u = torch.tensor([[2.0, 1.0]]), torch.tensor([[1.0, 0.0]])
    >>> AdaptiveProjected(3.0, parallel=1.0, norm=None).guide(10).combine(c, u, torch.tensor([0.5]))
    tensor([[4., 3.]])
    """

    scale: float = attrs.field(default=SCALE, converter=scalar, validator=FINITE)
    parallel: float = attrs.field(default=0.0, converter=scalar, validator=FINITE)
    momentum: float = attrs.field(default=-0.5, converter=scalar, validator=number(least=-1, most=1))
    norm: float | None = attrs.field(default=15.0, converter=scalar, validator=number(least=0, or_none=True))

    def guide(self, num_inference_steps: int, /) -> Guide:  # noqa: ARG002
        running = torch.zeros(())

        def combine(cond: Tensor, uncond: Tensor, _: Tensor) -> Tensor:
            nonlocal running
            # d <- c - u + beta d
            running = cond - uncond + self.momentum * running.to(cond.device)
            return adaptive_projected(cond, running, self.scale, parallel=self.parallel, norm=self.norm)

        return Guide(combine, "sample")


@attrs.frozen
class ZeroStar:
    """CFG-Zero* (Fan et al., 2025): u at its best length, and no velocity at first. The name `zero-star`.

    On predictions of the velocity eps - x0 of a rectified flow, for any model. Costs K + 1 network evaluations per
    sample and step.

    Args:
        scale: s.
        zero_until: the share of the trajectory in which the velocity is 0, so that the sample stays as it is, up to
            its scale.

    >>> c, u = torch.tensor([[2.0, 1.0]]), torch.tensor([[1.0, 0.0]])
    >>> ZeroStar(3.0).guide(10).combine(c, u, torch.tensor([0.5]))
    tensor([[2., 3.]])
    """

    scale: float = attrs.field(default=SCALE, converter=scalar, validator=FINITE)
    zero_until: float = attrs.field(default=0.04, converter=scalar, validator=number(least=0, most=1))

    def guide(self, num_inference_steps: int, /) -> Guide:  # noqa: ARG002
        def combine(cond: Tensor, uncond: Tensor, share: Tensor) -> Tensor:
            # At first the velocity is 0, which is nearer to the truth than what networks predict there.
            moves = (share >= self.zero_until).to(cond).reshape(-1, *[1] * (cond.ndim - 1))
            return moves * zero_star(cond, uncond, self.scale)

        return Guide(combine, "flow")


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
    # Shorten the difference to r at most.
    if norm is not None:
        difference = difference * (norm / _length(difference).clamp(min=LEAST)).clamp(max=1.0)
    # Take the part along c out, which saturates colours, or all but a share of it.
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
