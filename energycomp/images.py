"""Pictures in and out: files, Pillow images, arrays and tensors to (B, 3, H, W) in [-1, 1], and back."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import attrs
import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.nn import functional as F

from energycomp.errors import InputError

__all__ = ["ImageProcessor", "open_image", "to_output"]

MAX_PIXELS = 64_000_000


def open_image(path: str | os.PathLike[str]) -> Image.Image:
    """Reads the first frame of a picture file as RGB; its size is checked before it is decoded.

    Raises:
        InputError: no such file, no picture, damaged, or over 64 megapixels.
    """
    file = Path(path)
    if not file.is_file():
        raise InputError(f"got {file}, which is no file; expected a picture (PNG, JPEG, ...); check the path")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file) as image:
                _check_size(image.size, str(file))
                return _as_rgb(image)
    except InputError:
        raise
    except (UnidentifiedImageError, Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise InputError(f"got {file}: {error}; expected a picture of at most 64 megapixels; convert it") from error
    except Exception as error:  # decoders of damaged files raise nearly anything
        raise InputError(f"got {file}, which cannot be decoded ({error}); expected a whole picture file") from error


def _check_size(size: tuple[int, int], name: str) -> None:
    if size[0] * size[1] > MAX_PIXELS or min(size) < 1:
        raise InputError(f"got {name} of {size[0]}x{size[1]} pixels; expected at most 64 megapixels; scale it down")


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        array = np.asarray(image, dtype=np.float64)
        if not np.isfinite(array).all():
            raise InputError("got a picture with numbers that are not finite; expected brightness; clean it first")
        top = 65535.0 if image.mode != "F" else max(float(array.max()), 1e-12)
        return Image.fromarray((array.clip(0, top) * (255.0 / top)).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def _size(value: Sequence[int]) -> tuple[int, int]:
    size = tuple(int(side) for side in value)
    if len(size) != 2 or min(size) < 1:
        raise InputError(f"got the size {size}; expected (height, width), at least 1 each")
    return size


@attrs.frozen
class ImageProcessor:
    """Brings any picture to the size a model works at.

    Args:
        size: (height, width).
        resize: "squash" maps the whole frame, as CLEVR's 480x320 to a square; "crop" keeps the ratio and cuts the
            longer side evenly.

    >>> ImageProcessor(size=(8, 8))(Image.new("RGB", (48, 32), "white")).shape
    torch.Size([1, 3, 8, 8])
    """

    size: tuple[int, int] = attrs.field(converter=_size)
    resize: Literal["squash", "crop"] = attrs.field(
        default="squash", validator=attrs.validators.in_(("squash", "crop"))
    )

    def __call__(self, images: Any) -> Tensor:
        """One picture or several to (B, 3, H, W) in [-1, 1].

        Args:
            images: a path, Pillow image, uint8 array (H, W, 3), float tensor (3, H, W) or (B, 3, H, W) in [-1, 1],
                or a sequence of those.

        Raises:
            InputError: what is no picture, holds NaN, or leaves [-1, 1].
        """
        if isinstance(images, Tensor):
            return self._from_tensor(images)
        if isinstance(images, Sequence) and not isinstance(images, str | bytes):
            if not images:
                raise InputError("got no pictures; expected at least one")
            return torch.cat([self(image) for image in images])
        if isinstance(images, str | os.PathLike):
            images = open_image(images)
        if isinstance(images, np.ndarray):
            if images.dtype != np.uint8 or images.ndim not in (2, 3):
                raise InputError(
                    f"got an array of {images.dtype} {images.shape}; expected uint8 (H, W, 3); use a tensor in [-1, 1]"
                )
            try:
                images = Image.fromarray(images)
            except (TypeError, ValueError) as error:
                raise InputError(
                    f"got an array of shape {images.shape}; expected (H, W, 3), channels last, none of them empty"
                ) from error
        if not isinstance(images, Image.Image):
            raise InputError(f"got {type(images).__name__}; expected a path, Pillow image, uint8 array or tensor")
        _check_size(images.size, "a picture")
        return self._from_pil(_as_rgb(images))

    def frame(self, image: Image.Image) -> Image.Image:
        """The part of a picture that the model sees, at the picture's own size.

        >>> ImageProcessor(size=(8, 8), resize="crop").frame(Image.new("RGB", (48, 32))).size
        (32, 32)
        """
        left, top, right, bottom = (round(v) for v in self._box(image.height, image.width))
        return image.crop((left, top, right, bottom))

    def _from_pil(self, image: Image.Image) -> Tensor:
        height, width = self.size
        box = self._box(image.height, image.width)
        smaller = (box[2] - box[0]) >= width and (box[3] - box[1]) >= height
        method = Image.Resampling.BOX if smaller else Image.Resampling.BICUBIC
        array = np.asarray(image.resize((width, height), method, box=box), dtype=np.float32)
        return torch.from_numpy(array / 127.5 - 1.0).permute(2, 0, 1)[None].contiguous()

    def _box(self, height: int, width: int) -> tuple[float, float, float, float]:
        if self.resize == "squash":
            return (0, 0, width, height)
        ratio = self.size[1] / self.size[0]
        w, h = min(width, height * ratio), min(height, width / ratio)
        return ((width - w) / 2, (height - h) / 2, (width + w) / 2, (height + h) / 2)

    def _from_tensor(self, images: Tensor) -> Tensor:
        batch = images[None] if images.ndim == 3 else images
        if batch.ndim != 4 or batch.shape[1] != 3 or not batch.is_floating_point() or 0 in batch.shape:
            raise InputError(
                f"got a tensor {tuple(images.shape)} of {images.dtype}; expected float (3, H, W) or (B, 3, H, W)"
            )
        if not bool(torch.isfinite(batch).all()) or float(batch.abs().max()) > 1.0 + 1e-3:
            raise InputError(
                f"got a tensor between {float(batch.min()):g} and {float(batch.max()):g}; expected finite numbers in "
                "[-1, 1]; scale pixels by 2 p - 1"
            )
        if tuple(batch.shape[2:]) == self.size:
            return batch
        left, top, right, bottom = (round(v) for v in self._box(batch.shape[2], batch.shape[3]))
        part = batch[:, :, top : max(bottom, top + 1), left : max(right, left + 1)]
        return F.interpolate(part, self.size, mode="bilinear", antialias=True).clamp(-1, 1)


def to_output(images: Tensor, output_type: str) -> Any:
    """Images (B, 3, H, W) in [-1, 1] as "pt" (the tensor), "np" ((B, H, W, 3) in [0, 1]) or "pil" (a list)."""
    if output_type == "pt":
        return images
    array = (images.detach().float().clamp(-1, 1).add(1).div(2)).permute(0, 2, 3, 1).cpu().numpy()
    if output_type == "np":
        return array
    if output_type == "pil":
        return [Image.fromarray(picture) for picture in (array * 255).round().astype(np.uint8)]
    raise InputError(f"got output_type {output_type!r}; expected 'pil', 'pt', 'np' or 'latent'")
