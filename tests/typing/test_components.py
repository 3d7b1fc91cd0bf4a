"""Components, operators and samples have the types that a user expects."""

from __future__ import annotations

from pathlib import Path

import pytest

mypy = pytest.importorskip("mypy.api")


def test_components_and_samples_type_check() -> None:
    """With the project's own settings, which are strict: the check shares their cache and takes seconds."""
    settings, script = Path(__file__).parents[2] / "pyproject.toml", Path(__file__).with_name("components_script.py")
    report, errors, code = mypy.run(["--config-file", str(settings), str(script)])
    assert code == 0, report + errors
