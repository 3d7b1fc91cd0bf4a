"""Answers for images in files of JSON lines, which a later run continues."""

from __future__ import annotations

import sqlite3
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from energycomp.cli.lines import append_line, object_of_line, records_of
from energycomp.cli.results import Names, result_key
from energycomp.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path


class Kept:
    """The answers in files: one line per image and settings, of which the last one counts.

    The lines stay on disk; a temporary database says where.

    Args:
        file: to which answers are appended.
        settings: what the answers depend on, as JSON.
        files: all files with answers.

    Raises:
        InputError: a file holds answers under other settings.
        CheckpointError: a file cannot be read, or the database not be written.
    """

    def __init__(self, file: Path, settings: dict[str, Any], files: Sequence[Path]) -> None:
        self.file = file
        self.settings = settings
        self.names = Names(files[0], settings)
        self._files = files
        self._places = sqlite3.connect("")  # a file of its own, which ends with the process
        try:
            self._places.execute("CREATE TABLE lines (key BLOB PRIMARY KEY, file INTEGER, place INTEGER)")
            self._places.executemany("INSERT OR REPLACE INTO lines VALUES (?, ?, ?)", self._found())
        except sqlite3.Error as error:
            raise CheckpointError(
                f"Cannot index {file}: {error}. Free some space in the folder of temporary files."
            ) from error

    def _found(self) -> Iterator[tuple[bytes, int, int]]:
        for number, file in enumerate(self._files):
            for place, record in records_of(file):
                self.names.see(record)
                yield _digest(record), number, place

    def known(self, head: dict[str, Any]) -> dict[str, Any] | None:
        """The answer of this image, content and settings; None where its search was interrupted."""
        found = self._places.execute("SELECT file, place FROM lines WHERE key = ?", [_digest(head)]).fetchone()
        if found is None:
            return None
        record = object_of_line(self._line(*found), f"A line of {self._files[found[0]]}")
        return None if record.get("interrupted") else record

    def keep(self, record: dict[str, Any]) -> None:
        """Appends the answer for an image; one that failed is read again by the next run."""
        if "failed" not in record:
            append_line(self.file, record)

    def __iter__(self) -> Iterator[bytes]:
        """The lines that count."""
        return (self._line(*found) for found in self._places.execute("SELECT file, place FROM lines ORDER BY rowid"))

    def _line(self, file: int, place: int) -> bytes:
        with self._files[file].open("rb") as stream:
            stream.seek(place)
            return stream.readline()


def _digest(record: dict[str, Any]) -> bytes:
    return blake2b(result_key(record).encode(), digest_size=16).digest()
