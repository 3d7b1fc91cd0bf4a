"""The files of the answers of several shards, and `energycomp merge`, which makes one of them."""

from __future__ import annotations

import re
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from energycomp.cli import RESULTS, result_files, result_key
from energycomp.errors import InputError
from energycomp.files import atomic_file, remove_stale
from energycomp_batch.line_index import Lines, claimed


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
    results = out / RESULTS if out.is_dir() else out
    lines, files = merge_results(results)
    typer.echo(f"{results}: {lines} images of {files} files")


def merge_results(results: Path) -> tuple[int, int]:
    """Makes one file of lines, sorted by image, of the files of all shards; returns its lines and the files it took.

    Of several lines for one image and settings the last is kept. The files of the shards are removed once it is whole.

    Raises:
        InputError: there are no results, or a process still writes one of the files.
    """
    files = result_files(results)
    if not any(file.exists() for file in files):
        where = results.parent if results.name == RESULTS else results
        raise InputError(f"got {where}, without results; expected the -o of energycomp batch")
    with ExitStack() as stack:
        for file in files:
            stack.enter_context(claimed(file))
        if results.name == RESULTS:
            remove_stale(results.parent)
        lines = Lines(files, result_key, order=lambda record: _order(str(record.get("image"))))
        count = 0
        with atomic_file(results) as temporary, temporary.open("wb") as stream:
            for line in lines.in_order():
                stream.write(line)
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
