"""Where images are: paths, and URLs, which by fsspec and universal_pathlib have the methods of `pathlib.Path`."""

from __future__ import annotations

import re
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from energycomp.cli import Item
from energycomp.errors import EnergycompError, InputError, first_line

if TYPE_CHECKING:
    from collections.abc import Iterator

URL = re.compile(r"[a-zA-Z][\w+.-]*://")
SECRET = re.compile(r"://[^/]*:[^/]*@|[?&][^=&]*(sig|token|key|secret|password|credential)[^=&]*=", re.IGNORECASE)


def is_url(place: object) -> bool:
    """Whether something is a URL, such as s3://bucket/image.png.

    >>> is_url("s3://bucket/image.png"), is_url(Path("image.png"))
    (True, False)
    """
    return URL.match(str(place)) is not None


def place_of(text: str | Path) -> Any:
    """A `Path`, or for a URL the `UPath` with its methods; a URL of file:// is a path.

    Raises:
        InputError: a protocol that fsspec does not know, or a URL that holds a password or a signature.

    >>> place_of("images/one.png").name
    'one.png'
    """
    if not is_url(text):
        return Path(text)
    if SECRET.search(str(text)):
        raise InputError(
            "got a URL with a password or a signature, which would be in the results; expected one without; give "
            "credentials as fsspec takes them, such as AWS_ACCESS_KEY_ID"
        )
    from upath import UPath

    with reaching(text):
        place = UPath(text)
        return Path(place.path) if place.protocol in {"file", "local"} else place


@contextmanager
def reaching(place: object) -> Iterator[None]:
    """What a file system of fsspec raises in the block, which may be anything, is an `InputError` of one line."""
    try:
        yield
    except (EnergycompError, BrokenPipeError):
        raise
    except Exception as error:
        raise InputError(
            f"got {place}, which cannot be reached ({type(error).__name__}: {first_line(error)[:200]}); expected a "
            "place that exists, and rights to it; check its name and the credentials of fsspec"
        ) from error


def item_at(place: Any, source: Any = None, row: str | None = None) -> Item:
    """The image in the file at a place, which is its source or named by a row of that."""
    from energycomp.images import MAX_BYTES

    if not is_url(place) and not place.is_file():  # a pipe would wait for its other end
        problem = f"got {place}, which is no file; expected an image (PNG, JPEG, ...); check the path"
        return Item(source or place, row, problem=problem)
    try:
        with reaching(place), place.open("rb") as stream:
            return Item(source or place, row, stream.read(MAX_BYTES + 1))
    except InputError as error:
        return Item(source or place, row, problem=str(error))
