"""`energycomp infer`: images in; their components, their number and the confidence out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import attrs
import typer

from energycomp.errors import InputError
from energycomp.progress import counting
from energycomp_cli.files import check_any_image, count_skipped, image_files
from energycomp_cli.image_reader import ImageReader, failure, printer
from energycomp_cli.items import Item, frames
from energycomp_cli.kept import Kept, kept_in
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
from energycomp_cli.output import TABLES, read_numbers
from energycomp_cli.writers import Output

if TYPE_CHECKING:
    from torch import Tensor

    from energycomp.models import Model

UNKNOWN_IMAGES = 3  # exit code of a command that refused images of kinds that the model does not know, and no others
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
    _check_files(files, out, redraw=redraw)
    options = parse_options(run.option)
    known = parse_count(count)
    reader = ImageReader(model, run.device, options, solver, known, run.seed, output.folder, redraw, last, anyway)
    with output.open() as write, ExitStack() as stack:
        with loading(model):
            loaded = reader.load()
        kept = None
        if output.lines is not None:
            kept = stack.enter_context(kept_in(output.lines, reader.settings(loaded)))
        sources = [_Source.of(path, loaded) for path in files.values()]
        counts = Counter[str]()
        for item, record in _answers(sources, loaded, reader, kept):
            counts[_kind_of(record)] += 1
            if write is not None:
                write({**record, "image": item.key, "file_name": item.name})
            show(str(item), record)
    if out is None and not run.as_json and records is None:
        typer.echo("Add -o out for marked images and a file of results.", err=True)
    if skipped := count_skipped(images, files):
        typer.echo(f"energycomp: {skipped} files of other formats were left out", err=True)
    report_refused(counts, counts.total(), model)
    if code := exit_code(counts):
        raise typer.Exit(code)


def _check_files(files: Mapping[Path, Path], out: Path | None, *, redraw: bool) -> None:
    """Refuses files that cannot be read, or not with these options, before the model is loaded."""
    check_any_image(list(files.values()))
    if out is not None and (out.resolve() in files or any(path.parent == out.resolve() for path in files)):
        raise InputError(f"got -o {out}, which holds images that are to be read; expected another folder or file")
    if redraw and any(path.suffix.lower() in TABLES for path in files):
        raise InputError("got --redraw with a table; expected images, which are drawn; leave it out")


def report_refused(counts: Mapping[str, int], total: int, model: str) -> None:
    """Says how many images of `total` are counted as "failed", and as "unknown" to the model."""
    if counts.get("failed"):
        typer.echo(f"energycomp: {counts['failed']} of {total} images could not be read", err=True)
    if counts.get("unknown"):
        typer.echo(
            f"energycomp: {counts['unknown']} of {total} images are of a kind that {model} does not know", err=True
        )


def exit_code(counts: Mapping[str, int]) -> int:
    """The exit code of a command that refused so many images.

    >>> exit_code({"failed": 1, "unknown": 1}), exit_code({"unknown": 1}), exit_code({})
    (1, 3, 0)
    """
    return 1 if counts.get("failed") else UNKNOWN_IMAGES if counts.get("unknown") else 0


@attrs.frozen(eq=False)
class _Source:
    """A file, and how many items it has. Iterating reads the frames of a movie one after another.

    Args:
        path: of the file.
        count: of its items.
        rows: of a table.
        is_movie: whether its items are frames.
        problem: why there is nothing to read.
    """

    path: Path
    count: int = 1
    rows: Tensor | None = None
    is_movie: bool = False
    problem: str | None = None

    @classmethod
    def of(cls, path: Path, model: Model) -> _Source:
        """The source of a file for a model of images or of numbers."""
        from energycomp.images import frame_count, is_movie

        if path.suffix.lower() in TABLES:
            rows = read_numbers(path, model)
            return cls(path, len(rows), rows=rows)
        if not is_movie(path):
            return cls(path)
        try:
            return cls(path, frame_count(path), is_movie=True)
        except InputError as error:
            return cls(path, problem=str(error))

    def __iter__(self) -> Iterator[Item]:
        if self.rows is not None:
            for number, row in enumerate(self.rows, start=1):
                yield Item(self.path, str(number), row)
        elif self.is_movie:
            yield from frames(self.path)
        else:
            yield Item(self.path, problem=self.problem)


def _answers(
    sources: Sequence[_Source], model: Model, reader: ImageReader, kept: Kept | None
) -> Iterator[tuple[Item, dict[str, Any]]]:
    """Each item with its record, or with why it was refused; raises the error of one that is alone."""
    total = sum(source.count for source in sources)
    with counting("reading", total, unit="image", show=total > 1, leave=total > 1) as bar:
        for item in chain.from_iterable(sources):
            try:
                record = _read(item, model, reader, kept)
            except InputError as error:
                record = failure(str(item), error)
                if total == 1:
                    raise type(error)(record["failed"]) from error
            yield item, record
            bar.advance()


def _kind_of(record: Mapping[str, Any]) -> str:
    """How an image is counted: "read", "failed" or "unknown"."""
    if "failed" not in record:
        return "read"
    return "unknown" if record.get("out_of_distribution") else "failed"


def _read(item: Item, model: Model, reader: ImageReader, kept: Kept | None) -> dict[str, Any]:
    """The record of an item: that of an earlier run, or a new one, which is kept."""
    if kept is None:
        return reader.read(model, item.open(), {"image": item.key}, item.source.stem, progress=True)
    name = item.file_name(kept.names.of(item.source))
    head = item.head(kept.settings)
    record = kept.known(head)
    if record is None:
        return reader.read(model, item.open(), head, name, kept.file, progress=True)
    reader.check_known_answer(record)
    if reader.lacks(record):
        reader.redrawn(model, item.open(), record)
    return record
