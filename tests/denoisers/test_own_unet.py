"""The example of a network of one's own, with either UNet: a few steps, scenes and images, to the end."""

import sys
from pathlib import Path

import pytest
from PIL import Image

from energycomp.plugins import registry

EXAMPLE = Path(__file__).parents[2] / "examples" / "own_unet.py"
QUICKER = {
    "in range(1000)]": "in range(64)]",
    "num_inference_steps=25": "num_inference_steps=3",
    "range(1000, 1008)": "range(1000, 1002)",
    "draws=16": "draws=4",
}


@pytest.mark.parametrize("unet", ["cross-attention", "time-embedding"])
def test_it_trains_saves_composes_and_reads(
    unet: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["own_unet.py", "--unet", unet, "--steps", "2", "--out", str(tmp_path)])
    monkeypatch.setattr(registry, "_own", {})
    source = EXAMPLE.read_text(encoding="utf-8")
    for text, quicker in QUICKER.items():
        assert text in source
        source = source.replace(text, quicker)
    exec(compile(source, str(EXAMPLE), "exec"), {"__name__": "__main__"})  # noqa: S102 - the example is ours
    said = capsys.readouterr().out
    assert "Composer(-u + things(red) + things(blue))" in said
    assert said.count("drawn were") == 2
    with Image.open(tmp_path / "red-and-blue.png") as image:
        assert image.size == (272, 272)
