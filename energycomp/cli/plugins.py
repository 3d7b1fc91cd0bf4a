"""`energycomp plugins`: what is installed, what it registers, what failed, and whether one keeps its promises."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from energycomp.cli.options import AsJson

if TYPE_CHECKING:
    from energycomp.plugins import PluginInfo
    from energycomp.testing import Check

__all__ = ["plugins"]


def plugins(
    check: Annotated[
        str | None, typer.Option("--check", metavar="NAME", help="Check this plugin, or distribution, instead.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the plugins, what each registers, and why any failed; or check one.

    energycomp plugins

    energycomp plugins --check energycomp-clevr

    Each plugin is tried in a process of its own, so a broken one is listed with its reason and hurts nothing. To do
    without one: ENERGYCOMP_DISABLE_PLUGINS=NAME.

    --check makes everything that a plugin registers and uses it as energycomp does: networks are built, solvers solve,
    models predict and are saved, datasets are written, recipes train for two steps. That takes seconds to a minute.
    The exit code is 1 if a check fails.
    """
    if check is not None:
        _check(check, as_json)
        return
    from energycomp.plugins import listing

    infos = listing()
    if as_json:
        _print_json(infos)
    else:
        _print_table(infos)


def _check(name: str, as_json: bool) -> None:
    from energycomp.testing import check_plugin

    checks = check_plugin(name, progress=True)
    if as_json:
        _print_json(checks)
    else:
        _print_checks(checks)
    if any(check.passed is False for check in checks):
        raise typer.Exit(1)


def _print_json(records: Sequence[Any]) -> None:
    import json

    import attrs

    typer.echo(json.dumps([attrs.asdict(record) for record in records], indent=2))


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
        for warning in info.warnings:
            cell.append(f"\nwarning: {warning}", style="yellow")
        table.add_row(Text(info.name), Text(f"{info.distribution} {info.version}"), cell)
    Console().print(table)


def _print_checks(checks: tuple[Check, ...]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    words = {True: ("passed", "green"), False: ("failed", "red"), None: ("not checked", "dim")}
    table = Table("check", "result", "seconds", "reason")
    for check in checks:
        table.add_row(Text(check.what), Text(*words[check.passed]), f"{check.seconds:.1f}", Text(check.reason))
    Console().print(table)
