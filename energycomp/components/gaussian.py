"""The closed-form component: a Gaussian, against which samplers, solvers and the algebra are tested."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import attrs
import torch
from torch import Tensor

from energycomp.components.algebra import Composable
from energycomp.components.space import NoisedSpace, ValueRange, by_sample, cosine_schedule, log_snr


@attrs.frozen(eq=False, repr=False)
class Gaussian(Composable):
    """A component whose data are N(mean, diag(variance)), so that eps and energy have a closed form.

    With a = alpha_bar_t, x_t ~ N(sqrt(a) mean, diag(a variance + 1 - a)), so
    eps = sqrt(1 - a) (x_t - sqrt(a) mean) / (a variance + 1 - a).

    Args:
        mean, variance: of every number of a sample: one number, or of the sample shape.
        name: what `repr` and errors call it.
        sample_shape, alphas_cumprod, space, value_range: of its `noised_space`, whose identity is `space`. To compose
            it with a model of images, give it `space="pixels"` and `value_range=(-1, 1)`.
        unconditional: the leaf that `&` and `~` take as u; "self" makes this one u.

    >>> g = Gaussian(0.0)
    >>> g.eps(torch.ones(1, 1, 1, 1), torch.tensor([999.0])).item() > 0.99
    True
    """

    mean: float | Tensor = 0.0
    variance: float | Tensor = 1.0
    name: str = "gaussian"
    sample_shape: tuple[int, ...] = (1, 1, 1)
    alphas_cumprod: Tensor = attrs.field(factory=cosine_schedule)
    space: str = "gaussian"
    unconditional: Any = None
    value_range: ValueRange | None = None

    def __attrs_post_init__(self) -> None:
        if self.unconditional == "self":
            object.__setattr__(self, "unconditional", self)

    def __repr__(self) -> str:
        return self.name

    @cached_property
    def noised_space(self) -> NoisedSpace:
        """Where its samples live."""
        return NoisedSpace(self.alphas_cumprod, self.sample_shape, self.space, self.value_range)

    def eps(self, sample: Tensor, timestep: Tensor) -> Tensor:
        """Closed-form noise prediction (B, ...)."""
        offset, total, a = self._moments(sample, timestep)
        return ((1 - a).sqrt() * offset / total).to(sample.dtype)

    def energy(self, sample: Tensor, timestep: Tensor) -> Tensor:
        """-log density of x_t up to a constant, (B,): its gradient times sqrt(1 - a) is `eps`."""
        offset, total, _ = self._moments(sample, timestep)
        return (offset.square() / (2 * total)).flatten(1).sum(1).to(sample.dtype)

    def _moments(self, sample: Tensor, timestep: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        a = by_sample(torch.sigmoid(log_snr(self.alphas_cumprod, timestep)), sample.ndim)
        return sample - a.sqrt() * self.mean, a * self.variance + 1 - a, a
