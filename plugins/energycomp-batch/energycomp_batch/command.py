"""`energycomp batch`: many images in, by several processes and machines; an answer for each out."""

from __future__ import annotations

import json
import sys
from collections import Counter
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import attrs
import typer

from energycomp.errors import InputError
from energycomp_batch.cluster import Address, Concurrency, Engine, cluster_of
from energycomp_batch.inputs import Inputs, part_size
from energycomp_batch.parts import FAILED, Parts, parts_folder, split_unread
from energycomp_batch.places import place_of
from energycomp_batch.pool import Pool, default_processes
from energycomp_batch.shards import Shard, ShardOption, local_device, shard_of
from energycomp_batch.work import Images, make_reader, read
from energycomp_cli import (
    Anyway,
    Count,
    Format,
    ImageReader,
    ModelName,
    Output,
    Redraw,
    Run,
    SolverName,
    exit_code,
    kind_of,
    loading,
    parse_count,
    parse_options,
    printer,
    report_refused,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from energycomp.models import Model
    from energycomp_batch.cluster import Cluster
    from energycomp_batch.work import ReadAll
    from energycomp_cli import Item
    from energycomp_cli.report import Show


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
        typer.Option(min=1, help="Number of processes of one thread each.", show_default="one per core and free GiB"),
    ] = None,
    shard: ShardOption = None,
    column: Annotated[
        str | None,
        typer.Option(
            help="Column of the images in Parquet files and archives.", show_default="image, or the only one of images"
        ),
    ] = None,
    engine: Engine = "local",
    address: Address = None,
    concurrency: Concurrency = None,
    part: Annotated[
        int | None,
        typer.Option(min=1, help="Images per Parquet file of --engine ray.", show_default="200, less in a short run"),
    ] = None,
    anyway: Anyway = False,
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
    ray = cluster_of(engine, address, concurrency, part, gpu=run.device != "cpu", **local)
    parts = parts_folder(out, records, on_ray=ray is not None)
    output = Output() if parts is not None else Output.of(None if out is None else place_of(out), records)
    printed = printer(output, redraw=redraw, as_json=run.as_json)
    own = shard_of(shard) if ray is None else Shard()
    inputs = _inputs(images, output, parts, column)
    device = local_device(run.device) if ray is None else run.device
    options = parse_options(run.option)
    reader = ImageReader(
        model, device, options, solver, parse_count(count), run.seed, output.folder, redraw, anyway=anyway
    )
    if parts is not None:
        counts = _to_parts(_read_parts(inputs, reader, parts, own, workers, ray, quiet), parts, run.as_json, quiet)
    else:
        counts = _to_lines(inputs, reader, output, own, workers, printed, quiet)
        report_refused(counts, counts["shown"], model)
    if (code := exit_code(counts)) and not own.launched:  # a launcher ends the other processes
        raise typer.Exit(code)


def _to_lines(
    inputs: Inputs, reader: ImageReader, output: Output, own: Shard, workers: int | None, printed: Show, quiet: bool
) -> Counter[str]:
    """Reads and prints the images, keeps their answers in a file of JSON lines, and counts those that failed."""
    own_file = output.lines and output.lines.with_name(own.file(output.lines.name))
    of_a_shard = output.table is not None and own.total > 1  # the table is made of all shards
    with (
        nullcontext() if of_a_shard else output.open() as write,
        _start_processes(reader, inputs, own, workers) as (_, loaded, run),
        reader.answers(loaded, output.lines, own_file) as answers,
    ):

        def show(item: Item, record: dict[str, Any]) -> None:
            if write is not None:
                write({**record, "image": item.key, "file_name": item.name})
            if not quiet or "failed" in record:
                printed(str(item), record)

        counts = Images(inputs, own, reader, answers, show).read(run)
    if own.total > 1:
        said = f"energycomp: read {counts['shown']} of {counts['total']} images, shard {own}"
        if output.lines is not None:
            said += f". Once all shards have ended, the same command without --shard completes {output}"
        typer.echo(said, err=True)
    return counts


def _read_parts(
    inputs: Inputs, reader: ImageReader, folder: Any, own: Shard, workers: int | None, ray: Cluster | None, quiet: bool
) -> Iterator[dict[str, Any]]:
    """Reads the images into Parquet parts, on a cluster or here; yields what was done, a part at a time."""
    if ray is not None:
        with loading(reader.source):
            here = attrs.evolve(reader, device="cpu")  # this machine need not have the cluster's GPUs
            parts = Parts(folder, here.settings(here.load()))
        yield from ray.read(inputs, partial(make_reader, reader), parts, bars=sys.stderr.isatty() and not quiet)
        return
    with _start_processes(reader, inputs, own, workers) as (processes, loaded, run):
        parts = Parts(folder, reader.settings(loaded), alone=own.total == 1)
        size = max(part_size(inputs, 1), 4 * (processes - 1))  # or processes would wait for each other
        for items in split_unread(islice(inputs, own.index - 1, None, own.total), parts.known_keys(), size):
            yield parts.answered(items, run)


def _to_parts(events: Iterator[dict[str, Any]], folder: Any, as_json: bool, quiet: bool) -> Counter[str]:
    """Prints a line for each part, and counts the images that failed."""
    counts = Counter[str]()
    for event in events:
        counts["shown"] += event["images"]
        counts.update(map(kind_of, event["failed"]))
        for record in event["failed"]:
            typer.echo(f"energycomp: {record['failed']}", err=True)
        if as_json:
            typer.echo(json.dumps(event))
        elif not quiet:
            within = f"{folder}/{FAILED}" if len(event["failed"]) == event["images"] else folder
            typer.echo(f"{within}/{event['part']}: {event['images']} images")
    refused = f", and {counts['unknown']} are of a kind that the model does not know" if counts["unknown"] else ""
    read = f"read {counts['shown']} images, of which {counts['failed']} could not be read"
    typer.echo(f"energycomp: {read}{refused}", err=True)
    return counts


@contextmanager
def _start_processes(
    reader: ImageReader, inputs: Inputs, own: Shard, workers: int | None
) -> Iterator[tuple[int, Model, ReadAll]]:
    """Yields the number of processes (1 for a GPU or a single image), the model, and what answers tasks."""
    expected = inputs.expected()
    images = sys.maxsize if expected is None else len(own.of(expected))
    wanted = workers or (default_processes(images) if reader.device == "cpu" else 1)
    processes = max(1, min(wanted, images))
    with ExitStack() as stack:
        if processes > 1:
            make = partial(make_reader, reader)
            pool = Pool(make, processes, lambda line: typer.echo(f"energycomp: {line}", err=True))
            stack.enter_context(pool)
        with loading(reader.source):
            model = reader.load()
        here = partial(read, reader, model)
        yield processes, model, pool.run if processes > 1 else lambda tasks: ((task, here(task)) for task in tasks)


def _inputs(paths: list[str], output: Output, parts: Any, column: str | None) -> Inputs:
    """Lists the images of all paths; none of them may be where the marked images or the answers are written."""
    written = parts or output.folder or output.table
    found = Inputs.of(paths, without=written, column=column)
    place = written or output.lines
    resolved = place and place.resolve()
    if any(resolved in (file, file.parent) for file in found.files):
        raise InputError(f"got -o {place}, which holds images that are to be read; expected another folder or file")
    return found
