"""The studio: a local web page that composes, reads, edits and recombines images. The command `energycomp studio`."""

from energycomp.plugins import Add, hookimpl


@hookimpl
def energycomp_register(add: Add) -> None:
    """The command that serves the page."""
    add.command("studio", "energycomp_studio.command:studio")
