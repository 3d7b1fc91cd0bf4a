"""`energycomp infer`: images in; their components, their number and the confidence out."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from energycomp.cli.files import image_files, make_folder, open_single, save_png
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
    load_searchable,
    loading,
    model_options,
    over,
    parse_count,
    takes_words,
)
from energycomp.cli.output import REDRAWN, Results, print_table, solution_record
from energycomp.errors import InputError
from energycomp.ticking import ticking

if TYPE_CHECKING:
    from collections.abc import Callable

    from energycomp.inference import Solution
    from energycomp.models import Model

__all__ = ["infer"]

SAMPLES = 3  # of the components of an image
JUDGED = ("certainty", "gain", "probability")  # of a component, beside its description


def infer(
    model: ModelName,
    images: Annotated[
        list[Path], typer.Argument(metavar="IMAGE_OR_FOLDER", help="Image files, and folders of image files.")
    ],
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Folder for results.jsonl and one marked image per image.")
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
) -> None:
    """Find the components of images: how many, which, and with what confidence.

    energycomp infer clevr scene.png -o out

    energycomp infer clevr images/ --count 3-8 -o out --redraw

    energycomp infer clevr scene.png --format clevr

    energycomp infer text photo.jpg --option model=FOLDER --concepts cat,dog,rabbit --count 2

    The gain of a component is the increase of the denoising error without it. The p-value compares the answer with the
    next best one: it is the probability of a difference at least as large if both were equally good. The typicality is
    the share of held-out images whose errors are at least as unusual. With -o, an interrupted run continues: images in
    results.jsonl are not read again.
    """
    if redraw and out is None:
        raise InputError("got --redraw without -o; expected a folder for the images, such as -o out")
    if records is not None and as_json:
        raise InputError("got --format and --json; expected one of them, since both print a line of JSON per image")
    formatted = None if records is None else _record_format(records)
    pictures = _pictures(images, out)
    with loading(model):
        known = parse_count(count)
        options = model_options(option, model=source, dtype=dtype)
        loaded = over(load_searchable(model, device, **options), concepts, template)
    read = _reader(loaded, solver, known, seed)
    settings = {
        "model": model,
        "solver": solver or loaded.defaults.solver,
        "counts": list(known or loaded.defaults.counts),
        "seed": seed,
        **({"options": options} if options else {}),
        **({"conditioner": loaded.conditioner.config()} if takes_words(loaded) else {}),
    }
    results = Results(loaded, None if out is None else make_folder(out, "-o"), settings)
    show = _printer(results, loaded, as_json=as_json, formatted=formatted, redraw=redraw, seed=seed)
    failed = _read_all(pictures, read, results, show, as_json)
    if out is None and not as_json and records is None:
        typer.echo("Add -o out for marked images and a file of results.", err=True)
    if failed:
        typer.echo(f"energycomp: {failed} of {len(pictures)} images could not be read", err=True)
        raise typer.Exit(1)


def _pictures(paths: list[Path], out: Path | None) -> list[Path]:
    """The image files of all paths, each once; none of them may be in the folder of the marked images."""
    found = image_files(paths, without=out)
    if out is not None and any(file.parent == out.resolve() for file in found):
        raise InputError(f"got -o {out}, which holds images that are to be read; expected another folder")
    return list(found.values())


def _record_format(name: str) -> Callable[[list[dict[str, Any]], str], Any]:
    """What writes the objects of an image in the layout of a dataset."""
    from energycomp.evaluation import HasSceneRecords
    from energycomp.plugins import find

    source = find("datasets", name)()
    if not isinstance(source, HasSceneRecords):
        raise InputError(f"got --format {name}, a dataset without scene records; expected one with them, such as clevr")
    return source.scene_record


def _printer(
    results: Results,
    model: Model,
    *,
    as_json: bool,
    formatted: Callable[[list[dict[str, Any]], str], Any] | None,
    redraw: bool,
    seed: int,
) -> Callable[[Path, Any, dict[str, Any]], None]:
    """What prints the record of an image, and writes it beside samples of its own description."""

    def show(path: Path, image: Any, record: dict[str, Any]) -> None:
        if formatted is not None:
            typer.echo(json.dumps(formatted(record["objects"], path.name)))
        elif as_json:
            typer.echo(json.dumps(record))
        else:
            _print_record(path, record)
        if results.folder is None:
            return
        written = [results.folder / record["picture"]] if record["picture"] else []
        if redraw:
            name = record.get("name") or Path(record["picture"] or path.name).stem  # older lines have no name
            written.append(results.folder / f"{name}{REDRAWN}.png")
            save_png(_redrawn(model, image, record["objects"], seed), written[-1])
        if formatted is None and not as_json:
            for file in written:
                typer.echo(str(file))

    return show


def _redrawn(model: Model, image: Any, objects: list[dict[str, Any]], seed: int) -> Any:
    """An image beside three samples of the components that were found in it."""
    import torch

    from energycomp.components import value_of
    from energycomp.sampling import Composer
    from energycomp.viz import grid

    described = [{name: one[name] for name in one if name not in JUDGED} for one in objects]
    values = [value_of(model.conditioner, one) for one in described]
    guidance = model.defaults.attribute_guidance
    composed = model.compose(torch.cat(values), guidance=guidance) if values else model.unconditional
    samples = Composer(composed).sample(
        SAMPLES,
        generator=torch.Generator().manual_seed(seed),
        scheduler=model.defaults.scheduler,
        num_inference_steps=model.defaults.num_inference_steps,
        progress=False,
    )
    seen = model.processor.frame(image).resize(samples[0].size)
    heads = ["image", *(f"sample {number}" for number in range(1, 1 + SAMPLES))]
    return grid([seen, *samples], columns=1 + SAMPLES, side=192, heads=heads)


def _read_all(
    pictures: list[Path],
    read: Callable[[Any], Solution],
    results: Results,
    show: Callable[[Path, Any, dict[str, Any]], None],
    as_json: bool,
) -> int:
    """Reads and prints every image; returns how many could not be opened. A single one that cannot be opened raises."""
    from tqdm import tqdm

    failed = 0
    for path in ticking(pictures, desc="reading", unit="image", leave=len(pictures) > 1):
        try:
            image, known = open_single(path), results.known(path)
        except InputError as error:
            if len(pictures) == 1:
                raise
            failed += 1
            with tqdm.external_write_mode(file=sys.stdout):
                typer.echo(f"energycomp: {error}", err=True)
                if as_json:
                    typer.echo(json.dumps({"image": str(path), "failed": str(error)}))
            continue
        record = known or results.add(path, image, solution_record(results.model, read(image)))
        with tqdm.external_write_mode(file=sys.stdout):
            for warning in record.get("warnings", ()):  # a line of an earlier version has none
                typer.echo(f"energycomp: warning: {path}: {warning}", err=True)
            show(path, image, record)
    return failed


def _reader(model: Model, solver: str | None, count: Any, seed: int) -> Callable[[Any], Solution]:
    """`energycomp.infer` with the given settings; every image gets the same draws, whatever was read before it."""
    import warnings

    import torch

    from energycomp.inference import OutOfDistributionWarning
    from energycomp.inference import infer as run
    from energycomp.plugins import find

    chosen = None if solver is None else find("solvers", solver)()

    def read(image: Any) -> Solution:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", OutOfDistributionWarning)  # printed with the file's name instead
            generator = torch.Generator().manual_seed(seed)
            return run(image, model, solver=chosen, count=count, generator=generator, progress=False)

    return read


def _print_record(path: Path, record: dict[str, Any]) -> None:
    from energycomp.inference import answer_cells, answer_line

    typer.echo(str(path))
    if record["objects"]:
        print_table(*answer_cells(record["objects"]))
    typer.echo(answer_line(record))
