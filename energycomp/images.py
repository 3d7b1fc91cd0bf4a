"""Images in and out: files, Pillow images, arrays and tensors to (B, 3, H, W) in [-1, 1], and back."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import attrs
import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torch.nn import functional as F

from energycomp.errors import InputError

__all__ = ["ImageProcessor", "as_picture", "from_bytes", "open_image", "to_bytes", "to_output"]

# Of Pillow's formats, those that need no other program (EPS runs Ghostscript) and take known memory.
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "PPM", "TIFF", "WEBP")
MAX_PIXELS = 24_500_000  # at most 10 bytes each while an image is decoded, 20 for WebP and CMYK: 245 MB
MAX_SIDE = 65_535  # JPEG's own limit
MAX_BYTES = 100_000_000  # of a file
MAX_HEADER_BYTES = 32_000_000  # read before pixels are decoded; a WebP file is read as a whole
BAND = 1_000_000  # pixels that are converted at once


def open_image(path: str | os.PathLike[str]) -> Image.Image:
    """Reads the first frame of a PNG, JPEG, WebP, GIF, BMP, TIFF or PPM file as an upright RGB image.

    Transparent pixels are blended with white. Brightness of 16 bits is rounded to 8; floating-point brightness is in
    [0, 1]. The EXIF orientation is applied. The size is checked before pixels are decoded; decoding takes less than
    256 MB.

    Raises:
        InputError: no such file, not an image, damaged, over 24.5 megapixels (WebP and CMYK: 12.25), 65,535 pixels
            a side or 100 MB.
    """
    file = Path(path)
    try:
        size = file.stat().st_size if file.is_file() else None
    except (OSError, ValueError) as error:
        raise InputError(f"got {file}, which is no file ({error}); expected an image; check the path") from error
    if size is None:
        raise InputError(f"got {file}, which is no file; expected an image (PNG, JPEG, ...); check the path")
    if size > MAX_BYTES:
        raise InputError(f"got {file} of {size:,} bytes; expected an image of at most {MAX_BYTES:,}; compress it")
    with _our_errors(str(file)), _Limited(io.FileIO(file)) as stream, Image.open(stream, formats=FORMATS) as image:
        _check_size(image, str(file))
        stream.left = MAX_BYTES
        return _as_rgb(image)


class _Limited(io.BufferedReader):
    """A file of which only so many bytes can be read: Pillow keeps the metadata of a header in memory."""

    left = MAX_HEADER_BYTES

    def read(self, size: int | None = -1, /) -> bytes:
        content = super().read(size)
        self.left -= len(content)
        if self.left < 0:
            raise InputError(f"got an image with a header over {MAX_HEADER_BYTES:,} bytes; expected a smaller one")
        return content


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
        batch = _checked(image)
        if len(batch) != 1:
            raise InputError(f"got {len(batch)} images; expected one; take them one at a time")
        picture: Image.Image = to_output(batch, "pil")[0]
        return picture
    if isinstance(image, np.ndarray):
        image = _from_array(image)
    if not isinstance(image, Image.Image):
        raise InputError(f"got {type(image).__name__}; expected a path, Pillow image, uint8 array or tensor")
    _check_size(image, "an image")
    with _our_errors(f"an image of mode {image.mode}"):
        return _as_rgb(image)


def _from_array(array: np.ndarray[Any, Any]) -> Image.Image:
    if array.dtype != np.uint8 or array.ndim not in (2, 3):
        raise InputError(
            f"got an array of {array.dtype} {array.shape}; expected uint8 (H, W, 3); use a tensor in [-1, 1]"
        )
    try:
        return Image.fromarray(array)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"got an array of shape {array.shape}; expected (H, W, 3), channels last, none of them empty"
        ) from error


@contextmanager
def _our_errors(name: str) -> Iterator[None]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns about metadata that is not used
            yield
    except InputError:
        raise
    except Image.DecompressionBombError as error:
        limit = f"{MAX_PIXELS / 1e6:g} megapixels"
        raise InputError(f"got {name}: {error}; expected at most {limit}; scale it down") from error
    except Exception as error:  # decoders of damaged files raise nearly anything
        reason = "cannot identify image file" if isinstance(error, UnidentifiedImageError) else error
        raise InputError(f"got {name}, which cannot be decoded ({reason}); expected a whole image") from error


def _check_size(image: Image.Image, name: str) -> None:
    limit = MAX_PIXELS // 2 if image.format == "WEBP" or image.mode == "CMYK" else MAX_PIXELS
    if image.width * image.height > limit or min(image.size) < 1 or max(image.size) > MAX_SIDE:
        raise InputError(
            f"got {name} of {image.width}x{image.height} pixels; expected at most {limit / 1e6:g} megapixels and "
            f"{MAX_SIDE:,} pixels a side; scale it down"
        )


def _as_rgb(image: Image.Image) -> Image.Image:
    """An upright RGB copy, converted in bands of rows, so that intermediate images take little memory."""
    image.load()
    rgb = Image.new("RGB", image.size)
    rows = max(1, BAND // image.width)
    for top in range(0, image.height, rows):
        band = image.crop((0, top, image.width, min(top + rows, image.height)))
        rgb.paste(_band_as_rgb(band), (0, top))
    rgb.getexif()[ExifTags.Base.Orientation] = image.getexif().get(ExifTags.Base.Orientation, 1)
    ImageOps.exif_transpose(rgb, in_place=True)
    return rgb


def _band_as_rgb(band: Image.Image) -> Image.Image:
    if band.mode.startswith("I") or band.mode == "F":
        return _eight_bits(band)
    if band.has_transparency_data:
        rgba = band.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return band.convert("RGB")


def _eight_bits(band: Image.Image) -> Image.Image:
    values, top = np.asarray(band), 1.0 if band.mode == "F" else 65535.0
    if not bool(((values >= 0) & (values <= top)).all()):
        raise InputError(
            f"got an image with brightness between {values.min():g} and {values.max():g}; expected 0 to {top:g}; "
            "scale it"
        )
    levels = np.round(values * (255.0 / top)).astype(np.uint8)
    if "transparency" in band.info:
        levels[values == band.info["transparency"]] = 255
    return Image.fromarray(levels).convert("RGB")


def _size(value: Any) -> tuple[int, int]:
    legal = isinstance(value, Sequence) and len(value) == 2 and all(type(side) is int and side >= 1 for side in value)
    if not legal or value[0] * value[1] > MAX_PIXELS:
        raise InputError(
            f"got the size {value!r}; expected (height, width), at least 1 each and {MAX_PIXELS:,} pixels at most"
        )
    return (value[0], value[1])


@attrs.frozen
class ImageProcessor:
    """Resizes images to the size of a model.

    Args:
        size: (height, width).
        resize: "squash" resizes the whole image, for example 480x320 to a square; "crop" keeps the aspect ratio and
            crops the longer side at both ends.

    >>> ImageProcessor(size=(8, 8))(Image.new("RGB", (48, 32), "white")).shape
    torch.Size([1, 3, 8, 8])
    """

    size: tuple[int, int] = attrs.field(converter=_size)
    resize: Literal["squash", "crop"] = attrs.field(
        default="squash", validator=attrs.validators.in_(("squash", "crop"))
    )

    def __call__(self, images: Any) -> Tensor:
        """One image or several to (B, 3, H, W) in [-1, 1].

        Args:
            images: a path, Pillow image, uint8 array (H, W, 3), float tensor (3, H, W) or (B, 3, H, W) in [-1, 1],
                or a sequence of those.

        Raises:
            InputError: not an image, NaN, or values outside of [-1, 1].
        """
        if isinstance(images, Tensor):
            return self._from_tensor(images)
        if isinstance(images, Sequence) and not isinstance(images, str | bytes):
            if not images:
                raise InputError("got no images; expected at least one")
            return torch.cat([self(image) for image in images])
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
        array = np.asarray(image.resize((width, height), method, box=box), dtype=np.float32)
        return torch.from_numpy(array / 127.5 - 1.0).permute(2, 0, 1)[None].contiguous()

    def _box(self, height: int, width: int) -> tuple[float, float, float, float]:
        if self.resize == "squash":
            return (0, 0, width, height)
        ratio = self.size[1] / self.size[0]
        w, h = min(width, height * ratio), min(height, width / ratio)
        return ((width - w) / 2, (height - h) / 2, (width + w) / 2, (height + h) / 2)

    def _from_tensor(self, images: Tensor) -> Tensor:
        batch = _checked(images)
        if tuple(batch.shape[2:]) == self.size:
            return batch
        left, top, right, bottom = (round(v) for v in self._box(batch.shape[2], batch.shape[3]))
        part = batch[:, :, top : max(bottom, top + 1), left : max(right, left + 1)]
        return F.interpolate(part, self.size, mode="bilinear", antialias=True).clamp(-1, 1)


def _checked(images: Tensor) -> Tensor:
    """A tensor of images as a batch (B, 3, H, W)."""
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
    return batch


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


def to_bytes(images: Tensor) -> Tensor:
    """Images in [-1, 1] as uint8, rounded; `from_bytes` gives them back to within half a level.

    >>> to_bytes(torch.tensor([-1.0, 0.0, 1.0]))
    tensor([  0, 128, 255], dtype=torch.uint8)
    """
    return ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def from_bytes(bytes: Tensor) -> Tensor:  # noqa: A002 - what it holds
    """Images of uint8 as float32 in [-1, 1].

    >>> from_bytes(torch.tensor([0, 255], dtype=torch.uint8))
    tensor([-1.,  1.])
    """
    return bytes.float() / 127.5 - 1
