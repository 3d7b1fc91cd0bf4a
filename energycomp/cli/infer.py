"""`energycomp infer`: images in; their components, their number and the confidence out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from energycomp.cli.files import image_files, make_folder, read_image
from energycomp.cli.lines import append_line, read_lines
from energycomp.cli.options import (
    Count,
    ImageFiles,
    ModelName,
    Run,
    SolverName,
    loading,
    parse_count,
    parse_options,
    registered,
)
from energycomp.cli.output import TABLES, read_numbers
from energycomp.cli.reading import Reading, printer
from energycomp.cli.results import Names, result_key, sha256_of
from energycomp.cli.writers import Output
from energycomp.errors import InputError
from energycomp.progress import progress

if TYPE_CHECKING:
    from torch import Tensor

    from energycomp.models import Model

Redraw = Annotated[
    bool, typer.Option("--redraw", help="With -o: also write each image beside samples of its components.")
]
Format = Annotated[
    str | None,
    typer.Option(
        "--format",
        metavar="NAME",
        help="Format in which the answers are printed, or written to the file of -o: {writers}.",
        autocompletion=registered("writers"),
    ),
]


def infer(
    run: Run,
    model: ModelName,
    images: ImageFiles,
    out: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--out",
            help="Folder for results.jsonl and one marked image per image, or a file of answers, such as found.csv.",
        ),
    ] = None,
    solver: SolverName = None,
    count: Count = None,
    redraw: Redraw = False,
    last: Annotated[
        bool, typer.Option("--last", help="Also read what is left open otherwise, such as how cubes are turned.")
    ] = False,
    records: Format = None,
) -> None:
    """Find the components of images: how many, which, and with what confidence.

    ```sh
    energycomp infer clevr scene.png -o out
    energycomp infer clevr images/ --count 3-8 -o out --redraw
    energycomp infer clevr scene.png --format clevr
    energycomp infer clevr images/ --format coco -o found.json
    energycomp infer FOLDER rows.csv --json
    energycomp infer text photo.jpg --option model=FOLDER --option concepts=cat,dog,rabbit --count 2
    ```

    The gain of a component is the increase of the denoising error without it. The p-value compares the answer with the
    next best one: it is the probability of a difference at least as large if both were equally good. The typicality is
    the share of held-out images whose errors are at least as unusual. With -o, an interrupted run continues: images in
    results.jsonl are not read again. --json prints one line per image. A file of another format, such as COCO, is
    written when all images are read; until then the answers are in a file of JSON lines beside it.

    Of a file with several frames the first is read, and transparent pixels are drawn on white; a warning says so.

    A model of numbers reads the rows of .csv, .npy and .parquet files.

    A model with an encoder, such as decomp, reads parts in one pass: use decompose. --solver sgd searches for their
    latents, which takes minutes.

    The command batch of energycomp-batch reads many images: by several processes and machines, and from tables.
    """
    output = Output.of(out, records)
    show = printer(output, redraw=redraw, as_json=run.as_json)
    files = image_files(images, without=out)
    if out is not None and (out.resolve() in files or any(path.parent == out.resolve() for path in files)):
        raise InputError(f"got -o {out}, which holds images that are to be read; expected another folder or file")
    if redraw and any(path.suffix.lower() in TABLES for path in files):
        raise InputError("got --redraw with a table; expected images, which are drawn; leave it out")
    options, known = parse_options(run.option), parse_count(count)
    reading = Reading(model, run.device, options, solver, known, run.seed, output.folder, redraw, last)
    with output.open() as write:
        with loading(model):
            loaded = reading.load()
        kept = None if output.lines is None else _Kept(output.lines, reading.settings(loaded))
        items = [item for path in files.values() for item in _items(path, loaded)]
        failed = 0
        for path, row, number in progress(items, "reading", unit="image", leave=len(items) > 1):
            try:
                record = _read(path, row, number, loaded, reading, kept)
            except InputError as error:
                if len(items) == 1:
                    raise
                failed += 1
                record = {"image": f"{path}{number}", "failed": str(error)}
            if write is not None:
                write({**record, "image": f"{path.resolve()}{number}", "file_name": f"{path.name}{number}"})
            show(f"{path}{number}", record)
    if out is None and not run.as_json and records is None:
        typer.echo("Add -o out for marked images and a file of results.", err=True)
    if failed:
        typer.echo(f"energycomp: {failed} of {len(items)} images could not be read", err=True)
        raise typer.Exit(1)


class _Kept:
    """The answers in a file of JSON lines: one line per image and settings; the last such line counts."""

    def __init__(self, file: Path, settings: dict[str, Any]) -> None:
        make_folder(file.parent, "-o")
        self.file = file
        self.settings = settings
        self.names = Names(file, settings)
        self.known: dict[str, dict[str, Any]] = {}
        for record in read_lines(file):
            self.names.see(record)
            self.known[result_key(record)] = record


def _items(path: Path, model: Model) -> list[tuple[Path, Tensor | None, str]]:
    """An image file, which is opened when it is read; or the rows of a table, with their numbers, such as "#1"."""
    if path.suffix.lower() not in TABLES:
        return [(path, None, "")]
    return [(path, row, f"#{number}") for number, row in enumerate(read_numbers(path, model), start=1)]


def _read(
    path: Path, row: Tensor | None, number: str, model: Model, reading: Reading, kept: _Kept | None
) -> dict[str, Any]:
    """The record of an image or a row: that of an earlier run, or a new one, which is kept."""
    from energycomp.images import open_image

    head: dict[str, Any] = {"image": f"{path.resolve()}{number}"}
    name = path.stem
    if kept is not None:
        name = kept.names.of(path) + number.replace("#", "/")
        head = {**head, "sha256": sha256_of(path if row is None else bytes(row.numpy())), "settings": kept.settings}
        if (record := kept.known.get(result_key(head))) is not None:
            if reading.lacks(record):
                reading.redrawn(model, open_image(path, single=True), record)
            return record
    record = reading.read(model, read_image(path) if row is None else row, head, name)
    if kept is not None:
        append_line(kept.file, record)
    return record
