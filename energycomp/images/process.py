"""Images in: files, Pillow images, arrays and tensors to (B, C, H, W) in [-1, 1]."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import attrs
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from energycomp.errors import InputError
from energycomp.fields import FLAG, one_of, plain, whole
from energycomp.images.output import GREY, RGB, TOLERANCE, to_output
from energycomp.images.read import MAX_PIXELS, as_rgb, open_image


def as_picture(image: Any) -> Image.Image:
    """A new upright RGB image from one image in any form that `ImageProcessor` takes.

    Raises:
        InputError: not an image, several images, a damaged or a too large one.

    >>> as_picture(torch.zeros(3, 4, 6)).size
    (6, 4)
    """
    if isinstance(image, str | os.PathLike):
        return open_image(image)
    if isinstance(image, Tensor):
        batch = _check_tensor(image, (GREY, RGB))
        if len(batch) != 1:
            raise InputError(f"got {len(batch)} images; expected one; take them one at a time")
        picture: Image.Image = to_output(batch, "pil")[0]
        return picture.convert("RGB")
    if isinstance(image, np.ndarray):
        expected = "expected uint8 (H, W, 3), channels last, none of them empty; use a float tensor (3, H, W)"
        if image.dtype != np.uint8 or image.ndim not in (2, 3):
            raise InputError(f"got an array of {image.dtype} {image.shape}; {expected}")
        try:
            image = Image.fromarray(image)
        except (TypeError, ValueError) as error:
            raise InputError(f"got an array of shape {image.shape}; {expected}") from error
    if not isinstance(image, Image.Image):
        raise InputError(f"got {type(image).__name__}; expected a path, Pillow image, uint8 array or tensor")
    return as_rgb(image)


def _size(value: Any) -> tuple[int, int]:
    legal = isinstance(value, Sequence) and len(value) == 2 and all(type(side) is int and side >= 1 for side in value)
    if not legal or value[0] * value[1] > MAX_PIXELS:
        raise InputError(
            f"got the size {value!r}; expected (height, width), at least 1 each and {MAX_PIXELS:,} pixels at most"
        )
    return (value[0], value[1])


@attrs.frozen
class ImageProcessor:
    """Resizes images to the size of a model; or checks tensors that are not images.

    Args:
        size: (height, width).
        resize: "squash" resizes the whole image, for example 480x320 to a square; "crop" keeps the aspect ratio and
            crops the longer side at both ends.
        channels: 3 for colour, 1 for grey; tensors may have any number.
        bounded: whether the numbers are in [-1, 1]. False for data that are not images, such as points in the plane:
            they are float tensors (channels, *size), of any finite numbers, and are not resized.

    >>> ImageProcessor(size=(8, 8))(Image.new("RGB", (48, 32), "white")).shape
    torch.Size([1, 3, 8, 8])
    >>> ImageProcessor(size=(1, 1), channels=2, bounded=False)(torch.tensor([3.0, -4.0]).view(2, 1, 1)).flatten()
    tensor([ 3., -4.])
    """

    size: tuple[int, int] = attrs.field(converter=_size)
    resize: Literal["squash", "crop"] = attrs.field(default="squash", validator=one_of(("squash", "crop")))
    channels: int = attrs.field(default=RGB, validator=whole(1, None))
    bounded: bool = attrs.field(default=True, validator=FLAG)
    registered_name: ClassVar[str] = "image"

    @property
    def sample_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of what it makes."""
        return (self.channels, *self.size)

    def config(self) -> dict[str, Any]:
        """Constructor arguments, as JSON."""
        return attrs.asdict(self, value_serializer=plain)

    def __call__(self, images: Any) -> Tensor:
        """One image or several to (B, C, H, W), in [-1, 1] where it is bounded.

        Args:
            images: a path, Pillow image, uint8 array (H, W, 3) or (H, W), float tensor (C, H, W) or (B, C, H, W) in
                [-1, 1], or a sequence of those.

        Raises:
            InputError: not an image, NaN, values outside of [-1, 1], or other than tensors for data that are no images.
        """
        if isinstance(images, Tensor):
            return self._from_tensor(images)
        if isinstance(images, Sequence) and not isinstance(images, str | bytes):
            if not images:
                raise InputError("got no images; expected at least one")
            return torch.cat([self(image) for image in images])
        if not self.bounded or self.channels not in (GREY, RGB):
            raise InputError(
                f"got {type(images).__name__}; expected float tensors {self.sample_shape}, since the data of this "
                "model are not images"
            )
        return self._from_pil(as_picture(images))

    def frame(self, image: Image.Image) -> Image.Image:
        """The part of an image that the model sees, at the image's own size.

        >>> ImageProcessor(size=(8, 8), resize="crop").frame(Image.new("RGB", (48, 32))).size
        (32, 32)
        """
        return image.crop(self.box(image))

    def box(self, image: Image.Image) -> tuple[int, int, int, int]:
        """Left, top, right and bottom of that part, in pixels.

        >>> ImageProcessor(size=(8, 8), resize="crop").box(Image.new("RGB", (48, 32)))
        (8, 0, 40, 32)
        """
        left, top, right, bottom = self._box(image.height, image.width)
        return round(left), round(top), round(right), round(bottom)

    def _from_pil(self, image: Image.Image) -> Tensor:
        height, width = self.size
        box = self._box(image.height, image.width)
        smaller = (box[2] - box[0]) >= width and (box[3] - box[1]) >= height
        method = Image.Resampling.BOX if smaller else Image.Resampling.BICUBIC
        image = image if self.channels == RGB else image.convert("L")
        array = np.asarray(image.resize((width, height), method, box=box), dtype=np.float32)
        return torch.from_numpy(array / 127.5 - 1.0).view(height, width, -1).permute(2, 0, 1)[None].contiguous()

    def _box(self, height: int, width: int) -> tuple[float, float, float, float]:
        if self.resize == "squash":
            return (0, 0, width, height)
        ratio = self.size[1] / self.size[0]
        w, h = min(width, height * ratio), min(height, width / ratio)
        return ((width - w) / 2, (height - h) / 2, (width + w) / 2, (height + h) / 2)

    def _from_tensor(self, images: Tensor) -> Tensor:
        batch = _check_tensor(images, (self.channels,), bounded=self.bounded).float()
        if tuple(batch.shape[2:]) == self.size:
            return batch
        if not self.bounded:
            raise InputError(f"got a tensor {tuple(images.shape)}; expected {self.sample_shape} or a batch of those")
        left, top, right, bottom = (round(v) for v in self._box(batch.shape[2], batch.shape[3]))
        part = batch[:, :, top : max(bottom, top + 1), left : max(right, left + 1)]
        return F.interpolate(part, self.size, mode="bilinear", antialias=True).clamp(-1, 1)


def _check_tensor(images: Tensor, channels: Sequence[int], *, bounded: bool = True) -> Tensor:
    """A tensor as a batch (B, C, H, W) of one of these numbers of channels."""
    batch = images[None] if images.ndim == 3 else images
    if batch.ndim != 4 or batch.shape[1] not in channels or not batch.is_floating_point() or 0 in batch.shape:
        c = " or ".join(map(str, channels))
        raise InputError(
            f"got a tensor {tuple(images.shape)} of {images.dtype}; expected float (C, H, W) or (B, C, H, W), C = {c}"
        )
    if not bool(torch.isfinite(batch).all()) or (bounded and float(batch.abs().max()) > 1.0 + TOLERANCE):
        where = " in [-1, 1]; scale pixels by 2 p - 1" if bounded else ""
        raise InputError(
            f"got a tensor between {float(batch.min()):g} and {float(batch.max()):g}; expected finite numbers{where}"
        )
    return batch


def guided(maps: Tensor, picture: Tensor, *, eps: float = 1e-3) -> Tensor:
    """Maps (K, H, W) with the edges of a picture (C, H, W) in [-1, 1]: the guided filter (He et al., 2010, eqs 14-16).

    In each window of about a quarter of the shorter side, a map is the linear function of the channels that is nearest
    to it, and a pixel has the mean of its windows. Each map keeps its sum.

    Args:
        eps: of the ridge regression: contrasts below its root are no edges.

    >>> picture = torch.tensor([-1.0, 1.0]).repeat_interleave(16).expand(3, 32, 32)  # an edge in the middle
    >>> blurred = torch.linspace(0, 1, 32).expand(1, 32, 32)
    >>> [round(float(value), 2) for value in guided(blurred, picture)[0, 16, [8, 15, 16, 23]]]
    [0.26, 0.42, 0.58, 0.74]
    """
    picture = picture.to(maps)  # processors give float32, whatever the type of a network
    radius = min(picture.shape[1:]) // 8

    def mean(each: Tensor) -> Tensor:  # of the window around each pixel, by running sums
        for _ in range(2):
            at = torch.arange(each.shape[-1], device=each.device)
            low, high = (at - radius).clamp(min=0), (at + radius + 1).clamp(max=len(at))
            sums = F.pad(each.cumsum(-1), (1, 0))
            each = ((sums[..., high] - sums[..., low]) / (high - low)).mT
        return each

    centre, level = mean(picture), mean(maps)
    spread = mean(picture[:, None] * picture) - centre[:, None] * centre
    together = mean(maps[:, None] * picture) - level[:, None] * centre
    ridge = spread.permute(2, 3, 0, 1) + eps * torch.eye(len(picture)).to(picture)
    slope = torch.linalg.solve(ridge, together.permute(2, 3, 1, 0)).permute(3, 2, 0, 1)  # (K, C, H, W)
    found = (mean(slope) * picture).sum(1) + mean(level - (slope * centre).sum(1))
    return found + (maps - found).mean((1, 2), keepdim=True)
