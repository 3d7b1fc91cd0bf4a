"""`energycomp infer`: images in; their components, their number and the confidence out."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import attrs
import typer

from energycomp.cli.inputs import Inputs
from energycomp.cli.options import (
    Concepts,
    Count,
    Device,
    Dtype,
    ModelName,
    Options,
    Seed,
    SolverName,
    Source,
    Template,
    loading,
    model_options,
    parse_count,
    takes_words,
)
from energycomp.cli.output import print_table
from energycomp.cli.reading import Images, Reading, Task, redrawn_file
from energycomp.cli.results import Output, Results
from energycomp.cli.shards import Shard, ShardOption, local_device, shard_of
from energycomp.errors import InputError
from energycomp.progress import over_bar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from energycomp.batch import Pool
    from energycomp.cli.inputs import Picture


def infer(
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
            help="Folder for results.jsonl and one marked image per image, or a file .parquet, .csv or .jsonl.",
        ),
    ] = None,
    solver: SolverName = None,
    count: Count = None,
    concepts: Concepts = None,
    template: Template = None,
    seed: Seed = 0,
    device: Device = "cpu",
    option: Options = None,
    source: Source = None,
    dtype: Dtype = None,
    redraw: Annotated[
        bool, typer.Option("--redraw", help="With -o: also write each image beside samples of its components.")
    ] = False,
    records: Annotated[
        str | None,
        typer.Option(
            "--format", metavar="DATASET", help="Print one scene record per image in the layout of this dataset."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON per image.")] = False,
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
    """Find the components of images: how many, which, and with what confidence.

    energycomp infer clevr scene.png -o out

    energycomp infer clevr images/ --count 3-8 -o out --redraw

    energycomp infer clevr scene.png --format clevr

    energycomp infer text photo.jpg --option model=FOLDER --concepts cat,dog,rabbit --count 2

    energycomp infer clevr @files.txt --shard 1/4 --quiet -o out

    energycomp infer clevr shards/ -o results.parquet --quiet

    The gain of a component is the increase of the denoising error without it. The p-value compares the answer with the
    next best one: it is the probability of a difference at least as large if both were equally good. The typicality is
    the share of held-out images whose errors are at least as unusual. With -o, an interrupted run continues: images in
    results.jsonl are not read again.

    Several images are read by one process per core. Each --shard appends to a file of its own, such as
    results-1-of-4.jsonl; energycomp merge makes one of them. A Parquet or CSV file is written when all images are read.
    Until then the answers are in a file of JSON lines beside it.
    """
    output = None if out is None else Output.of(out)
    if redraw and (output is None or output.folder is None):
        raise InputError("got --redraw without a folder; expected one for the images, such as -o out")
    if records is not None and as_json:
        raise InputError("got --format and --json; expected one of them, since both print a line of JSON per image")
    formatted = None if records is None else _record_format(records)
    part = shard_of(shard)
    inputs = _inputs(images, output, column)
    expected = inputs.expected()
    device = local_device(device)
    processes = _processes(workers, expected and part.size(expected), device)
    options = model_options(option, model=source, dtype=dtype)
    known = parse_count(count)
    folder = None if output is None else output.folder
    reading = Reading(model, device, options, concepts, template, solver, known, seed, folder, redraw)
    with _pool(reading, processes) as pool:
        reader = reading.reader()
        with loading(model):
            loaded = reader.load()
        settings = {
            "model": model,
            "solver": solver or loaded.defaults.solver,
            "counts": list(known or loaded.defaults.counts),
            "seed": seed,
            **({"options": options} if options else {}),
            **({"conditioner": loaded.conditioner.config()} if takes_words(loaded) else {}),
        }
        table = output.table if output is not None and part.total == 1 else None
        with Results(loaded, output, settings, part) as results, _table(table) as write:
            read = Images(inputs, part, reading, results, _Printer(folder, as_json, formatted, redraw, quiet, write))
            read.read(reader, pool)
    if output is None and not as_json and records is None and not quiet:
        typer.echo("Add -o out for marked images and a file of results.", err=True)
    if read.failed:
        typer.echo(f"energycomp: {read.failed} of {read.shown} images could not be read", err=True)
    if part.total > 1:
        _say_what_follows(read, part, output)
    if read.failed and not part.launched:  # a launcher ends the other processes
        raise typer.Exit(1)


def _say_what_follows(read: Images, part: Shard, output: Output | None) -> None:
    """Says on stderr which images a shard has read, and what makes one result of all shards."""
    after = ""
    if output is not None:
        after = ". Once all shards have ended, " + (
            f"`energycomp merge {output}` makes one file of theirs"
            if output.table is None
            else f"the same command without --shard writes {output}"
        )
    typer.echo(f"energycomp: read {read.shown} of {read.total} images, shard {part}{after}", err=True)


def _processes(workers: int | None, images: int | None, device: str) -> int:
    """The number of processes that read images; a network on a GPU, and a single image, have this process alone."""
    from energycomp.batch import default_processes

    images = sys.maxsize if images is None else images
    if workers is not None:
        return max(1, min(workers, images))
    return default_processes(images) if device == "cpu" else 1


@contextmanager
def _pool(reading: Reading, processes: int) -> Iterator[Pool[Task, dict[str, Any]] | None]:
    """The processes that read images; None is this process."""
    if processes == 1:
        yield None
        return
    from energycomp.batch import Pool

    with Pool(reading, processes, report=lambda line: typer.echo(f"energycomp: {line}", err=True)) as pool:
        yield pool


def _inputs(paths: list[Path], output: Output | None, column: str | None) -> Inputs:
    """The images of all paths; none of them may be where the marked images or the answers are written."""
    if output is None:
        return Inputs.of(paths, column=column)
    found = Inputs.of(paths, without=output.folder or output.table, column=column)
    place = Path(str(output)).resolve()
    if place in found.files or any(file.parent == place for file in found.files):
        raise InputError(f"got -o {output}, which holds images that are to be read; expected another folder or file")
    return found


@contextmanager
def _table(path: Path | None) -> Iterator[Callable[[Mapping[str, Any]], object]]:
    """What writes an answer to a table; None writes nothing."""
    if path is None:
        yield lambda _: None
        return
    from energycomp.batch.answers import answers_file

    with answers_file(path) as write:
        yield write


def _record_format(name: str) -> Callable[[list[dict[str, Any]], str], Any]:
    """What writes the objects of an image in the layout of a dataset."""
    from energycomp.inference import HasSceneRecords
    from energycomp.plugins import find

    source = find("datasets", name)()
    if not isinstance(source, HasSceneRecords):
        raise InputError(f"got --format {name}, a dataset without scene records; expected one with them, such as clevr")
    return source.scene_record


@attrs.frozen
class _Printer:
    """Prints the record of an image, its warnings and its files; `write` puts it into a table."""

    folder: Path | None
    as_json: bool
    formatted: Callable[[list[dict[str, Any]], str], Any] | None
    redraw: bool
    quiet: bool
    write: Callable[[Mapping[str, Any]], object]

    def __call__(self, picture: Picture, record: dict[str, Any]) -> None:
        self.write({**record, "image": picture.key})
        if self.quiet and "failed" not in record:
            return
        with over_bar():
            if "failed" in record:
                typer.echo(f"energycomp: {record['failed']}", err=True)
                if self.as_json:
                    typer.echo(json.dumps(record))
            else:
                self._answer(picture, record)

    def _answer(self, picture: Picture, record: dict[str, Any]) -> None:
        for warning in record.get("warnings", ()):  # a line of an earlier version has none
            typer.echo(f"energycomp: warning: {picture}: {warning}", err=True)
        if self.formatted is not None:
            typer.echo(json.dumps(self.formatted(record["objects"], picture.name)))
        elif self.as_json:
            typer.echo(json.dumps(record))
        else:
            _print_record(picture, record)
            if self.folder is not None and record["picture"]:
                typer.echo(str(self.folder / record["picture"]))
            if self.folder is not None and self.redraw:
                typer.echo(str(redrawn_file(self.folder, picture, record)))


def _print_record(picture: Picture, record: dict[str, Any]) -> None:
    from energycomp.inference import answer_cells, answer_line

    typer.echo(str(picture))
    if record["objects"]:
        print_table(*answer_cells(record["objects"]))
    typer.echo(answer_line(record))
