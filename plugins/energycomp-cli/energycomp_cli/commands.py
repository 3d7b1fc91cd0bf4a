"""The command line: it lists commands, each a function in a file of this package or of a plugin."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from collections.abc import Callable
from inspect import signature
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup, TyperOption

from energycomp import __version__
from energycomp.errors import EnergycompError, NotFoundError, OutOfDistributionError, plain_warnings
from energycomp.plugins import find, names, not_found
from energycomp_cli.about import env, plugins
from energycomp_cli.decompose import decompose, recombine
from energycomp_cli.explain import explain
from energycomp_cli.formula import show
from energycomp_cli.infer import infer
from energycomp_cli.options import Run, check_source, shared_options
from energycomp_cli.rank import rank
from energycomp_cli.report import UNKNOWN_IMAGES
from energycomp_cli.sample import sample

LISTS = ("list", "ls", "models", "solvers", "samplers")  # what people try for `plugins`
WRITERS = "{writers}"  # in the help of an option: the registered names


class _Quiet:
    """Help without a type of flags, with whole sentences in a list of commands, and with the names of writers."""

    def get_short_help_str(self, limit: int = 200) -> str:
        text: str = super().get_short_help_str(limit)  # type: ignore[misc]
        return text

    def get_params(self, ctx: Any) -> list[Any]:
        parameters: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        for parameter in parameters:
            if isinstance(parameter, TyperOption) and parameter.is_flag and parameter.metavar is None:
                parameter.metavar = ""
            text = getattr(parameter, "help", None) or ""
            if WRITERS in text:
                parameter.help = text.replace(WRITERS, ", ".join(names("writers")))
        return parameters


class Command(_Quiet, TyperCommand):
    """A command with that help."""


class ModelCommand(Command):
    """A command that runs a model. Its help has the options of `Run`; the page of all commands has them once."""

    context_class = Run

    def invoke(self, ctx: Any) -> Any:
        """Runs the command, unless there is no model of that name: before torch is imported, which takes seconds."""
        if isinstance(source := ctx.params.get("model"), str):
            check_source(source)
        return super().invoke(ctx)

    def get_params(self, ctx: Any) -> list[Any]:
        return [*super().get_params(ctx), *(shared_options() if isinstance(ctx, Run) else ())]


def _choose_class(function: Callable[..., Any]) -> type[Command]:
    takes = {parameter.annotation for parameter in signature(function, eval_str=True).parameters.values()}
    return ModelCommand if Run in takes else Command


def _write_shared_help() -> str:
    lines = []
    for one in shared_options():
        named = " ".join(filter(None, (one.opts[0], one.metavar)))
        default = "" if one.default is None or one.is_flag else f" Default: {one.default}."
        lines.append(f"* `{named}`: {one.help}{default}\n")
    return "".join(lines)


class _Commands(_Quiet, TyperGroup):
    """The commands of this package, then those of plugins, which are imported when they are run or explained."""

    def list_commands(self, ctx: Any) -> list[str]:
        return [*super().list_commands(ctx), *(name for name in names("commands") if name not in self.commands)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name in self.commands or cmd_name not in names("commands"):
            return super().get_command(ctx, cmd_name)
        try:
            command = _plugin_command(cmd_name)
        except EnergycompError:
            return Command(cmd_name, help="Failed to import; see `energycomp plugins`.")
        command.name = cmd_name
        return command

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name = args[0] if args else "-"
        if name in self.commands or name.startswith("-") or ctx.resilient_parsing:
            return super().resolve_command(ctx, args)
        if name not in names("commands"):
            if name in LISTS:
                raise NotFoundError(f"No command is named {name!r}. `energycomp plugins` lists models and all else.")
            raise not_found("commands", name, self.list_commands(ctx))
        return name, _plugin_command(name), args[1:]


def _plugin_command(name: str) -> Any:
    """Makes the command of a plugin from a function with Typer annotations, or from a Typer app of several."""
    command = find("commands", name)()
    if isinstance(command, typer.Typer):
        return typer.main.get_command(command)
    alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown")
    alone.command(name, cls=_choose_class(command))(command)
    return typer.main.get_command(alone)


app = typer.Typer(
    name="energycomp",
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"]},  # also of every command
    help=(
        "Compose images from components, and find the components of images. A model is a sum of energies, one for each "
        "component.\n\n"
        '```sh\nenergycomp sample clevr "0.3,0.45" "0.7,0.6" -o scene.png\nenergycomp infer clevr scene.png\n```\n\n'
        "MODEL is one that energycomp plugins lists, such as clevr, faces or text, or a folder or hub id.\n\n"
        "Every command that runs a model takes, too:\n\n" + _write_shared_help() + "\n"
        "Plugins add commands. The exit code is 0 for success, 1 where some of several images or checks failed, 2 "
        "for input that is refused, with the reason in one line, 3 for images of a kind that the model does not know, "
        "and 130 after Ctrl-C."
    ),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
for command in (sample, infer, explain, rank, decompose, recombine, show, plugins, env):
    app.command(cls=_choose_class(command))(command)


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
    """Runs the command line. An error or a warning of energycomp is one message on stderr, without a traceback."""
    # A thread of torch that waits for a slower one sleeps; spinning, it would take a core from other processes.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        with plain_warnings():
            app()
    except EnergycompError as error:
        typer.echo(f"energycomp: {error}", err=True)
        sys.exit(UNKNOWN_IMAGES if isinstance(error, OutOfDistributionError) else 2)
    except (KeyboardInterrupt, SystemExit) as stop:  # typer itself turns Ctrl-C into a silent exit code of 130
        if isinstance(stop, SystemExit) and stop.code != 130:
            raise
        typer.echo("energycomp: interrupted", err=True)
        sys.exit(130)
    finally:  # exit handlers of libraries run after this one, and print a traceback at Ctrl-C
        if threading.current_thread() is threading.main_thread():
            atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)
