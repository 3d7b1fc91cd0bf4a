"""The console blocks of README and docs: each command of energycomp ends with exit code 0, in the order of its page."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from energycomp import plugins
from energycomp.cli import app
from energycomp.plugins import registry

ROOT = Path(__file__).parents[1]
FILES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

# Commands that are not run, by a pattern of their text, and why.
NOT_RUN = {
    r"^(make|pip|copier|cd|pytest) ": "installs packages, or tests what it has installed",
    r"^python (benchmarks|examples)/": "measures for minutes or longer",
    r"^accelerate launch ": "starts several processes",
    r"^energycomp train ": "trains for minutes or longer",
    r"^energycomp studio\b": "serves a page until it is stopped",
    r"^energycomp \w+ runs/": "reads a model that a command before it trains",
    r" (CLEVR_v1\.0|clevrtex_full|DIR|multi_dsprites\.npz|photos/)": "reads files of the user",
    r"(^SD=|\$SD )": "downloads a model",
    r"cmaes|lamps|energycomp-random": "needs a package that the page installs or writes",
}
# What makes the other commands quick: few images, and no search for components except in `edit`, which infers as well.
QUICKER = {
    r"^(energycomp data clevr) -n 1000 ": r"\1 -n 1 ",
    r"^(energycomp (?:data|sample) .*?)-n (?:4|8|16|100) ": r"\1-n 2 ",
    r"^(energycomp infer clevr\S* .*)": r"\1 --count 0",
    r"^(energycomp rank .*)": r"\1 --draws 4",
    r"^(energycomp sample clevr .*--best-of) 4": r"\1 2 --steps 10",
    r"^(energycomp evaluate clevr\S* .*)-n 300": r"\1-n 1 --count 0",
    r"^(energycomp evaluate text) -n 200 ": r"\1 -n 1 ",
    r"^(energycomp evaluate faces .*)": r"\1 -n 1",
    r"^(energycomp traverse decomp .*)": r"\1 --steps 2",
}


def commands(page: Path) -> list[str]:
    """The lines of a page that begin with `$ `, each joined with its continuation lines, without comments."""
    found: list[str] = []
    for block in re.findall(r"```console\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL):
        lines = re.sub(r"\\\n\s*", "", block).splitlines()
        found += [re.sub(r"\s+# .*", "", line[2:]) for line in lines if line.startswith("$ ")]
    return found


def is_run(command: str) -> bool:
    return not any(re.search(pattern, command) for pattern in NOT_RUN)


def quicker(command: str) -> str:
    for pattern, replacement in QUICKER.items():
        command = re.sub(pattern, replacement, command)
    return command


def words(command: str, variables: dict[str, str]) -> list[str]:
    """What a shell makes of a command: words with the values of variables, and the names of matching files."""
    valued = re.sub(r"\$(\w+)", lambda match: variables[match[1]], command)
    found: list[str] = []
    for word in shlex.split(valued):
        found += (sorted(map(str, Path().glob(word))) if "*" in word else []) or [word]
    return found


EVERY = [(page, command) for page in FILES for command in commands(page)]
RUN = [page for page in FILES if any(map(is_run, commands(page)))]


@pytest.mark.skipif(
    not registry.FIRST_PARTY.keys() <= {info.distribution for info in plugins.listing(load=True) if not info.error},
    reason="the pages use all packages of the repository",
)
@pytest.mark.parametrize("page", RUN, ids=lambda page: page.name)
def test_a_page(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    variables: dict[str, str] = {}
    for command in map(quicker, filter(is_run, commands(page))):
        if assigned := re.fullmatch(r"(\w+)=(\S+)", command):
            variables[assigned[1]] = assigned[2]
            continue
        program, *arguments = words(command, variables)
        assert program == "energycomp"
        done = CliRunner().invoke(app, arguments, catch_exceptions=False)
        assert done.exit_code == 0, f"{command}\n{done.output}"


@pytest.mark.parametrize(
    "command", [command for _, command in EVERY if command.startswith("energycomp ") and not is_run(command)]
)
def test_the_options_of_a_command_that_is_not_run(command: str) -> None:
    _, *given = words(command, {"SD": "owner/name"})
    group = typer.main.get_command(app)
    name, found, arguments = group.resolve_command(typer.Context(group), given)  # type: ignore[attr-defined]
    found.make_context(name, arguments)


@pytest.mark.parametrize("pattern", [*NOT_RUN, *QUICKER])
def test_an_exception_is_needed(pattern: str) -> None:
    assert any(re.search(pattern, command) for _, command in EVERY)
