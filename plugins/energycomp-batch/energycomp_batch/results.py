"""Answers for images in files of JSON lines, one for each process, which a later run continues."""

from __future__ import annotations

import os
import sqlite3
from contextlib import ExitStack, contextmanager, suppress
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Self

from energycomp.cli import (
    RESULTS,
    Names,
    append_line,
    cut_line,
    make_folder,
    object_of_line,
    records_of,
    result_files,
    result_key,
)
from energycomp.errors import CheckpointError, InputError
from energycomp.files import atomic_file, remove_stale
from energycomp_batch.shards import Shard

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path


@contextmanager
def claimed(path: Path) -> Iterator[None]:
    """In the block this process alone writes a file, without its incomplete last line.

    The lock ends with the process, however it ends. A file system without locks has none.

    Raises:
        InputError: another process writes the file.
        CheckpointError: it cannot be written.
    """
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
    except OSError as error:
        raise CheckpointError(
            f"Cannot write {path}: {error}. Check its permissions, or name another folder."
        ) from error
    try:
        with suppress(ImportError):  # Windows
            _lock(handle, path)
        cut_line(path)
        yield
    finally:
        os.close(handle)


def _lock(handle: int, path: Path) -> None:
    import fcntl

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise InputError(
            f"got {path.parent}, where another process writes {path.name}; expected one process per file; wait for it, "
            "give each process its --shard, or name another folder"
        ) from error
    except OSError:  # a file system without locks
        return


class _Index:
    """The answers in files of JSON lines, which stay on disk; a temporary database says where. The last one counts."""

    def __init__(self, files: Sequence[Path], names: Names) -> None:
        self._files, self._places = files, sqlite3.connect("")  # a file of its own, which ends with the process

        def rows() -> Iterator[tuple[bytes, int, int]]:
            for number, file in enumerate(files):
                for place, record in records_of(file):
                    names.see(record)
                    yield _digest(record), number, place

        try:
            self._places.execute("CREATE TABLE lines (key BLOB PRIMARY KEY, file INTEGER, place INTEGER)")
            self._places.executemany("INSERT OR REPLACE INTO lines VALUES (?, ?, ?)", rows())
        except sqlite3.Error as error:
            raise CheckpointError(
                f"Cannot index {files[0]}: {error}. Free some space in the folder of temporary files."
            ) from error

    def get(self, head: dict[str, Any]) -> dict[str, Any] | None:
        """The answer of this image, content and settings."""
        found = self._places.execute("SELECT file, place FROM lines WHERE key = ?", [_digest(head)]).fetchone()
        return None if found is None else object_of_line(self._line(*found), f"A line of {self._files[found[0]]}")

    def __iter__(self) -> Iterator[bytes]:
        return (self._line(*found) for found in self._places.execute("SELECT file, place FROM lines ORDER BY rowid"))

    def _line(self, file: int, place: int) -> bytes:
        with self._files[file].open("rb") as stream:
            stream.seek(place)
            return stream.readline()


def _digest(record: dict[str, Any]) -> bytes:
    return blake2b(result_key(record).encode(), digest_size=16).digest()


class Results:
    """Answers in files of JSON lines: one line per image and settings.

    An image is identified by its path and content, the settings by the options of the command and the model's weights.
    Each shard appends to a file of its own, and takes the answers in all files as known. A process that reads
    everything takes the files of shards that have ended into its own.

    Args:
        lines: the file of a process that reads everything; its folder is made where it is missing.
        settings: what the answers depend on, as JSON.
        shard: the part of the images that this process reads.

    Raises:
        InputError: another process writes the same file, or it holds answers under other settings.
    """

    def __init__(self, lines: Path, settings: dict[str, Any], shard: Shard | None = None) -> None:
        self._all, self.settings = lines, settings
        self.file = lines.with_name((shard or Shard()).file(lines.name))
        self.names = Names(lines, settings)

    def __enter__(self) -> Self:
        """Reads which answers are known; until the end of the block no other process may write the same file."""
        folder = make_folder(self.file.parent, "-o")
        if self.file == self._all:
            self._take_over()
        with ExitStack() as claim:
            claim.enter_context(claimed(self.file))
            if self.file.name == RESULTS and len(result_files(self._all)) == 1:  # nobody else writes here
                remove_stale(folder)
            self._known = _Index(result_files(self._all), self.names)
            self._claim = claim.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._claim.close()

    def _take_over(self) -> None:
        """Makes one file of this and those of shards that nobody writes any more."""
        with claimed(self._all), ExitStack() as claims:
            ended = []
            for file in result_files(self._all)[1:]:
                with suppress(InputError):
                    claims.enter_context(claimed(file))
                    ended.append(file)
            if ended:
                lines = _Index([self._all, *ended], Names(self._all, self.settings))
                with atomic_file(self._all) as temporary, temporary.open("wb") as merged:
                    merged.writelines(lines)
            for file in ended:
                file.unlink()

    def known(self, head: dict[str, Any]) -> dict[str, Any] | None:
        """The line of an image that was read under these settings."""
        return self._known.get(head)

    def keep(self, record: dict[str, Any]) -> None:
        """Appends the answer for an image; one that failed is read again by the next run."""
        if "failed" not in record:
            append_line(self.file, record)
