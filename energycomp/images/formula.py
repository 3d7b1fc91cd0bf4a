"""Formulas of images: what made an image, as JSON in the metadata of its PNG or GIF file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from energycomp.errors import InputError
from energycomp.images.read import decode_header, open_header

FORMULA = "energycomp:formula"  # keyword of the text in a PNG file; the first word of the comment in a GIF file
MAX_FORMULA = 65_536  # characters of the JSON
VERSION = "energycomp"  # key of a formula: the version of this library that wrote it


def formula_text(formula: Mapping[str, Any]) -> str:
    """A formula as one line of ASCII, with the version of energycomp.

    Raises:
        InputError: what JSON does not have, or more than 65,536 characters.

    >>> formula_text({"energycomp": "0.2.0", "model": "clevr", "seed": 3})
    '{"energycomp": "0.2.0", "model": "clevr", "seed": 3}'
    """
    try:
        text = json.dumps({VERSION: version("energycomp"), **formula}, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"got a formula with {error}; expected what JSON has") from error
    if len(text) > MAX_FORMULA:
        raise InputError(f"got a formula of {len(text):,} characters; expected at most {MAX_FORMULA:,}; shorten it")
    return text


def add_formula(text: PngInfo, formula: Mapping[str, Any] | None) -> PngInfo:
    """The text chunks of a PNG file, with a formula; raises as `formula_text`."""
    if formula is not None:
        text.add_text(FORMULA, formula_text(formula))
    return text


def gif_comment(formula: Mapping[str, Any] | None) -> dict[str, bytes]:
    """The keywords of Pillow's `save` that write a formula to a GIF file; raises as `formula_text`."""
    return {} if formula is None else {"comment": f"{FORMULA} {formula_text(formula)}".encode("ascii")}


def read_formula(path: str | Path) -> dict[str, Any]:
    """The formula of a PNG or GIF file. Pixels are not decoded, and nothing that it says is looked up or run.

    Raises:
        InputError: no such file, not an image, a file without a formula, one of more than 65,536 characters, or one
            that this library did not write.

    >>> from tempfile import TemporaryDirectory
    >>> from energycomp.images import save_image
    >>> with TemporaryDirectory() as folder:
    ...     save_image(Image.new("RGB", (4, 4)), Path(folder) / "a.png", formula={"model": "clevr", "seed": 3})
    ...     read_formula(Path(folder) / "a.png")["seed"]
    3
    """
    with open_header(path) as image:
        return _parse(_text_of(image), str(path))


def decode_formula(content: bytes, name: str = "bytes") -> dict[str, Any]:
    """The formula in the bytes of a PNG or GIF file; raises as `read_formula`.

    Args:
        name: of the image in an error.
    """
    with decode_header(content, name) as image:
        return _parse(_text_of(image), name)


def _text_of(image: Image.Image) -> str | None:
    """What stands where a formula is written; a comment may hold other lines."""
    if image.format == "PNG":
        found = image.info.get(FORMULA)
        return None if found is None else str(found)
    comment = image.info.get("comment", b"")
    if image.format != "GIF" or not isinstance(comment, bytes):
        return None
    lines = comment.decode("latin-1").split("\n")
    return next((line.removeprefix(f"{FORMULA} ") for line in lines if line.startswith(f"{FORMULA} ")), None)


def _parse(text: str | None, name: str) -> dict[str, Any]:
    if text is None:
        raise InputError(
            f"got {name}, which says nothing about how it was made; expected a PNG or GIF file that a command such as "
            "energycomp sample wrote, without --no-metadata"
        )
    if len(text) > MAX_FORMULA:
        raise InputError(
            f"got {name} with a formula of {len(text):,} characters; expected at most {MAX_FORMULA:,}, which is all "
            "that energycomp writes"
        )
    try:
        found = json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise InputError(f"got {name} with a damaged formula ({error}); expected JSON") from error
    if not isinstance(found, dict) or not isinstance(found.get(VERSION), str):
        raise InputError(
            f"got {name} with a formula that energycomp did not write; expected an object of JSON with the version "
            f"under {VERSION!r}"
        )
    return found


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")
