"""The studio: a local web page that composes, reads, edits and recombines images. The command `energycomp studio`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from energycomp.plugins import hookimpl, lazy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["energycomp_register_commands"]


@hookimpl
def energycomp_register_commands() -> Mapping[str, Callable[..., object]]:
    """The command that serves the page."""
    return {"studio": lazy("energycomp_studio.command:command")}
