"""The README's Python runs, and its solver passes the conformance checks."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from energycomp import plugins
from energycomp.testing import check_solver

ROOT = Path(__file__).parents[1]
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)


def run(block: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(compile(block, "README.md", "exec"), names)  # noqa: S102 - the README is ours
    return names


@pytest.mark.skipif("clevr" not in plugins.names("models"), reason="the example uses the plugin energycomp-clevr")
def test_the_first_example(capsys: pytest.CaptureFixture[str]) -> None:
    solution = run(BLOCKS[0])["solution"]
    assert solution.count == 2
    assert "2 objects" in capsys.readouterr().out


def test_the_solver() -> None:
    check_solver(run(BLOCKS[1])["RandomSearch"](), tolerance=0.03)


@pytest.mark.parametrize("page", ["README.md", *(f"docs/{p.name}" for p in sorted((ROOT / "docs").glob("*.md")))])
def test_links_and_pictures_exist(page: str) -> None:
    path = ROOT / page
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8")):
        assert target.startswith("http") or (path.parent / target).exists(), target
