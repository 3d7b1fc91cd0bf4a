"""Answers for images in files of JSON lines, which a later run continues."""

from __future__ import annotations

import sqlite3
from contextlib import ExitStack, contextmanager, suppress
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from energycomp.errors import CheckpointError, InputError
from energycomp.files import atomic_file, remove_stale
from energycomp_cli.files import RESULTS, make_folder, result_files
from energycomp_cli.lines import append_line, cut_line, object_of_line, records_of
from energycomp_cli.results import Names, result_key

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


@contextmanager
def claimed(path: Path) -> Iterator[None]:
    """In the block this process alone writes a file, without its incomplete last line.

    The lock ends with the process, however it ends. A file system without locks has none.

    Raises:
        InputError: another process writes the file.
        CheckpointError: it cannot be written.
    """
    with ExitStack() as stack:
        try:
            stream = stack.enter_context(path.open("ab"))
        except OSError as error:
            raise CheckpointError(
                f"Cannot write {path}: {error}. Check its permissions, or name another folder."
            ) from error
        try:
            import fcntl

            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"got {path.parent}, where another process writes {path.name}; expected one process per file; wait for "
                "it, give each process of batch its --shard, or name another folder"
            ) from error
        except (ImportError, OSError):  # Windows, and file systems without locks
            pass
        cut_line(path)
        yield


@contextmanager
def kept_in(lines: Path, settings: dict[str, Any], own: Path | None = None) -> Iterator[Kept]:
    """The answers in files of JSON lines, of which this process alone writes one in the block.

    An image is identified by its path and content, the settings by the options of the command and the model's weights.
    A shard appends to a file of its own, and takes the answers in all files as known. A process that reads everything
    takes the files of shards that have ended into its own.

    Args:
        lines: the file of a process that reads everything; its folder is made where it is missing.
        settings: what the answers depend on, as JSON.
        own: the file of a shard.

    Raises:
        InputError: another process writes the same file, or it holds answers under other settings.
    """
    folder = make_folder(lines.parent, "-o")
    file = own or lines
    if file == lines:
        _take_over(lines, settings)
    with claimed(file):
        if file.name == RESULTS and len(result_files(lines)) == 1:  # nobody else writes here
            remove_stale(folder)
        yield Kept(file, settings, result_files(lines))


def _take_over(lines: Path, settings: dict[str, Any]) -> None:
    """Makes one file of this and those of shards that nobody writes any more."""
    with claimed(lines), ExitStack() as claims:
        ended = []
        for file in result_files(lines)[1:]:
            with suppress(InputError):
                claims.enter_context(claimed(file))
                ended.append(file)
        if ended:
            with atomic_file(lines) as temporary, temporary.open("wb") as merged:
                merged.writelines(Kept(lines, settings, [lines, *ended]))
        for file in ended:
            file.unlink()
