"""What `stable.json` holds remains: names with their arguments, commands with their options, what plugins register."""

import inspect
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest
import typer

import energycomp
from energycomp.plugins import Add
from energycomp_cli import app

STABLE = json.loads(Path(__file__).with_name("stable.json").read_text(encoding="utf-8"))
COMMANDS: Any = typer.main.get_command(app)


def parameters(name: str) -> dict[str, inspect.Parameter]:
    made: Any = getattr(energycomp, name)
    if getattr(made, "_is_protocol", False):
        return {}
    return dict(inspect.signature(made).parameters)


def options(name: str) -> set[str]:
    command = COMMANDS.get_command(click.Context(COMMANDS), name)
    assert command is not None, f"the command {name} is gone"
    return {option for parameter in command.params for option in parameter.opts if option.startswith("--")}


@pytest.mark.parametrize(("name", "arguments"), STABLE["names"].items())
def test_a_name_takes_what_it_took(name: str, arguments: list[str]) -> None:
    found = parameters(name)
    assert [one for one in found if one in arguments] == arguments
    added = [one for one in found.values() if one.name not in arguments]
    forced = [
        one.name for one in added if one.default is one.empty and one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)
    ]
    assert forced == []


@pytest.mark.parametrize(("name", "known"), STABLE["commands"].items())
def test_a_command_takes_what_it_took(name: str, known: list[str]) -> None:
    assert {*known} <= options(name)


def test_all_names_are_in_the_list_and_plugins_register_what_they_did() -> None:
    public = {name for name in energycomp.__all__ if not isinstance(getattr(energycomp, name), ModuleType)}
    assert public - {"__version__"} == STABLE["names"].keys()
    assert [kind for kind in STABLE["kinds"] if not callable(getattr(Add, kind, None))] == []
