"""Parts of a larger sample: components that act on a window, a crop, frames or items of it, and canvases of parts.

Notation: variable -> symbol
    part        P, a selection of numbers of a sample x, the same at every noise level
    background  U, the cover of a canvas by the unconditional leaf u; R(A) = A - mass(A) u
    share       m_k, the ramp of part k over the sum of all ramps

    E_on(x, t) = E(P x, t),  eps_on(x, t) = P^T eps(P x, t);  in a canvas on(P, A) = mass(A) U + on(P, R(A))
    cover "mean":  sum_k m_k on(P_k, C_k)  (MultiDiffusion, Bar-Tal et al., 2023; no density)
    cover "bethe": sum_k on(P_k, C_k) - sum_s on(S_s, C_s), the density prod_k p_k / prod_s p_s of clean samples
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from operator import attrgetter
from typing import Any, Literal, Protocol
from weakref import WeakValueDictionary

import attrs
import torch
from torch import Tensor

from energycomp.components.algebra import Composable, Composition
from energycomp.components.component import EnergyComponent, HasEnergy
from energycomp.components.predict import WrappedGroup, group_of, predict_group
from energycomp.components.prediction import convert
from energycomp.components.space import NoisedSpace, by_sample
from energycomp.components.terms import added
from energycomp.components.weights import LEAST_VALUE, AnyWeight, Shape, Weight
from energycomp.errors import CompositionError, InputError
from energycomp.fields import is_whole, one_of


class Part(Protocol):
    """What a component sees of a larger sample, and where its prediction goes. Parts are hashable."""

    def shape(self, shape: Shape, /) -> Shape:
        """Of what is seen of samples of a shape; raises `InputError` for a part outside."""

    def seen(self, sample: Tensor, levels: tuple[Tensor, Tensor], /) -> Tensor:
        """What is seen of samples (B, *shape) with these amplitudes of signal and noise (B, 1, .., 1)."""

    def placed(self, prediction: Tensor, rest: Tensor, /) -> Tensor:
        """A prediction for what is seen in its place, and `rest` (B, *shape) elsewhere."""


@attrs.frozen(repr=False)
class Selection:
    """The `Part` of some places along some axes. Made by `window`, `crop`, `frames` and `items`.

    >>> window(2, 3).shape((2, 64)), crop(0, 32, 64, 64).shape((3, 64, 256)), items(4, 0).shape((5, 2))
    ((2, 3), (3, 64, 64), (2, 2))
    >>> window(1, 3).ramp((5,))
    tensor([[0., 1., 2., 1., 0.]], dtype=torch.float64)
    """

    axes: tuple[tuple[int, range | tuple[int, ...]], ...]  # of a sample, without the batch
    text: str = attrs.field(eq=False)

    def shape(self, shape: Shape, /) -> Shape:
        own = list(shape)
        for axis, places in self.axes:
            if not -len(shape) <= axis < len(shape) or max(places) >= shape[axis]:
                raise InputError(f"got {self!r} of samples of shape {shape}; expected a part inside them; change it")
            own[axis] = len(places)
        return tuple(own)

    def seen(self, sample: Tensor, _: Any = None, /) -> Tensor:
        return sample[self._index(sample.ndim)]

    def placed(self, prediction: Tensor, rest: Tensor, /) -> Tensor:
        whole = rest.clone()
        whole[self._index(rest.ndim)] = prediction.to(rest.dtype)
        return whole

    def ramp(self, shape: Shape) -> Tensor:
        """Weights (1, *shape) that fall to the ends of ranges, and are 0 outside."""
        values = torch.ones(1, *self.shape(shape), dtype=torch.float64)
        for axis, places in self.axes:
            if isinstance(places, range):
                rising = torch.arange(1, len(places) + 1, dtype=torch.float64)
                values = values * by_sample(torch.minimum(rising, rising.flip(0)), len(shape) - axis % len(shape))
        return self.placed(values, torch.zeros(1, *shape, dtype=torch.float64))

    def _index(self, ndim: int) -> tuple[Any, ...]:
        index: list[Any] = [slice(None)] * ndim
        for axis, places in self.axes:
            place = slice(places.start, places.stop) if isinstance(places, range) else list(places)
            index[axis if axis < 0 else axis + 1] = place
        return tuple(index)

    def __repr__(self) -> str:
        return self.text


def window(start: int, length: int, axis: int = -1) -> Selection:
    """The places from start to start + length along an axis of a sample."""
    return Selection(((axis, _range(start, length)),), f"window({start}, {length}{'' if axis == -1 else f', {axis}'})")


def crop(top: int, left: int, height: int, width: int) -> Selection:
    """A rectangle of pixels, of the last two axes of a sample."""
    return Selection(((-2, _range(top, height)), (-1, _range(left, width))), f"crop({top}, {left}, {height}, {width})")


def frames(start: int, length: int) -> Selection:
    """Frames of a video (C, F, H, W)."""
    return Selection(((-3, _range(start, length)),), f"frames({start}, {length})")


def items(*places: int) -> Selection:
    """Items along the first axis of a sample in their order, such as two of K objects (K, D)."""
    if not places or len(set(places)) < len(places) or not all(is_whole(place) and place >= 0 for place in places):
        raise InputError(f"got items{places!r}; expected different places from 0, at least one; change them")
    return Selection(((0, places),), f"items({', '.join(map(str, places))})")


def _range(start: Any, length: Any) -> range:
    if not (is_whole(start) and is_whole(length) and start >= 0 and length >= 1):
        raise InputError(f"got a part from {start!r} of length {length!r}; expected whole numbers, at least 0 and 1")
    return range(start, start + length)


@attrs.frozen(eq=False)
class _Group(WrappedGroup):
    """Leaves of one group, each of which sees a part of samples of one space. All parts are one batch."""

    space: NoisedSpace

    def predictions(
        self, leaves: Sequence[_On], owners: Sequence[Tensor | None], sample: Tensor, timestep: Tensor
    ) -> Sequence[Tensor]:
        levels, own = self.space.levels(timestep, sample.dtype), list(owners)
        starts = {leaf.part: 0 for leaf in leaves}
        seen = [part.seen(sample, levels) for part in starts]
        if len(starts) > 1:
            starts = {part: number * len(sample) for number, part in enumerate(starts)}
            everyone = torch.arange(len(sample), device=sample.device)
            own = [starts[leaf.part] + (everyone if o is None else o) for leaf, o in zip(leaves, owners, strict=True)]
        batch = torch.cat(seen) if len(seen) > 1 else seen[0]
        inner = [leaf.inner for leaf in leaves]
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
    canvas: Canvas | None

    noised_space = property(attrgetter("group.space"))

    @property
    def unconditional(self) -> Any:
        """The background of the canvas; u of a leaf that sees the whole sample for a part of its shape."""
        if self.canvas is not None:
            return self.canvas.background if self.canvas.unconditional is not None else None
        is_whole_sample = self.inner.noised_space.sample_shape == self.noised_space.sample_shape
        return getattr(self.inner, "unconditional", None) if is_whole_sample else None

    def __reduce__(self) -> tuple[Any, ...]:
        return _leaf, (self.part, self.inner, self.noised_space.sample_shape, self.canvas)

    def __repr__(self) -> str:
        return f"{self.inner!r} {'on ' if isinstance(self.part, Selection) else ''}{self.part!r}"


@attrs.frozen(eq=False, repr=False)
class _OnEnergy(_On):
    def energy(self, sample: Tensor, timestep: Tensor) -> Tensor:
        """E(P x, t), (B,)."""
        return self.inner.energy(self.part.seen(sample), timestep)  # type: ignore[no-any-return]


# Values hold what their keys are the ids of, so that an id is not used again while its entry is there.
_groups: WeakValueDictionary[tuple[int, NoisedSpace, NoisedSpace], _Group] = WeakValueDictionary()
_leaves: WeakValueDictionary[tuple[int, Part, int, int], _On] = WeakValueDictionary()


def _leaf(part: Part, leaf: Any, shape: Shape, canvas: Canvas | None) -> _On:
    inner, own = group_of(leaf), leaf.noised_space
    space = own if own.sample_shape == shape else attrs.evolve(own, sample_shape=shape)
    group = _groups.setdefault((id(inner), own, space), _Group(inner, space))
    kind = _OnEnergy if isinstance(leaf, HasEnergy) and isinstance(part, Selection) else _On
    return _leaves.setdefault((id(leaf), part, id(group), id(canvas)), kind(leaf, part, group, canvas))


def on(part: Part, component: EnergyComponent, where: Shape | Canvas) -> Composition:
    """A component that acts on a part of a larger sample: its prediction there, and no noise elsewhere.

    Noise levels are the same in the part, whatever the prediction type. It is linear in the component. Costs what the
    component costs; leaves of one denoiser on all parts of a sample are one batch, and a two-stage network runs its
    trunk once per sample and part.

    Args:
        part: `window`, `crop`, `frames`, `items`, or another `Part`.
        component: a leaf or a composition, whose samples have the shape of the part.
        where: the shape of the larger sample; or a `Canvas`, whose background is added, so that the component keeps its
            mass, and is u for `&`, `~` and guidance.

    Raises:
        InputError: a part outside the sample.
        CompositionError: a component of another shape than the part, or a canvas without u.

    >>> from energycomp.components import Gaussian
    >>> a = Gaussian(1.0, name="a", sample_shape=(2,))
    >>> pair = on(window(0, 2), a, (3,)) + on(window(1, 2), a, (3,))
    >>> pair
    a on window(0, 2) + a on window(1, 2)
    >>> pair.eps(torch.ones(1, 3), torch.tensor([999.0])).round()
    tensor([[1., 2., 1.]])
    """
    whole = Composition.of(component)
    if not isinstance(where, Canvas):
        return _on(part, whole, _shape(where), None)
    if where.unconditional is None:
        raise CompositionError(
            f"got {part!r} of a canvas without an unconditional component; expected one, whose cover is the "
            "background: Canvas(unconditional=...); or give the shape of the canvas instead, and compose with `+`"
        )
    shape, unit = where.sample_shape, Composition.of(where.unconditional)
    own, free = (_on(part, one, shape, where).terms for one in (whole, unit))
    mass: Any = _moved(whole.mass, part, shape)
    return Composition(added([(where.background.terms, mass), (own, 1.0), (free, -mass)]))


def _on(part: Part, whole: Composition, shape: Shape, canvas: Canvas | None) -> Composition:
    found, own = tuple(whole.noised_space.sample_shape), part.shape(shape)
    if own != found:
        got = f"got {whole!r} with samples of shape {found} on {part!r} of {shape}, which has the shape {own}"
        raise CompositionError(f"{got}; expected one shape; change the part")
    pairs = [(_leaf(part, leaf, shape, canvas), _moved(weight, part, shape)) for leaf, weight in whole.terms.items()]
    return Composition(pairs)


def _shape(where: Any) -> Shape:
    sizes = tuple(where) if isinstance(where, Iterable) else ()
    if sizes and all(is_whole(n) and n >= 1 for n in sizes):
        return sizes
    raise InputError(f"got {where!r} as a larger sample; expected its shape, such as (3, 64, 256), or a Canvas")


@attrs.frozen(repr=False)
class _Placed:
    """A weight over a part as a factor over the larger sample: elsewhere its mean, so that sums of 1 stay 1."""

    weight: Weight
    part: Any

    edges = property(attrgetter("weight.edges"))
    samples = property(attrgetter("weight.samples"))

    def at(self, share: Tensor, shape: Shape, /) -> Tensor:
        values = self.weight.at(share, own := self.part.shape(shape))
        values = values.expand(len(values), *own)
        mean = by_sample(values.flatten(1).mean(1), 1 + len(shape))
        return self.part.placed(values, mean.expand(len(values), *shape))  # type: ignore[no-any-return]

    def __repr__(self) -> str:
        return f"[({self.weight!r}) on {self.part!r}]"


def _moved(weight: AnyWeight, part: Part, shape: Shape) -> AnyWeight:
    """A weight of a component as that of the component on a part."""
    if not isinstance(weight, Weight):
        return weight
    now = weight.at(torch.zeros(weight.samples or 1), part.shape(shape))
    return weight if now[0].numel() == 1 else Weight([((_Placed(weight, part),), 1.0)])


@attrs.frozen(eq=False, repr=False)
class _Share:
    """The share of a part in a cover, compared by identity."""

    values: Tensor
    part: Selection
    edges, samples = (), None

    def at(self, _: Tensor, __: Shape, /) -> Tensor:
        return self.values

    def __repr__(self) -> str:
        return f"[share of {self.part!r}]"


def _separators(pairs: Iterable[Any]) -> tuple[tuple[Selection, Composition], ...]:
    return tuple((part, Composition.of(component)) for part, component in pairs)


@attrs.frozen(eq=False, slots=False, repr=False)
class Canvas:
    """A larger sample that parts cover, each with a component, such as an image that is wider than those of a model.

    Args:
        sample_shape: of the larger sample.
        parts: that cover it.
        unconditional: the component u of every part, of mass 1, whose cover is the background; None for `join` alone.
        cover: "mean", of the predictions where parts overlap, weighted by a ramp that falls to the edges of each part;
            or "bethe": factors whose product is divided by the separators, which is exact for chains and trees of
            marginals of one distribution, of clean samples. Samplers such as "smc" and "mala" correct noised ones.
        separators: for "bethe": pairs of a part and the component of its marginal. Every number of the sample must be
            in one part more than in separators.

    Raises:
        InputError: parts and separators that do not cover the sample so.

    >>> from energycomp.components import Gaussian
    >>> u = Gaussian(name="u", sample_shape=(2,), unconditional="self")
    >>> a = Gaussian(1.0, name="a", sample_shape=(2,), unconditional=u)
    >>> canvas = Canvas((3,), [window(0, 2), window(1, 2)], u)
    >>> scene = on(window(0, 2), a, canvas) & on(window(1, 2), a, canvas)
    >>> scene.eps(torch.ones(1, 3), torch.tensor([100.0])).shape
    torch.Size([1, 3])
    """

    sample_shape: Shape = attrs.field(converter=_shape)
    parts: tuple[Selection, ...] = attrs.field(converter=tuple)
    unconditional: Any = None
    cover: Literal["mean", "bethe"] = attrs.field(default="mean", validator=one_of(("mean", "bethe")))
    separators: tuple[tuple[Selection, Composition], ...] = attrs.field(default=(), converter=_separators)

    def __attrs_post_init__(self) -> None:
        counts, is_mean = torch.zeros(1, *self.sample_shape), self.cover == "mean"
        for part, sign in [*((part, 1) for part in self.parts), *((part, -1) for part, _ in self.separators)]:
            counts += sign * (part.ramp(self.sample_shape) > 0)
        if not bool((counts > 0 if is_mean else counts == 1).all()) or (is_mean and self.separators):
            covers = "parts that cover it, and no separators" if is_mean else "every number in one part more"
            got = f"got {len(self.parts)} parts and {len(self.separators)} separators of {self.sample_shape}"
            raise InputError(
                f"{got}, with numbers in {int(counts.min())} to {int(counts.max())} parts more than separators; "
                f"expected {covers} for the cover {self.cover!r}; change them"
            )

    @cached_property
    def background(self) -> Composition:
        """U: the cover by the unconditional component."""
        return self.join([self.unconditional] * len(self.parts))

    def join(self, components: Sequence[EnergyComponent]) -> Composition:
        """The cover by components, one for each part (`InputError` for another number). Costs what they cost."""
        if len(components) != len(self.parts):
            raise InputError(f"got {len(components)} components for {len(self.parts)} parts; expected one for each")
        weights: Sequence[AnyWeight] = self._shares if self.cover == "mean" else [1.0] * len(self.parts)
        divisors = [(part, one, -1.0) for part, one in self.separators]
        covered = [*zip(self.parts, map(Composition.of, components), weights, strict=True), *divisors]
        return Composition(added((_on(part, one, self.sample_shape, self).terms, w) for part, one, w in covered))

    @cached_property
    def _shares(self) -> list[AnyWeight]:
        """The weights m_k; axes along which they do not change have one value."""
        ramps = [part.ramp(self.sample_shape) for part in self.parts]
        total, found = sum(ramps, torch.zeros(())), list[AnyWeight]()
        for part, ramp in zip(self.parts, ramps, strict=True):
            share = ramp / total
            for axis in range(1, share.ndim):
                first = share.narrow(axis, 0, 1)
                share = first if bool(((share - first).abs() < LEAST_VALUE).all()) else share
            found.append(Weight([((_Share(share.clone(), part),), 1.0)]))
        return found
