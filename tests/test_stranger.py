"""The example of a plugin with one object of each kind is short, and the guide shows its solver."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "examples" / "energycomp-lamps"


def test_it_has_at_most_200_lines_that_are_not_blank() -> None:
    sources = (PACKAGE / "energycomp_lamps").rglob("*.py")
    lines = [line for source in sources for line in source.read_text(encoding="utf-8").splitlines() if line.strip()]
    assert len(lines) <= 200


def test_the_guide_shows_its_solver() -> None:
    section = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8").split("## A complete plugin")[1]
    (block, *_) = re.findall(r"```python\n(.*?)```", section, flags=re.DOTALL)
    known = {
        line.strip() for line in (PACKAGE / "energycomp_lamps" / "greedy.py").read_text(encoding="utf-8").splitlines()
    }
    assert "class Greedy:" in block
    assert [line for line in block.splitlines() if line.strip() not in known] == []
