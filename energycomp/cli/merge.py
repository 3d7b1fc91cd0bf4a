"""`energycomp merge`: one file of results of those that several shards wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["merge"]


def merge(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The folder -o of energycomp infer.")],
) -> None:
    """Make one results.jsonl of the results of all shards, sorted by image.

    energycomp merge out

    The files of the shards are removed once it is complete. Of several answers for one image and settings, the last is
    kept.
    """
    from energycomp.cli.files import RESULTS
    from energycomp.cli.results import merge_results

    lines, files = merge_results(folder)
    typer.echo(f"{folder / RESULTS}: {lines} images of {files} files")
