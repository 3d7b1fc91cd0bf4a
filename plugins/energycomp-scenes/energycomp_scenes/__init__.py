"""Scenes that relate and move: scene graphs, questions, tracking, moving pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from energycomp.imports import first_use
from energycomp.plugins import Add, hookimpl

if TYPE_CHECKING:
    from energycomp.images import read_frames as read_frames, save_frames as save_frames
    from energycomp_scenes.answers import Answer as Answer, answer as answer
    from energycomp_scenes.drawing import Picture as Picture, draw as draw
    from energycomp_scenes.films import film as film
    from energycomp_scenes.graph import SceneGraph as SceneGraph, scene as scene
    from energycomp_scenes.layouts import layout_prior as layout_prior
    from energycomp_scenes.placing import placed as placed
    from energycomp_scenes.reading import Belief as Belief, belief as belief, joined as joined
    from energycomp_scenes.relations import (
        Formula as Formula,
        behind as behind,
        in_front_of as in_front_of,
        in_row_with as in_row_with,
        left_of as left_of,
        near as near,
        right_of as right_of,
    )
    from energycomp_scenes.skills import Skills as Skills
    from energycomp_scenes.tracking import Track as Track, track as track

__getattr__, __all__ = first_use(__name__, __file__)


@hookimpl
def energycomp_register(add: Add) -> None:
    """The commands of scenes and films, and prompts that are drawn and judged."""
    add.command("scene", "energycomp_scenes.commands:scene")
    add.command("film", "energycomp_scenes.motion_commands:film")
    add.command("track", "energycomp_scenes.motion_commands:track")
    add.command("relate", "energycomp_scenes.commands:relate")
    add.dataset("skills", "energycomp_scenes.skills:Skills")
