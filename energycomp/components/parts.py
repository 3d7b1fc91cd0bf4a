"""Parts of a larger sample: components that act on a window, a crop, frames or items of it.

Notation: variable -> symbol
    part    P, a selection of numbers of a sample x: E_on(x, t) = E(P x, t),  eps_on(x, t) = P^T eps(P x, t)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from typing import Any
from weakref import WeakValueDictionary

import attrs
import torch
from torch import Tensor

from energycomp.components.algebra import Composable, Composition
from energycomp.components.component import EnergyComponent, HasEnergy, unconditional_of
from energycomp.components.groups import WrappedGroup, group_of, inner_of
from energycomp.components.predict import predict_group
from energycomp.components.prediction import convert
from energycomp.components.selections import Part, Selection
from energycomp.components.space import NoisedSpace, by_sample
from energycomp.components.weights import AnyWeight, Shape, Weight, varies
from energycomp.errors import CompositionError


@attrs.frozen(eq=False)
class _Group(WrappedGroup):
    """Leaves of one group, each of which sees a part of samples of one space. All parts are one batch."""

    space: NoisedSpace

    def predictions(
        self, leaves: Sequence[_On], owners: Sequence[Tensor | None], sample: Tensor, timestep: Tensor
    ) -> Sequence[Tensor]:
        levels = self.space.levels(timestep, sample.dtype)
        own = list(owners)
        starts = {part: i * len(sample) for i, part in enumerate(dict.fromkeys(leaf.part for leaf in leaves))}
        seen = [part.seen(sample, levels) for part in starts]
        if len(starts) > 1:
            everyone = torch.arange(len(sample), device=sample.device)
            own = [starts[leaf.part] + (everyone if o is None else o) for leaf, o in zip(leaves, owners, strict=True)]
        inner = [leaf.inner for leaf in leaves]
        batch = torch.cat(seen) if len(seen) > 1 else seen[0]
        predicted = predict_group(self.inner, inner, own, batch, timestep.repeat(len(seen)))
        rest = convert(torch.zeros_like(sample), sample, *levels, source="epsilon", target=self.prediction_type)
        return [
            leaf.part.placed(prediction, (rest if owner is None else rest[owner]).to(prediction.dtype))
            for leaf, owner, prediction in zip(leaves, owners, predicted, strict=True)
        ]


@attrs.frozen(eq=False, repr=False)
class _On(Composable):
    """A leaf that sees a part."""

    inner: Any
    part: Any
    group: _Group
    ground: Any

    @property
    def noised_space(self) -> NoisedSpace:
        """That of the larger sample. Numbers that are standardised by place are known at the places of the part."""
        space = self.group.space
        if self.places is None:
            return space
        known = dict(zip(self.places, self.inner.noised_space.places, strict=True))
        return attrs.evolve(space, places=tuple(known.get(place) for place in range(space.sample_shape[0])))

    @property
    def places(self) -> Sequence[int] | None:
        """The places that it acts on of numbers that are standardised by place; None for other data."""
        is_known = self.inner.noised_space.places is not None and isinstance(self.part, Selection)
        return self.part.places(self.group.space.sample_shape) if is_known else None

    @property
    def unconditional(self) -> Any:
        """The background of the ground; u of the leaf for a part of the shape of the whole sample."""
        if self.ground is not None:
            return self.ground.background
        is_whole_sample = self.inner.noised_space.sample_shape == self.noised_space.sample_shape
        return unconditional_of(self.inner) if is_whole_sample else None

    def __repr__(self) -> str:
        return f"{self.inner!r} {'on ' if isinstance(self.part, Selection) else ''}{self.part!r}"


@attrs.frozen(eq=False, repr=False)
class _OnEnergy(_On):
    def energy(self, sample: Tensor, timestep: Tensor) -> Tensor:
        """E(P x, t), (B,)."""
        return self.inner.energy(self.part.seen(sample), timestep)


# Values hold what their keys are the ids of, so that an id is not used again while its entry is there.
_groups: WeakValueDictionary[tuple[int, NoisedSpace, NoisedSpace], _Group] = WeakValueDictionary()
_leaves: WeakValueDictionary[tuple[int, Part, int, int], _On] = WeakValueDictionary()


def _leaf(part: Part, leaf: Any, shape: Shape, ground: Any) -> _On:
    inner = group_of(leaf)
    own = leaf.noised_space
    space = own if own.sample_shape == shape else attrs.evolve(own, sample_shape=shape)
    if own.places is not None and own.sample_shape[0] != shape[0]:  # other places may have another value range
        space = attrs.evolve(space, places=None, value_range=None)
    group = _groups.setdefault((id(inner), own, space), _Group(inner, space))
    kind = _OnEnergy if isinstance(leaf, HasEnergy) and isinstance(part, Selection) else _On
    return _leaves.setdefault((id(leaf), part, id(group), id(ground)), kind(leaf, part, group, ground))


def on(part: Part, component: EnergyComponent, shape: Sequence[int], *, ground: Any = None) -> Composition:
    """A component that acts on a part of a larger sample: its prediction there, and no noise elsewhere.

    Noise levels are the same in the part, whatever the prediction type. It is linear in the component. Costs what the
    component costs; leaves of one denoiser on all parts of a sample are one batch, and one trunk per sample and part.

    Args:
        part: `window`, `crop`, `frames`, `items`, or another `Part`.
        component: a leaf or a composition, whose samples have the shape of the part.
        shape: of the larger sample.
        ground: an object whose `background` is u of the leaves, such as a `Canvas` of energycomp-samplers, whose own
            `on` adds it.

    Raises:
        InputError: a part outside the sample.
        CompositionError: a component of another shape than the part.

    >>> from energycomp.components import Gaussian, window
    >>> a = Gaussian(1.0, name="a", sample_shape=(2,))
    >>> pair = on(window(0, 2), a, (3,)) + on(window(1, 2), a, (3,))
    >>> pair
    a on window(0, 2) + a on window(1, 2)
    >>> pair.eps(torch.ones(1, 3), torch.tensor([999.0])).round()
    tensor([[1., 2., 1.]])
    """
    whole = Composition.of(component)
    shape = tuple(shape)
    own = part.shape(shape)
    found = tuple(whole.noised_space.sample_shape)
    if own != found:
        got = f"got {whole!r} with samples of shape {found} on {part!r} of {shape}, which has the shape {own}"
        raise CompositionError(f"{got}; expected one shape; change the part")
    pairs = [(_leaf(part, leaf, shape, ground), on_part(weight, part, shape)) for leaf, weight in whole.terms.items()]
    return Composition(pairs)


def decoder(leaves: Iterable[Any]) -> Callable[[Tensor], Tensor] | None:
    """What makes data of the samples (B, ...) of a composition with these leaves; None where samples are the data.

    A leaf that acts on some places of numbers, which are standardised by place, decodes these. Places of no leaf stay
    standardised.
    """
    codecs = [leaf for leaf in leaves if group_of(leaf).decode is not None]
    if not codecs:
        return None

    def decode(samples: Tensor) -> Tensor:
        data = samples
        for leaf in codecs if codecs[0].noised_space.places else codecs[:1]:
            data = _decode(leaf, samples, data)
        return data

    return decode


def _decode(leaf: Any, samples: Tensor, data: Tensor) -> Tensor:
    """The data (B, ...) with what a leaf decodes of the samples in its place."""
    if (inner := inner_of(leaf)) is None:
        decode = group_of(leaf).decode
        return samples if decode is None else decode(samples)
    places = getattr(leaf, "places", None)
    if places is None or [*places] == [*range(samples.shape[1])]:
        return _decode(inner, samples, data)
    # It acts on some places, or on all in another order
    return leaf.part.placed(_decode(inner, leaf.part.seen(samples), leaf.part.seen(data)), data)


@attrs.frozen(repr=False)
class _Placed:
    """A weight over a part as a factor over the larger sample: elsewhere its mean, so that sums of 1 stay 1."""

    weight: Weight
    part: Any

    edges = property(attrgetter("weight.edges"))
    samples = property(attrgetter("weight.samples"))

    def at(self, share: Tensor, shape: Shape, /) -> Tensor:
        own = self.part.shape(shape)
        values = self.weight.at(share, own)
        values = values.expand(len(values), *own)
        mean = by_sample(values.flatten(1).mean(1), 1 + len(shape))
        return self.part.placed(values, mean.expand(len(values), *shape))

    def __repr__(self) -> str:
        return f"[({self.weight!r}) on {self.part!r}]"


def on_part(weight: AnyWeight, part: Part, shape: Shape) -> AnyWeight:
    """A weight of a component as that of the component on a part."""
    if not varies(weight):
        return weight
    now = weight.at(torch.zeros(weight.samples or 1), part.shape(shape))
    return weight if now[0].numel() == 1 else Weight([((_Placed(weight, part),), 1.0)])
