"""The notebooks run from top to bottom, here with fewer steps, and each ends its cells with something to see."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from energycomp import Model, Solution, plugins
from energycomp.plugins import registry
from energycomp_edit import Edit

FOLDER = Path(__file__).parents[1] / "examples"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
QUICKER = {r"num_inference_steps=(12|20|25)": "num_inference_steps=10", r"\bsteps=100": "steps=50"}


def cells(path: Path) -> list[dict[str, Any]]:
    """The code cells of a notebook."""
    read: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    assert read["nbformat"] == 4
    return [cell for cell in read["cells"] if cell["cell_type"] == "code"]


def quicker(source: str) -> str:
    for pattern, replacement in QUICKER.items():
        source = re.sub(pattern, replacement, source)
    return source


def run(source: str, names: dict[str, Any], where: str) -> Any:
    """Runs a cell; returns the value of its last line, as a notebook shows it."""
    tree = ast.parse(source, where)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, where, "exec"), names)  # noqa: S102 - the notebooks are ours
    return None if last is None else eval(compile(ast.Expression(last.value), where, "eval"), names)  # type: ignore[attr-defined]  # noqa: S307


def shown_as_image(value: Any) -> bool:
    """Whether a notebook shows an image for a value."""
    if isinstance(value, Solution | Edit):
        return "<img " in value._repr_html_()
    return isinstance(value, Image.Image) and min(value.size) > 64


@pytest.mark.skipif("clevr" not in plugins.names("models"), reason="the notebooks use the plugin energycomp-clevr")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "_own", {})
    names: dict[str, Any] = {"__name__": "__main__"}
    sources = [quicker("".join(cell["source"])) for cell in cells(path)]
    values = [run(source, names, f"{path.name}[{n}]") for n, source in enumerate(sources)]
    assert sum(map(shown_as_image, values)) >= 2
    assert (
        any(isinstance(value, Model) and "parameters" in value._repr_html_() for value in values) or path.stem == "read"
    )
    if path.stem == "read":
        assert names["solution"].count == 2
        assert (tmp_path / "read.png").exists()
    if path.stem == "own_model":
        found = {row["colour"] for row in names["solution"].table()}
        assert found == {list(names["COLOURS"])[int(value)] for value in names["example"](1001)["values"]}


def test_there_are_three_and_they_are_stored_without_output() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["compose", "own_model", "read"]
    for path in NOTEBOOKS:
        for cell in cells(path):
            assert (cell["outputs"], cell["execution_count"]) == ([], None)
