"""`energycomp plugins`: what is installed, what it registers, and what failed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from energycomp.plugins import PluginInfo

__all__ = ["plugins"]


def plugins(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """List the plugins, what each registers, and why any failed."""
    from energycomp.plugins import listing

    infos = listing()
    if as_json:
        import json

        import attrs

        typer.echo(json.dumps([attrs.asdict(info) for info in infos], indent=2))
    else:
        _print_table(infos)


def _print_table(infos: tuple[PluginInfo, ...]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("plugin", "distribution", "registers")
    for info in infos:
        cell = Text("\n").join(Text(f"{kind}: {', '.join(names)}") for kind, names in info.registered.items())
        for conflict in info.conflicts:
            cell.append(f"\nconflict: {conflict}", style="yellow")
        if info.error:
            cell.append(f"failed: {info.error}", style="red")
        if info.off:
            cell.append(f"switched off by {info.off}", style="dim")
        table.add_row(Text(info.name), Text(f"{info.distribution} {info.version}"), cell)
    Console().print(table)
