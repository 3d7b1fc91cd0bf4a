"""The Python of the pages that explain: it runs as it stands, top to bottom."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from energycomp import plugins
from energycomp.plugins import registry

DOCS = Path(__file__).parents[1] / "docs"


@pytest.mark.skipif("clevr" not in plugins.names("models"), reason="the pages use the plugin energycomp-clevr")
@pytest.mark.parametrize(
    "page", ["algebra.md", "component.md", "concepts.md", "faq.md", "own.md", "rank.md", "save.md", "speed.md"]
)
def test_a_page(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "_own", {})
    text = (DOCS / page).read_text(encoding="utf-8")
    names: dict[str, Any] = {"__name__": page}
    blocks = list(re.finditer(r"```python\n(.*?)```", text, flags=re.DOTALL))
    assert blocks
    for block in blocks:
        lines = "\n" * text[: block.start(1)].count("\n")  # so that an error shows the line of the page
        exec(compile(lines + block[1], str(DOCS / page), "exec"), names)  # noqa: S102 - the pages are ours
