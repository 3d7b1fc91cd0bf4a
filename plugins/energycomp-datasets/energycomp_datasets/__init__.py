"""Data sources: rendered images and readers of public datasets; and the writer of CLEVR's scene records."""

from __future__ import annotations

from typing import TYPE_CHECKING

from energycomp.plugins import hookimpl, lazy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["energycomp_register_datasets", "energycomp_register_writers"]


@hookimpl
def energycomp_register_datasets() -> Mapping[str, Callable[..., object]]:
    """Data sources, each under the name of the model that is evaluated on it."""
    return {
        "clevr": lazy("energycomp_datasets.clevr.source:ClevrSource"),
        "clevr-videos": lazy("energycomp_datasets.clevr.videos:VideosSource"),
        "comet": lazy("energycomp_datasets.shapes.source:ShapesSource"),
        "decomp": lazy("energycomp_datasets.shapes.source:ShapesSource"),
        "decomp-b": lazy("energycomp_datasets.shapes.source:shapes_b"),
        "faces": lazy("energycomp_datasets.faces.source:FacesSource"),
        "lit": lazy("energycomp_datasets.shapes.lit:LitSource"),
        "slots": lazy("energycomp_datasets.rooms.source:ArrowSource"),
        "slots-rooms": lazy("energycomp_datasets.rooms.source:RoomsSource"),
        "slots-sprites": lazy("energycomp_datasets.rooms.source:SpritesSource"),
        "text": lazy("energycomp_datasets.solids.source:TextSource"),
    }


@hookimpl
def energycomp_register_writers() -> Mapping[str, Callable[..., object]]:
    """Answers as scene records of CLEVR."""
    return {"clevr": lazy("energycomp_datasets.clevr.writer:scene_records")}
