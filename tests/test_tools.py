"""The scripts in tools/: model cards of the models that ship."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
from huggingface_hub import ModelCard

from energycomp.files import MANIFEST
from energycomp.plugins.registry import FIRST_PARTY

ROOT = Path(__file__).parents[1]
MODELS = {name: package for package, kinds in FIRST_PARTY.items() for name in kinds.get("models", ())}
CARDS = {path.stem: path for path in ROOT.glob("plugins/*/cards/*.toml")}


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"tools_{name}", ROOT / "tools" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_every_model_that_ships_has_a_card() -> None:
    assert {name: path.parents[1].name for name, path in CARDS.items()} == MODELS


def test_cards_are_as_they_would_be_written(capsys: pytest.CaptureFixture[str]) -> None:
    assert script("cards").main(["--check"]) == 0, capsys.readouterr().out


@pytest.mark.parametrize("file", sorted(ROOT.glob("plugins/*/energycomp_*/weights/**/config.json")), ids=str)
def test_a_card_says_what_the_hub_reads(file: Path) -> None:
    shown = ModelCard((file.parent / "README.md").read_text(encoding="utf-8"))
    assert (shown.data.license, shown.data.library_name) == ("mit", "energycomp")
    assert shown.data.eval_results
    for heading in ("Use", "Intended use", "Limits", "Training", "Licence", "Model", "Results"):
        assert f"\n## {heading}\n" in shown.content
    assert "README.md" not in (file.parent / MANIFEST).read_text()
