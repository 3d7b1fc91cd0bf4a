"""Files of images, good and bad: read without surprises in memory, as upright RGB images of 8 bits."""

from __future__ import annotations

import io
import os
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageFile, ImageOps, UnidentifiedImageError

from energycomp.errors import InputError

# Of Pillow's formats, those that need no other program (EPS runs Ghostscript) and take known memory.
FORMATS = {
    ".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".bmp": "BMP", ".gif": "GIF", ".tif": "TIFF",
    ".tiff": "TIFF", ".ppm": "PPM",
}  # fmt: skip
GRID = "energycomp:grid"  # text in a PNG file that shows several images: how many
MAX_PIXELS = 24_500_000  # at most 10 bytes each while an image is decoded, 20 for WebP and CMYK: 245 MB
MAX_SIDE = 65_535  # JPEG's own limit
MAX_BYTES = 100_000_000  # of a file
MAX_HEADER_BYTES = 32_000_000  # read before pixels are decoded; a WebP file is read as a whole
URL = re.compile(r"[a-zA-Z][\w+.-]+:/{1,2}[^/]")  # `pathlib` makes one slash of two
BAND = 1_000_000  # pixels that are converted at once


def open_image(path: str | os.PathLike[str], *, single: bool = False) -> Image.Image:
    """Reads the first frame of a PNG, JPEG, WebP, GIF, BMP, TIFF or PPM file as an upright RGB image.

    Transparent pixels are blended with white. Brightness of 16 bits is rounded to 8; floating-point brightness is in
    [0, 1]. The EXIF orientation is applied. The size is checked before pixels are decoded; decoding takes less than
    256 MB.

    Args:
        single: refuses a grid, or another figure that `save_image` wrote with several `cells`.

    Raises:
        InputError: no such file, not an image, damaged, over 24.5 megapixels (WebP and CMYK: 12.25), 65,535 pixels
            a side or 100 MB.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     Image.new("L", (6, 4)).save(f"{folder}/grey.png")
    ...     image = open_image(f"{folder}/grey.png")
    >>> image.mode, image.size
    ('RGB', (6, 4))
    """
    return _decode(lambda: io.FileIO(path), _size_of(path), str(Path(path)), single)


def _size_of(path: str | os.PathLike[str]) -> int:
    """Bytes of a regular file."""
    file = Path(path)
    check_no_address(path)
    try:
        size = file.stat().st_size if file.is_file() else None
    except (OSError, ValueError) as error:
        raise InputError(f"got {file}, which is no file ({error}); expected an image; check the path") from error
    if size is None:
        raise InputError(f"got {file}, which is no file; expected an image (PNG, JPEG, ...); check the path")
    return size


@contextmanager
def open_header(path: str | os.PathLike[str]) -> Iterator[ImageFile.ImageFile]:
    """The metadata of an image file, with the limits and the errors of `open_image`; pixels are not decoded."""
    with _header(lambda: io.FileIO(path), _size_of(path), str(Path(path))) as image:
        yield image


@contextmanager
def decode_header(content: bytes, name: str = "bytes") -> Iterator[Image.Image]:
    """The metadata in the bytes of an image file, as `open_header` reads them."""
    with _header(lambda: io.BytesIO(content), len(content), name) as image:
        yield image


def check_no_address(path: str | os.PathLike[str]) -> None:
    """Raises `InputError` for an address of the web, with or without the slash that `pathlib` removes.

    >>> check_no_address("https://example.org/x.png")
    Traceback (most recent call last):
    energycomp.errors.InputError: got the address https://example.org/x.png; expected a file, ...
    """
    if URL.match(str(path)):
        address = re.sub(":/{1,2}", "://", str(path), count=1)
        raise InputError(f"got the address {address}; expected a file, since none is downloaded; download it first")


def lost(path: str | os.PathLike[str]) -> dict[str, str]:
    """What `open_image` does not keep of a file: of "frames", "transparency" and "depth", a sentence for each.

    Raises:
        InputError: as of `open_image`.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     Image.new("RGBA", (4, 4)).save(f"{folder}/clear.png")
    ...     lost(f"{folder}/clear.png")
    {'transparency': 'its transparent pixels are drawn on white'}
    """
    found: dict[str, str] = {}
    with open_header(path) as image:
        if image.mode[0] in "IF" or any(";16" in str(tile[3]) for tile in image.tile):
            found["depth"] = "it has more than 8 bits a channel, of which 8 are read"
        opaque = "A" in image.getbands() and image.getchannel("A").getextrema() == (255, 255)
        if image.has_transparency_data and not opaque:
            found["transparency"] = "its transparent pixels are drawn on white"
        if getattr(image, "is_animated", False):
            found["frames"] = "it has several frames, of which the first is read"
    return found


def decode_image(content: bytes, name: str = "bytes", *, single: bool = False) -> Image.Image:
    """An upright RGB image from the bytes of a file of `open_image`, with its limits and errors.

    Args:
        name: of the image in an error.

    >>> decode_image(b"no image")
    Traceback (most recent call last):
    energycomp.errors.InputError: got bytes, which cannot be decoded (cannot identify image file); expected a whole ...
    """
    return _decode(lambda: io.BytesIO(content), len(content), name, single)


def _decode(opened: Callable[[], io.FileIO | io.BytesIO], size: int, name: str, single: bool) -> Image.Image:
    with _header(opened, size, name) as image:
        if single and GRID in image.info:
            raise InputError(
                f"got {name}, which energycomp wrote to show {image.info[GRID]} images at once; expected one image; "
                "write one file per sample (energycomp sample without --grid), or crop the image that you mean"
            )
        return _as_rgb(image)


@contextmanager
def _header(opened: Callable[[], io.FileIO | io.BytesIO], size: int, name: str) -> Iterator[ImageFile.ImageFile]:
    """An image whose size was checked and whose pixels are not decoded yet, which the block may do."""
    if size > MAX_BYTES:
        raise InputError(f"got {name} of {size:,} bytes; expected an image of at most {MAX_BYTES:,}; compress it")
    formats = tuple(FORMATS.values())
    with _our_errors(name), _Limited(opened()) as stream, Image.open(stream, formats=formats) as image:
        _check_size(image, name)
        stream.left = MAX_BYTES
        yield image


class _Limited(io.BufferedReader):
    """A file of which only so many bytes can be read: Pillow keeps the metadata of a header in memory."""

    left = MAX_HEADER_BYTES

    def read(self, size: int | None = -1, /) -> bytes:
        content = super().read(size)
        self.left -= len(content)
        if self.left < 0:
            raise InputError(f"got an image with a header over {MAX_HEADER_BYTES:,} bytes; expected a smaller one")
        return content


def as_rgb(image: Image.Image) -> Image.Image:
    """An upright RGB copy of an image that is open; raises `InputError` for a damaged or a too large one."""
    _check_size(image, "an image")
    with _our_errors(f"an image of mode {image.mode}"):
        return _as_rgb(image)


@contextmanager
def _our_errors(name: str) -> Iterator[None]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns about metadata that is not used
            yield
    except InputError:
        raise
    except Image.DecompressionBombError as error:
        pixels = int(re.findall(r"\d+", str(error))[0])
        raise InputError(
            f"got {name} of {pixels / 1e6:g} megapixels; expected at most {MAX_PIXELS / 1e6:g}; scale it down"
        ) from error
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
    values = np.asarray(band)
    top = 1.0 if band.mode == "F" else 65535.0
    if not bool(((values >= 0) & (values <= top)).all()):
        raise InputError(
            f"got an image with brightness between {values.min():g} and {values.max():g}; expected 0 to {top:g}; "
            "scale it"
        )
    levels = np.round(values * (255.0 / top)).astype(np.uint8)
    if "transparency" in band.info:
        levels[values == band.info["transparency"]] = 255
    return Image.fromarray(levels).convert("RGB")
