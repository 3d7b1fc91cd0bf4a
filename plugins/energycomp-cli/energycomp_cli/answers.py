"""Answers on their way: what identifies the answer for an image, and the lines of earlier runs that know it."""

from __future__ import annotations

import json
import sqlite3
from contextlib import ExitStack, contextmanager, suppress
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import attrs

from energycomp.errors import CheckpointError, InputError
from energycomp.files import atomic_file, remove_stale
from energycomp_cli.files import RESULTS, make_folder, result_files
from energycomp_cli.items import Item
from energycomp_cli.lines import append_line, claim, object_of_line, records_of
from energycomp_cli.names import Names

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


@attrs.frozen
class Answer:
    """The answer for an image before it is given: all that a process needs to give it."""

    item: Item
    head: dict[str, Any]  # what the record begins with: what identifies the answer
    name: str = ""  # of its files, where some are written
    known: dict[str, Any] | None = None  # the record of an earlier run; None where the image is to be read
    index: int = 0  # its place among others

    def __str__(self) -> str:
        return str(self.item)


def identify(item: Item, settings: dict[str, Any]) -> dict[str, Any]:
    """Identifies an answer: where the image is, its content, and what the answer depends on besides."""
    return {"image": item.key, "sha256": item.sha256, "settings": settings}


class Answers:
    """The answers in files: one line per image and settings, of which the last one counts.

    The lines stay on disk; a temporary database says where, until the block of `with` ends. New ones are appended to
    `file`; without files nothing is known or kept.

    Raises:
        InputError: a file holds answers under other settings.
        CheckpointError: a file cannot be read, or the database not be written.
    """

    def __init__(
        self, settings: dict[str, Any] | None = None, files: Sequence[Path] = (), file: Path | None = None
    ) -> None:
        self.settings = settings or {}
        self.file = file
        self.names = Names(files[0] if files else Path(RESULTS), self.settings)
        self._files = files
        self._places = sqlite3.connect("")  # a file of its own, which ends with the connection
        with ExitStack() as unless_indexed:
            unless_indexed.callback(self._places.close)
            try:
                self._places.execute("CREATE TABLE lines (key BLOB PRIMARY KEY, file INTEGER, place INTEGER)")
                self._places.executemany("INSERT OR REPLACE INTO lines VALUES (?, ?, ?)", self._read())
            except sqlite3.Error as error:
                raise CheckpointError(
                    f"Cannot index {file}: {error}. Free some space in the folder of temporary files."
                ) from error
            unless_indexed.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._places.close()

    def _read(self) -> Iterator[tuple[bytes, int, int]]:
        for number, file in enumerate(self._files):
            for place, record in records_of(file):
                self.names.see(record)
                yield _digest(record), number, place

    def of(self, item: Item, *, named: bool = False, index: int = 0) -> Answer:
        """The answer for an image, with what is known of it, and with a name for its files if some are written."""
        if self.file is None:
            return Answer(item, {"image": item.key}, index=index)
        name = self.names.of(item) if named else ""
        head = identify(item, self.settings)
        return Answer(item, head, name, self.known(head), index)

    def known(self, head: dict[str, Any]) -> dict[str, Any] | None:
        """The record of this image, content and settings; None where its search was interrupted."""
        place = self._places.execute("SELECT file, place FROM lines WHERE key = ?", [_digest(head)]).fetchone()
        if place is None:
            return None
        record = object_of_line(self._line(*place), f"A line of {self._files[place[0]]}")
        return None if record.get("interrupted") else record

    def keep(self, record: dict[str, Any]) -> None:
        """Appends the record of an image; one that failed is read again by the next run."""
        if self.file is not None and "failed" not in record:
            append_line(self.file, record)

    def __iter__(self) -> Iterator[bytes]:
        """The lines that count."""
        places = self._places.execute("SELECT file, place FROM lines ORDER BY rowid")
        return (self._line(*place) for place in places)

    def _line(self, file: int, place: int) -> bytes:
        with self._files[file].open("rb") as stream:
            stream.seek(place)
            return stream.readline()


def _digest(record: dict[str, Any]) -> bytes:
    key = json.dumps([record.get(part) for part in ("image", "sha256", "settings")], sort_keys=True)
    return blake2b(key.encode(), digest_size=16).digest()


@contextmanager
def answers_in(lines: Path, settings: dict[str, Any], own: Path | None = None) -> Iterator[Answers]:
    """The answers in files of JSON lines, of which this process alone writes one in the block.

    A shard appends to a file of its own, and takes the answers in all files as known. A process that reads everything
    takes the files of shards that have ended into its own.

    Args:
        lines: the file of a process that reads everything; its folder is made where it is missing.
        own: the file of a shard.

    Raises:
        InputError: another process writes the same file, or it holds answers under other settings.
    """
    folder = make_folder(lines.parent, "-o")
    file = own or lines
    if file == lines:
        _take_over(lines, settings)
    with claim(file):
        if file.name == RESULTS and len(result_files(lines)) == 1:  # nobody else writes here
            remove_stale(folder)
        with Answers(settings, result_files(lines), file) as answers:
            yield answers


def _take_over(lines: Path, settings: dict[str, Any]) -> None:
    """Makes one file of this and those of shards that nobody writes any more."""
    with claim(lines), ExitStack() as claims:
        ended = []
        for file in result_files(lines)[1:]:
            with suppress(InputError):
                claims.enter_context(claim(file))
                ended.append(file)
        if ended:
            merged = claims.enter_context(Answers(settings, [lines, *ended]))
            with atomic_file(lines) as temporary, temporary.open("wb") as stream:
                stream.writelines(merged)
        for file in ended:
            file.unlink()
