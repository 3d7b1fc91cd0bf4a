"""The guide names every hook with its factory, what each object must have, and every field of a solution."""

from __future__ import annotations

import re
from pathlib import Path

import attrs
import pytest

from energycomp import Conditioner, Decomposer, Solution, Solver, plugins
from energycomp.denoisers import TwoStage
from energycomp.evaluation import DataSource
from energycomp.plugins import hookspecs
from energycomp.testing import plugin

GUIDE = (Path(__file__).parents[2] / "docs" / "plugins.md").read_text(encoding="utf-8")
CODE = set(re.findall(r"\w+", " ".join(re.findall(r"`([^`\n]+)`", GUIDE))))


@pytest.mark.parametrize("kind", plugins.KINDS)
def test_every_hook_is_documented_with_its_factory(kind: str) -> None:
    sentence = getattr(hookspecs, f"energycomp_register_{kind}").__doc__
    (factory,) = re.findall(r"`(factory\(.*?)`", sentence)
    assert f"`energycomp_register_{kind}`" in GUIDE
    assert f"`{factory}`" in GUIDE


@pytest.mark.parametrize("protocol", [TwoStage, Conditioner, DataSource, Decomposer, Solver])
def test_every_member_of_a_protocol_is_documented(protocol: type) -> None:
    members = {name for name in vars(protocol) if not name.startswith("_")}
    assert members
    assert members <= CODE


def test_every_field_of_a_solution_is_documented() -> None:
    assert {field.name for field in attrs.fields(Solution)} <= CODE


def test_every_kind_has_a_check() -> None:
    assert set(plugins.KINDS) <= set(plugin.CHECKS)
