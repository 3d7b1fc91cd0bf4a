"""What the commands that read images say: each answer, what was refused, and the exit code."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import typer

from energycomp.errors import InputError
from energycomp.progress import over_bar
from energycomp_cli.names import redrawn_file
from energycomp_cli.output import print_table

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from energycomp_cli.writers import Output

    Show = Callable[[str, dict[str, Any]], None]

UNKNOWN_IMAGES = 3  # exit code of a command that refused images of kinds that the model does not know, and no others


def printer(output: Output, *, redraw: bool, as_json: bool) -> Show:
    """Makes what prints the record of an image, or why it could not be read: a table or JSON, and its files.

    Where a writer prints, it prints warnings and what could not be read alone. Raises `InputError` for options that do
    not fit.
    """
    if redraw and output.folder is None:
        raise InputError("got --redraw without a folder; expected one for the images, such as -o out")
    if output.printed and as_json:
        raise InputError(f"got --format {output.writer} and --json; expected one of them, since both print the answers")

    def show(image: str, record: dict[str, Any]) -> None:
        with over_bar():
            if "failed" in record:
                typer.echo(f"energycomp: {record['failed']}", err=True)
            for warning in record.get("warnings", ()):  # a line of an earlier version has none
                typer.echo(f"energycomp: warning: {image}: {warning}", err=True)
            if as_json:
                typer.echo(json.dumps(record))
            elif "failed" not in record and not output.printed:
                _print(image, record, output.folder, redraw=redraw)

    return show


def _print(image: str, record: dict[str, Any], folder: Path | None, *, redraw: bool) -> None:
    from energycomp.inference import answer_cells, answer_line

    typer.echo(image)
    if record["objects"]:
        print_table(*answer_cells(record))
    typer.echo(answer_line(record))
    if folder is not None and record["picture"]:
        typer.echo(str(folder / record["picture"]))
    if folder is not None and redraw:
        typer.echo(str(redrawn_file(folder, record)))


def kind_of(record: Mapping[str, Any]) -> str:
    """How an image is counted: "read", "failed" or "unknown"."""
    if "failed" not in record:
        return "read"
    return "unknown" if record.get("out_of_distribution") else "failed"


def report_refused(counts: Mapping[str, int], total: int, model: str) -> None:
    """Says how many images of `total` are counted as "failed", and as "unknown" to the model."""
    if counts.get("failed"):
        typer.echo(f"energycomp: {counts['failed']} of {total} images could not be read", err=True)
    if counts.get("unknown"):
        typer.echo(
            f"energycomp: {counts['unknown']} of {total} images are of a kind that {model} does not know", err=True
        )


def exit_code(counts: Mapping[str, int]) -> int:
    """The exit code of a command that refused so many images."""
    return 1 if counts.get("failed") else UNKNOWN_IMAGES if counts.get("unknown") else 0
