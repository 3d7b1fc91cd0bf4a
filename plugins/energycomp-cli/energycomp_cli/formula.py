"""Formulas of images: what a command writes into its files, and `energycomp show`, which reads it."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_type_hints

import typer

from energycomp.errors import InputError
from energycomp.plugins import names
from energycomp_cli.options import AsJson
from energycomp_cli.output import print_json, print_table
from energycomp_cli.reader import model_fingerprint

if TYPE_CHECKING:
    from energycomp.models import Model
    from energycomp_cli.options import Run

OWN = {"seed", "as_json", "help", "no_metadata"}  # parameters that are no option of a formula
IN_WORDS = {"concepts", "template"}  # arguments of a model that name no file
PLACE = re.compile(r"(?s)(.*(?:^|\s)@\s)(.*)")  # behind a component: a region, which may be a file
NAME = re.compile(r"[a-z][a-z0-9-]{0,40}")
IMAGE = "IMAGE"  # stands for a file that is not named

NoMetadata = Annotated[
    bool,
    typer.Option(
        "--no-metadata",
        help="Do not write into the file what made it: model, components, options, seed and version, which `energycomp "
        "show` prints.",
    ),
]


def formula_of(run: Run, source: str, model: Model, arguments: Sequence[str], **more: Any) -> dict[str, Any] | None:
    """Makes the formula of a command, for `save_image` and `save_frames`; None, and a warning, for too much of it.

    Parameters of the command that are paths are left out. Others are as of `made_by`.
    """
    from energycomp.images import formula_text

    least = made_by(str(run.info_name), source, model, arguments, _given_options(run), run.seed)
    for formula in ({**least, **more}, least):
        try:
            formula_text(formula)
        except InputError as error:
            reason = str(error)
        else:
            return formula
    typer.echo(f"energycomp: warning: no metadata is written: {reason}", err=True)
    return None


def made_by(
    command: str,
    source: str,
    model: Model,
    arguments: Sequence[str],
    options: Mapping[str, Any],
    seed: int,
    **more: Any,
) -> dict[str, Any]:
    """Makes a formula: what a command drew. Folders are written by their names, and a model's with its fingerprint.

    Args:
        source: the model, as it was given.
        arguments: what stands behind the model on the command line.
        options: of the command line, by name without hyphens in front.
        more: what else is said, such as the composition.

    >>> from energycomp.testing import tiny_model
    >>> made_by("sample", "tiny", tiny_model(), ["0.3,0.5 @ masks/a.png"], {"steps": 4}, 0)["arguments"]
    ['0.3,0.5 @ a.png']
    """
    return {
        "command": command,
        **_identify_model(source, model),
        "arguments": [_without_folders(text) for text in arguments],
        "options": dict(options),
        "seed": seed,
        **more,
    }


def _identify_model(source: str, model: Model) -> dict[str, str]:
    """Names a model by its registered name or hub id, or by the name and the fingerprint of its folder."""
    from energycomp.models import is_folder

    if source in names("models") or not is_folder(source):
        return {"model": source}
    return {"model": _last(source), "fingerprint": model_fingerprint(model)[:16]}


def _last(path: str) -> str:
    """Cuts the folders off: "tiny" of "/home/me/tiny/"."""
    return re.split(r"[/\\]", os.path.abspath(path))[-1]  # noqa: PTH100 - a link keeps its own name


def _without_folders(text: str) -> str:
    """Cuts the folders off the mask of a component, if it has one."""
    at_place = PLACE.fullmatch(text)
    return text if at_place is None else at_place[1] + _last(at_place[2])


def _option(pair: str) -> str:
    """Cuts the folders off an argument of a model that may be a path; a hub id is none."""
    from energycomp.models import is_folder, is_hub_id

    name, _, value = pair.partition("=")
    is_path = is_folder(value) or not is_hub_id(value.partition("@")[0])
    if name in IN_WORDS or not is_path or re.search(r"[/\\]", value) is None:
        return pair
    return f"{name}={_last(value)}"


def _formula_options(command: Any, context: Any) -> dict[str, Any]:
    """Lists the options that a formula may have, by name: those of a command that draws images that are no files."""
    if all(one.name != "no_metadata" for one in command.params):
        return {}
    hints = get_type_hints(command.callback)
    files = {name for name, kind in hints.items() if Path in (kind, *get_args(kind))}
    options = [one for one in command.get_params(context) if one.opts[0].startswith("-")]
    return {max(one.opts, key=len).lstrip("-"): one for one in options if one.name not in OWN | files}


def _given_options(run: Run) -> dict[str, Any]:
    given: dict[str, Any] = {}
    for name, one in _formula_options(run.command, run).items():
        if not str(run.get_parameter_source(one.name)).endswith("COMMANDLINE"):
            continue
        value = run.params[one.name] if one.name in run.params else getattr(run, one.name)
        if isinstance(value, list | tuple):
            value = [_option(text) if name == "option" else _without_folders(str(text)) for text in value]
        given[name] = value
    return given


def show(
    context: typer.Context,
    image: Annotated[Path, typer.Argument(metavar="FILE", help="PNG or GIF file.")],
    as_json: AsJson = False,
) -> None:
    """Show what made an image, and the command that draws it again.

    ```sh
    energycomp show scene.png
    energycomp show film.gif --json
    ```

    `sample`, `edit`, `scene` and `film` write it into PNG and GIF files, unless they are told --no-metadata. It is
    text, which whoever had the file may have changed: nothing is loaded or run, so read the command before you do. A
    folder stands in it by its name alone, and IMAGE stands for the image that was edited.
    """
    from energycomp.images import read_formula

    formula = read_formula(image)
    parent = context.parent
    line = None if parent is None else shell_line(formula, parent, again=f"again{image.suffix.lower()}")
    if as_json:
        print_json({"formula": formula, "shell": line})
        return
    print_table([], [(printable(name), printable(_cell(value))) for name, value in formula.items()])
    if line is not None:
        typer.echo(line)


def _cell(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_cell(one)}" for name, one in value.items())
    if isinstance(value, list):
        return "; ".join(map(_cell, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def printable(text: str) -> str:
    r"""Escapes characters that a terminal obeys, or that change the order of others."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in text)


def shell_line(formula: Mapping[str, Any], parent: Any, *, again: str) -> str | None:
    """Writes the command that draws an image again; None where no command that is installed here fits the formula.

    Args:
        parent: the context of the command line, which knows the commands.
        again: name of the file that the command writes.
    """
    name: Any = formula.get("command")
    model: Any = formula.get("model")
    seed: Any = formula.get("seed")
    arguments: Any = formula.get("arguments", [])
    options: Any = formula.get("options", {})
    fits = isinstance(name, str) and NAME.fullmatch(name) and isinstance(model, str) and type(seed) is int
    if not fits or not isinstance(arguments, list) or not isinstance(options, dict):
        return None
    command = parent.command.get_command(parent, name)
    known = {} if command is None or command.callback is None else _formula_options(command, parent)
    # An option of another version, or one that no formula has: a file that would be written
    if not known or not options.keys() <= known.keys():
        return None
    own_folder = "./" if "fingerprint" in formula else ""  # which a registered model may have the name of
    behind = [f"{own_folder}{model}", *([IMAGE] if "image" in formula else []), *arguments]
    words: list[Any] = []
    for option, value in options.items():
        for one in value if isinstance(value, list) else [value]:
            words += [max(known[option].opts, key=len), *([] if one is True else [one])]
    words += ["--seed", seed, "-o", again]
    if not all(isinstance(one, str | int | float) and str(one).isprintable() for one in (*words, *behind)):
        return None
    dashed = any(str(one).startswith("-") for one in behind)  # which would be read as an option
    ordered = [*words, "--", *behind] if dashed else [*behind, *words]
    return shlex.join(["energycomp", name, *map(str, ordered)])
