"""`energycomp merge`: one file of results of those that several shards wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def merge(
    out: Annotated[
        Path, typer.Argument(metavar="FOLDER_OR_FILE", help="The -o of energycomp infer: a folder, or a file .jsonl.")
    ],
) -> None:
    """Make one results.jsonl of the results of all shards, sorted by image.

    energycomp merge out

    The files of the shards are removed once it is complete. Of several answers for one image and settings, the last is
    kept.
    """
    from energycomp.cli.results import Output, merge_results
    from energycomp.errors import InputError

    if out.suffix != ".jsonl" and not out.is_dir():
        raise InputError(
            f"got {out}; expected a folder or a file .jsonl that energycomp infer wrote; for a Parquet or CSV file, "
            "repeat that command without --shard"
        )
    output = Output.of(out)
    lines, files = merge_results(output)
    typer.echo(f"{output.lines}: {lines} images of {files} files")
