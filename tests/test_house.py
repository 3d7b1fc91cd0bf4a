"""The page on the house: the files and kinds that each task names exist, and tasks of one file need no second one."""

import importlib
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

import attrs
import pytest
import torch
from PIL import Image

from energycomp import plugins
from energycomp.images import draw
from energycomp.plugins import KINDS
from energycomp.sampling import Level, Run, Steps

ROOT = Path(__file__).parents[1]
HOUSE = (ROOT / "docs" / "house.md").read_text(encoding="utf-8")
PAGE = HOUSE.split("## Where to change what")[1].split("\n## ")[0]
MAP = HOUSE.split("## The way of the data")[1].split("\n## ")[0]
ROWS = [line for line in PAGE.splitlines() if line.startswith("| ")][2:]
TASKS = [tuple(cell.strip() for cell in line.split("|")[1:3]) for line in ROWS]
ADD = "add."
BLUE = (0, 114, 178)
SCENES = ROOT / "plugins" / "energycomp-scenes" / "energycomp_scenes"
Edit = Callable[..., ModuleType]


def test_what_the_tasks_name_exists() -> None:
    assert len({task for task, _ in TASKS}) == len(TASKS) >= 25
    for task, named in TASKS:
        quoted = [name for name in re.findall(r"`([^`]+)`", named) if "/" in name or name.startswith(ADD)]
        assert quoted, task
        for name in quoted:
            known = f"{name.removeprefix(ADD)}s" in KINDS if name.startswith(ADD) else list(ROOT.glob(name))
            assert known, (task, name)


def test_what_the_map_names_exists() -> None:
    files = re.findall(r"\b(?:\w+/)?\w+\.py\b", MAP)
    assert len(files) >= 15
    folder = ""
    for file in files:
        folder = file.split("/")[0] if "/" in file else folder  # "inference/compare.py, judge.py"
        assert (ROOT / "energycomp" / folder / file.split("/")[-1]).is_file(), file


@pytest.fixture
def scenes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Edit]:
    """Imports a copy of the package energycomp_scenes, in which a text of one file is replaced."""
    name = SCENES.name
    kept = {key: module for key, module in sys.modules.items() if key.split(".")[0] == name}

    def edited(file: str, old: str, new: str) -> ModuleType:
        shutil.copytree(SCENES, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
        text = (tmp_path / name / file).read_text(encoding="utf-8")
        assert text.count(old) == 1
        (tmp_path / name / file).write_text(text.replace(old, new), encoding="utf-8")
        monkeypatch.syspath_prepend(tmp_path)
        for key in kept:
            del sys.modules[key]
        return importlib.import_module(name)

    yield edited
    for key in [key for key in sys.modules if key.split(".")[0] == name]:
        del sys.modules[key]
    sys.modules.update(kept)


def test_a_relation_is_one_row(scenes: Edit) -> None:
    """Scene graphs read it, questions ask for it, and the relations of an image list it."""
    row = '    "far from": Kind(lambda a, b: (a - b).norm(dim=-1) - 4.0, phrases=("far away from",)),\n'
    near = '    "near": Kind('
    copy = scenes("relations.py", near, row + near)
    ground = torch.tensor([[[0.0, 0.0], [5.0, 0.0], [1.0, 0.0]]])
    graph = copy.scene("a: red cube; b: sphere; c: cube; b is far away from a; not c far from a")
    assert bool(graph.holds(ground).all())
    belief = copy.Belief(ground, torch.tensor([[[1, 2, 2, 1], [2, 3, 1, 2], [1, 1, 2, 1]]]))
    assert str(copy.answer("what is far from the sphere?", belief)) == "1 (100%)"
    assert belief.relations()[0]["far from"] == 1.0


def test_a_word_of_questions_is_one_entry(scenes: Edit) -> None:
    """Another language would be more of them."""
    copy = scenes("questions.py", '"ball": "sphere",', '"ball": "sphere", "orb": "sphere",')
    belief = copy.Belief(torch.zeros(1, 1, 2), torch.tensor([[[1, 2, 2, 2]]]))
    assert (
        copy.answer("how many orbs are there?", belief).value == copy.answer("how many balls are there?", belief).value
    )


def test_a_colour_is_one_line() -> None:
    """Of overlays, and of the page of the studio."""
    source = Path(draw.__file__).read_text(encoding="utf-8")
    copy = ModuleType("edited")
    exec(source.replace(f"FOUND: Colour = {draw.FOUND}", f"FOUND: Colour = {BLUE}"), vars(copy))  # noqa: S102
    image = copy.overlay(Image.new("RGB", (480, 480)), [(0.5, 0.5)])
    colours = {colour for _, colour in image.getcolors(1 << 20)}
    assert BLUE in colours
    assert draw.FOUND not in colours
    assert f"--overlay-found: rgb({BLUE[0]} {BLUE[1]} {BLUE[2]});" in copy.overlay_css()
    files = [*ROOT.glob("energycomp/**/*.*"), *ROOT.glob("plugins/*/energycomp_*/**/*.*")]
    texts = [file for file in files if file.suffix in (".py", ".css", ".js") and file != Path(draw.__file__)]
    written = re.compile(r"255,? 214,? 0\b|#ffd600", re.IGNORECASE)
    assert [file for file in texts if written.search(file.read_text(encoding="utf-8"))] == []


def test_a_format_of_answers_is_one_function(run: Any, model: Path, pictures: Path, fake_infer: Any) -> None:
    @contextmanager
    def counts(file: BinaryIO) -> Iterator[Callable[[Any], object]]:
        yield lambda record: file.write(f"{record['file_name']} {record['count']}\n".encode())

    plugins.register("writers", "counts", counts)
    fake_infer()
    code, _, _ = run("infer", model, pictures / "a", "-o", "found.counts")
    assert code == 0
    assert Path("found.counts").read_text(encoding="utf-8").split() == ["one.png", "1", "two.jpg", "1"]


@attrs.define(eq=False)
class Halving(Steps):
    """DDIM whose second half has steps of half the length: it chooses its levels."""

    run: Run
    x: torch.Tensor

    @property
    def levels(self) -> Iterator[Level]:  # type: ignore[override]
        first = self.run.levels
        yield from (level for level in first[: len(first) // 2])
        yield from self.run.target.levels(2 * len(first))[len(first) :]

    def step(self, level: Level) -> None:
        self.x = level.mean(self.x, self.run.target.compose(self.x, level.rows(self.x), prediction_type="sample"))


@attrs.frozen
class HalvingSampler:
    def start(self, run: Run) -> Steps:
        return Halving(run, run.noise())


def test_a_sampler_is_one_class(run: Any, model: Path) -> None:
    plugins.register("samplers", "halving", HalvingSampler)
    code, _, err = run("sample", model, "0.5,0.5", "--sampler", "halving", "--steps", "4", "--seed", "0", "-o", "a.png")
    assert (code, Path("a.png").is_file()) == (0, True), err
