"""What weights are made of: regions of the image, and intervals and ramps of the noise level."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from energycomp.components.space import by_sample
from energycomp.components.weights import Weight
from energycomp.errors import InputError
from energycomp.fields import is_number

REGIONS = {
    "all": (0.0, 0.0, 1.0, 1.0),
    "left half": (0.0, 0.0, 0.5, 1.0),
    "right half": (0.5, 0.0, 1.0, 1.0),
    "top half": (0.0, 0.0, 1.0, 0.5),
    "bottom half": (0.0, 0.5, 1.0, 1.0),
}
"""Named boxes x0, y0, x1, y1."""

BOXES = f"{', '.join(REGIONS)}, a box x0,y0,x1,y1 with 0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1"


@attrs.frozen(repr=False)
class _Box:
    """1 inside a box, 0 outside; a pixel that it covers in part has that part."""

    corners: tuple[float, float, float, float]  # x0, y0, x1, y1
    edges = ()
    samples = None

    def at(self, _: Tensor, shape: tuple[int, ...], /) -> Tensor:
        x0, y0, x1, y1 = self.corners
        height, width = (1, *shape)[-2:]
        return _spread(_coverage(y0, y1, height)[None, None, :, None] * _coverage(x0, x1, width), shape)

    def __repr__(self) -> str:
        box = ",".join(f"{corner:g}" for corner in self.corners)
        return f"[{next((name for name, corners in REGIONS.items() if corners == self.corners), box)}]"


def _spread(values: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A map over pixels (1, 1, H, W), so that it broadcasts to samples of a shape."""
    return values.reshape((*[1] * (len(shape) + 1), *values.shape[-2:])[-len(shape) - 1 :])


def _coverage(low: float, high: float, pixels: int) -> Tensor:
    """The part of each of the pixels of an axis that lies between two coordinates."""
    edge = torch.arange(pixels + 1, dtype=torch.float64)
    return (edge[1:].clamp(max=high * pixels) - edge[:-1].clamp(min=low * pixels)).clamp(min=0.0)


@attrs.frozen(eq=False, repr=False)
class _Mask:
    """A map over pixels, compared by identity."""

    values: Tensor  # (1, 1, H, W)
    edges = ()
    samples = None
    _resized: dict[tuple[int, ...], Tensor] = attrs.field(init=False, factory=dict)  # every step asks for the same

    def at(self, _: Tensor, shape: tuple[int, ...], /) -> Tensor:
        if shape not in self._resized:
            resized = functional.interpolate(self.values.double(), (1, *shape)[-2:], mode="area")
            self._resized[shape] = _spread(resized, shape)
        return self._resized[shape]

    def __repr__(self) -> str:
        return f"[mask {self.values.shape[-1]}x{self.values.shape[-2]}]"


@attrs.frozen(repr=False)
class _During:
    """1 for shares of the trajectory in [start, end), 0 elsewhere; or a ramp: 0 before, 1 after, and linear between."""

    edges: tuple[float, float]
    is_ramp: bool = False
    samples = None

    def at(self, share: Tensor, shape: tuple[int, ...], /) -> Tensor:
        start, end = self.edges
        if self.is_ramp:
            return by_sample(((share.double() - start) / (end - start)).clamp(0.0, 1.0), 1 + len(shape))
        return by_sample(((share >= start) & (share < end)).double(), 1 + len(shape))

    def __repr__(self) -> str:
        return f"[{'ramp ' if self.is_ramp else ''}{self.edges[0]:g} to {self.edges[1]:g}]"


def region(where: str | Sequence[float] | Image.Image | np.ndarray | Tensor) -> Weight:
    """A weight of 1 inside a region of the image and 0 outside, or the values of a soft mask.

    It is averaged over each pixel of the sample, or of the latents: pixels are its last two axes (H, W), or its last
    one. Coordinates are (x, y) in [0, 1] from the top-left corner. Values above 1 are products with numbers:
    `7.5 * region("left half") * a`.

    Args:
        where: "left half", "right half", "top half", "bottom half" or "all"; a box "x0,y0,x1,y1" or four numbers; or a
            mask: a tensor or array (H, W) or (1, H, W) of booleans, bytes, or numbers in [0, 1], or an image, whose
            brightness counts: of 8 or 16 bits, or of floats in [0, 1]. Bytes and 16 bits are shares of their range;
            but 0 and 1 where none is greater, as segmentation masks are stored: nobody means a mask of 1/255.

    Raises:
        InputError: another name or box, a mask of another shape, or with values outside [0, 1].

    >>> region("left half"), region("0.25,0.25,0.75,0.75"), region(torch.ones(8, 16))
    ([left half], [0.25,0.25,0.75,0.75], [mask 16x8])
    >>> region((0.0, 0.0, 0.4, 1.0)).at(torch.zeros(1), (3, 1, 5)).flatten()
    tensor([1., 1., 0., 0., 0.], dtype=torch.float64)
    """
    if isinstance(where, Image.Image | np.ndarray | Tensor):
        return Weight([((_Mask(_mask(where)),), 1.0)])
    return Weight([((_Box(_corners(where)),), 1.0)])


def _corners(where: Any) -> tuple[float, float, float, float]:
    if isinstance(where, str) and where in REGIONS:
        return REGIONS[where]
    try:
        numbers = [float(part) for part in where.split(",")] if isinstance(where, str) else [*where]
    except (TypeError, ValueError):
        numbers = []
    if len(numbers) == 4 and all(map(is_number, numbers)):
        x0, y0, x1, y1 = map(float, numbers)
        if 0.0 <= x0 < x1 <= 1.0 and 0.0 <= y0 < y1 <= 1.0:
            return x0, y0, x1, y1
    raise InputError(f"got the region {where!r}; expected {BOXES}, or a mask (H, W) of values in [0, 1]")


def _mask(where: Image.Image | np.ndarray | Tensor) -> Tensor:
    """A mask (1, 1, H, W) of float32 numbers in [0, 1], on the CPU."""
    if isinstance(where, Image.Image):
        where = _brightness(where)
    try:
        values = where.detach().cpu().clone() if isinstance(where, Tensor) else torch.as_tensor(np.array(where))
    except (TypeError, ValueError) as error:  # numpy arrays of other than numbers
        raise InputError(f"got a mask of {where.dtype}; expected numbers in [0, 1], booleans or bytes") from error
    shape = tuple(values.shape)
    if len(shape) not in (2, 3) or (len(shape) == 3 and shape[0] != 1) or not values.numel() or values.is_complex():
        raise InputError(f"got a mask of shape {shape}; expected (H, W) or (1, H, W); take one channel of it")
    is_bytes = values.dtype == torch.uint8 and int(values.max()) > 1
    values = values.float() / (255.0 if is_bytes else 1.0)
    if not bool(((values >= 0.0) & (values <= 1.0)).all()):
        raise InputError(
            f"got a mask with values from {float(values.min()):g} to {float(values.max()):g}; expected finite numbers "
            "in [0, 1]; divide it by its maximum, and multiply the weight by a number"
        )
    return values.reshape(1, 1, *shape[-2:])


def _brightness(image: Image.Image) -> np.ndarray:
    """The brightness (H, W) of an image: bytes, or numbers in [0, 1] of images of more than 8 bits."""
    if image.mode == "F":
        return np.array(image)
    if image.mode.startswith("I"):  # 16 bits; Pillow's `convert` clips them to bytes
        values = np.array(image).astype(np.float32)
        return values / (65535.0 if values.max() > 1 else 1.0)
    return np.array(image.convert("L"))


def during(from_: float = 0.0, until: float = 1.0) -> Weight:
    """A weight of 1 in a part of the sampling trajectory, and 0 in the rest, in which the component is not evaluated.

    The trajectory is given as a share of the timesteps of the noise schedule: 0 is noise, where sampling begins, and 1
    is the end. N evenly spaced steps, which is what schedulers take by default, have the shares 0, 1/N, 2/N, ...
    `during(until=s)` and `during(from_=s)` sum to 1 at every timestep.

    Args:
        from_, until: the part [from_, until), with 0 <= from_ < until <= 1.

    Raises:
        InputError: numbers outside [0, 1], or in another order.

    >>> during(until=0.4), during(0.2, 0.6)
    ([0 to 0.4], [0.2 to 0.6])
    """
    return Weight([((_During(_shares("during", from_, until)),), 1.0)])


def ramp(from_: float = 0.0, until: float = 1.0) -> Weight:
    """A weight that rises from 0 to 1 in a part of the sampling trajectory, see `during`; 1 minus it falls.

    Raises:
        InputError: numbers outside [0, 1], or in another order.

    >>> ramp(0.2, 0.6).at(torch.tensor([0.1, 0.4, 0.9]), (13,)).flatten()
    tensor([0.0000, 0.5000, 1.0000], dtype=torch.float64)
    """
    return Weight([((_During(_shares("ramp", from_, until), is_ramp=True),), 1.0)])


def _shares(name: str, from_: Any, until: Any) -> tuple[float, float]:
    if not (is_number(from_) and is_number(until) and 0.0 <= from_ < until <= 1.0):
        raise InputError(
            f"got {name}({from_!r}, {until!r}); expected shares of the trajectory with 0 <= from_ < until <= 1; change "
            f"them, such as {name}(0.0, 0.4)"
        )
    return float(from_), float(until)
