"""Benchmarks and scripts of the docs have a working `--help`; README.md of the benchmarks names each; one is run."""

import re
import runpy
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.parts import coverage

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"
PARSED = re.compile(r"\.parse_args\((arguments)?\)")
SCRIPTS = [
    path
    for folder in (BENCHMARKS, ROOT / "docs" / "scripts")
    for path in sorted(folder.rglob("*.py"))
    if PARSED.search(path.read_text())
]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_help(script: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "path", [str(script.parent), *sys.path])  # as Python does for a script
    monkeypatch.setattr(sys, "argv", [str(script), "--help"])
    before = set(sys.modules)
    try:
        with pytest.raises(SystemExit) as stopped:
            runpy.run_path(str(script), run_name="__main__")
    finally:
        for name in set(sys.modules) - before:  # modules beside the script, whose names other folders may use as well
            if str(getattr(sys.modules[name], "__file__", "")).startswith(f"{script.parent}/"):
                del sys.modules[name]
    assert stopped.value.code == 0
    assert f"python {script.relative_to(ROOT)}" in capsys.readouterr().out


def test_readme_names_every_script() -> None:
    text = (BENCHMARKS / "README.md").read_text()
    names = [str(path.relative_to(BENCHMARKS)) for path in SCRIPTS if path.is_relative_to(BENCHMARKS)]
    assert [name for name in names if f"`{name}`" not in text] == []


@pytest.mark.parametrize("name", coverage.KINDS)
def test_coverage_is_that_of_the_posterior_of_infer(name: str) -> None:
    """`measured` compares the probabilities of the first images with those that `infer` reports, and raises."""
    line = coverage.measured(name, coverage.KINDS[name](4, torch.Generator().manual_seed(0)), 1, seed=0)
    assert line["draws"] == 4
    assert line["prior"]["0.95"][0] in (0.0, 1.0)
