"""The numbers of docs/benchmarks/samplers.md: what plain sampling gives beside the product of the densities."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def rows(text: str) -> list[list[float]]:
    """Mean and std of the product, and of the samples, in each row of the table."""
    return [[float(n) for n in re.findall(r"-?\d+\.\d+", line)] for line in text.splitlines() if "0." in line[-14:]]


def test_the_table_of_the_docs_is_what_the_script_prints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["product_density.py", "-n", "2000", "-o", str(tmp_path / "figure.png")])
    runpy.run_path(str(ROOT / "benchmarks" / "sampling" / "product_density.py"), run_name="__main__")
    page = (ROOT / "docs" / "benchmarks" / "samplers.md").read_text(encoding="utf-8")
    table = page[
        page.index("| composition | mean and std of the product") : page.index(
            "`python benchmarks/sampling/product_density"
        )
    ]
    printed, documented = rows(capsys.readouterr().out), rows(table)
    assert len(printed) == len(documented) == 4
    for got, expected in zip(printed, documented, strict=True):
        assert got[:2] == pytest.approx(expected[:2], abs=0.002)
        assert got[2:] == pytest.approx(expected[2:], abs=0.05)
    assert (tmp_path / "figure.png").stat().st_size > 5_000
