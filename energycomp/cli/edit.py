"""`energycomp edit`: a picture in, and the same picture with objects moved, removed or added, out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from energycomp.cli.options import (
    AsJson,
    Device,
    ModelName,
    Seed,
    load_searchable,
    make_folder,
    numbers,
    parse_count,
)
from energycomp.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from energycomp.editing import Edit
    from energycomp.inference import Solution
    from energycomp.models import Model

__all__ = ["edit"]


def edit(
    model: ModelName,
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="The picture to change.")],
    move: Annotated[
        list[str] | None, typer.Option("--move", help="An object's number and its new place, 2:0.4,0.6.")
    ] = None,
    remove: Annotated[list[int] | None, typer.Option("--remove", help="The number of an object that goes.")] = None,
    add: Annotated[list[str] | None, typer.Option("--add", help="The place of an object that comes, 0.2,0.5.")] = None,
    out: Annotated[Path, typer.Option("-o", "--out", help="The PNG to write.")] = Path("edited.png"),
    strip: Annotated[
        Path | None, typer.Option(help="A PNG that shows both pictures with their objects marked.")
    ] = None,
    strength: Annotated[
        float, typer.Option(help="How freely a moved object is painted anew, above 0, at most 1.")
    ] = 0.2,
    solver: Annotated[str | None, typer.Option(help="A registered solver; the model's own.")] = None,
    count: Annotated[str | None, typer.Option(help="Number of objects in the picture, 4, or its range, 3-8.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps of the scheduler; the model's own number.")] = None,
    seed: Seed = 0,
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """Read a picture, change what is in it, and repaint only what the change touches.

    Objects have the numbers that `energycomp infer` shows, with the same --seed, --count and --solver.

    energycomp infer clevr scene.png -o read

    energycomp edit clevr scene.png --move 2:0.4,0.6 --remove 1 --add 0.2,0.5 -o out.png

    Repeat an option for several objects. A moved object keeps its look, an added one has any.
    """
    import torch

    from energycomp.editing import edit as run
    from energycomp.images import open_image
    from energycomp.plugins import find

    outputs = {"-o": out} if strip is None else {"-o": out, "--strip": strip}
    for option, path in outputs.items():
        if path.suffix.lower() != ".png" or path.is_dir():
            raise InputError(f"got {option} {path}; expected the name of a PNG file, such as edited.png")
    moves, places = _moves(move or []), [numbers(text, "--add") for text in add or []]
    if not (moves or remove or places):
        raise InputError("got nothing to change; expected --move, --remove or --add, such as --remove 1")
    known, picture = parse_count(count), open_image(image)
    chosen = None if solver is None else find("solvers", solver)()
    loaded = load_searchable(model, device)
    for option, path in outputs.items():
        make_folder(path.parent, option)
    generator = torch.Generator().manual_seed(seed)
    solution = _read(picture, loaded, image, solver=chosen, count=known, generator=generator)
    edited = run(
        picture,
        loaded,
        move={_index(number, solution, loaded): place for number, place in moves.items()},
        remove=[_index(number, solution, loaded) for number in remove or []],
        add=places,
        solution=solution,
        strength=strength,
        num_inference_steps=steps,
        generator=generator,
    )
    _save(edited.image, out)
    if strip is not None:
        _save(_strip(picture, edited, loaded), strip)
    report = _report(edited, loaded, out)
    typer.echo(json.dumps(report) if as_json else _text(report, strip))


def _moves(texts: list[str]) -> dict[int, tuple[float, ...]]:
    moves = {}
    for text in texts:
        number, colon, place = text.partition(":")
        if not colon or not number.strip().isdecimal():
            raise InputError(f"got --move {text!r}; expected an object's number and its new place, such as 2:0.4,0.6")
        if int(number) in moves:
            raise InputError(f"got --move {int(number)} twice; expected one place for each object")
        moves[int(number)] = numbers(place, "--move")
    return moves


def _read(picture: Image, model: Model, path: Path, **options: Any) -> Solution:
    import warnings

    from energycomp.inference import ForeignPictureWarning, infer

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ForeignPictureWarning)  # shown with the picture's name instead
        solution = infer(picture, model, **options)
    if solution.foreign:
        typer.echo(f"energycomp: warning: {path} is foreign to the model, do not trust the answer", err=True)
    return solution


def _index(number: int, solution: Solution, model: Model) -> int:
    """The row of an object's number, which counts from 1."""
    if not 1 <= number <= solution.count:
        found = [f"{k}: {_shown(value, model)}" for k, value in enumerate(solution.conditions, start=1)]
        raise InputError(
            f"got object {number} of a picture in which {solution.count} were found; expected one of "
            f"{'; '.join(found) or 'none'}; say --count where one is missing"
        )
    return number - 1


def _shown(value: Tensor, model: Model) -> str:
    described = model.conditioner.describe(value)
    return ", ".join(f"{v:.3g}" for v in described.values()) if isinstance(described, dict) else str(described)


def _save(picture: Image, path: Path) -> None:
    from energycomp.files import atomic_file

    with atomic_file(path) as temporary:
        picture.save(temporary, format="PNG")


def _strip(before: Image, edited: Edit, model: Model) -> Image:
    """Both pictures side by side, with rings where values are places."""
    from energycomp.viz import grid, overlay

    tiles = []
    for picture, values in ((before, edited.solution.conditions), (edited.image, edited.values)):
        described = [model.conditioner.describe(value) for value in values]
        placed = all(isinstance(entry, dict) and {"x", "y"} <= entry.keys() for entry in described)
        places = [(entry["x"], entry["y"]) for entry in described] if placed else []
        tiles.append(overlay(model.processor.frame(picture), places))
    return grid(tiles, columns=2)


def _report(edited: Edit, model: Model, out: Path) -> dict[str, Any]:
    def described(values: Tensor) -> list[Any]:
        return [model.conditioner.describe(value) for value in values]

    return {
        "path": str(out),
        "before": described(edited.solution.conditions),
        "after": described(edited.values),
        "repainted": float(edited.mask.mean()),
        "foreign": edited.solution.foreign,
        "rows": edited.solution.rows + edited.rows,
    }


def _text(report: dict[str, Any], strip: Path | None) -> str:
    before, after = len(report["before"]), len(report["after"])
    counts = f"{before} object{'' if before == 1 else 's'} before, {after} after"
    changed = f"{counts}; {report['repainted']:.0%} of the picture repainted"
    return "\n".join([changed, report["path"], *([str(strip)] if strip else [])])
