"""What a command reads: an image file, a frame of a movie, or a row of a table."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import attrs

from energycomp.errors import InputError
from energycomp_cli.files import read_image
from energycomp_cli.results import sha256_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from torch import Tensor


@attrs.frozen(eq=False)
class Item:
    """What is read, and what identifies it.

    Args:
        source: path of the image, or of its movie or table; energycomp-batch has URLs, too.
        row: what identifies it in a movie or a table, such as its number; None for a file that is one image.
        content: the bytes of an image file, such as of a frame, or the row of numbers; None for a file that is opened
            later.
        problem: why there is nothing to read.
    """

    source: Any
    row: str | None = None
    content: bytes | Tensor | None = attrs.field(default=None, repr=False)
    problem: str | None = None

    def _named(self, source: object) -> str:
        return str(source) if self.row is None else f"{source}#{self.row}"

    def __str__(self) -> str:
        return self._named(self.source)

    @property
    def name(self) -> str:
        """The name of the file, and the row."""
        return self._named(self.source.name)

    @property
    def key(self) -> str:
        """What identifies it on this machine."""
        return self._named(self.source.resolve())

    def file_name(self, stem: str) -> str:
        """The name of files for it: that of its source, and of its row, without characters that a path cannot have.

        >>> Item("a.tar").file_name("a"), Item("a.tar", "7").file_name("a"), Item("a.tar", "cat/7").file_name("a")
        ('a', 'a/7', 'a/cat-7-1b8c97')
        """
        if self.row is None:
            return stem
        name = re.sub(r"[^\w-]+", "-", self.row).strip("-")[:100] or "row"
        end = "" if name == self.row else f"-{sha256_of(self.row.encode(errors='backslashreplace'))[:6]}"
        return f"{stem}/{name}{end}"

    def digest(self) -> str:
        """The sha256 of what is read."""
        if self.problem is not None:
            return sha256_of(b"")
        if self.content is None:
            return sha256_of(self.source)
        return sha256_of(self.content if isinstance(self.content, bytes) else self.content.numpy().tobytes())

    def head(self, settings: dict[str, Any]) -> dict[str, Any]:
        """What identifies the answer for it: where it is, its content, and what the answer depends on besides."""
        return {"image": self.key, "sha256": self.digest(), "settings": settings}

    def open(self) -> Any:
        """An image or a row of numbers, after a warning of what is not kept of a file.

        Raises:
            InputError: there is none, or it cannot be decoded.
        """
        from energycomp.images import decode_image

        if self.problem is not None:
            raise InputError(self.problem)
        if isinstance(self.content, bytes):
            return decode_image(self.content, str(self), single=True)
        return read_image(self.source) if self.content is None else self.content


def frames(path: Path, source: Any = None) -> Iterator[Item]:
    """The frames of a movie, from "#0". One that breaks off ends with a frame that cannot be read.

    Args:
        source: where the movie is from, if the path is that of a copy.
    """
    from energycomp.images import frames_of, png

    source = source or path
    number = 0
    try:
        for frame in frames_of(path):
            yield Item(source, str(number), png(frame))
            number += 1
    except InputError as error:
        yield Item(source, str(number), problem=str(error).replace(str(path), str(source)))
