"""`energycomp plugins`: the installed plugins, what each registers or why it failed, and the check of one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from energycomp.cli.options import AsJson
from energycomp.cli.output import print_json, print_table

if TYPE_CHECKING:
    from energycomp.plugins import PluginInfo


def plugins(
    check: Annotated[
        str | None, typer.Option("--check", metavar="NAME", help="Name of a plugin or distribution to check.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the plugins and what each registers, or check one.

    energycomp plugins

    ```sh
    energycomp plugins --check energycomp-clevr
    ```

    A plugin that fails is listed with the reason, and the others still work. To switch one off, set
    ENERGYCOMP_DISABLE_PLUGINS=NAME.

    --check NAME is the command `energycomp check NAME`, of the package energycomp-lab.
    """
    import attrs

    from energycomp.plugins import find, listing

    if check is not None:
        find("commands", "check")()(check, as_json)
        return

    infos = listing(load=True)
    if as_json:
        print_json([attrs.asdict(info) for info in infos])
    else:
        _print_table(infos)


def _print_table(infos: tuple[PluginInfo, ...]) -> None:
    from rich.text import Text

    rows = []
    for info in infos:
        cell = Text("\n").join(Text(f"{kind}: {', '.join(names)}") for kind, names in info.registered.items())
        for conflict in info.conflicts:
            cell.append(f"\nconflict: {conflict}", style="yellow")
        if info.error:
            cell.append(f"failed: {info.error}", style="red")
        if info.off:
            cell.append(f"switched off by {info.off}", style="dim")
        for warning in info.warnings:
            cell.append(f"\nwarning: {warning}", style="yellow")
        rows.append((info.name, f"{info.distribution} {info.version}", cell))
    print_table(["plugin", "distribution", "registers"], rows)
