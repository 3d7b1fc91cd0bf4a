"""Files of JSON lines: read whole or by key, appended in one write, and locked by the process that writes them."""

from __future__ import annotations

import json
import os
from array import array
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from energycomp.errors import CheckpointError, InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

BLOCK = 65536  # bytes that are read at once to find the end of the last line
PLACE_BITS = 48  # of a file; those above hold its number


def read_lines(path: str | Path) -> list[dict[str, Any]]:
    """The objects of a file of JSON lines; [] where there is no file. Cuts off an incomplete last line.

    Raises:
        CheckpointError: the file cannot be read, or a complete line is not a JSON object.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     append_line(Path(folder) / "log.jsonl", {"step": 1})
    ...     with (Path(folder) / "log.jsonl").open("a") as file:
    ...         _ = file.write('{"step": ')
    ...     read_lines(Path(folder) / "log.jsonl")
    [{'step': 1}]
    """
    _cut(Path(path))
    return [record for _, record in records_of(path)]


def records_of(path: str | Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a file of JSON lines, each with the place in bytes at which it begins, without an incomplete one.

    Raises:
        CheckpointError: the file cannot be read, or a complete line is not a JSON object.
    """
    place = 0
    try:
        with Path(path).open("rb") as stream:
            for number, line in enumerate(stream, start=1):
                if not line.endswith(b"\n"):
                    return
                yield place, _object(line, f"Line {number} of {path}")
                place += len(line)
    except FileNotFoundError:
        return
    except OSError as error:
        raise _unreadable(path, error) from error


def append_line(path: str | Path, record: dict[str, Any]) -> None:
    """Appends one object as a line, in one write.

    Raises:
        CheckpointError: the file cannot be written.
    """
    line = json.dumps(record, allow_nan=False).encode() + b"\n"
    try:
        with Path(path).open("ab", buffering=0) as file:
            written = file.write(line)
    except OSError as error:
        raise CheckpointError(f"Cannot write {path}: {error}. Free some space or name another folder.") from error
    if written != len(line):
        raise CheckpointError(f"Cannot write {path}: no space for {len(line)} bytes. Free some and run again.")


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
        _cut(path)
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
    """The objects in files of JSON lines, by a key. They stay on disk: an object takes 16 bytes of memory.

    Args:
        files: of JSON lines; one that does not exist is empty. An incomplete last line is left out.
        key: what identifies an object. Of several with one key, `get` returns the last.
        seen: called with each object when the files are read.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for value in (1, 2):
    ...         append_line(Path(folder) / "log.jsonl", {"name": "a", "value": value})
    ...     lines = Lines([Path(folder) / "log.jsonl"], key=lambda record: record["name"])
    ...     len(lines), lines.get("a"), lines.get("b")
    (2, {'name': 'a', 'value': 2}, None)
    """

    def __init__(
        self,
        files: Sequence[Path],
        key: Callable[[dict[str, Any]], str],
        *,
        seen: Callable[[dict[str, Any]], object] | None = None,
    ) -> None:
        import numpy as np

        self._files, self._key = tuple(files), key
        hashes, places = array("q"), array("Q")
        for number, file in enumerate(self._files):
            for place, record in records_of(file):
                hashes.append(hash(key(record)))
                places.append(number << PLACE_BITS | place)
                if seen is not None:
                    seen(record)
        known = np.array(hashes, dtype=np.int64)
        order = np.argsort(known, kind="stable")
        self._hashes, self._places = known[order], np.array(places, dtype=np.uint64)[order]

    def __len__(self) -> int:
        return len(self._places)

    def get(self, key: str) -> dict[str, Any] | None:
        """The last object with this key."""
        first, end = (int(self._hashes.searchsorted(hash(key), side=side)) for side in ("left", "right"))
        for place in reversed(self._places[first:end].tolist()):
            record = self._read(place)
            if self._key(record) == key:
                return record
        return None

    def _read(self, place: int) -> dict[str, Any]:
        file, start = self._files[place >> PLACE_BITS], place & ((1 << PLACE_BITS) - 1)
        try:
            with file.open("rb") as stream:
                stream.seek(start)
                return _object(stream.readline(), f"The line at byte {start} of {file}")
        except OSError as error:
            raise _unreadable(file, error) from error


def _object(line: bytes, name: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError:
        record = None
    if not isinstance(record, dict):
        raise CheckpointError(
            f"{name} is not a JSON object. Expected a file that energycomp wrote; remove the line or name another "
            "folder."
        )
    return record


def _cut(path: Path) -> None:
    """Cuts off an incomplete last line."""
    try:
        size = path.stat().st_size if path.exists() else 0
        if not size:
            return
        with path.open("rb") as stream:
            whole = end = size
            while end:
                start = max(0, end - BLOCK)
                stream.seek(start)
                found = stream.read(end - start).rfind(b"\n")
                whole = start + found + 1
                if found >= 0:
                    break
                end = start
        if whole < size:
            os.truncate(path, whole)
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: str | Path, error: OSError) -> CheckpointError:
    return CheckpointError(f"Cannot read {path}: {error}. Expected a file of JSON lines; name another.")
