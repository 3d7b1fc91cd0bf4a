"""`energycomp batch`: many images in, by several processes and machines; an answer for each out."""

from __future__ import annotations

import sys
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from energycomp.cli import (
    Count,
    Format,
    ImageReader,
    ModelName,
    Output,
    Redraw,
    Run,
    SolverName,
    loading,
    parse_count,
    parse_options,
    printer,
)
from energycomp.errors import InputError
from energycomp_batch.inputs import Inputs
from energycomp_batch.pool import Pool, default_processes
from energycomp_batch.results import Results
from energycomp_batch.shards import Shard, ShardOption, local_device, shard_of
from energycomp_batch.work import Images, ReadTask, ReadWorker

if TYPE_CHECKING:
    from collections.abc import Iterator

    from energycomp_batch.batch_image import BatchImage


def batch(
    run: Run,
    model: ModelName,
    images: Annotated[
        list[Path],
        typer.Argument(
            metavar="IMAGE_OR_FOLDER",
            help="Image files, Parquet files and WebDataset archives (.tar), folders of these, and @LIST: a file with "
            "a path per line.",
        ),
    ],
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
    records: Format = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Number of processes that read images, with one thread each.",
            show_default="one per core and GiB of free memory",
        ),
    ] = None,
    shard: ShardOption = None,
    column: Annotated[
        str | None,
        typer.Option(help="Column of the images in Parquet files and archives.", show_default="that of images"),
    ] = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", help="Print nothing per image, except for unreadable ones.")
    ] = False,
) -> None:
    """Find the components of many images, by several processes and machines.

    ```sh
    energycomp batch clevr images/ -o out --workers 4
    energycomp batch clevr @files.txt --shard 1/4 --quiet -o out
    energycomp batch clevr shards/ -o results.parquet --quiet
    ```

    The answers are those of energycomp infer. Several images are read by one process per core. With -o, an interrupted
    run continues: images in results.jsonl are not read again. Each --shard appends to a file of its own, such as
    results-1-of-4.jsonl; energycomp merge makes one of them. A file of another format, such as Parquet or COCO, is
    written when all images are read. Until then the answers are in a file of JSON lines beside it.
    """
    output = Output.of(out, records)
    printed = printer(output, redraw=redraw, as_json=run.as_json)
    part = shard_of(shard)
    inputs = _inputs(images, output, column)
    expected = inputs.expected()
    device = local_device(run.device)
    processes = _processes(workers, expected and part.size(expected), device)
    options = parse_options(run.option)
    known = parse_count(count)
    reader = ImageReader(model, device, options, solver, known, run.seed, output.folder, redraw)
    of_a_shard = output.table is not None and part.total > 1  # the table is made of all shards
    with nullcontext() if of_a_shard else output.open() as write, _pool(reader, processes) as pool:
        with loading(model):
            loaded = reader.load()
        results: Any = nullcontext()
        if output.lines is not None:
            results = Results(output.lines, reader.settings(loaded), part)
        with results as kept:

            def show(picture: BatchImage, record: dict[str, Any]) -> None:
                if write is not None:
                    write({**record, "image": picture.key, "file_name": picture.name})
                if not quiet or "failed" in record:
                    printed(str(picture), record)

            read = Images(inputs, part, reader, kept, show)
            read.read(loaded, pool)
    if read.failed:
        typer.echo(f"energycomp: {read.failed} of {read.shown} images could not be read", err=True)
    if part.total > 1:
        _say_what_follows(read, part, output)
    if read.failed and not part.launched:  # a launcher ends the other processes
        raise typer.Exit(1)


def _say_what_follows(read: Images, part: Shard, output: Output) -> None:
    """Says on stderr which images a shard has read, and what makes one result of all shards."""
    after = ""
    if output.lines is not None:
        after = ". Once all shards have ended, " + (
            f"`energycomp merge {output}` makes one file of theirs"
            if output.table is None
            else f"the same command without --shard writes {output}"
        )
    typer.echo(f"energycomp: read {read.shown} of {read.total} images, shard {part}{after}", err=True)


def _processes(workers: int | None, images: int | None, device: str) -> int:
    """The number of processes that read images; a network on a GPU, and a single image, have this process alone."""
    images = sys.maxsize if images is None else images
    if workers is not None:
        return max(1, min(workers, images))
    return default_processes(images) if device == "cpu" else 1


@contextmanager
def _pool(reader: ImageReader, processes: int) -> Iterator[Pool[ReadTask, dict[str, Any]] | None]:
    """The processes that read images; None is this process."""
    if processes == 1:
        yield None
        return
    with Pool(ReadWorker(reader), processes, report=lambda line: typer.echo(f"energycomp: {line}", err=True)) as pool:
        yield pool


def _inputs(paths: list[Path], output: Output, column: str | None) -> Inputs:
    """The images of all paths; none of them may be where the marked images or the answers are written."""
    if output.lines is None:
        return Inputs.of(paths, column=column)
    found = Inputs.of(paths, without=output.folder or output.table, column=column)
    place = Path(str(output)).resolve()
    if place in found.files or any(file.parent == place for file in found.files):
        raise InputError(f"got -o {output}, which holds images that are to be read; expected another folder or file")
    return found
