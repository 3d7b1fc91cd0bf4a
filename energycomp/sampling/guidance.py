"""Guidance: the prediction of a composition, moved away from that of its unconditional leaf.

# Notation: variable -> symbol
#     cond      c = u + R(C), the prediction of a composition C at mass 1; R(C) = C - mass(C) u is its residual
#     uncond    u, the prediction of the unconditional leaf
#     scale     s; 1 is the composition itself, except where a guidance says otherwise
#     share     tau in [0, 1), the share of the sampling trajectory that is done
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias, runtime_checkable

import attrs
import torch
from torch import Tensor

from energycomp.components.component import EnergyComponent
from energycomp.components.composition import Composition, combine
from energycomp.components.prediction import PredictionType
from energycomp.components.regions import during
from energycomp.components.weights import AnyWeight, Weight
from energycomp.errors import InputError
from energycomp.fields import is_number
from energycomp.plugins import find, names

__all__ = [
    "AdaptiveProjected",
    "ClassifierFree",
    "Guidance",
    "Guide",
    "LinearGuidance",
    "Rescaled",
    "ZeroStar",
    "interval",
    "made_guidance",
]

SCALE = 7.5  # the default of diffusers' guiders
VELOCITY: PredictionType = "v_prediction"

Combine: TypeAlias = Callable[[Tensor, Tensor, Tensor], Tensor]
"""`(cond (B, C, H, W), uncond (B, C, H, W), share (B,)) -> (B, C, H, W)`."""


@attrs.frozen(eq=False)
class Guide:
    """A guidance during one run.

    Args:
        combine: the guided prediction of both predictions; called once per evaluation, and may keep what it has seen.
        prediction_type: the type of all three; None for that of the composition.
    """

    combine: Combine
    prediction_type: PredictionType | None = None


@runtime_checkable
class Guidance(Protocol):
    """How the predictions of a composition and of its unconditional leaf become one."""

    def guide(self, num_inference_steps: int, /) -> Guide:
        """The guidance for one run of N steps, without what other runs have seen."""
        ...


@runtime_checkable
class LinearGuidance(Protocol):
    """A guidance that is a composition: the weights of its leaves say all, so that every sampler takes it."""

    def weighted(self, composition: EnergyComponent, /) -> Composition:
        """The guided composition."""
        ...


def classifier_free(cond: Tensor, uncond: Tensor, scale: float | Tensor) -> Tensor:
    """u + s (c - u), Ho and Salimans (2021).

    >>> classifier_free(torch.tensor(2.0), torch.tensor(1.0), 3.0).item()
    4.0
    """
    return uncond + scale * (cond - uncond)


def rescaled(guided: Tensor, cond: Tensor, share: float) -> Tensor:
    """(1 - phi + phi std(c) / std(g)) g, equations 15 and 16 of Lin et al. (2023).

    >>> rescaled(torch.tensor([[-4.0, 4.0]]), torch.tensor([[-1.0, 1.0]]), 1.0)
    tensor([[-1.,  1.]])
    """
    factor = _deviation(cond) / _deviation(guided).clamp(min=1e-12)
    return share * factor * guided + (1.0 - share) * guided


def adaptive_projected(
    cond: Tensor, difference: Tensor, scale: float, *, parallel: float, norm: float | None
) -> Tensor:
    """c + (s - 1) (d - (1 - eta) d_parallel), Algorithm 1 of Sadat et al. (2024).

    Args:
        difference: d = c - u, with momentum; it is shortened to `norm`.
        parallel: eta, the share of the part of d along c that is kept.

    >>> adaptive_projected(torch.tensor([[1.0, 0.0]]), torch.tensor([[5.0, 3.0]]), 2.0, parallel=0.0, norm=None)
    tensor([[1., 3.]])
    """
    if norm is not None:
        difference = difference * (norm / _length(difference).clamp(min=1e-12)).clamp(max=1.0)
    direction = cond / _length(cond).clamp(min=1e-12)
    along = _inner(difference, direction) * direction
    return cond + (scale - 1.0) * (difference - (1.0 - parallel) * along)


def zero_star(cond: Tensor, uncond: Tensor, scale: float) -> Tensor:
    """a u + s (c - a u) with a = <c, u> / |u|^2, Algorithm 1 of Fan et al. (2025).

    >>> zero_star(torch.tensor([[2.0, 1.0]]), torch.tensor([[1.0, 0.0]]), 3.0)
    tensor([[2., 3.]])
    """
    uncond = uncond * _inner(cond, uncond) / _inner(uncond, uncond).clamp(min=1e-12)
    return classifier_free(cond, uncond, scale)


def _inner(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).flatten(1).sum(1).reshape(-1, *[1] * (a.ndim - 1))


def _length(x: Tensor) -> Tensor:
    return _inner(x, x).sqrt()


def _deviation(x: Tensor) -> Tensor:
    return x.flatten(1).std(1).reshape(-1, *[1] * (x.ndim - 1))


def _number(least: float = float("-inf"), most: float = float("inf"), *, optional: bool = False) -> Any:
    def check(_: Any, attribute: Any, value: Any) -> None:
        if not ((optional and value is None) or (is_number(value) and least <= value <= most)):
            bounds = "a finite number" if most == float("inf") else f"a number from {least:g} to {most:g}"
            raise InputError(f"got {attribute.name} {value!r}; expected {bounds}{' or None' * optional}; change it")

    return check


def _scale(_: Any, attribute: Any, value: Any) -> None:
    if not isinstance(value, Weight):
        _number()(_, attribute, value)


@attrs.frozen
class ClassifierFree:
    """Classifier-free guidance (Ho and Salimans, 2021): `scale * composition & u`. The names `cfg` and `interval`.

    Costs K + 1 network evaluations per sample and step for K components, and K where the scale is 1.

    Args:
        scale: s, a number or a `Weight`: it may vary over the trajectory and pixels.

    >>> from energycomp.testing import tiny_model
    >>> ClassifierFree(3.0).weighted(tiny_model()(0.2, 0.2))
    -2 u + 3 tiny(0.2, 0.2)
    """

    scale: AnyWeight = attrs.field(default=SCALE, validator=_scale)

    def weighted(self, composition: EnergyComponent, /) -> Composition:
        """u + s R(C)."""
        return combine([self.scale * Composition.of(composition)], "product")

    def guide(self, num_inference_steps: int, /) -> Guide:  # noqa: ARG002
        """The formula."""

        def combine(cond: Tensor, uncond: Tensor, share: Tensor) -> Tensor:
            scale = self.scale
            if isinstance(scale, Weight):
                _, _, height, width = cond.shape
                scale = scale.at(share, (height, width)).to(cond)
            return classifier_free(cond, uncond, scale)

        return Guide(combine)


def interval(scale: float = SCALE, *, start: float = 0.2, stop: float = 0.8) -> ClassifierFree:
    """Guidance in an interval of the trajectory, and none outside (Kynkäänniemi et al., 2024).

    Costs as many network evaluations as `ClassifierFree` inside, and one fewer outside, where u has no weight.

    Args:
        scale: inside the interval.
        start, stop: shares of the trajectory. On the cosine schedule, [0.2, 0.8) is the interval (0.28, 2.9] of sigma
            that the paper found for EDM2.

    >>> interval(3.0)
    ClassifierFree(scale=1 + 2 [0.2 to 0.8])
    """
    _number()(None, attrs.fields(ClassifierFree).scale, scale)
    return ClassifierFree(1.0 + (scale - 1.0) * during(start, stop))


@attrs.frozen
class Rescaled:
    """Classifier-free guidance whose result has the standard deviation of c (Lin et al., 2023). The name `rescale`.

    On the type of prediction of the composition. Costs K + 1 network evaluations per sample and step.

    Args:
        scale: s.
        share: phi, the share of the rescaled prediction; 0 is classifier-free guidance.
    """

    scale: float = attrs.field(default=SCALE, validator=_number())
    share: float = attrs.field(default=0.7, validator=_number(0.0, 1.0))

    def guide(self, num_inference_steps: int, /) -> Guide:  # noqa: ARG002
        """The formula."""
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
    """

    scale: float = attrs.field(default=SCALE, validator=_number())
    parallel: float = attrs.field(default=0.0, validator=_number())
    momentum: float = attrs.field(default=-0.5, validator=_number(-1.0, 1.0))
    norm: float | None = attrs.field(default=15.0, validator=_number(0.0, optional=True))

    def guide(self, num_inference_steps: int, /) -> Guide:  # noqa: ARG002
        """The formula with a running difference of its own."""
        running = torch.zeros(())

        def combine(cond: Tensor, uncond: Tensor, _: Tensor) -> Tensor:
            nonlocal running
            running = cond - uncond + self.momentum * running.to(cond.device)
            return adaptive_projected(cond, running, self.scale, parallel=self.parallel, norm=self.norm)

        return Guide(combine, "sample")


@attrs.frozen
class ZeroStar:
    """CFG-Zero* (Fan et al., 2025): u at its best length, and no velocity at first. The name `zero-star`.

    On predictions of the velocity v. Costs K + 1 network evaluations per sample and step.

    Args:
        scale: s.
        zero_until: the share of the trajectory in which the velocity is 0, so that the sample stays as it is.
    """

    scale: float = attrs.field(default=SCALE, validator=_number())
    zero_until: float = attrs.field(default=0.04, validator=_number(0.0, 1.0))

    def guide(self, num_inference_steps: int, /) -> Guide:  # noqa: ARG002
        """The formula, after a beginning of zeros."""

        def combine(cond: Tensor, uncond: Tensor, share: Tensor) -> Tensor:
            moves = (share >= self.zero_until).to(cond).reshape(-1, *[1] * (cond.ndim - 1))
            return moves * zero_star(cond, uncond, self.scale)

        return Guide(combine, VELOCITY)


def made_guidance(guidance: Any, scale: float | None = None) -> Guidance | LinearGuidance | None:
    """The guidance that `Composer.sample` was given, as an object.

    Args:
        guidance: a registered name, an object, or a guider of diffusers; None for none, or for "cfg" with a scale.
        scale: of a guidance by name.

    Raises:
        InputError: another object, or a scale beside an object, which has its own.
        NotFoundError: a name that no plugin registers.

    >>> made_guidance("rescale", 3.0)
    Rescaled(scale=3.0, share=0.7)
    """
    if guidance is None and scale is None:
        return None
    if guidance is None or isinstance(guidance, str):
        made = find("guidances", guidance or "cfg")
        return made() if scale is None else made(scale=scale)
    if scale is not None:
        raise InputError(
            f"got guidance_scale={scale!r} beside {guidance!r}, which has a scale of its own; expected one of them; "
            "leave guidance_scale out"
        )
    if isinstance(guidance, type):
        raise InputError(f"got the class {guidance.__name__} as guidance; expected an object; call the class")
    if isinstance(guidance, Guidance | LinearGuidance):
        return guidance
    from energycomp.sampling.guiders import of_guider

    made = of_guider(guidance)
    if made is None:
        raise InputError(
            f"got an object of {type(guidance).__name__} as guidance; expected one of the registered names "
            f"{', '.join(names('guidances'))}, an object with `guide`, or a guider of diffusers over pred_cond and "
            "pred_uncond; change it"
        )
    return made
