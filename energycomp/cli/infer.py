"""`energycomp infer`: pictures in; what is in them, how many and how sure, out."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from energycomp.cli.options import (
    Concepts,
    Device,
    Dtype,
    ModelName,
    Seed,
    Source,
    Template,
    from_source,
    load_searchable,
    make_folder,
    over,
    parse_count,
    takes_words,
)
from energycomp.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from energycomp.cli.results import Results
    from energycomp.inference import Solution
    from energycomp.models import Model

__all__ = ["infer"]

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm"})


def infer(
    model: ModelName,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE_OR_FOLDER...", help="Pictures, and folders of them.")],
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Folder for a marked picture of each, and results.jsonl.")
    ] = None,
    solver: Annotated[str | None, typer.Option(help="A registered solver; the model's own.")] = None,
    count: Annotated[str | None, typer.Option(help="Number of components, 4, or its range, 3-8.")] = None,
    source: Source = None,
    dtype: Dtype = None,
    concepts: Concepts = None,
    template: Template = None,
    seed: Seed = 0,
    device: Device = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="Print a line of JSON for each picture.")] = False,
) -> None:
    """Find what is in pictures: how many components, which, and how sure.

    energycomp infer clevr scene.png -o out

    energycomp infer clevr pictures/ --count 3-8 -o out

    energycomp infer text photo.jpg --model FOLDER --concepts cat,dog,rabbit --count 2

    With -o a run that was stopped goes on where it was: what out/results.jsonl holds is not read again.

    A component's gain is how much the error rises without it. The p-value is that of the next best answer being as
    good.
    """
    from energycomp.cli.results import Results

    pictures = _pictures(images, out)
    known = parse_count(count)
    loaded = over(load_searchable(model, device, **from_source(source, dtype)), concepts, template)
    read = _reader(loaded, solver, known, seed)
    settings = {
        "model": model,
        "solver": solver or loaded.defaults.solver,
        "counts": list(known or loaded.defaults.counts),
        "seed": seed,
        **{key: value for key, value in (("source", source), ("dtype", dtype)) if value is not None},
        **({"conditioner": loaded.conditioner.config()} if takes_words(loaded) else {}),
    }
    results = Results(loaded, None if out is None else make_folder(out, "-o"), settings)
    failed = _read_all(pictures, loaded, read, results, as_json)
    if out is None and not as_json:
        typer.echo("Add -o out for marked pictures and a file of results.", err=True)
    if failed:
        typer.echo(f"energycomp: {failed} of {len(pictures)} pictures could not be read", err=True)
        raise typer.Exit(1)


def _pictures(paths: list[Path], out: Path | None) -> list[Path]:
    """The picture files of all paths, each once; none of them may be where the marked ones go."""
    found: dict[Path, Path] = {}
    for path in paths:
        try:
            is_folder, is_file = path.is_dir(), path.is_file()
        except OSError:  # too long a name
            is_folder = is_file = False
        if is_folder:
            files = sorted(f for f in path.iterdir() if f.suffix.lower() in SUFFIXES and not f.name.startswith("."))
            if not files:
                raise InputError(f"got {path} without a picture in it; expected PNG or JPEG files; name another folder")
        elif is_file:
            files = [path]
        else:
            raise InputError(f"got {path}, which does not exist; expected a picture or a folder of them")
        found.update((file.resolve(), file) for file in files)
    if out is not None and any(file.parent == out.resolve() for file in found):
        raise InputError(f"got -o {out}, which holds pictures that are to be read; expected another folder")
    return list(found.values())


def _read_all(
    pictures: list[Path], model: Model, read: Callable[[Any], Solution], results: Results, as_json: bool
) -> int:
    """Reads and shows every picture; returns how many could not be opened. A single one that cannot raises."""
    from tqdm import tqdm

    from energycomp.images import open_image

    failed = 0
    for path in tqdm(pictures, disable=len(pictures) == 1, desc="reading", unit="image"):
        try:
            image, known = open_image(path), results.known(path)
        except InputError as error:
            if len(pictures) == 1:
                raise
            failed += 1
            with tqdm.external_write_mode(file=sys.stdout):
                typer.echo(f"energycomp: {error}", err=True)
                if as_json:
                    typer.echo(json.dumps({"image": str(path), "failed": str(error)}))
            continue
        record = known or results.add(path, image, describe(model, read(image)))
        with tqdm.external_write_mode(file=sys.stdout):
            if record["foreign"]:
                typer.echo(f"energycomp: warning: {path} is foreign to the model, do not trust the answer", err=True)
            if as_json:
                typer.echo(json.dumps(record))
            else:
                _print_table(path, record)
                if results.folder is not None and record["picture"]:
                    typer.echo(str(results.folder / record["picture"]))
    return failed


def _reader(model: Model, solver: str | None, count: Any, seed: int) -> Callable[[Any], Solution]:
    """`energycomp.infer` with what was asked for; every picture gets the same draws, whatever came before it."""
    import warnings

    import torch

    from energycomp.inference import ForeignPictureWarning
    from energycomp.inference import infer as run
    from energycomp.plugins import find

    chosen = None if solver is None else find("solvers", solver)()

    def read(image: Any) -> Solution:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ForeignPictureWarning)  # shown with the picture's name instead
            return run(image, model, solver=chosen, count=count, generator=torch.Generator().manual_seed(seed))

    return read


def describe(model: Model, solution: Solution) -> dict[str, Any]:
    """A solution as JSON holds it: components as the conditioner describes them, with gain and probability."""

    def described(value: Any) -> dict[str, Any]:
        shown = model.conditioner.describe(value)
        return dict(shown) if isinstance(shown, dict) else {"value": shown}

    def numbers(name: str, given: Any) -> list[dict[str, float | None]]:
        return [{}] * solution.count if given is None else [{name: _finite(number)} for number in given.tolist()]

    gains = numbers("gain", solution.component_gain)
    probabilities = numbers("probability", solution.probability)
    rival = solution.runner_up
    return {
        "count": solution.count,
        "objects": [
            {**described(value), **gain, **probability}
            for value, gain, probability in zip(solution.conditions, gains, probabilities, strict=True)
        ],
        "fit": _finite(solution.fit),
        "error": _finite(solution.error),
        "stderr": _finite(solution.stderr),
        "runner_up": None if rival is None else [described(value) for value in rival],
        "p_value": _finite(solution.p_value),
        "foreign": solution.foreign,
        "rows": solution.rows,
    }


def _finite(value: float | None) -> float | None:
    """JSON has no infinity, the standard error of one draw."""
    return value if value is not None and math.isfinite(value) else None


def _print_table(path: Path, record: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    objects = record["objects"]
    typer.echo(str(path))
    noun = "attribute" if objects and "attribute" in objects[0] else "object"
    numbered = noun == "object"  # an attribute has a name
    table = Table(*(["object"] if numbered else []), *(objects[0] if objects else []))
    for number, entry in enumerate(objects, start=1):
        cells = [Text(_cell(value)) for value in entry.values()]
        table.add_row(*([str(number)] if numbered else []), *cells)
    if objects:
        Console().print(table)
    parts = [f"{record['count']} {noun}{'' if record['count'] == 1 else 's'}"]
    parts += [f"fit {record['fit']:.3f}"] if record["fit"] is not None else []
    if record["p_value"] is not None:
        parts.append(f"next best answer of {len(record['runner_up'])}: p = {record['p_value']:.2g}")
    typer.echo(", ".join(parts))


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)
