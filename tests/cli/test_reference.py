"""The page of the command line is what the commands say of themselves, and a stale one is noticed."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from energycomp.cli import app
from energycomp.cli.reference import reference

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"
SECTIONS = dict(re.findall(r"^## (\S+)\n(.*?)(?=^## |\Z)", reference(), flags=re.DOTALL | re.MULTILINE))


def test_the_page_is_up_to_date() -> None:
    written = PAGE.read_text(encoding="utf-8")
    assert written == reference(), "run python -m energycomp.cli.reference > docs/cli.md"


def test_every_command_has_a_section() -> None:
    group = typer.main.get_command(app)
    assert list(SECTIONS) == list(group.commands)  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", SECTIONS)
def test_a_section_has_the_options_that_help_prints(name: str) -> None:
    printed = CliRunner().invoke(app, [name, "--help"], env={"COLUMNS": "200", "TERM": "dumb"}).output
    options = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", re.sub(r"energycomp .*", "", printed))) - {"--help"}
    rows = re.findall(r"^\| `(.*?)` \|", SECTIONS[name], flags=re.MULTILINE)
    documented = {option for row in rows for option in re.findall(r"(?<![\w-])--[a-z][a-z-]*", row)}
    assert documented or not options
    assert documented <= options  # a text may name options of other commands


@pytest.mark.parametrize("name", SECTIONS)
def test_the_examples_of_a_section_can_be_parsed(name: str) -> None:
    (block,) = re.findall(r"```text\n(.*?)```", SECTIONS[name], flags=re.DOTALL)
    group = typer.main.get_command(app)
    for line in filter(None, block.replace("\\\n", "").splitlines()[1:]):
        _, given, *arguments = shlex.split(line.partition(" && ")[0])
        group.commands[given].make_context(given, arguments)  # type: ignore[attr-defined]


def test_tables_have_three_columns() -> None:
    rows = [line for text in SECTIONS.values() for line in text.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {4}


def test_quoted_words_stay_on_one_line_and_no_default_is_a_range() -> None:
    page = reference()
    assert all(line.count('"') % 2 == 0 for line in page.splitlines() if line.endswith("\\"))
    assert not re.search(r"\| x[<>]=?\S+ \|$", page, flags=re.MULTILINE)
