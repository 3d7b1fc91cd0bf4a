"""What commands share: options, and the conversion of what was typed into objects. Errors repeat the text."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import attrs
import typer

from energycomp.errors import InputError
from energycomp.plugins import find, names
from energycomp.progress import working

if TYPE_CHECKING:
    from torch import Tensor

    from energycomp.components import Conditioner
    from energycomp.models import Model
    from energycomp.plugins import Kind

MODELS_OWN = "the model's"  # shown as the default where a model has one
SHARED = "Options of every command that runs a model"


def registered(kind: Kind) -> Callable[[str], list[str]]:
    """The registered names of a kind, such as "models", for the completion of a shell."""

    def complete(incomplete: str) -> list[str]:
        return [name for name in names(kind) if name.startswith(incomplete)]

    return complete


def import_samplers() -> Any:
    """The package energycomp-samplers, which ranks, forecasts and keeps the best samples."""
    try:
        return import_module("energycomp_samplers")
    except ModuleNotFoundError as error:
        got = "got a command that ranks or forecasts samples, without the package energycomp-samplers"
        raise InputError(f"{got}; expected it; pip install energycomp-samplers") from error


def check_source(source: str) -> None:
    """Raises `NotFoundError` for a name that is no registered model, no folder and no hub id. Imports no torch."""
    path = Path(source)
    if "/" not in source and not path.suffix and not path.is_absolute() and not _is_folder(path):
        find("models", source)


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):  # too long a name
        return False


ModelName = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="Registered name (clevr), folder, or hub id (owner/name[@revision]) of a model.",
        autocompletion=registered("models"),
    ),
]
ImageFiles = Annotated[
    list[Path], typer.Argument(metavar="IMAGE_OR_FOLDER", help="Image files, and folders of image files.")
]
Components = Annotated[
    list[str] | None,
    typer.Option(
        "--component",
        metavar="COMPONENT",
        help="Component to look for, such as 0.3,0.5 or smiling or 'a red cube'. Repeatable.",
    ),
]
Not = Annotated[
    list[str] | None,
    typer.Option(
        "--not", metavar="COMPONENT", help="Component that images should not show, such as 0.5,0.8. Repeatable."
    ),
]
Png = Annotated[Path, typer.Option("-o", "--out", help="PNG file to write.")]
Seed = Annotated[
    int, typer.Option(min=0, max=2**63 - 1, help="Seed of the random numbers. The same seed gives the same result.")
]
Steps = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Number of denoising steps (num_inference_steps). Fewer are faster, and less accurate.",
        show_default=MODELS_OWN,
    ),
]
SolverName = Annotated[
    str | None,
    typer.Option(
        help="Name of a registered solver, for example pursuit.",
        show_default=MODELS_OWN,
        autocompletion=registered("solvers"),
    ),
]
Count = Annotated[
    str | None,
    typer.Option(
        help="Number of components in an image, 4, or the range in which it is searched, 3-8.", show_default=MODELS_OWN
    ),
]
SHOWN = 320  # px, the least shorter side of an image in a file of its own
Raw = Annotated[
    bool, typer.Option("--raw", help="Write the pixels of the model, neither enlarged nor in the shape of the frame.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


def _shared(
    option: Annotated[
        list[str] | None,
        typer.Option(
            "--option",
            metavar="NAME=VALUE",
            help="Argument of the model, such as dtype=bfloat16, engine=bf16 or preset=paper. A model of "
            "prompts also takes model=FOLDER, a pipeline of diffusers, and concepts=cat,dog and template='a {}', among "
            "which infer chooses. A model that decomposes images takes views=1, the number of turned and mirrored "
            "views that it searches. Repeatable.",
        ),
    ] = None,
    seed: Seed = 0,
    device: Annotated[str, typer.Option(help="Torch device of the networks: cpu, cuda, cuda:1 or mps.")] = "cpu",
    as_json: AsJson = False,
) -> None: ...


class Run(typer.Context):
    """The context of a command that runs a model, with the options that all of these share.

    A command takes them by a parameter of this type.
    """

    option: list[str] | None
    seed: int
    device: str
    as_json: bool

    def load(self, source: str, **how: Any) -> Model:
        """The model of a name, folder or hub id, with the arguments of --option; keywords as of `load_model`."""
        loaded: Model = load_model(source, self.device, parse_options(self.option), **how)
        return loaded

    def show(self, report: Mapping[str, Any], lines: Sequence[str]) -> None:
        """Prints the report, to which the seed belongs, as one line of JSON, or its text lines."""
        typer.echo(json.dumps({**report, "seed": self.seed}) if self.as_json else "\n".join(lines))


def shared_options() -> list[Any]:
    """The options of `Run`, which set its attributes."""

    def keep(context: Any, parameter: Any, value: Any) -> None:
        setattr(context, parameter.name, value)

    app = typer.Typer(add_completion=False)
    app.command()(_shared)
    options: list[Any] = typer.main.get_command(app).params
    for option in options:
        option.rich_help_panel = SHARED
        option.expose_value = False
        option.callback = keep
        option.metavar = "" if option.is_flag else option.metavar
    return options


def loading(source: str) -> AbstractContextManager[None]:
    """Says on stderr what is loaded in the block, in which commands import torch, too, which takes seconds."""
    if not sys.stderr.isatty():
        typer.echo(f"energycomp: loading {source} ...", err=True)
    return working(f"energycomp: loading {source} ...")


def load_model(
    source: str,
    device: str,
    options: Mapping[str, Any] | None = None,
    *,
    searchable: bool = False,
    reads: Mapping[str, Sequence[str]] | None = None,
    placed: Sequence[str] = (),
) -> Any:
    """Loads the model of a name, folder or hub id, on a device that this machine has.

    Args:
        options: arguments of the model; `concepts`, `template` and `views` change what was loaded.
        searchable: refuses a model that names its own decomposer, which has nothing to search.
        reads: texts of components by what errors call them, which are refused before weights are loaded.
        placed: the same, of components whose places may be left out.
    """
    from energycomp.models import check_device, load

    given = dict(options or {})
    concepts, template, views = (given.pop(name, None) for name in ("concepts", "template", "views"))
    check_device(device, "--device")
    if given.get("dtype") == "float16" and device == "cpu":
        raise InputError(
            "got dtype float16 on the CPU, where it is slow and overflows; expected bfloat16 or float32 there; give "
            "another dtype, or a GPU by --device"
        )
    if concepts is not None or template is not None:  # other words than those of the model's own conditioner
        reads, placed = {}, ()

    def check(name: str, conditioner: Conditioner) -> None:
        _check_texts(conditioner, source if source.startswith(name) else name, reads or {}, placed)

    loaded = load(source, device=device, check=check, **given)
    loaded = _with_views(with_words(loaded, concepts, template), views)
    if searchable and loaded.decomposer_name is not None:
        raise InputError(
            f"got {source}, which reads parts from a picture at once; expected a model whose components are searched "
            "for; use energycomp decompose, and recombine to change a picture"
        )
    return loaded


def _check_texts(
    conditioner: Conditioner, model: str, reads: Mapping[str, Sequence[str]], placed: Sequence[str]
) -> None:
    """Raises `InputError` for the first text that is no component of a conditioner."""
    import torch

    from energycomp.components import ability, weighted

    texts = [weighted(text).text for text in placed]
    if (place := ability(conditioner, "placed")) is not None:
        texts = place(texts, torch.Generator())
    for what, each in [("the component", texts), *reads.items()]:
        for text in each:
            _value(conditioner, weighted(text).text, what, model)


def parse_options(pairs: list[str] | None, *, taken: Collection[str] = ("source", "device")) -> dict[str, str]:
    """Reads the values of --option by name; `taken` are names that the command gives itself.

    >>> parse_options(["model=folder", "dtype=bfloat16"])
    {'model': 'folder', 'dtype': 'bfloat16'}
    """
    values: dict[str, str] = {}
    for pair in pairs or []:
        name, equals, values[name] = pair.partition("=")
        if not (name.isidentifier() and equals):
            raise InputError(f"got --option {pair!r}; expected NAME=VALUE, such as vae=FOLDER")
        if name in taken:
            raise InputError(
                f"got --option {pair}; expected none of {', '.join(taken)}, which the command gives itself"
            )
    return values


def takes_words(model: Model) -> bool:
    """Whether the components of a model are prompts."""
    from energycomp.components import ability

    return ability(model.conditioner, "concepts") is not None


def with_words(model: Model, concepts: str | None, template: str | None) -> Model:
    """The model over concepts with commas between them, prompted by a template."""
    if concepts is None and template is None:
        return model
    if not takes_words(model):
        raise InputError(
            f"got {'template' if concepts is None else 'concepts'} with {model.name}, whose components are not said in "
            "words; leave it out, or use a model of text"
        )
    prompts: Any = model.conditioner
    names = prompts.concepts if concepts is None else [name for name in concepts.split(",") if name.strip()]
    return attrs.evolve(model, conditioner=prompts.with_concepts(names, template=template))


def _with_views(model: Model, views: str | None) -> Model:
    if views is None:
        return model
    if model.encoder is None or model.decomposer_name is not None:
        raise InputError(
            f"got --option views={views} with {model.name}, which does not decompose images by the latents of an "
            "encoder; leave it out"
        )
    number: Any = int(views) if views.isdecimal() else views
    return attrs.evolve(model, defaults=attrs.evolve(model.defaults, views=number))


def read_text(model: Model, text: str, option: str) -> Tensor:
    """The text of a component as a value (1, *V) of the model's conditioner."""
    return _value(model.conditioner, text, option, model.name)


def _value(conditioner: Conditioner, text: str, option: str, model: str) -> Tensor:
    from energycomp.components import read_value

    try:
        return read_value(conditioner, text)
    except InputError as error:
        raise InputError(f"got {option} {text!r}, which is not a component of {model}: {error}") from error


def parse_count(text: str | None) -> tuple[int, int] | None:
    """A count "4" as (4, 4), and a range "3-8" as (3, 8)."""
    from energycomp.fields import parse_range

    return None if text is None else parse_range(text)
