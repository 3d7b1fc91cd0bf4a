"""Parts of a sample: places along its axes, chosen by `window`, `crop`, `frames` and `items`."""

from __future__ import annotations

from typing import Any, Protocol

import attrs
from torch import Tensor

from energycomp.components.weights import Shape
from energycomp.errors import InputError
from energycomp.fields import is_whole


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
    """

    axes: tuple[tuple[int, range | tuple[int, ...]], ...]  # of a sample, without the batch
    text: str = attrs.field(eq=False)

    def shape(self, shape: Shape, /) -> Shape:
        own = list(shape)
        for axis, places in self.axes:
            if not -len(shape) <= axis < len(shape) or max(places) >= shape[axis]:
                raise InputError(f"got {self!r} of samples of shape {shape}; expected a part inside them")
            own[axis] = len(places)
        return tuple(own)

    def seen(self, sample: Tensor, _: Any = None, /) -> Tensor:
        return sample[self._index(sample.ndim)]

    def placed(self, prediction: Tensor, rest: Tensor, /) -> Tensor:
        whole = rest.clone()
        whole[self._index(rest.ndim)] = prediction.to(rest.dtype)
        return whole

    def places(self, shape: Shape) -> range | tuple[int, ...]:
        """The places along the first axis of samples of a shape."""
        return next((places for axis, places in self.axes if axis % len(shape) == 0), range(shape[0]))

    def _index(self, ndim: int) -> tuple[Any, ...]:
        index: list[Any] = [slice(None)] * ndim
        for axis, places in self.axes:
            place = slice(places.start, places.stop) if isinstance(places, range) else list(places)
            index[axis if axis < 0 else axis + 1] = place
        return tuple(index)

    def __repr__(self) -> str:
        return self.text


def window(start: int, length: int, axis: int = -1) -> Selection:
    """The places from `start` to `start + length` along an axis of a sample, without the batch; -1 is the last axis.

    Raises:
        InputError: a start below 0, a length below 1, or numbers that are not whole.

    >>> import torch
    >>> window(1, 2).seen(torch.tensor([[10.0, 11.0, 12.0, 13.0]])).tolist()
    [[11.0, 12.0]]
    """
    if type(axis) is not int:
        raise InputError(f"got window({start}, {length}, {axis!r}); expected the number of an axis, such as -1 or 0")
    return Selection(((axis, _range(start, length)),), f"window({start}, {length}{'' if axis == -1 else f', {axis}'})")


def crop(top: int, left: int, height: int, width: int) -> Selection:
    """A rectangle of pixels, of the last two axes of a sample."""
    return Selection(((-2, _range(top, height)), (-1, _range(left, width))), f"crop({top}, {left}, {height}, {width})")


def frames(start: int, length: int) -> Selection:
    """Frames of a video (C, F, H, W)."""
    return Selection(((-3, _range(start, length)),), f"frames({start}, {length})")


def items(*places: int) -> Selection:
    """Items along the first axis of a sample in their order, such as two of K objects (K, D).

    >>> import torch
    >>> items(2, 0).seen(torch.tensor([[[1.0], [2.0], [3.0]]])).flatten().tolist()  # the third and the first of 3
    [3.0, 1.0]
    """
    if not places or len(set(places)) < len(places) or not all(is_whole(place) and place >= 0 for place in places):
        raise InputError(f"got items{places!r}; expected different places from 0, at least one; change them")
    return Selection(((0, places),), f"items({', '.join(map(str, places))})")


def _range(start: Any, length: Any) -> range:
    if not (is_whole(start) and is_whole(length) and start >= 0 and length >= 1):
        raise InputError(f"got a part from {start!r} of length {length!r}; expected whole numbers, at least 0 and 1")
    return range(start, start + length)
