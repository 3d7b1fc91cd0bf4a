"""The example of a network of one's own, with either UNet: a few steps, to the end."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest
from PIL import Image

from energycomp.plugins import registry

EXAMPLE = Path(__file__).parents[2] / "examples" / "own_unet.py"


@pytest.mark.parametrize("unet", ["cross-attention", "time-embedding"])
def test_it_trains_saves_composes_and_reads(
    unet: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["own_unet.py", "--unet", unet, "--steps", "2", "--out", str(tmp_path)])
    monkeypatch.setattr(registry, "_own", {})
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    said = capsys.readouterr().out
    assert "Composer(-u + things(red) + things(blue))" in said
    assert said.count("drawn were") == 8
    with Image.open(tmp_path / "red-and-blue.png") as image:
        assert image.size == (272, 272)
