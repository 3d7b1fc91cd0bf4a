"""What the readers of all formats share: text, JSON and numbers of files that anybody may have written."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

import attrs

from energycomp.errors import InputError, first_line
from energycomp.files import atomic_file
from energycomp_cli import make_folder
from energycomp_objects.formats.marks import Mark

MAX_BYTES = 100_000_000  # of a file of labels: about 300,000 marks of COCO, which take a gigabyte as objects of Python
CATEGORY = "category"  # the attribute that a format with one name an object has
SOLE = "object"  # the category of all marks of a source without any attribute
ALIASES = ("categories", "label", "labels", "class")  # other names of it, where a source has no attribute of that name


@attrs.frozen
class Labels:
    """What a file says of one picture, before the picture is looked at.

    Args:
        name: of the picture, relative to its folder.
        where: what an error names, such as "metadata.jsonl, line 3".
        marks: in shares of the picture, or in pixels; None for a box with a side of 0.
        size: width and height of the picture as the file has them.
    """

    name: str
    where: str
    marks: tuple[Mark | None, ...]
    pixels: bool = False
    size: tuple[int, int] | None = None


@attrs.frozen
class LabelSet:
    """What a source of labels says of all pictures.

    Args:
        source: the file or folder that an error names.
        folder: of the pictures.
        kinds: the categories in the order in which the source lists them; it need not list them.
        notes: what was left out, and how many times.
    """

    source: Path
    folder: Path
    labels: list[Labels]
    kinds: Sequence[str] = ()
    notes: Mapping[str, int] = attrs.field(factory=dict)


def read_text(path: Path, limit: int = MAX_BYTES) -> str:
    """The text of a regular file in UTF-8; raises `InputError` where it is none or has more bytes than `limit`."""
    try:
        if not path.is_file():
            raise InputError(f"got {path}, which is no file; expected a file of labels; check the path")
        size = path.stat().st_size
        if size > limit:
            raise InputError(f"got {path} of {size:,} bytes; expected at most {limit:,}; split it")
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"got {path}, which cannot be read ({error}); expected a text file in UTF-8") from error


def write_text(path: Path, text: str) -> None:
    """Writes a file that is whole or as it was, and the folders above it."""
    make_folder(path.parent, "the folder")
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")


def files_of(folder: Path, names: Sequence[str], end: str) -> list[Path]:
    """A file of labels for each picture; raises `InputError` for a folder with files, and for one file of two pictures.

    Labels of other pictures, which a folder has already, may mean other classes.
    """
    if folder.is_dir() and any(folder.iterdir()):
        raise InputError(f"got {folder}, which has files; expected a new or empty folder; choose another or remove it")
    files = {(folder / name).with_suffix(end): name for name in names}
    if len(files) < len(names):
        twin = next(name for name in names if name not in files.values())
        raise InputError(f"got {twin} and a picture whose name differs in the end only; expected others; rename one")
    return list(files)


def parse_json(text: str, where: str) -> dict[str, Any]:
    """The object of a JSON text; NaN, infinities and any other value are refused."""
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise InputError(f"got {where.rstrip(',')}, which is no JSON ({first_line(error)}); correct it") from error
    return as_object(value, where)


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")


def as_object(value: object, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f"got {where} with {_shorten(value)}; expected an object of JSON, such as {{...}}; correct it")
    return value


def as_list(value: object, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise InputError(f"got {where} with {_shorten(value)}; expected a list; correct it")
    return value


def as_number(value: object, where: str) -> float:
    """A finite number, of JSON or as text."""
    try:
        number = float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise InputError(f"got {where} with {_shorten(value)}; expected a finite number; correct it or remove it")
    return number


def make_mark(
    where: str, box: Sequence[object], attributes: Mapping[str, object], *, corner: bool = False
) -> Mark | None:
    """A mark of x, y and perhaps a width and a height, none or 0 for a point; None for a box with one side of 0.

    Args:
        attributes: of which the texts are kept, and the numbers of categories.
        corner: x and y are the left and top of the box, not its centre.

    Raises:
        InputError: not two or four finite numbers, or a negative size.
    """
    values = [as_number(value, where) for value in box]
    if len(values) not in (2, 4):
        raise InputError(f"got {where} with {len(values)} numbers; expected x and y, or x, y, width and height")
    x, y, width, height = [*values, 0.0, 0.0][:4]
    if width < 0 or height < 0:
        raise InputError(f"got {where} with a box of {width:g} x {height:g}; expected no negative size; correct it")
    texts = {}
    for name, value in attributes.items():
        if (isinstance(value, str) and value.strip()) or (name in (CATEGORY, *ALIASES) and type(value) is int):
            texts[name] = str(value).strip()
    if width == height == 0:
        return Mark(x, y, attributes=texts)
    if width == 0 or height == 0:
        return None
    if corner:
        x, y = x + width / 2, y + height / 2
    return Mark(x, y, width, height, texts)


def class_name(attributes: Mapping[str, str]) -> str:
    """The name of a class for formats that have nothing else: the category, or all as in the query of a web address.

    >>> class_name({"category": "RBC"}), class_name({"color": "red", "shape": "cube"}), class_name({})
    ('RBC', 'color=red&shape=cube', 'object=')
    """
    category = attributes.get(CATEGORY, "=")
    if len(attributes) == 1 and "=" not in category:
        return category
    return urlencode(attributes, quote_via=quote) or f"{SOLE}="


def attributes_of(name: str) -> dict[str, str]:
    """The attributes that `class_name` wrote; any other name is a category."""
    return dict(parse_qsl(name)) if "=" in name else {CATEGORY: name}


def format_number(value: float) -> str:
    """A number with at most six digits after the point, which keep a share of a picture."""
    return f"{value:.6f}".rstrip("0").rstrip(".")


def _shorten(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
