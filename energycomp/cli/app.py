"""The command line: typer commands over the public API, no logic of their own.

A command is a function in `energycomp/commands/`; this file only names them. Exit codes: 0, 2 for anything that
energycomp or the parser refuses, 130 after Ctrl-C, 1 where some of several pictures or checks failed, and for what
nobody foresaw (with its traceback).
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from energycomp import __version__
from energycomp.cli.data import data
from energycomp.cli.decompose import add, decompose, recombine
from energycomp.cli.edit import edit
from energycomp.cli.env import env
from energycomp.cli.evaluate import evaluate
from energycomp.cli.infer import infer
from energycomp.cli.plugins import plugins
from energycomp.cli.sample import sample
from energycomp.cli.train import train
from energycomp.cli.traverse import traverse
from energycomp.errors import EnergycompError

__all__ = ["app", "main"]

app = typer.Typer(
    name="energycomp",
    help="Image models that are sums of energies: compose, decompose and understand images.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (sample, infer, edit, decompose, recombine, add, traverse, evaluate, train, data, plugins, env):
    app.command()(command)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"energycomp {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line; an error of ours is one message on stderr, never a traceback."""
    try:
        app()
    except EnergycompError as error:
        typer.echo(f"energycomp: {error}", err=True)
        sys.exit(2)
    except KeyboardInterrupt:
        typer.echo("energycomp: interrupted", err=True)
        sys.exit(130)
    except SystemExit as stop:
        # typer itself turns Ctrl-C into a silent exit code of 130.
        if stop.code == 130:
            typer.echo("energycomp: interrupted", err=True)
        raise
