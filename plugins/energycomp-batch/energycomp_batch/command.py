"""`energycomp batch`: many images in, by several processes and machines; an answer for each out."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Annotated, Any, Literal

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
    engine: Annotated[
        Literal["local", "ray"], typer.Option(help="Processes of this machine, or actors of a Ray cluster.")
    ] = "local",
    address: Annotated[
        str | None,
        typer.Option(help="Of a Ray cluster, or auto for the one that runs here.", show_default="Ray is started"),
    ] = None,
    concurrency: Annotated[
        int | None,
        typer.Option(min=1, help="Number of Ray's actors.", show_default="one per core, or GPU, of the cluster"),
    ] = None,
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
    on_ray = engine == "ray"
    other = {"workers": workers, "shard": shard, "redraw": redraw or None, "format": records}
    _check_engine(
        other if on_ray else {"address": address, "concurrency": concurrency, "part": part}, out, on_ray=on_ray
    )
    parts, output = _places(out, records, on_ray=on_ray)
    printed = printer(output, redraw=redraw, as_json=run.as_json)
    own = Shard() if on_ray else shard_of(shard)
    inputs = _inputs(images, output, parts, column)
    options = parse_options(run.option)
    known = parse_count(count)
    if on_ray:
        from energycomp_batch.cluster import Cluster

        reader = ImageReader(model, run.device, options, solver, known, run.seed, None, redraw)
        ray = Cluster(address, concurrency, part, gpu=run.device != "cpu", bars=sys.stderr.isatty() and not quiet)
        with loading(model):
            here = attrs.evolve(reader, device="cpu")  # this machine need not have the cluster's GPUs
            settings = here.settings(here.load())
        _read_on_ray(inputs, reader, Parts(parts, settings), ray, as_json=run.as_json, quiet=quiet)
        return
    expected = inputs.expected()
    device = local_device(run.device)
    processes = _processes(workers, expected and own.size(expected), device)
    reader = ImageReader(model, device, options, solver, known, run.seed, output.folder, redraw)
    of_a_shard = output.table is not None and own.total > 1  # the table is made of all shards
    with nullcontext() if of_a_shard else output.open() as write, _pool(reader, processes) as pool:
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
        _say_what_follows(read, own, output)
    if read.failed and not own.launched:  # a launcher ends the other processes
        raise typer.Exit(1)


def _check_engine(other: dict[str, Any], out: str | None, *, on_ray: bool) -> None:
    """Raises `InputError` for options of the other engine, and for Ray without a folder."""
    for name, value in other.items():
        if value is not None:
            raise InputError(f"got --{name} {'with' if on_ray else 'without'} --engine ray; leave it out")
    if on_ray and out is None:
        raise InputError("got --engine ray without -o; expected a folder or a URL for Parquet parts, such as -o found")


def _places(out: str | None, records: str | None, *, on_ray: bool) -> tuple[Any, Output]:
    """The folder of Parquet parts, or None, and where answers go otherwise."""
    parts = parts_folder(out, on_ray=on_ray)
    if parts is None:
        return None, Output.of(None if out is None else place_of(out), records)
    if records is not None:
        raise InputError(f"got --format {records} and -o {parts}, a folder of Parquet parts; leave --format out")
    return parts, Output()


def _read_on_ray(
    inputs: Inputs, reader: ImageReader, parts: Parts, ray: Cluster, *, as_json: bool, quiet: bool
) -> None:
    """Reads the images on a cluster, and prints a line for each part."""
    total = failed = 0
    for event in ray.read(inputs, ReadWorker(reader), parts):
        total += event["images"]
        failed += len(event["failed"])
        for record in event["failed"]:
            typer.echo(f"energycomp: {record['failed']}", err=True)
        if as_json:
            typer.echo(json.dumps(event))
        elif not quiet:
            typer.echo(f"{parts.folder}/{event['part']}: {event['images']} images")
    typer.echo(f"energycomp: read {total} images, of which {failed} could not be read", err=True)
    if failed:
        raise typer.Exit(1)


def _say_what_follows(read: Images, part: Shard, output: Output) -> None:
    """Says on stderr which images a shard has read, and what makes one result of all shards."""
    after = ""
    if output.lines is not None:
        after = f". Once all shards have ended, the same command without --shard completes {output}"
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


def _inputs(paths: list[str], output: Output, parts: Any, column: str | None) -> Inputs:
    """The images of all paths; none of them may be where the marked images or the answers are written."""
    written = parts or output.folder or output.table or output.lines
    if written is None:
        return Inputs.of(paths, column=column)
    found = Inputs.of(paths, without=parts or output.folder or output.table, column=column)
    place = written.resolve()
    if place in found.files or any(file.parent == place for file in found.files):
        raise InputError(f"got -o {place}, which holds images that are to be read; expected another folder or file")
    return found
