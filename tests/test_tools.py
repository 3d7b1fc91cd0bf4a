"""The scripts in tools/: model cards of the models that ship, and the build of all packages."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
from huggingface_hub import ModelCard

from energycomp.manifest import MANIFEST
from energycomp.plugins import first_party, listing

ROOT = Path(__file__).parents[1]
MODELS = {
    name: info.distribution
    for info in listing(load=True)
    if info.distribution in first_party()
    for name in info.registered.get("models", ())
}
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
    if file.parent.name in ("vae", "proposals"):  # a part of the model in the folder above
        file = file.parents[1] / file.name
    shown = ModelCard((file.parent / "README.md").read_text(encoding="utf-8"))
    assert (shown.data.license, shown.data.library_name) == ("mit", "energycomp")
    assert shown.data.eval_results
    for heading in ("Use", "Intended use", "Limits", "Training", "Licence", "Model", "Results"):
        assert f"\n## {heading}\n" in shown.content
    assert "README.md" not in (file.parent / MANIFEST).read_text()


def test_a_build_and_what_it_holds(tmp_path: Path) -> None:
    pytest.importorskip("hatchling")
    pytest.importorskip("hatch_fancy_pypi_readme")
    build_all = script("build_all")
    assert {path.name for path in build_all.PACKAGES[1:]} == {*first_party()}
    (wheel,) = build_all.build([ROOT / "plugins" / "energycomp-slots"], tmp_path)
    assert (tmp_path / "energycomp_slots-0.2.0.tar.gz").is_file()
    held = build_all.summary(wheel)
    assert (held.name, held.cards, held.entry_points, held.licence) == ("energycomp_slots", 2, True, True)
    assert held.weights > 8_000_000


def test_an_environment_that_knows_nothing_else(tmp_path: Path) -> None:
    """The packages of the running environment are seen, its editable installs are not."""
    build_all = script("build_all")
    python = build_all.environment(tmp_path / "venv", [], with_dependencies=False)
    code = "import importlib.util as u; print(u.find_spec('torch') is not None, u.find_spec('energycomp') is not None)"
    assert build_all._python(python, tmp_path, code).split() == ["True", "False"]
