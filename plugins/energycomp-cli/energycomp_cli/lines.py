"""Files of JSON lines: appended in one write, read, and written by one process alone."""

from __future__ import annotations

import json
import os
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from energycomp.errors import CheckpointError, InputError

if TYPE_CHECKING:
    from collections.abc import Iterator


def read_lines(path: str | Path) -> list[dict[str, Any]]:
    """Reads the objects of a file of JSON lines; [] where there is no file. Cuts off an incomplete last line.

    Raises:
        CheckpointError: the file cannot be read, or a complete line is not a JSON object.
    """
    cut_line(Path(path))
    return [record for _, record in records_of(path)]


def records_of(path: str | Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields the objects of a file as `read_lines` gives them, each with the place in bytes at which it begins."""
    place = 0
    try:
        with Path(path).open("rb") as stream:
            for number, line in enumerate(stream, start=1):
                if not line.endswith(b"\n"):
                    return
                yield place, object_of_line(line, f"Line {number} of {path}")
                place += len(line)
    except FileNotFoundError:
        return
    except OSError as error:
        raise _unreadable(path, error) from error


def object_of_line(line: bytes, name: str) -> dict[str, Any]:
    """Reads the object of a line; raises `CheckpointError` with the name of the line."""
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


def append_line(path: str | Path, record: dict[str, Any]) -> None:
    """Appends one object as a line, in one write.

    Raises:
        CheckpointError: the file cannot be written.
    """
    line = json.dumps(record, allow_nan=False).encode() + b"\n"
    try:
        with Path(path).open("ab", buffering=0) as file:
            if file.write(line) != len(line):
                raise OSError(f"no space for {len(line)} bytes")  # noqa: TRY301 - as any other reason
    except OSError as error:
        raise CheckpointError(f"Cannot write {path}: {error}. Free some space or name another folder.") from error


def cut_line(path: Path) -> None:
    """Cuts off an incomplete last line."""
    try:
        if not path.exists():
            return
        with path.open("rb") as stream:
            whole = sum(len(line) for line in stream if line.endswith(b"\n"))
        if whole < path.stat().st_size:
            os.truncate(path, whole)
    except OSError as error:
        raise _unreadable(path, error) from error


@contextmanager
def claim(path: Path) -> Iterator[None]:
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


def _unreadable(path: str | Path, error: OSError) -> CheckpointError:
    return CheckpointError(f"Cannot read {path}: {error}. Expected a file of JSON lines; name another.")
