"""`energycomp plugins`: the installed plugins, what each registers or why it failed, and the check of one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

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

    energycomp plugins --check energycomp-clevr

    A plugin that fails is listed with the reason, and the others still work. To switch one off, set
    ENERGYCOMP_DISABLE_PLUGINS=NAME.

    --check runs everything that a plugin registers: networks are built, solvers solve, models predict and are saved,
    datasets are written, and recipes train for two steps. It runs in a separate process for at most 10 minutes, and
    usually takes between seconds and a minute. The exit code is 1 if a check fails.
    """
    if check is not None:
        _check(check, as_json)
        return
    import attrs

    from energycomp.plugins import listing

    infos = listing(load=True)
    if as_json:
        print_json([attrs.asdict(info) for info in infos])
    else:
        _print_table(infos)


def _check(name: str, as_json: bool) -> None:
    from energycomp.cli.check import check_in_process

    checks = check_in_process(name)
    if as_json:
        print_json(checks)
    else:
        _print_checks(checks)
    if any(check["passed"] is False for check in checks):
        raise typer.Exit(1)


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


def _print_checks(checks: Sequence[Mapping[str, Any]]) -> None:
    from rich.text import Text

    words = {True: ("passed", "green"), False: ("failed", "red"), None: ("not checked", "dim")}
    rows = [
        (check["what"], Text(*words[check["passed"]]), f"{check['seconds']:.1f}", check["reason"]) for check in checks
    ]
    print_table(["check", "result", "seconds", "reason"], rows)
