"""Images to files: PNG, JPEG or WebP, whole or not at all."""

from __future__ import annotations

import io
from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from energycomp.errors import InputError
from energycomp.files import atomic_file
from energycomp.images.formula import add_formula
from energycomp.images.read import FORMATS, GRID

OPTIONS: dict[str, dict[str, Any]] = {"PNG": {}, "JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True}}
WRITTEN = tuple(suffix for suffix, kind in FORMATS.items() if kind in OPTIONS)  # ends of the names of files
SIDE = 320  # px, the shorter side of what is shown
FULL = ("L", "RGB", "RGBA")  # modes that files keep as they are; a palette is none of them


def png(image: Image.Image, *, formula: Mapping[str, Any] | None = None) -> bytes:
    """An image as the bytes of a PNG file, with what made it in its metadata; raises as `formula_text`.

    >>> png(Image.new("RGB", (2, 2)))[1:4]
    b'PNG'
    """
    file = io.BytesIO()
    image.save(file, format="PNG", pnginfo=add_formula(PngInfo(), formula))
    return file.getvalue()


def data_url(image: Image.Image, *, formula: Mapping[str, Any] | None = None) -> str:
    """An image as a PNG file in a URL, with what made it in its metadata; raises as `formula_text`."""
    return "data:image/png;base64," + b64encode(png(image, formula=formula)).decode()


def save_image(
    image: Image.Image, path: str | Path, *, cells: int = 1, formula: Mapping[str, Any] | None = None
) -> None:
    """Writes an image as a complete file of full colour, by the end of its name, or not at all.

    Args:
        cells: how many images it shows. A PNG file says so, and is refused where one image is read.
        formula: what made the image, which `read_formula` and `energycomp show` read; written to PNG files only.

    Raises:
        InputError: another end of the name, a folder that cannot be made, or a formula that `formula_text` refuses.
        CheckpointError: the file cannot be written.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     save_image(Image.new("RGB", (4, 4)), f"{folder}/new/a.png")
    ...     [file.name for file in Path(folder).rglob("*.png")]
    ['a.png']
    """
    path = Path(path)
    if path.suffix.lower() not in WRITTEN:
        raise InputError(f"got {path}; expected a name that ends in {', '.join(WRITTEN)}, such as image.png")
    kind = FORMATS[path.suffix.lower()]
    options = OPTIONS[kind]
    if kind == "PNG":
        text = add_formula(PngInfo(), formula)
        if cells > 1:
            text.add_text(GRID, str(cells))
        options = {"pnginfo": text}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"got {path}, whose folder cannot be made ({error.strerror}); choose another") from error
    with atomic_file(path) as temporary:
        (image if image.mode in FULL else image.convert("RGB")).save(temporary, format=kind, **options)


def framed(image: Image.Image, aspect: float = 1.0, *, side: int = SIDE) -> Image.Image:
    """An image as people see it: wider by a factor, and enlarged smoothly to at least `side` px on its shorter side.

    >>> framed(Image.new("RGB", (64, 64)), 1.5).size
    (480, 320)
    """
    width = image.width * aspect
    height = float(image.height)
    factor = max(1.0, side / min(width, height))
    return image.resize((round(width * factor), round(height * factor)), Image.Resampling.LANCZOS)
