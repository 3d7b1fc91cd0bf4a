"""`energycomp edit`: an image in, the same image with components moved, removed or added out."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from energycomp.errors import InputError
from energycomp_cli import (
    Count,
    ModelName,
    NoMetadata,
    Png,
    Run,
    SolverName,
    Steps,
    check_png,
    formula_of,
    loading,
    parse_count,
    read_image,
    read_text,
    sha256_of,
)

if TYPE_CHECKING:
    from torch import Tensor

    from energycomp.inference import Solution
    from energycomp.models import Model


def edit(
    run: Run,
    model: ModelName,
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="Image file to change.")],
    move: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NUMBER:COMPONENT",
            help="Object to move, as its number and its new value, for example 2:0.4,0.6. Repeatable.",
        ),
    ] = None,
    change: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NUMBER:NAME=WORD,...",
            help="Object to change, as its number and its new attributes: 2:color=red,shape=sphere or 2:turn=45. "
            "Repeatable.",
        ),
    ] = None,
    remove: Annotated[
        list[int] | None,
        typer.Option(metavar="NUMBER", help="Object to remove, as its number, for example 1. Repeatable."),
    ] = None,
    add: Annotated[
        list[str] | None,
        typer.Option(metavar="COMPONENT", help="Object to add, for example 0.2,0.5. Repeatable."),
    ] = None,
    out: Png = Path("edited.png"),
    strip: Annotated[
        Path | None, typer.Option(help="PNG file to write that shows both images with their objects marked.")
    ] = None,
    solver: SolverName = None,
    count: Count = None,
    tries: Annotated[
        int, typer.Option(min=1, help="Most samples of the change; the one that is read best is kept.")
    ] = 3,
    steps: Steps = None,
    no_metadata: NoMetadata = False,
) -> None:
    """Find the components of an image, change some, and repaint only the affected region.

    ```sh
    energycomp infer clevr scene.png -o read
    energycomp edit clevr scene.png --move 2:0.4,0.6 --remove 1 --add 0.2,0.5 -o out.png
    energycomp edit clevr scene.png --set 2:color=red,shape=sphere -o out.png
    ```

    Objects are numbered as `energycomp infer` prints them for the same --seed, --count and --solver. A moved object
    keeps its pixels. New attributes are drawn over the object where its outline can stay; an object that is added, or
    that gets another outline, is sampled anew. The result is read again, and sampled again where it is not as asked.
    What is written has 8 bits a channel and no transparency.
    """
    check_png(out)
    if strip is not None:
        check_png(strip, "--strip")
    moves = _read_numbered(move, "--move", "its new value, such as 2:0.4,0.6")
    changes = {k: _words(text) for k, text in _read_numbered(change, "--set", "its words, such as 2:color=red").items()}
    if not (moves or changes or remove or add):
        raise InputError("got nothing to change; expected --move, --set, --remove or --add, such as --remove 1")
    picture = read_image(image, written=True)
    with loading(model):
        import torch

        from energycomp.images import save_image
        from energycomp.inference import OutOfDistributionWarning, infer, view_of
        from energycomp.plugins import find
        from energycomp_edit import edit as edited_by

        known = parse_count(count)
        chosen = None if solver is None else find("solvers", solver)()
        loaded = run.load(model, searchable=True, reads={"--move": [*moves.values()], "--add": add or []})
    _check_words(changes, loaded)
    most = max(known) if known is not None else loaded.defaults.counts[1]
    for number in (*moves, *changes, *(remove or [])):
        if number > most:
            raise InputError(
                f"got object {number} of an image in which at most {most} are looked for; expected a number that "
                "energycomp infer prints; give --count where there are more"
            )
    moved = {number: read_text(loaded, text, "--move") for number, text in moves.items()}
    added = [read_text(loaded, text, "--add") for text in add or []]
    generator = torch.Generator().manual_seed(run.seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OutOfDistributionWarning)  # printed with the file's name instead
        solution = infer(picture, loaded, solver=chosen, count=known, generator=generator)
    for warning in solution.warnings:
        typer.echo(f"energycomp: warning: {image}: {warning}", err=True)
    edited = edited_by(
        picture,
        loaded,
        move={_index(number, solution, loaded): value for number, value in moved.items()},
        set={_index(number, solution, loaded): words for number, words in changes.items()},
        remove=[_index(number, solution, loaded) for number in remove or []],
        add=added,
        solution=solution,
        solver=chosen,
        tries=tries,
        num_inference_steps=steps,
        generator=generator,
    )
    asked = list(view_of(loaded, edited.values).components)
    formula = None if no_metadata else formula_of(run, model, loaded, [], image=sha256_of(image), objects=asked)
    save_image(edited.image, out, formula=formula)
    if strip is not None:
        save_image(edited.picture(), strip, cells=2, formula=formula)
    for warning in edited.new_solution.warnings:
        typer.echo(f"energycomp: warning: {out}: {warning}", err=True)
    report = {
        "path": str(out),
        "before": list(edited.before.components),
        "after": list(edited.after.components),
        "asked": asked,
        "faults": list(edited.faults),
        "sure": edited.new_solution.sure,
        "tries": edited.tries,
        "repainted": float(edited.mask.mean()),
        "out_of_distribution": solution.out_of_distribution,
        "rows": solution.rows + edited.rows,
    }
    run.show(report, [str(edited), str(out), *([str(strip)] if strip is not None else [])])


def _read_numbered(texts: list[str] | None, option: str, example: str) -> dict[int, str]:
    """Reads what is said of each object, "2:..." by the object's number."""
    found: dict[int, str] = {}
    for text in texts or []:
        number, colon, said = text.partition(":")
        if not (colon and number.strip().isdecimal() and said.strip()):
            raise InputError(f"got {option} {text!r}; expected an object's number and {example}")
        if int(number) in found:
            raise InputError(f"got {option} {int(number)} twice; expected one for each object, with commas in between")
        found[int(number)] = said
    return found


def _words(text: str) -> dict[str, str]:
    """Reads the new words by attribute: "color=red,shape=sphere"."""
    pairs = [part.partition("=") for part in text.split(",")]
    if not all(name.strip() and word.strip() for name, _, word in pairs):
        raise InputError(f"got --set {text!r}; expected NAME=WORD and commas, such as color=red,shape=sphere")
    return {name.strip(): word.strip() for name, _, word in pairs}


def _check_words(changes: Mapping[int, Mapping[str, str]], model: Model) -> None:
    """Refuses words before the image is read, which takes seconds."""
    from energycomp.components import ability, mixed_of

    mixed = mixed_of(model.conditioner)
    known: dict[str, Sequence[str]] = {} if mixed is None else dict(mixed.attributes)
    numbers = ability(model.conditioner, "unread") or ()  # such as a turn
    for number, words in changes.items():
        for name, word in words.items():
            if word in known.get(name, ()) or (name in numbers and word.removeprefix("-").isdecimal()):
                continue
            if name in numbers:
                expected = "a whole number, such as 30"
            elif name in known:
                expected = f"one of {', '.join(known[name])}"
            else:
                names = ", ".join((*known, *numbers))
                expected = f"one of {names}" if names else f"none, since {model.name} has no attributes"
            near = get_close_matches(
                name if name not in (*known, *numbers) else word, [*known, *known.get(name, ())], 1
            )
            meant = f"; did you mean {near[0]}?" if near else ""
            raise InputError(f"got --set {number}:{name}={word}; expected {expected}{meant}")


def _index(number: int, solution: Solution, model: Model) -> int:
    """Finds the row of an object's number, which counts from 1."""
    if not 1 <= number <= solution.count:
        found = [f"{k}: {_describe(value, model)}" for k, value in enumerate(solution.conditions, start=1)]
        raise InputError(
            f"got object {number} of an image in which {solution.count} were found; expected one of "
            f"{'; '.join(found) or 'none'}; give --count where one is missing"
        )
    return number - 1


def _describe(value: Tensor, model: Model) -> str:
    described = model.conditioner.describe(value)
    if not isinstance(described, dict):
        return str(described)
    return ", ".join(v if isinstance(v, str) else f"{v:.3g}" for v in described.values())
