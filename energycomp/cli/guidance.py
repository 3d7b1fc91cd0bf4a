"""Guidance and compositions per sample on the command line of `energycomp sample`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any

import typer

from energycomp.cli.options import MODELS_OWN
from energycomp.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from energycomp.models import Model

SEPARATOR = "/"


def _names(incomplete: str) -> list[str]:
    """Registered guidances, for the completion of a shell."""
    from energycomp.plugins import names

    return [name for name in names("guidances") if name.startswith(incomplete)]


Guided = Annotated[
    str | None,
    typer.Option(
        "--guidance",
        metavar="NAME|SCALE",
        help="Name of a guidance: cfg, interval, rescale, apg or zero-star. Or a number, the guidance scale of "
        "attributes, for example 2.0; 1.0 with --best-of or --sampler.",
        show_default=MODELS_OWN,
        autocompletion=_names,
    ),
]
GuidanceScale = Annotated[
    float | None,
    typer.Option(help="Scale of the guidance that --guidance names, or of cfg.", show_default=MODELS_OWN),
]


def read_guidance(text: str | None, scale: float | None) -> tuple[float | None, str | None]:
    """--guidance as the scale of attributes, or as a name; "cfg" for --guidance-scale alone.

    >>> read_guidance("2.0", None), read_guidance("apg", None), read_guidance(None, 3.0), read_guidance(None, None)
    ((2.0, None), (None, 'apg'), (None, 'cfg'), (None, None))
    """
    if scale is not None and not math.isfinite(scale):
        raise InputError(f"got --guidance-scale {scale}; expected a finite number, such as 3.0; change it")
    if text is None:
        return None, None if scale is None else "cfg"
    try:
        number = float(text)
    except ValueError:
        return None, text
    if scale is not None:
        raise InputError(f"got --guidance {text} and --guidance-scale; expected a name, such as --guidance apg")
    return number, None


def guided_by(name: str, scale: float | None, model: Model) -> dict[str, Any]:
    """Keywords of `Composer.sample`; the scale is that of the model's components where none is given.

    Raises:
        NotFoundError: a name that no plugin registers.
        InputError: no scale, of a model whose own is 1.
    """
    from energycomp.plugins import find

    find("guidances", name)
    scale = model.defaults.guidance_scale if scale is None else scale
    if scale == 1.0:
        raise InputError(
            f"got --guidance {name} with {model.name} at the scale 1, which changes nothing; expected another scale; "
            "give --guidance-scale, such as 2.0"
        )
    return {"guidance": name, "guidance_scale": scale}


def guidance_record(guided: Mapping[str, Any], attributes: float | None) -> tuple[dict[str, Any], list[str]]:
    """The guidance of a run, as JSON and as lines.

    Args:
        guided: keywords that `guided_by` gives; empty for no guidance by name.
        attributes: the scale of attributes, where it was given.

    >>> guidance_record({"guidance": "apg", "guidance_scale": 5.0}, None)
    ({'guidance': 'apg', 'guidance_scale': 5.0}, ['guidance apg, scale 5'])
    """
    if guided:
        return dict(guided), [f"guidance {guided['guidance']}, scale {guided['guidance_scale']:g}"]
    if attributes is None:
        return {}, []
    return {"attribute_guidance": attributes}, [f"guidance of attributes, scale {attributes:g}"]


def component_sets(texts: Sequence[str] | None, *, others: bool) -> list[list[str]]:
    """The components of each composition, of those that "/" separates.

    Args:
        texts: components and separators.
        others: whether there are components that are given by options.

    >>> component_sets(["a", "/", "b", "c"], others=False), component_sets(None, others=False)
    ([['a'], ['b', 'c']], [[]])
    """
    sets: list[list[str]] = [[]]
    for text in texts or []:
        if text.strip() == SEPARATOR:
            sets.append([])
        else:
            sets[-1].append(text)
    if len(sets) > 1 and (others or not all(sets)):
        raise InputError(
            "got an empty composition, or components by --at, --with or --without, beside a '/'; expected components "
            "before and after each '/'; write them as 0.3,0.5 / 0.7,0.6"
        )
    return sets


def attribute_strength(model: Model, guidance: float | None, *, plain: bool) -> float:
    """How strongly attributes are drawn."""
    from energycomp.components import mixed_of

    if guidance is None:
        return 1.0 if plain else model.defaults.attribute_guidance
    if mixed_of(model.conditioner) is None or not 0.0 < guidance < math.inf:
        raise InputError(
            f"got --guidance {guidance} with {model.name}; expected a number above 0, and a model of components with "
            "attributes; use --weight for whole components"
        )
    return guidance
