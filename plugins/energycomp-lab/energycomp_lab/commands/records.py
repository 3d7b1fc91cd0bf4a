"""The records of an evaluation in a folder, by one process or several shards, that a later run continues."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from energycomp.errors import InputError
from energycomp_batch import Shard
from energycomp_cli import append_line, claim, records_of, result_files

EVALUATION = "evaluation.jsonl"  # the records, by image


class Records:
    """The records of an evaluation in a folder, by index: those of all files are known, one is written.

    The first line of a file holds the settings, and each further line the record of one image.

    Raises:
        InputError: the folder holds an evaluation with other settings, or another process writes the same file.
    """

    def __init__(self, folder: Path, settings: dict[str, Any], shard: Shard | None = None) -> None:
        self.file = folder / (shard or Shard()).file(EVALUATION)
        self.known: dict[int, dict[str, Any]] = {}
        self._settings = json.loads(json.dumps(settings))
        self._claim = ExitStack()

    def __enter__(self) -> Self:
        """Reads what is known; until the end of the block no other process may write the same file."""
        folder = self.file.parent
        with ExitStack() as claims:
            claims.enter_context(claim(self.file))
            for file in result_files(folder / EVALUATION):
                self._read(file)
            self._claim = claims.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._claim.close()

    def _read(self, file: Path) -> None:
        lines = [record for _, record in records_of(file)]
        if file == self.file and len(lines) == 1 and lines[0].get("settings") != self._settings:
            file.write_bytes(b"")  # a run that was refused before its first image
            lines = []
        if lines and (earlier := lines[0].get("settings")) != self._settings:
            known = earlier if isinstance(earlier, dict) else {}
            differ = [name for name in {**known, **self._settings} if known.get(name) != self._settings.get(name)]
            raise InputError(
                f"got -o {file.parent}, which holds an evaluation with other settings ({', '.join(differ)}); expected "
                "the same ones; repeat that command, or name another folder"
            )
        if file == self.file and not lines:
            append_line(file, {"settings": self._settings})
        self.known |= {record["index"]: record for record in lines[1:]}

    def append(self, record: dict[str, Any]) -> None:
        append_line(self.file, record)
