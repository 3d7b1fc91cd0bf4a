"""Canvases: larger samples that parts cover, by the mean of their predictions or with separators divided out.

Notation: variable -> symbol
    background  U, the cover by the unconditional component u
    share       m_k, the ramp of part k over the sum of all ramps

    cover "mean":  sum_k m_k on(P_k, C_k)  (MultiDiffusion, Bar-Tal et al., 2023; no density)
    cover "bethe": sum_k on(P_k, C_k) - sum_s on(S_s, C_s), the density prod_k p_k / prod_s p_s of clean samples
    canvas.on(P, A) = mass(A) U + on(P, R(A)), so that canvas.on(P, a) & canvas.on(Q, b) = U + on(P, R(a)) + on(Q, R(b))
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any, Literal

import attrs
import torch
from torch import Tensor

from energycomp.components import AnyWeight, Composition, EnergyComponent, Selection, Weight, by_sample, on, on_part
from energycomp.errors import CompositionError, InputError
from energycomp.fields import is_whole, legal, one_of

EQUAL = 1e-6  # of shares
SHAPE = legal(lambda sizes: bool(sizes) and all(is_whole(n) and n >= 1 for n in sizes), "whole numbers of at least 1")


@attrs.frozen(eq=False, repr=False)
class _Share:
    """The share of a part in a cover, compared by identity."""

    values: Tensor
    part: Selection
    edges = ()
    samples = None

    def at(self, _: Tensor, __: tuple[int, ...], /) -> Tensor:
        return self.values

    def __repr__(self) -> str:
        return f"[share of {self.part!r}]"


def ramp(part: Selection, shape: tuple[int, ...]) -> Tensor:
    """Weights (1, *shape) of a part of samples of a shape, which fall to the ends of its ranges, and are 0 outside.

    >>> from energycomp.components import window
    >>> ramp(window(1, 3), (5,))
    tensor([[0., 1., 2., 1., 0.]], dtype=torch.float64)
    """
    values = torch.ones(1, *part.shape(shape), dtype=torch.float64)
    for axis, places in part.axes:
        # Along a range 1, 2, .., 2, 1; other selections of an axis do not fall.
        if isinstance(places, range):
            rising = torch.arange(1, len(places) + 1, dtype=torch.float64)
            values = values * by_sample(torch.minimum(rising, rising.flip(0)), len(shape) - axis % len(shape))
    return part.placed(values, torch.zeros(1, *shape, dtype=torch.float64))


def _tuple(given: Iterable[Any]) -> tuple[Any, ...]:  # mypy knows converters that are functions only
    return tuple(given)


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

    >>> from energycomp.components import Gaussian, window
    >>> u = Gaussian(name="u", sample_shape=(2,), unconditional="self")
    >>> a = Gaussian(1.0, name="a", sample_shape=(2,), unconditional=u)
    >>> canvas = Canvas((3,), [window(0, 2), window(1, 2)], u)
    >>> scene = canvas.on(window(0, 2), a) & canvas.on(window(1, 2), a)
    >>> scene.eps(torch.ones(1, 3), torch.tensor([100.0])).shape
    torch.Size([1, 3])
    """

    sample_shape: tuple[int, ...] = attrs.field(converter=_tuple, validator=SHAPE)
    parts: tuple[Selection, ...] = attrs.field(converter=_tuple)
    unconditional: Any = None
    cover: Literal["mean", "bethe"] = attrs.field(default="mean", validator=one_of(("mean", "bethe")))
    separators: tuple[tuple[Selection, EnergyComponent], ...] = attrs.field(default=(), converter=_tuple)

    def __attrs_post_init__(self) -> None:
        is_mean = self.cover == "mean"
        # In how many parts each number is, less the separators.
        counts = torch.zeros(1, *self.sample_shape)
        for part in self.parts:
            counts += (ramp(part, self.sample_shape) > 0).to(counts)
        for part, _ in self.separators:
            counts -= (ramp(part, self.sample_shape) > 0).to(counts)
        # A mean takes parts that overlap in any way; of a density each number counts once.
        is_covered = counts > 0 if is_mean else counts == 1
        if not bool(is_covered.all()) or (is_mean and self.separators):
            covers = "parts that cover it, and no separators" if is_mean else "every number in one part more"
            got = f"got {len(self.parts)} parts and {len(self.separators)} separators of {self.sample_shape}"
            raise InputError(
                f"{got}, with numbers in {int(counts.min())} to {int(counts.max())} parts more than separators; "
                f"expected {covers} for the cover {self.cover!r}; change them"
            )

    @cached_property
    def background(self) -> Composition:
        """U: the cover by the unconditional component; raises `CompositionError` without one."""
        if self.unconditional is None:
            raise CompositionError(
                "got a canvas without an unconditional component; expected one for `&`, `~` and `on`"
            )
        return self.join([self.unconditional] * len(self.parts))

    def on(self, part: Selection, component: EnergyComponent) -> Composition:
        """A component on a part, which need not be one of the cover, over the background: it keeps its mass."""
        background = self.background  # which is refused without u
        whole = Composition.of(component)
        mass: Any = on_part(whole.mass, part, self.sample_shape)
        # The residual of the component on the part, over the background.
        own = on(part, whole, self.sample_shape, ground=self)
        free = on(part, self.unconditional, self.sample_shape, ground=self)
        return background * mass + own - free * mass

    def join(self, components: Sequence[EnergyComponent]) -> Composition:
        """The cover by components, one for each part (`InputError` for another number). Costs what they cost."""
        if len(components) != len(self.parts):
            raise InputError(f"got {len(components)} components for {len(self.parts)} parts; expected one for each")
        # The parts, with their shares, and the separators, which are divided out.
        weights: Sequence[AnyWeight] = self._shares if self.cover == "mean" else [1.0] * len(self.parts)
        divisors = [(part, one, -1.0) for part, one in self.separators]
        covered = [*zip(self.parts, components, weights, strict=True), *divisors]
        # sum_k m_k on(P_k, C_k), or sum_k on(P_k, C_k) - sum_s on(S_s, C_s)
        terms = (on(part, one, self.sample_shape, ground=self) * weight for part, one, weight in covered)
        return sum(terms, Composition([]))

    @cached_property
    def _shares(self) -> list[AnyWeight]:
        """The weights m_k; axes along which they do not change have one value. The last is 1 minus all others."""
        ramps = [ramp(part, self.sample_shape) for part in self.parts]
        total = sum(ramps, torch.zeros(()))
        shares: list[AnyWeight] = []
        for part, own in zip(self.parts[:-1], ramps[:-1], strict=True):
            share = own / total
            # Axes along which it does not change.
            for axis in range(1, share.ndim):
                first = share.narrow(axis, 0, 1)
                share = first if bool(((share - first).abs() < EQUAL).all()) else share
            shares.append(Weight([((_Share(share.clone(), part),), 1.0)]))
        return [*shares, 1.0 - sum(shares)]
