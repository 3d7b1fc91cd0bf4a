"""The benchmark of pipelines: a small one that is trained for two steps, and a distilled one with random weights."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks.published import run, small
from energycomp.images import to_output
from energycomp_text.testing import tiny_flux

CASES = ["regions"] * 2 + ["not"] * 2 + ["best-of"] * 2


@pytest.fixture(autouse=True)
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    for place in ("published.run", "sampling.regions"):
        monkeypatch.setattr(f"benchmarks.{place}.DRAWS", 2)


def lines(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, object]]:
    capsys.readouterr()
    run.main([*arguments, "-n", "2", "--steps", "2"])
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_a_pipeline_is_trained_with_its_loras_and_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small.main(["--steps", "2", "-n", "56", "-o", str(tmp_path)])
    loras = [str(tmp_path / name) for name in small.SUBJECTS]
    picture = tmp_path / "shown.png"
    found = lines(capsys, "--pipeline", str(tmp_path / "pipeline"), "--lora", *loras, "-o", str(picture))
    assert [line["case"] for line in found] == CASES + ["two loras"] * 5
    assert {line["judge"] for line in found} == {"pixels"}
    assert picture.is_file()
    assert ["subjects" in line for line in found] == [False] * 6 + [True] * 5
    assert [line["nfe"] for line in found if line["way"] in ("region", "A & ~B", "S & T")] == [6.0] * 3
    assert [line["nfe"] for line in found if str(line["way"]).startswith("set_adapters")] == [4.0] * 2


def test_a_distilled_pipeline_at_weight_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_flux(guidance_embeds=False).save_pretrained(tmp_path)
    found = lines(
        capsys, "--pipeline", str(tmp_path), "--prompts", "a dog", "a cat", "--scale", "1", "--image-size", "32"
    )
    assert [line["case"] for line in found] == CASES
    assert {(line["judge"], line["scale"]) for line in found} == {("model", 1.0)}


MISSING = {
    "nowhere": "got nowhere, which is no folder; expected", ".": "without model_index.json; expected",
    "pipe --lora one two": "got the LoRA one, which does not exist; expected",
}  # fmt: skip


@pytest.mark.parametrize("words", MISSING)
def test_what_is_missing_is_named(words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pipe").mkdir()
    (tmp_path / "pipe" / "model_index.json").write_text("{}")
    with pytest.raises(SystemExit):
        run.main(["--pipeline", *words.split()])
    assert MISSING[words] in capsys.readouterr().err


def test_pixels_find_what_was_rendered() -> None:
    rng = np.random.default_rng(0)
    for name in small.NAMES:
        images = [to_output(2 * small.picture([name], rng)[None] - 1, "pil")[0] for _ in range(10)]
        others = [other for other in small.NAMES if not set(run.colors_of(other)) & set(run.colors_of(name))]
        judges = [run.pixels([name, *others], image) for image in images]
        assert sum(shows(name, None) for shows in judges) >= 9
        assert sum(shows(name, 0) or shows(name, 1) for shows in judges) >= 9
        assert not any(shows(other, half) for shows in judges for other in others for half in (None, 0, 1))


def test_a_subject_is_its_bands_and_not_its_colours() -> None:
    rng = np.random.default_rng(1)
    for name, other in (("zog", "mib"), ("mib", "zog")):
        images = [to_output(2 * small.picture([name], rng)[None] - 1, "pil")[0] for _ in range(10)]
        assert sum(run.shows_subject(name, None, image) for image in images) >= 9
        assert not any(run.shows_subject(other, None, image) for image in images)
        # Blocks of the same colours beside each other have no bands.
        blocks = Image.new("RGB", (32, 32), "grey")
        for k, color in enumerate(small.SUBJECTS[name]):
            blocks.paste(small.PAINT[color], (8 + 8 * k, 8, 16 + 8 * k, 22))
        assert not run.shows_subject(name, None, blocks)
        assert run.pixels([name, other], blocks)(name, None)
