"""`energycomp infer`: images in; their components, their number and the confidence out."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from energycomp.errors import InputError
from energycomp.progress import counting
from energycomp_cli.items import check_any_image, count_skipped, image_files, items_of
from energycomp_cli.options import (
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
from energycomp_cli.output import TABLES
from energycomp_cli.reader import ImageReader, failure
from energycomp_cli.report import exit_code, kind_of, printer, report_refused
from energycomp_cli.writers import Output

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from energycomp.models import Model
    from energycomp_cli.answers import Answers
    from energycomp_cli.items import Item

Redraw = Annotated[
    bool, typer.Option("--redraw", help="With -o: also write each image beside samples of its components.")
]
Anyway = Annotated[
    bool,
    typer.Option(
        "--anyway", help="Also read images of a kind that the model does not know, whose answers mean little."
    ),
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
    anyway: Anyway = False,
) -> None:
    """Find the components of images: how many, which, and with what confidence.

    ```sh
    energycomp infer clevr scene.png -o out
    energycomp infer clevr images/ --count 3-8 -o out --redraw
    energycomp infer clevr scene.png --format clevr
    energycomp infer clevr images/ --format coco -o found.json
    energycomp infer clevr clip.mp4 -o out
    energycomp infer FOLDER rows.csv --json
    energycomp infer text photo.jpg --option model=FOLDER --option concepts=cat,dog,rabbit --count 2
    ```

    The gain of a component is the increase of the denoising error without it. Sure is the probability that the whole
    answer is right. Other models say a p-value, the probability of as large a lead over the next best answer if both
    were equally good, and the typicality, the share of held-out images whose errors are at least as unusual. With -o,
    an interrupted run continues: images in results.jsonl are not read again. Ctrl-C keeps the first answer of the image
    that is being read, if there is one; it has "interrupted": true, and the image is read again. --json prints one line
    per image. A file of another format, such as COCO, is written when all images are read; until then the answers are
    in a file of JSON lines beside it.

    An image of a kind that the model does not know, such as a photo, is refused with the reason; a command that refuses
    nothing else ends with the exit code 3. --anyway reads it.

    Every frame of a GIF or MP4 file is an image, such as clip.mp4#0; MP4 needs energycomp[mp4]. Of other files with
    several frames the first is read, and transparent pixels are drawn on white; a warning says so.

    A model of numbers reads the rows of .csv, .npy and .parquet files.

    A model with an encoder, such as decomp, reads parts in one pass: use decompose. --solver sgd searches for their
    latents, which takes minutes.

    The command batch of energycomp-batch reads many images: by several processes and machines, and from tables.
    """
    output = Output.of(out, records)
    show = printer(output, redraw=redraw, as_json=run.as_json)
    files = image_files(images, without=out)
    skipped = count_skipped(images, files)
    check_any_image(files.values())
    _check_options(files, out, redraw=redraw)
    options = parse_options(run.option)
    known = parse_count(count)
    reader = ImageReader(model, run.device, options, solver, known, run.seed, output.folder, redraw, last, anyway)
    counts = Counter[str]()
    with output.open() as write, ExitStack() as stack:
        with loading(model):
            loaded = reader.load()
        answers = stack.enter_context(reader.answers(loaded, output.lines))
        total, items = items_of(files.values(), loaded)
        for item, record in _read(items, total, reader, loaded, answers):
            counts[kind_of(record)] += 1
            if write is not None:
                write({**record, "image": item.key, "file_name": item.name})
            show(str(item), record)
    if out is None and not run.as_json and records is None:
        typer.echo("Add -o out for marked images and a file of results.", err=True)
    if skipped:
        typer.echo(f"energycomp: {skipped} files of other formats were left out", err=True)
    report_refused(counts, counts.total(), model)
    if code := exit_code(counts):
        raise typer.Exit(code)


def _check_options(files: Mapping[Path, Path], out: Path | None, *, redraw: bool) -> None:
    """Refuses options that do not fit the files, before the model is loaded."""
    if out is not None and (out.resolve() in files or any(path.parent == out.resolve() for path in files)):
        raise InputError(f"got -o {out}, which holds images that are to be read; expected another folder or file")
    if redraw and any(path.suffix.lower() in TABLES for path in files):
        raise InputError("got --redraw with a table; expected images, which are drawn; leave it out")


def _read(
    items: Iterable[Item], total: int, reader: ImageReader, model: Model, answers: Answers
) -> Iterator[tuple[Item, dict[str, Any]]]:
    """Yields each item with its record, or with why it was refused; raises the error of one that is alone."""
    with counting("reading", total, unit="image", show=total > 1, leave=total > 1) as bar:
        for item in items:
            try:
                record = reader.read(model, item, answers)
            except InputError as error:
                record = failure(str(item), error)
                if total == 1:
                    raise type(error)(record["failed"]) from error
            yield item, record
            bar.advance()
