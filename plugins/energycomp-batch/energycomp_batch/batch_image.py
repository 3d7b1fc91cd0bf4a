"""An image that is to be read: a file, a row of a table, or a frame of a movie."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Any, Self

import attrs

from energycomp.errors import InputError
from energycomp_batch.places import is_url, reaching

if TYPE_CHECKING:
    from PIL import Image


@attrs.frozen
class BatchImage:
    """An image that is to be read.

    Args:
        source: path or URL of the image, or of its table or movie.
        row: what identifies the image in its table: `__key__` of a WebDataset, otherwise its number, also of a frame;
            None for a file.
        content: the bytes of the image file.
        problem: why there are none.
    """

    source: Any
    row: str | None = None
    content: bytes = attrs.field(default=b"", repr=False)
    problem: str | None = None

    @classmethod
    def at(cls, place: Any, source: Any = None, row: str | None = None) -> Self:
        """The image in the file at a place, which is its source or named by a row of that."""
        from energycomp.images import MAX_BYTES

        source = source or place
        if not is_url(place) and not place.is_file():  # a pipe would wait for its other end
            problem = f"got {place}, which is no file; expected an image (PNG, JPEG, ...); check the path"
            return cls(source, row, problem=problem)
        try:
            with reaching(place), place.open("rb") as stream:
                return cls(source, row, stream.read(MAX_BYTES + 1))
        except InputError as error:
            return cls(source, row, problem=str(error))

    def __str__(self) -> str:
        return str(self.source) if self.row is None else f"{self.source}#{self.row}"

    @property
    def name(self) -> str:
        """The name of the file, and the row."""
        return self.source.name if self.row is None else f"{self.source.name}#{self.row}"

    @property
    def row_name(self) -> str:
        """The name of a file for the row: its own, or one without the characters that a path cannot have.

        >>> BatchImage("a.tar", "7").row_name, BatchImage("a.tar", "cat/7").row_name
        ('7', 'cat-7-1b8c97')
        """
        row = self.row or ""
        name = re.sub(r"[^\w-]+", "-", row).strip("-")[:100] or "row"
        return name if name == row else f"{name}-{hashlib.sha256(row.encode()).hexdigest()[:6]}"

    @property
    def key(self) -> str:
        """What identifies it on this machine."""
        source = str(self.source.resolve())
        return source if self.row is None else f"{source}#{self.row}"

    def head(self, settings: dict[str, Any]) -> dict[str, Any]:
        """What identifies the answer for it: where it is, its content, and what the answer depends on besides."""
        return {"image": self.key, "sha256": hashlib.sha256(self.content).hexdigest(), "settings": settings}

    def open(self) -> Image.Image:
        """The image; raises `InputError` where it cannot be decoded."""
        from energycomp.images import decode_image

        if self.problem is not None:
            raise InputError(self.problem)
        return decode_image(self.content, str(self), single=True)
