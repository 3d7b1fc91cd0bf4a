"""An image that is to be read: a file, a row of a table, or a frame of a movie."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from energycomp.cli import sha256_of
from energycomp.errors import InputError

if TYPE_CHECKING:
    from PIL import Image


@attrs.frozen
class BatchImage:
    """An image that is to be read.

    Args:
        source: file of the image, or of its table or movie.
        row: what identifies the image in its table: `__key__` of a WebDataset, otherwise its number, also of a frame;
            None for a file.
        content: of a row or a frame: the bytes of an image file, or the path of one in the folder of the table.
        problem: why there is nothing to open.
    """

    source: Path
    row: str | None = None
    content: bytes | Path | None = attrs.field(default=None, repr=False)
    problem: str | None = None

    def __str__(self) -> str:
        return str(self.source) if self.row is None else f"{self.source}#{self.row}"

    @property
    def name(self) -> str:
        """The name of the file, and the row."""
        return self.source.name if self.row is None else f"{self.source.name}#{self.row}"

    @property
    def row_name(self) -> str:
        """The name of a file for the row: its own, or one without the characters that a path cannot have.

        >>> BatchImage(Path("a.tar"), "7").row_name, BatchImage(Path("a.tar"), "cat/7").row_name
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

    def digest(self) -> str:
        """sha256 of the image file; raises `InputError` where it cannot be read."""
        if self.problem is not None:
            raise InputError(self.problem)
        if isinstance(self.content, bytes):
            return hashlib.sha256(self.content).hexdigest()
        return sha256_of(self.content or self.source)

    def open(self) -> Image.Image:
        """The image; raises `InputError` where it cannot be decoded."""
        from energycomp.images import decode_image, open_image

        if self.problem is not None:
            raise InputError(self.problem)
        if isinstance(self.content, bytes):
            return decode_image(self.content, str(self), single=True)
        return open_image(self.content or self.source, single=True)
