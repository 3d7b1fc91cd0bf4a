"""JSON lines that grow while a run goes on: whatever ends it, the file holds whole lines, and the next run goes on."""

import json
from pathlib import Path
from typing import Any

from energycomp.errors import CheckpointError

__all__ = ["append_line", "read_lines"]


def read_lines(path: str | Path) -> list[dict[str, Any]]:
    """The objects of a file of JSON lines, none where there is no file; cuts off a last line that has no end.

    Raises:
        CheckpointError: the file cannot be read, or a whole line of it is no JSON object.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     append_line(Path(folder) / "log.jsonl", {"step": 1})
    ...     with (Path(folder) / "log.jsonl").open("a") as file:
    ...         _ = file.write('{"step": ')
    ...     read_lines(Path(folder) / "log.jsonl")
    [{'step': 1}]
    """
    path = Path(path)
    try:
        if not path.exists():
            return []
        content = path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            with path.open("r+b") as file:
                file.truncate(whole)
    except OSError as error:
        raise CheckpointError(f"Cannot read {path}: {error}. Expected a file of JSON lines; name another.") from error
    records = []
    for number, line in enumerate(content[:whole].splitlines(), start=1):
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if not isinstance(record, dict):
            raise CheckpointError(
                f"Line {number} of {path} is no JSON object. Expected a file that energycomp wrote; "
                "remove the line or name another folder."
            )
        records.append(record)
    return records


def append_line(path: str | Path, record: dict[str, Any]) -> None:
    """Adds one object as a line, in one write.

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
