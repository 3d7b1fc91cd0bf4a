"""Components in regions: each sees its own region of the noised image and an empty background elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from energycomp.components import (
    Composition,
    EnergyComponent,
    Weight,
    combine,
    during,
    group_of,
    is_constant,
    on,
    predict,
    region,
)
from energycomp.errors import InputError
from energycomp.fields import is_number

APART_UNTIL = 0.7
MEAN_OF = 8  # samples of noise, whose predictions are averaged to a background
SEEN = 1e-6  # weight of a pixel; below, it is 0
NOISIEST = 0.01  # alpha_bar of them; below, eps says nothing of x0


@attrs.frozen(eq=False, repr=False)
class _Filled:
    """The part of a sample in a region, and a noised background (C, H, W) where its weight is 0: nothing is mixed."""

    where: Weight
    background: Tensor
    noise: Tensor = attrs.field(init=False)

    @noise.default
    def _noise(self) -> Tensor:
        return torch.randn(self.background.shape, generator=torch.Generator().manual_seed(0))

    def shape(self, shape: tuple[int, ...], /) -> tuple[int, ...]:
        return shape

    def seen(self, sample: Tensor, levels: tuple[Tensor, Tensor], /) -> Tensor:
        # The background at the noise level of the sample; the sample inside of the region
        signal, sigma = levels
        hidden = signal * self.background.to(sample) + sigma * self.noise.to(sample)
        weight = self.where.at(torch.zeros(1), tuple(sample.shape[1:]))
        return torch.where((weight.abs() >= SEEN).to(sample.device), sample, hidden)

    def placed(self, prediction: Tensor, _: Tensor, /) -> Tensor:
        """The prediction for the whole sample, which is meant for the region."""
        return prediction

    def __repr__(self) -> str:
        return f"within {self.where!r}"


def within(where: Any, component: EnergyComponent, *, background: Tensor | None = None) -> Composition:
    """A component whose leaves see a noised image inside a region only, and a noised background elsewhere.

    Its prediction is meant for the region: multiply it by `region(where)`. A component that sees the whole image counts
    objects in other regions as its own. Costs the network evaluations of the component.

    Args:
        where: as for `region`, or a `Weight` that varies over pixels only. Every pixel is seen whose weight is not 0.
        component: a leaf or a composition.
        background: a clean sample (C, H, W); when left out, the mean sample: what the unconditional leaf predicts from
            noise, at 8 network evaluations now.

    Raises:
        InputError: a weight that varies over samples or the trajectory, or a background of another shape.

    >>> from energycomp.testing import tiny_model
    >>> model = tiny_model()
    >>> region("left half") * within("left half", 2 * model(0.2, 0.2) & model.unconditional)
    -[left half] u within [left half] + 2 [left half] tiny(0.2, 0.2) within [left half]
    """
    whole = Composition.of(component)
    return _see(whole, _place(where), _background(whole, background))


def _place(where: Any) -> Weight:
    place = where if isinstance(where, Weight) else region(where)
    if place.samples is not None or place.edges:
        raise InputError(f"got the region {place!r}; expected a weight that varies over pixels only; use `region`")
    return place


def _background(composition: Composition, background: Any) -> Tensor:
    if background is None:
        return _mean(composition)
    shape = tuple(composition.noised_space.sample_shape)
    if not isinstance(background, Tensor):
        got = f"got an object of {type(background).__name__} as the background"
        raise InputError(f"{got}; expected a tensor of shape {shape}; encode an image")
    if tuple(background.shape) != shape:
        raise InputError(f"got a background of shape {tuple(background.shape)}; expected {shape}; encode an image")
    return background


def _see(composition: Composition, place: Weight, background: Tensor) -> Composition:
    return on(_Filled(place, background), composition, composition.noised_space.sample_shape)


@torch.no_grad()
def _mean(composition: Composition) -> Tensor:
    """The mean sample (C, H, W), as the unconditional leaf predicts it from noise."""
    unit = composition.unconditional
    space = composition.noised_space
    # The noisiest timestep at which a prediction of noise says something of x_0.
    timestep = int((space.alphas_cumprod >= NOISIEST).sum().clamp(min=1)) - 1
    # Predict from a few samples of noise, and take the mean.
    device = group_of(unit).device or space.alphas_cumprod.device
    noise = torch.randn(MEAN_OF, *space.sample_shape, generator=torch.Generator().manual_seed(0)).to(device)
    at = torch.full((MEAN_OF,), float(timestep), device=device)
    predicted = predict(Composition.of(unit), noise, at, prediction_type="sample").mean(0)
    return predicted if space.value_range is None else predicted.clamp(*space.value_range)


def regional(
    parts: Sequence[tuple[Any, EnergyComponent]],
    *,
    apart_until: float = APART_UNTIL,
    background: Tensor | None = None,
) -> Composition:
    """Components, each in its region: sum_k m_k (u + R(C_k)), and u where no region is.

    At first each component sees its own region only, see `within`, so that objects of other regions neither stand for
    it nor are joined to its own (the bootstrapping of MultiDiffusion, Bar-Tal et al., 2023). Then all see the whole
    image, so that edges of regions, light and shadows fit each other. Costs one network evaluation per sample and step
    for each component, and at first one more for u in each region whose component has weights other than 1.

    Args:
        parts: pairs of a region m_k, as for `within`, and a component C_k. Regions should not overlap; where they do,
            their components are added as by `&`.
        apart_until: the share of the trajectory in which components see their own region only; 0 for none.
        background: as for `within`.

    Raises:
        InputError: no parts, a region that varies over samples or the trajectory, a share outside [0, 1], or a
            background of another shape.

    >>> from energycomp.testing import tiny_model
    >>> model = tiny_model()
    >>> regional([("left half", model(0.2, 0.2)), ("right half", model(0.8, 0.8))], apart_until=0.0)
    [left half] tiny(0.2, 0.2) + [right half] tiny(0.8, 0.8)
    """
    given: Any = parts
    if not (isinstance(given, Sequence) and given and all(isinstance(p, Sequence) and len(p) == 2 for p in given)):
        raise InputError(f"got the parts {parts!r}; expected a list of pairs of a region and a component, at least one")
    if not (is_number(apart_until) and 0.0 <= apart_until <= 1.0):
        raise InputError(f"got apart_until={apart_until!r}; expected a share of the trajectory in [0, 1]")
    # sum_k m_k (u + R(C_k)) of components that all see the whole image.
    regions = [_place(where) for where, _ in parts]
    whole = [combine([component], "product") for _, component in parts]
    together = _side_by_side(regions, whole)
    if apart_until == 0.0:
        return together
    # The same of components that see their own region, and a background elsewhere.
    ground = _background(together, background)
    apart = _side_by_side(regions, [_see(c, m, ground) for m, c in zip(regions, whole, strict=True)])
    if apart_until == 1.0:
        return apart
    # At first each sees its own region only; then all see the whole image.
    return apart * during(until=apart_until) + together * during(from_=apart_until)


def _side_by_side(regions: Sequence[Weight], parts: Sequence[Composition]) -> Composition:
    """sum_k m_k C_k + (1 - sum_k m_k) u, without u where regions cover the image."""
    total = sum((part * m for m, part in zip(regions, parts, strict=True)), Composition([]))
    # u where no region is.
    covered: Any = sum(regions)
    if is_constant(covered, 1.0, parts[0].noised_space.sample_shape):
        return total
    return total + Composition.of(parts[0].unconditional) * (1.0 - covered)
