"""The weights of components on a command line: numbers, regions of the image, and parts of the sampling trajectory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from energycomp.cli.options import MODELS_OWN, numbers
from energycomp.errors import InputError

if TYPE_CHECKING:
    from energycomp.components import AnyWeight, Weight

Value = TypeVar("Value")
Default = TypeVar("Default")

Numbers = Annotated[
    list[float] | None,
    typer.Option(
        "--weight",
        help="Weight of the components: given once for all, or once for each, negated ones last.",
        show_default=MODELS_OWN,
    ),
]
Regions = Annotated[
    list[str] | None,
    typer.Option(
        "--region",
        metavar="REGION",
        help="Region of the components, as --weight: left half, right half, top half, bottom half, all, a box "
        "x0,y0,x1,y1 in [0, 1], or an image file as a mask.",
        show_default="all",
    ),
]
From = Annotated[
    list[float] | None,
    typer.Option(
        "--from",
        help="Share of the sampling trajectory from which on a component counts, as --weight; 0 is noise.",
        show_default="0",
    ),
]
Until = Annotated[
    list[float] | None,
    typer.Option(
        "--until",
        help="Share of the sampling trajectory up to which a component counts, as --weight; 1 is the end.",
        show_default="1",
    ),
]


def component_weights(
    count: int,
    weight: list[float] | None,
    region: list[str] | None,
    start: list[float] | None,
    until: list[float] | None,
) -> list[tuple[float | None, AnyWeight]]:
    """The weight of each of `count` components, from options that are given once for all or once for each.

    Returns:
        Pairs of a number, None for that of the model, and what it is multiplied by.
    """
    for option, values in {"--region": region, "--from": start, "--until": until}.items():
        if values and not count:
            raise InputError(f"got {option} without components; expected at least one; leave {option} out")
    sizes = _each(count, "--weight", weight, None)
    numbers(",".join(map(str, weight or [0])), "--weight")
    regions = {text: _region(text) for text in set(region or [])}  # one file is one mask
    places = [1.0 if text is None else regions[text] for text in _each(count, "--region", region, None)]
    parts = zip(_each(count, "--from", start, 0.0), _each(count, "--until", until, 1.0), strict=True)
    return [(size, place * _during(*part)) for size, place, part in zip(sizes, places, parts, strict=True)]


def check_ranked(weights: list[tuple[float | None, AnyWeight]], *, sets: int) -> None:
    """Raises for weights and sets of components that --best-of cannot rank."""
    from energycomp.components import Weight

    if sets > 1 or any(isinstance(place, Weight) for _, place in weights):
        what = "several compositions" if sets > 1 else "--region, --from or --until"
        raise InputError(
            f"got --best-of with {what}; expected one composition whose weights are numbers, which is all that a "
            "ranking takes; leave --best-of out"
        )


def _each(count: int, option: str, given: list[Value] | None, default: Default) -> list[Value | Default]:
    if len(given or []) not in (0, 1, count):
        raise InputError(
            f"got {len(given or [])} {option} for {count} components; expected one for all, or one for each, --not last"
        )
    if given and len(given) > 1:
        return [*given]
    return [given[0] if given else default] * count


def _region(text: str) -> AnyWeight:
    from energycomp.components import region
    from energycomp.components.regions import REGIONS
    from energycomp.images import open_image

    if text.strip() == "all":
        return 1.0
    if text not in REGIONS and Path(text).is_file():
        try:
            return region(open_image(text))
        except InputError as error:
            raise InputError(
                f"got --region {text!r}, which cannot be read as a mask ({error}); write the image again, or give a "
                "box such as 0,0,0.5,1"
            ) from error
    try:
        return region(text.strip())
    except InputError as error:
        raise InputError(
            f"got --region {text!r}; expected {', '.join(REGIONS)}, a box x0,y0,x1,y1 with 0 <= x0 < x1 <= 1 and "
            "0 <= y0 < y1 <= 1, or an image file as a mask; change it"
        ) from error


def _during(start: float, until: float) -> Weight | float:
    from energycomp.components import during

    if not 0.0 <= start < until <= 1.0:
        raise InputError(
            f"got --from {start:g} and --until {until:g}; expected shares of the sampling trajectory with "
            "0 <= from < until <= 1; change them, such as --from 0 --until 0.4"
        )
    return 1.0 if (start, until) == (0.0, 1.0) else during(start, until)
