"""Options that several commands share, and how what was typed becomes an object. Errors repeat what was typed."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from energycomp.errors import InputError, first_line

if TYPE_CHECKING:
    from energycomp.models import Model

__all__ = [
    "AsJson",
    "Concepts",
    "Device",
    "Dtype",
    "ModelName",
    "Seed",
    "Source",
    "Template",
    "from_source",
    "load_model",
    "load_searchable",
    "make_folder",
    "numbers",
    "over",
    "parse_count",
    "takes_words",
]

ModelName = Annotated[str, typer.Argument(metavar="MODEL", help="A registered name, a folder, or a hub id.")]
Device = Annotated[str, typer.Option(help="Where the network runs: cpu, cuda, cuda:1, mps.")]
Seed = Annotated[int, typer.Option(min=0, max=2**63 - 1, help="The same seed gives the same result.")]
Source = Annotated[
    str | None,
    typer.Option("--model", help="What a registered model such as text reads: a folder or hub id of a pipeline."),
]
Dtype = Annotated[str | None, typer.Option(help="Of a pipeline's networks: float32, bfloat16 or float16; float32.")]
Concepts = Annotated[
    str | None, typer.Option(help="What is looked for, of a model that takes words, with commas: cat,dog,rabbit.")
]
Template = Annotated[str | None, typer.Option(help="The prompt of a concept, with {} in its place: 'a photo of a {}'.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def load_model(source: str, device: str, **options: Any) -> Model:
    """The model of a name, folder or hub id on a device that this machine has."""
    import torch

    from energycomp.models import load

    expected = "expected cpu, cuda, cuda:0 or mps; leave it out for the CPU"
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise InputError(f"got --device {device!r}; {expected}") from error
    try:
        torch.zeros(1, device=chosen).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = first_line(error).rstrip(".")
        raise InputError(f"got --device {device}, which cannot be used here ({reason}); {expected}") from error
    return load(source, device=device, **options)


def load_searchable(source: str, device: str, **options: Any) -> Model:
    """A model whose components can be searched for; one that names its own decomposer has nothing to search."""
    loaded = load_model(source, device, **options)
    if hasattr(loaded.denoiser.network, "decomposer"):
        raise InputError(
            f"got {source}, which reads parts from a picture at once; expected a model whose components are searched "
            "for; use energycomp decompose, and recombine to change a picture"
        )
    return loaded


def from_source(source: str | None, dtype: str | None = None) -> dict[str, str]:
    """The options of a model that `--model` and `--dtype` stand for."""
    return {name: value for name, value in (("model", source), ("dtype", dtype)) if value is not None}


def takes_words(model: Model) -> bool:
    """Whether components of a model are said in words."""
    return hasattr(model.conditioner, "over")


def over(model: Model, concepts: str | None, template: str | None) -> Model:
    """The model over the concepts of --concepts, prompted by --template."""
    import attrs

    if concepts is None and template is None:
        return model
    if not takes_words(model):
        raise InputError(
            f"got {'--concepts' if concepts is not None else '--template'} with {model.name}, whose components are not "
            "said in words; leave it out, or use a model of text"
        )
    conditioner: Any = model.conditioner
    names = conditioner.concepts if concepts is None else [name for name in concepts.split(",") if name.strip()]
    return attrs.evolve(model, conditioner=conditioner.over(names, template=template))


def numbers(text: str, option: str) -> tuple[float, ...]:
    """Numbers with commas between them as floats.

    >>> numbers("0.3, 0.5", "--at")
    (0.3, 0.5)
    """
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if not values or not all(map(math.isfinite, values)):
        raise InputError(f"got {option} {text!r}; expected finite numbers and commas between them, such as 0.3,0.5")
    return values


def parse_count(text: str | None, *, true: bool = False) -> tuple[int, int] | Literal["true"] | None:
    """A count "4" as (4, 4), a range "3-8" as (3, 8) and, where `true` allows it, "true" as itself."""
    from energycomp.evaluation import parse_range

    if text is None or (true and text == "true"):
        return text  # type: ignore[return-value]
    return parse_range(text)


def make_folder(folder: Path, option: str) -> Path:
    """The folder, made where it is missing with its parents."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"got {option} {folder}, which cannot be made ({error.strerror}); expected a folder that can be written"
        ) from error
    return folder
