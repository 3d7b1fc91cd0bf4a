"""The notebooks run from top to bottom, here with fewer steps, and each ends its cells with something to see."""

import json
import re
import runpy
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest
from PIL import Image

from energycomp import Model, Solution, plugins
from energycomp.plugins import registry
from energycomp_edit import Edit

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted(ROOT.glob("examples/*.ipynb"))
PAGES = runpy.run_path(str(ROOT / "docs" / "scripts" / "notebooks.py"))
QUICKER = {
    r"num_inference_steps=(12|20)": "num_inference_steps=4",
    r"num_inference_steps=25": "num_inference_steps=10",  # of an image that is read
    r'energycomp\.load\("clevr"\)': 'quick(energycomp.load("clevr-small"))',
    r"\bsteps=100": "steps=50",
}


def code_cells(path: Path) -> list[dict[str, Any]]:
    """The code cells of a notebook."""
    assert json.loads(path.read_text(encoding="utf-8"))["nbformat"] == 4
    return [cell for cell in PAGES["cells"](path) if cell["cell_type"] == "code"]


def quicker(source: str) -> str:
    for pattern, replacement in QUICKER.items():
        source = re.sub(pattern, replacement, source)
    return source


def quick(model: Model) -> Model:
    """The model, which reads with few draws and doubts no answer."""
    return attrs.evolve(model, defaults=attrs.evolve(model.defaults, draws=4, solver="first answer"))


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
    monkeypatch.setattr("energycomp.inference.judge.FIT_DRAWS", 4)
    plugins.register("solvers", "first answer", partial(plugins.find("solvers", "pursuit"), budget=0))
    names: dict[str, Any] = {"__name__": "__main__", "quick": quick}
    sources = [quicker("".join(cell["source"])) for cell in code_cells(path)]
    values = [PAGES["run"](source, names, f"{path.name}[{n}]") for n, source in enumerate(sources)]
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
        for cell in code_cells(path):
            assert (cell["outputs"], cell["execution_count"]) == ([], None)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_its_page_has_its_cells_and_their_images(path: Path) -> None:
    """In this order, and with at least the two images that it shows: python docs/scripts/notebooks.py."""
    page = (ROOT / "docs" / "notebooks" / f"{path.stem}.md").read_text(encoding="utf-8")
    place = 0
    for cell in PAGES["cells"](path):
        source = "".join(cell["source"])
        code = cell["cell_type"] == "code"
        paragraphs = [f"```python\n{source}\n```"] if code else PAGES["with_links"](source).split("\n\n")
        for paragraph in paragraphs:
            place = page.index(paragraph, place)
    images = re.findall(r"!\[(.*)\]\(\.\./images/notebooks/[\w-]+\.png\)", page)
    assert len(images) >= 2
    assert images == [cell["metadata"]["alt"] for cell in PAGES["cells"](path) if "alt" in cell["metadata"]]
    assert all(images)  # what each shows is said


def test_a_page_shows_what_cells_print_and_show(tmp_path: Path) -> None:
    code = ["print('printed')\n[1, 2]", "from PIL import Image\nImage.new('RGB', (8, 8), 'red')", "x = 1"]
    kinds = [("markdown", "# A title\n\nSee [own](../docs/own.md) and [it](it.py)."), *(("code", one) for one in code)]
    made = [{"cell_type": kind, "source": [text]} for kind, text in kinds]
    (tmp_path / "small.ipynb").write_text(json.dumps({"cells": made}))
    page = PAGES["rendered"](tmp_path / "small.ipynb", tmp_path)
    assert page.startswith("# A title\n\n[The notebook](https://")
    assert f"See [own](../own.md) and [it]({PAGES['BLOB']}/it.py)." in page
    assert f"```python\n{code[0]}\n```\n\n```text\nprinted\n[1, 2]\n```\n" in page
    assert page.endswith("(../images/notebooks/small-2.png)\n\n```python\nx = 1\n```\n")
    assert Image.open(tmp_path / "small-2.png").getpixel((0, 0)) == (255, 0, 0)
