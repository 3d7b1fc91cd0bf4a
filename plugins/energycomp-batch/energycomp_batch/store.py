"""The files of the answers: those of a folder or a table, of one process or several shards, and `energycomp merge`."""

from __future__ import annotations

import re
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import attrs
import typer

from energycomp.cli import RESULTS, check_folder, result_files, result_key
from energycomp.errors import InputError
from energycomp.files import atomic_file, remove_stale
from energycomp_batch.answers import WRITERS
from energycomp_batch.lines import Lines, claimed
from energycomp_batch.tables import require

FORMATS = (".jsonl", *WRITERS)  # of a file of answers


@attrs.frozen
class Output:
    """Where -o says that answers go.

    Args:
        lines: the file of JSON lines from which an interrupted run continues.
        folder: of the marked images; None where none are written.
        table: Parquet or CSV file that is written when all images are read; None for none.
    """

    lines: Path
    folder: Path | None = None
    table: Path | None = None

    @classmethod
    def of(cls, path: Path) -> Output:
        """A folder, or a file in it with one of the ends of `FORMATS`; the folder may be missing.

        >>> Output.of(Path("found.csv")).lines.name
        'found.jsonl'
        """
        if path.suffix.lower() not in FORMATS or path.is_dir():
            check_folder(path, "-o")
            return cls(path / RESULTS, folder=path)
        check_folder(path.parent, "-o", path=path)
        if path.suffix.lower() == ".jsonl":
            return cls(path)
        require(path)
        return cls(path.with_suffix(".jsonl"), table=path)

    def __str__(self) -> str:
        return str(self.folder or self.table or self.lines)


def merge(
    out: Annotated[
        Path, typer.Argument(metavar="FOLDER_OR_FILE", help="The -o of energycomp batch: a folder, or a file .jsonl.")
    ],
) -> None:
    """Make one results.jsonl of the results of all shards, sorted by image.

    ```sh
    energycomp merge out
    ```

    The files of the shards are removed once it is complete. Of several answers for one image and settings, the last is
    kept.
    """
    if out.suffix != ".jsonl" and not out.is_dir():
        raise InputError(
            f"got {out}; expected a folder or a file .jsonl that energycomp batch wrote; for a Parquet or CSV file, "
            "repeat that command without --shard"
        )
    output = Output.of(out)
    lines, files = merge_results(output)
    typer.echo(f"{output.lines}: {lines} images of {files} files")


def merge_results(output: Output) -> tuple[int, int]:
    """Makes one file of lines, sorted by image, of the files of all shards; returns its lines and the files it took.

    Of several lines for one image and settings the last is kept. The files of the shards are removed once it is whole.

    Raises:
        InputError: there are no results, or a process still writes one of the files.
    """
    files = result_files(output.lines)
    if not any(file.exists() for file in files):
        raise InputError(f"got {output}, without results; expected the -o of energycomp batch")
    with ExitStack() as stack:
        for file in files:
            stack.enter_context(claimed(file))
        if output.folder is not None:
            remove_stale(output.folder)
        lines, count = Lines(files, result_key, order=lambda record: _order(str(record.get("image")))), 0
        with atomic_file(output.lines) as temporary, temporary.open("wb") as merged:
            for line in lines.in_order():
                merged.write(line)
                count += 1
        for file in files[1:]:
            file.unlink()
    return count, len(files)


def _order(image: str) -> str:
    """Sorts files by the parts of their paths, and the rows of a table by their number.

    >>> sorted(["a.tar#10", "a.tar#9", "a/b", "a-b"], key=_order)
    ['a/b', 'a-b', 'a.tar#9', 'a.tar#10']
    """
    found = re.fullmatch(r"(.*)#0*(\d*)([^#/]*)", image)
    path, number, rest = found.groups() if found else (image, "", "")
    row = f"\0\0{len(number):03d}{number}{rest}" if found else ""
    return path.replace("/", "\0") + row
