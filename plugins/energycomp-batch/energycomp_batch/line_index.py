"""Files of JSON lines: locked by the process that writes them, and read by key, however many lines they have."""

from __future__ import annotations

import os
import sqlite3
from contextlib import contextmanager
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from energycomp.cli import cut_line, object_of_line, records_of
from energycomp.errors import CheckpointError, InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
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
        if not _locked(handle):
            raise InputError(
                f"got {path.parent}, where another process writes {path.name}; expected one process per file; wait for "
                "it, give each process its --shard, or name another folder"
            )
        cut_line(path)
        yield
    finally:
        os.close(handle)


def _locked(handle: int) -> bool:
    """Locks an open file; False where another process has done so."""
    try:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (ImportError, OSError):  # Windows, and file systems without locks
        return True
    return True


class Lines:
    """The objects in files of JSON lines, by a key. They stay on disk; a temporary index of sqlite says where.

    Args:
        files: of JSON lines; one that does not exist is empty. An incomplete last line is left out.
        key: what identifies an object. Of several with one key, the last counts.
        seen: called with each object when the files are read.

    >>> import tempfile
    >>> from pathlib import Path
    >>> from energycomp.cli import append_line
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for value in (1, 2):
    ...         append_line(Path(folder) / "log.jsonl", {"name": "a", "value": value})
    ...     lines = Lines([Path(folder) / "log.jsonl"], key=lambda record: record["name"])
    ...     lines.get("a"), lines.get("b")
    ({'name': 'a', 'value': 2}, None)
    """

    def __init__(
        self,
        files: Sequence[Path],
        key: Callable[[dict[str, Any]], str],
        *,
        seen: Callable[[dict[str, Any]], object] = lambda _: None,
    ) -> None:
        self._files, self._index = tuple(files), sqlite3.connect("")  # a file of its own, which ends with the process

        def rows() -> Iterator[tuple[bytes, int, int]]:
            for number, file in enumerate(self._files):
                for place, record in records_of(file):
                    seen(record)
                    yield _digest(key(record)), number, place

        try:
            self._index.execute("CREATE TABLE lines (key BLOB, file INTEGER, place INTEGER)")
            self._index.executemany("INSERT INTO lines VALUES (?, ?, ?)", rows())
            self._index.execute("CREATE INDEX keys ON lines (key)")
        except sqlite3.Error as error:
            raise CheckpointError(
                f"Cannot index {self._files[0]}: {error}. Free some space in the folder of temporary files."
            ) from error

    def get(self, key: str) -> dict[str, Any] | None:
        """The last object with this key."""
        query = "SELECT file, place FROM lines WHERE key = ? ORDER BY rowid DESC LIMIT 1"
        found = self._index.execute(query, [_digest(key)]).fetchone()
        return None if found is None else object_of_line(self._line(*found), f"A line of {self._files[found[0]]}")

    def __iter__(self) -> Iterator[bytes]:
        """The last line of each key."""
        query = "SELECT file, place, max(rowid) AS last FROM lines GROUP BY key ORDER BY last"
        return (self._line(file, place) for file, place, _ in self._index.execute(query))

    def _line(self, file: int, place: int) -> bytes:
        try:
            with self._files[file].open("rb") as stream:
                stream.seek(place)
                return stream.readline()
        except OSError as error:
            raise CheckpointError(
                f"Cannot read {self._files[file]}: {error}. Expected a file of JSON lines; name another."
            ) from error


def _digest(key: str) -> bytes:
    return blake2b(key.encode(errors="surrogatepass"), digest_size=16).digest()  # paths may be no UTF-8
