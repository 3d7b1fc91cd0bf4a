"""Scenes by Blender: what is sent to it, what is kept, and what is refused; a stand-in for Blender writes the files."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from energycomp.errors import InputError
from energycomp_datasets.clevr import blender
from energycomp_datasets.clevr.layout import read
from energycomp_datasets.clevr.source import ClevrSource

STAND_IN = """#!{python}
import json, sys
from pathlib import Path
sizes = sys.argv[sys.argv.index("--size") + 1 :][:2]
print("Fra:1 Mem:10M")  # as Blender does
for number, line in enumerate(sys.stdin):
    scene = json.loads(line)
    if (Path(__file__).parent / "breaks").exists() and number == 2:
        print("no module named bpy", file=sys.stderr)
        sys.exit(1)
    with open(Path(__file__).parent / "log", "a") as log:
        log.write(line)
    from PIL import Image
    Image.new("RGB", tuple(map(int, sizes)), "gray").save(scene["path"])
    print("Saved: something"); print("done " + scene["path"], flush=True)
"""


@pytest.fixture
def studio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a stand-in for Blender's Python, and assets."""
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.write_text(STAND_IN.format(python=sys.executable))
    python.chmod(0o755)
    monkeypatch.setenv(blender.VARIABLE, str(python))
    for name in blender.FILES:
        (tmp_path / "assets" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "assets" / name).touch()
    return tmp_path


def render(studio: Path, count: int = 4, seed: int = 0, options: str = "wide:1-3:48x32", **changed: Any) -> list[int]:
    seen: list[int] = []
    settings = {"assets": studio / "assets", "progress": seen.append, **changed}
    ClevrSource().render(studio / "out", count=count, seed=seed, options=options, **settings)
    return seen


def test_scenes_are_sent_and_kept_in_the_layout(studio: Path) -> None:
    assert render(studio) == [0, 1, 2, 3, 4]
    records = list(read(studio / "out"))
    assert len(records) == 4
    assert all(
        1 <= record.count <= 3 and np.asarray(Image.open(record.path)).shape == (32, 48, 3) for record in records
    )
    lines = [json.loads(line) for line in (studio / "bin" / "log").read_text().splitlines()]
    kept = json.loads((studio / "out" / "scenes" / "CLEVR_train_scenes.json").read_text())["scenes"]
    for line, scene, record in zip(lines, kept, records, strict=True):
        assert (line["camera"], line["lights"]) == (scene["camera"], scene["lights"])
        assert np.abs(line["lights"]).max() <= 1.0
        for sent, known in zip(line["objects"], scene["objects"], strict=True):
            assert (sent["shape"], sent["material"]) == (known["shape"], known["material"])
            assert sent["position"] == known["3d_coords"]
            assert sent["rotation"] == pytest.approx(np.rad2deg(known["rotation"]))
        assert record.count == len(scene["objects"])


def test_a_run_goes_on_and_is_not_mixed_with_another(studio: Path) -> None:
    (studio / "bin" / "breaks").touch()
    with pytest.raises(
        InputError, match=r"got no image from Blender \(no module named bpy\); expected a Python with bpy"
    ):
        render(studio)
    assert len(list((studio / "out" / "images" / "train").iterdir())) == 2
    assert not (studio / "out" / "scenes").exists()
    (studio / "bin" / "breaks").unlink()
    assert render(studio) == [2, 3, 4]
    assert render(studio, count=5) == [4, 5]
    with pytest.raises(InputError, match="with images of"):
        render(studio, seed=1)
    assert len((studio / "bin" / "log").read_text().splitlines()) == 5


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"assets": None}, "got no --assets"),
        ({"assets": Path("nowhere")}, "without base_scene.blend"),
        ({"options": "wild:3-5"}, "got wild:3-5"),
        ({"options": "3-5:9x9"}, "got 3-5:9x9"),
        ({"options": "11"}, "10"),
    ],
)
def test_what_is_refused(studio: Path, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        render(studio, **changed)
    assert not (studio / "out").exists()


def test_what_is_needed_and_other_files_are_said(studio: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(blender.VARIABLE, str(studio / "nothing"))
    with pytest.raises(InputError, match=r"no Blender at .*nothing; expected .*bpy, .*pip install .bpy==5\.0\.1"):
        render(studio)
    (studio / "out").mkdir()
    (studio / "out" / "mine.txt").touch()
    monkeypatch.setenv(blender.VARIABLE, str(studio / "bin" / "python"))
    with pytest.raises(InputError, match="which holds other files"):
        render(studio)


@pytest.mark.skipif(
    "ENERGYCOMP_CLEVR_ASSETS" not in os.environ, reason="needs Blender, and the assets of the official generator"
)
def test_blender_itself(tmp_path: Path) -> None:
    assets = Path(os.environ["ENERGYCOMP_CLEVR_ASSETS"])
    ClevrSource().render(
        tmp_path / "out", count=2, seed=0, options="2:128x128", assets=assets, progress=lambda done: None
    )
    for record in read(tmp_path / "out"):
        pixels = np.asarray(Image.open(record.path).convert("RGB"))
        assert pixels.shape == (128, 128, 3)
        assert pixels.std() > 10
