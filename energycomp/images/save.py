"""Images to files, and to a window."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from energycomp.errors import InputError
from energycomp.files import atomic_file

if TYPE_CHECKING:
    from PIL import Image

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
QUALITY: dict[str, dict[str, int]] = {"PNG": {}, "JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": 1}}


def png(image: Image.Image) -> bytes:
    """An image as the bytes of a PNG file."""
    file = io.BytesIO()
    image.save(file, format="PNG")
    return file.getvalue()


def save_image(image: Image.Image, path: str | Path) -> None:
    """Writes an image as a complete PNG, JPEG or WebP file, by the end of its name, or not at all.

    Raises:
        InputError: another end of the name.
        CheckpointError: the file cannot be written.
    """
    path = Path(path)
    if (kind := FORMATS.get(path.suffix.lower())) is None:
        raise InputError(f"got {path}; expected a name that ends in {', '.join(FORMATS)}, such as image.png")
    with atomic_file(path) as temporary:
        image.save(temporary, format=kind, **QUALITY[kind])


def open_window(image: Image.Image) -> None:
    """Opens an image in a window, or in the notebook that runs this; raises `InputError` where nothing can show it."""
    from PIL import ImageShow

    if not ImageShow.show(image):
        raise InputError(
            "got an image on a machine without a program that shows it; expected one, such as xdg-open; write it to a "
            "file with its `save`"
        )
