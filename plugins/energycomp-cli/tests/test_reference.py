"""The page of the command line is what Typer makes of the commands, and a stale one is noticed."""

import re
import runpy
import shlex
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from energycomp import plugins
from energycomp_cli import app

PAGE = Path(__file__).parents[3] / "docs" / "cli.md"
COMMAND = "docs/scripts/commands.py"
COMPLETE = {*plugins.first_party()} <= {info.distribution for info in plugins.listing(load=True) if not info.error}


@pytest.mark.skipif(not COMPLETE, reason="the page has the commands of all packages of the repository")
def test_the_page_is_up_to_date() -> None:
    script = runpy.run_path(str(PAGE.parents[1] / COMMAND))
    assert script["reference"]() == PAGE.read_text(), f"run python {COMMAND}"


def test_the_examples_of_every_command_can_be_parsed() -> None:
    group = typer.main.get_command(app)
    parent = group.make_context("energycomp", [], resilient_parsing=True)
    for block in re.findall(r"```sh\n(.*?)```", PAGE.read_text(), flags=re.DOTALL):
        for line in block.splitlines():
            _, name, *arguments = shlex.split(line)
            command = group.get_command(parent, name)  # type: ignore[attr-defined]
            command.make_context(name, arguments)


def test_options_that_all_models_share_say_their_defaults() -> None:
    text = PAGE.read_text().split("**Usage**")[0]
    shared = dict(re.findall(r"^\* `--(\w+)[^`]*`: (.*)$", text, flags=re.MULTILINE))
    assert shared["seed"].endswith(" Default: 0.")
    assert shared["device"].endswith(" Default: cpu.")


def test_help_is_rendered() -> None:
    group = typer.main.get_command(app)
    parent = group.make_context("energycomp", [], resilient_parsing=True)
    examples = dict(
        re.findall(
            r"^## `energycomp ([\w-]+)`\n(?:(?!^## ).)*?```sh\n(.*?)\n", PAGE.read_text(), re.MULTILINE | re.DOTALL
        )
    )
    for name in ["", *group.list_commands(parent)]:  # type: ignore[attr-defined]
        shown = CliRunner().invoke(app, [*filter(None, [name]), "--help"], env={"COLUMNS": "200"}).output
        assert "`" not in shown, name
        assert (examples[name] if name else "") in map(str.strip, shown.splitlines()), name
