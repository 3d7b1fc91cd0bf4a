"""Paths and URLs: a bucket has the methods of `pathlib.Path`, by fsspec and universal_pathlib."""

from __future__ import annotations

import re
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

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


def files_in(url: Any, suffixes: Any, without: object = None) -> list[Any]:
    """The URLs of the files in a folder of a bucket with these suffixes, sorted; the URL itself where it is a file.

    Hidden files, and names that begin with _, are left out, and so is the folder `without`.

    Raises:
        InputError: the bucket cannot be read, or holds no such file.
    """
    with reaching(url):
        files = [url.with_segments(url.fs.unstrip_protocol(path)) for path in sorted(url.fs.find(url.path))]
    results = f"{str(without).rstrip('/')}/"
    if [str(file) for file in files] != [str(url)]:
        files = [one for one in files if one.suffix.lower() in suffixes and one.name[0] not in "._"]
        files = [one for one in files if not str(one).startswith(results)]
    if not files:
        raise InputError(f"got {url} without an image in it; expected a file, or a folder of images or tables")
    return files
