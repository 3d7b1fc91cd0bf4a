"""Options that several commands share, and the conversion of what was typed into objects. Errors repeat the text."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from energycomp.errors import InputError
from energycomp.progress import working

if TYPE_CHECKING:
    from torch import Tensor

    from energycomp.models import Model
    from energycomp.plugins import Kind

MODELS_OWN = "the model's"  # shown as the default where a model has one


def registered(kind: Kind) -> Callable[[str], list[str]]:
    """The registered names of a kind, such as "models", for the completion of a shell."""

    def complete(incomplete: str) -> list[str]:
        from energycomp.plugins import names

        return [name for name in names(kind) if name.startswith(incomplete)]

    return complete


ModelName = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="Registered name, folder or hub id (owner/name or owner/name@revision) of a model.",
        autocompletion=registered("models"),
    ),
]
Not = Annotated[
    list[str] | None,
    typer.Option("--not", metavar="COMPONENT", help="Component that images should not show. Repeatable."),
]
Png = Annotated[Path, typer.Option("-o", "--out", help="PNG file to write.")]
Device = Annotated[str, typer.Option(help="Torch device that runs the networks: cpu, cuda, cuda:1 or mps.")]
Seed = Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Seed of the random numbers.")]
Steps = Annotated[
    int | None, typer.Option(min=1, help="Number of scheduler steps (num_inference_steps).", show_default=MODELS_OWN)
]
SolverName = Annotated[
    str | None,
    typer.Option(
        help="Name of a registered solver, for example pursuit.",
        show_default=MODELS_OWN,
        autocompletion=registered("solvers"),
    ),
]
Views = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=8,
        help="Number of turned and mirrored views among which latents are searched; 1 for those of the encoder.",
        show_default=MODELS_OWN,
    ),
]
Options = Annotated[
    list[str] | None,
    typer.Option(
        "--option",
        metavar="NAME=VALUE",
        help="Argument of the model: model=FOLDER, dtype=bfloat16, preset=NAME; for a model of prompts "
        "concepts=cat,dog and template='a {}', what infer chooses among. Repeatable.",
    ),
]
Count = Annotated[
    str | None,
    typer.Option(help="Number of components in an image: 4, or a range 3-8.", show_default=MODELS_OWN),
]
SHOWN = 320  # px, the least shorter side of an image in a file of its own
Raw = Annotated[
    bool, typer.Option("--raw", help="Write the model's own pixels, neither enlarged nor in the shape of the frame.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


def loading(source: str) -> AbstractContextManager[None]:
    """Says on stderr what is loaded in the block, in which commands import torch, too, which takes seconds."""
    if not sys.stderr.isatty():
        typer.echo(f"energycomp: loading {source} ...", err=True)
    return working(f"energycomp: loading {source} ...")


def load_model(source: str, device: str, **options: Any) -> Model:
    """The model of a name, folder or hub id, on a device that this machine has; with the arguments of --option."""
    from energycomp.models import check_device, load

    concepts, template = options.pop("concepts", None), options.pop("template", None)
    check_device(device, "--device")
    if options.get("dtype") == "float16" and device == "cpu":
        raise InputError(
            "got dtype float16 on the CPU, where it is slow and overflows; expected bfloat16 or float32 there; give "
            "another dtype, or a GPU by --device"
        )
    return over(load(source, device=device, **options), concepts, template)


def load_searchable(source: str, device: str, **options: Any) -> Model:
    """A model whose components can be searched for; one that names its own decomposer has nothing to search."""
    loaded = load_model(source, device, **options)
    if loaded.decomposer_name is not None:
        raise InputError(
            f"got {source}, which reads parts from a picture at once; expected a model whose components are searched "
            "for; use energycomp decompose, and recombine to change a picture"
        )
    return loaded


def parse_options(pairs: list[str] | None, *, taken: Collection[str] = ("source", "device")) -> dict[str, str]:
    """Values of --option by name.

    Args:
        taken: names of arguments that the command gives itself.

    >>> parse_options(["model=folder", "dtype=bfloat16"])
    {'model': 'folder', 'dtype': 'bfloat16'}
    """
    for pair in pairs or []:
        if not pair.partition("=")[0].isidentifier() or "=" not in pair:
            raise InputError(f"got --option {pair!r}; expected NAME=VALUE, such as vae=FOLDER")
        if pair.partition("=")[0] in taken:
            raise InputError(
                f"got --option {pair}; expected none of {', '.join(taken)}, which the command gives itself"
            )
    return {name: value for name, _, value in (pair.partition("=") for pair in pairs or [])}


def takes_words(model: Model) -> bool:
    """Whether the components of a model are prompts."""
    from energycomp.components import TextConditioner

    return isinstance(model.conditioner, TextConditioner)


def over(model: Model, concepts: str | None, template: str | None) -> Model:
    """The model over concepts with commas between them, prompted by a template."""
    import attrs

    from energycomp.components import TextConditioner

    if concepts is None and template is None:
        return model
    conditioner = model.conditioner
    if not isinstance(conditioner, TextConditioner):
        raise InputError(
            f"got {'template' if concepts is None else 'concepts'} with {model.name}, whose components are not said in "
            "words; leave it out, or use a model of text"
        )
    names = conditioner.concepts if concepts is None else [name for name in concepts.split(",") if name.strip()]
    return attrs.evolve(model, conditioner=conditioner.with_concepts(names, template=template))


def read_text(model: Model, text: str, option: str) -> Tensor:
    """The text of a component as a value (1, *V) of the model's conditioner."""
    from energycomp.components import read_value

    try:
        return read_value(model.conditioner, text)
    except InputError as error:
        raise InputError(f"got {option} {text!r}, which is not a component of {model.name}: {error}") from error


def with_views(model: Model, views: int | None) -> Model:
    """The model with --views in place of its own number of views."""
    import attrs

    if views is None:
        return model
    if model.encoder is None or model.decomposer_name is not None:
        raise InputError(
            f"got --views with {model.name}, which does not decompose images by the latents of an encoder; leave it out"
        )
    return attrs.evolve(model, defaults=attrs.evolve(model.defaults, views=views))


def parse_count(text: str | None, *, true: bool = False) -> tuple[int, int] | Literal["true"] | None:
    """A count "4" as (4, 4), a range "3-8" as (3, 8) and, where `true` allows it, "true" as itself."""
    if text is None or (true and text == "true"):
        return text  # type: ignore[return-value]
    from energycomp.fields import parse_range

    return parse_range(text)
