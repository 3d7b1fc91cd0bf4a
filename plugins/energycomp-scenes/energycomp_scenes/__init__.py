"""Scenes that relate and move: scene graphs, questions, tracking, moving pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from energycomp.imports import first_use
from energycomp.plugins import hookimpl

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from energycomp_scenes.drawing import Picture as Picture, draw as draw
    from energycomp_scenes.graph import SceneGraph as SceneGraph, placed as placed, scene as scene

__getattr__, __all__ = first_use(__name__, __file__)


@hookimpl
def energycomp_register_commands() -> Mapping[str, Callable[[], Any]]:
    """The commands of this package, imported when one is run or shown by `--help`."""
    return {}
