"""Guidance beyond classifier-free guidance: high scales that do not saturate colours, and flow matching.

# Notation: variable -> symbol
#     cond      c = u + R(C), the prediction of a composition C at mass 1; R(C) = C - mass(C) u is its residual
#     uncond    u, the prediction of the unconditional leaf; both (B, C, H, W)
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
from energycomp_samplers.kernels import as_column

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
        def combine(cond: Tensor, uncond: Tensor, _: Tensor) -> Tensor:
            # (1 - phi + phi std(c) / std(g)) g, equations 15 and 16
            if cond[0].numel() < 2:
                got = "got samples of one number under the guidance 'rescale'"
                raise InputError(f"{got}; expected two or more; use 'cfg'")
            guided = classifier_free(cond, uncond, self.scale)
            factor = _deviation(cond) / _deviation(guided).clamp(min=LEAST)
            return self.share * factor * guided + (1.0 - self.share) * guided

        return Guide(combine)


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
            # Algorithm 1: d <- c - u + beta d, shortened to r at most
            nonlocal running
            running = cond - uncond + self.momentum * running.to(cond.device)
            difference = running
            if self.norm is not None:
                difference = difference * (self.norm / _length(difference).clamp(min=LEAST)).clamp(max=1.0)
            # c + (s - 1) (d - (1 - eta) d_parallel), with the part of d along c
            direction = cond / _length(cond).clamp(min=LEAST)
            along = _inner(difference, direction) * direction
            return cond + (self.scale - 1.0) * (difference - (1.0 - self.parallel) * along)

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
            moves = as_column((share >= self.zero_until).to(cond), cond)
            # Algorithm 1: a u + s (c - a u) with a = <c, u> / |u|^2
            best = uncond * _inner(cond, uncond) / _inner(uncond, uncond).clamp(min=LEAST)
            return moves * classifier_free(cond, best, self.scale)

        return Guide(combine, "flow")


def _inner(a: Tensor, b: Tensor) -> Tensor:
    return as_column((a * b).flatten(1).sum(1), a)


def _length(x: Tensor) -> Tensor:
    return _inner(x, x).sqrt()


def _deviation(x: Tensor) -> Tensor:
    return as_column(x.flatten(1).std(1), x)
