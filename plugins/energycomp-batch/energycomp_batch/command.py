"""`energycomp batch`: many images in, by several processes and machines; an answer for each out."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Annotated, Any

import attrs
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
from energycomp_batch.engines import Address, Concurrency, Engine, cluster_of
from energycomp_batch.inputs import Inputs
from energycomp_batch.parts import Parts, parts_folder
from energycomp_batch.places import place_of
from energycomp_batch.pool import Pool, default_processes
from energycomp_batch.results import Results
from energycomp_batch.shards import Shard, ShardOption, local_device, shard_of
from energycomp_batch.work import Images, ReadTask, ReadWorker

if TYPE_CHECKING:
    from collections.abc import Iterator

    from energycomp_batch.batch_image import BatchImage
    from energycomp_batch.cluster import Cluster


def batch(
    run: Run,
    model: ModelName,
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE_OR_FOLDER",
            help="Image files, Parquet files and WebDataset archives (.tar), folders of these, and @LIST: a file with "
            "a path per line. Each may be a URL, such as s3://bucket/images.",
        ),
    ],
    out: Annotated[
        str | None,
        typer.Option(
            "-o",
            "--out",
            help="Folder for results.jsonl and one marked image per image, or a file of answers, such as found.csv. A "
            "URL, or with --engine ray: folder of Parquet parts.",
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
    engine: Engine = "local",
    address: Address = None,
    concurrency: Concurrency = None,
    part: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Number of images per Parquet file of --engine ray. If it is stopped, each actor loses one at most.",
            show_default="200, less in a short run",
        ),
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
    energycomp batch clevr s3://bucket/shards -o s3://bucket/found --engine ray --address auto
    ```

    The answers are those of energycomp infer. Several images are read by one process per core. With -o, an interrupted
    run continues: images in results.jsonl are not read again. Each --shard appends to a file of its own, such as
    results-1-of-4.jsonl; the same command without --shard makes one of them. A file of another format, such as Parquet
    or COCO, is written when all images are read. Until then the answers are in a file of JSON lines beside it.

    With --engine ray, several machines read. Answers are Parquet files of some images each, and images that could not
    be read are in the folder _failed among them. --json prints a line per such file. The same command continues.
    """
    local = {"workers": workers, "shard": shard, "redraw": redraw, "format": records}
    ray = cluster_of(engine, address, concurrency, part=part, device=run.device, quiet=quiet, **local)
    parts = parts_folder(out, records, on_ray=ray is not None)
    output = Output() if parts is not None else Output.of(None if out is None else place_of(out), records)
    printed = printer(output, redraw=redraw, as_json=run.as_json)
    own = shard_of(shard) if ray is None else Shard()
    inputs = _inputs(images, output, parts, column)
    device = local_device(run.device) if ray is None else run.device
    options, known = parse_options(run.option), parse_count(count)
    reader = ImageReader(model, device, options, solver, known, run.seed, output.folder, redraw)
    if ray is not None:
        _read_on_ray(inputs, reader, parts, ray, as_json=run.as_json, quiet=quiet)
        return
    of_a_shard = output.table is not None and own.total > 1  # the table is made of all shards
    with (
        nullcontext() if of_a_shard else output.open() as write,
        _pool(reader, _processes(workers, inputs, own, device)) as pool,
    ):
        with loading(model):
            loaded = reader.load()
        results: Any = nullcontext()
        if parts is not None:
            results = Parts(parts, reader.settings(loaded), alone=own.total == 1)
        elif output.lines is not None:
            results = Results(output.lines, reader.settings(loaded), own)
        with results as kept:

            def show(picture: BatchImage, record: dict[str, Any]) -> None:
                if write is not None:
                    write({**record, "image": picture.key, "file_name": picture.name})
                if record and (not quiet or "failed" in record):  # of what is in parts, nothing is read again
                    printed(str(picture), record)

            read = Images(inputs, own, reader, kept, show)
            read.read(loaded, pool)
    if read.failed:
        typer.echo(f"energycomp: {read.failed} of {read.shown} images could not be read", err=True)
    if own.total > 1:
        after = (
            ""
            if output.lines is None
            else f". Once all shards have ended, the same command without --shard completes {output}"
        )
        typer.echo(f"energycomp: read {read.shown} of {read.total} images, shard {own}{after}", err=True)
    if read.failed and not own.launched:  # a launcher ends the other processes
        raise typer.Exit(1)


def _read_on_ray(inputs: Inputs, reader: ImageReader, folder: Any, ray: Cluster, *, as_json: bool, quiet: bool) -> None:
    """Reads the images on a cluster, and prints a line for each part."""
    with loading(reader.source):
        here = attrs.evolve(reader, device="cpu")  # this machine need not have the cluster's GPUs
        parts = Parts(folder, here.settings(here.load()))
    total = failed = 0
    for event in ray.read(inputs, ReadWorker(reader), parts):
        total += event["images"]
        failed += len(event["failed"])
        for record in event["failed"]:
            typer.echo(f"energycomp: {record['failed']}", err=True)
        if as_json:
            typer.echo(json.dumps(event))
        elif not quiet:
            typer.echo(f"{folder}/{event['part']}: {event['images']} images")
    typer.echo(f"energycomp: read {total} images, of which {failed} could not be read", err=True)
    if failed:
        raise typer.Exit(1)


def _processes(workers: int | None, inputs: Inputs, part: Shard, device: str) -> int:
    """The number of processes that read images; a network on a GPU, and a single image, have this process alone."""
    expected = inputs.expected()
    images = sys.maxsize if expected is None else len(part.of(expected))
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


def _inputs(paths: list[str], output: Output, parts: Any, column: str | None) -> Inputs:
    """The images of all paths; none of them may be where the marked images or the answers are written."""
    written = parts or output.folder or output.table
    found = Inputs.of(paths, without=written, column=column)
    place = written or output.lines
    if place is not None and any(place.resolve() in (file, file.parent) for file in found.files):
        raise InputError(f"got -o {place}, which holds images that are to be read; expected another folder or file")
    return found
