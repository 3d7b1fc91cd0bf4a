"""The page of plugins names every hook with its factory, and that of objects has every member of each and no other."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import attrs
import pytest

from energycomp import Condition, Conditioner, Decomposer, EnergyComponent, Problem, Solution, Solver, plugins, testing
from energycomp.denoisers import TwoStage
from energycomp.evaluation import DataSource, Example
from energycomp.inference import QuadraticForm
from energycomp.plugins import hookspecs
from energycomp.sampling import Sampler, SamplingReport, Target
from energycomp.testing import plugin
from energycomp.training import Recipe

DOCS = Path(__file__).parents[2] / "docs"
HOOKS = (DOCS / "plugins.md").read_text(encoding="utf-8")
OBJECTS = (DOCS / "plugin_objects.md").read_text(encoding="utf-8")
CODE = set(re.findall(r"\w+", " ".join(re.findall(r"`([^`\n]+)`", OBJECTS))))


def table(name: str) -> list[str]:
    """The names in the first column of the table that is headed by a name."""
    (found,) = re.findall(rf"^\| `{name}` \|.*\n\|[- |]+\n((?:\|.*\n)+)", OBJECTS, flags=re.MULTILINE)
    first = [row.split("|")[1] for row in found.splitlines()]
    return [name for cell in first for name in re.findall(r"`(\w+)", cell)]


def fields(made: type) -> set[str]:
    """The public fields of an attrs class."""
    return {field.name for field in attrs.fields(made) if not field.name.startswith("_")}


def members(protocol: type) -> set[str]:
    """The public members of a class, and its call."""
    return {name for name in vars(protocol) if not name.startswith("_") or name == "__call__"}


@pytest.mark.parametrize("kind", plugins.KINDS)
def test_every_hook_is_documented_with_its_factory(kind: str) -> None:
    sentence = getattr(hookspecs, f"energycomp_register_{kind}").__doc__
    (factory,) = re.findall(r"`(factory\(.*?)`", sentence)
    assert f"`energycomp_register_{kind}`" in HOOKS
    assert f"`{factory}`" in HOOKS


@pytest.mark.parametrize("documented", [Conditioner, DataSource, Decomposer, EnergyComponent, Sampler, Solver])
def test_the_table_of_a_protocol_is_complete(documented: Any) -> None:
    names = table(documented.__name__)
    assert len(names) == len(set(names))
    assert set(names) == members(documented)


@pytest.mark.parametrize("documented", [Condition, Example, Recipe, SamplingReport, Solution])
def test_the_table_of_fields_is_complete(documented: type) -> None:
    names = table(documented.__name__)
    assert len(names) == len(set(names))
    assert set(names) == fields(documented)


def test_the_table_of_a_problem_is_complete() -> None:
    assert set(table("Problem")) == fields(Problem) | members(Problem) - {"__call__"}


def test_the_table_of_a_target_is_complete() -> None:
    assert set(table("Target")) == fields(Target) | members(Target)


def test_the_required_fields_of_a_solution_are_the_first() -> None:
    required = [field.name for field in attrs.fields(Solution) if field.default is attrs.NOTHING]
    assert table("Solution")[: len(required)] == required
    assert len(required) == 5


def test_what_is_shown_of_a_quadratic_form_exists() -> None:
    assert set(table("QuadraticForm")) <= members(QuadraticForm)


def test_both_stages_of_a_network_are_documented() -> None:
    assert members(TwoStage) | {"forward", "config"} <= CODE


def test_every_kind_has_a_check() -> None:
    assert set(plugins.KINDS) <= set(plugin.CHECKS)


@pytest.mark.parametrize(
    "check", [name for name in testing.__all__ if name.startswith("check_") and name != "check_plugin"]
)
def test_every_check_is_documented(check: str) -> None:
    assert check in CODE
