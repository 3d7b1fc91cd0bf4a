"""The page of plugins names every hook with its factory and every check; docstrings name every field and member."""

import inspect
import re
from pathlib import Path
from typing import Any

import attrs
import pytest

from energycomp import Condition, Conditioner, Decomposer, EnergyComponent, Problem, Solution, Solver, plugins
from energycomp.denoisers import Network, TwoStage
from energycomp.inference import QuadraticForm
from energycomp.plugins import Add
from energycomp.sampling import Guidance, Guide, Level, Run, Sampler, SamplingReport, Steps, Target
from energycomp_lab import checks
from energycomp_lab.checks import plugin
from energycomp_lab.evaluation import DataSource, Example
from energycomp_lab.training import Recipe, Trainable

DOCS = Path(__file__).parents[2] / "docs"
GUIDE = (DOCS / "plugins.md").read_text(encoding="utf-8")
PROTOCOLS = (DOCS / "api" / "protocols.md").read_text(encoding="utf-8")
LISTED = set(re.findall(r"^::: energycomp\w*\.\w+\.(\w+)$", PROTOCOLS, flags=re.MULTILINE))


def members(made: type) -> dict[str, Any]:
    """The public members of a class, and its call."""
    return {name: found for name, found in vars(made).items() if not name.startswith("_") or name == "__call__"}


@pytest.mark.parametrize("kind", plugins.KINDS)
def test_every_hook_is_documented_with_its_factory(kind: str) -> None:
    method = plugins.singular_of(kind)
    sentence = getattr(Add, method).__doc__
    assert f"`add.{method}(" in GUIDE
    for factory in re.findall(r"`(factory\(.*?)`", sentence):
        assert f"`{factory}`" in GUIDE


@pytest.mark.parametrize(
    "protocol",
    [
        Conditioner, DataSource, Decomposer, EnergyComponent, Guidance, Network, Sampler, Solver, Steps, Trainable,
        TwoStage,
    ],
)  # fmt: skip
def test_a_protocol_is_shown_and_says_what_its_members_are(protocol: Any) -> None:
    assert protocol.__name__ in LISTED
    assert protocol.__doc__
    assert [name for name, found in members(protocol).items() if not found.__doc__ and name != "needs"] == []


@pytest.mark.parametrize(
    "made", [Condition, Example, Guide, Level, Problem, Recipe, Run, SamplingReport, Solution, Target]
)
def test_the_docstring_of_a_class_has_every_field(made: type) -> None:
    arguments = re.split(r"\nArgs:\n", inspect.getdoc(made) or "")[1].split("\n\n")[0]
    named = {n for line in re.findall(r"^ {4}([\w, ]+):", arguments, flags=re.MULTILINE) for n in line.split(", ")}
    assert {field.name for field in attrs.fields(made) if not field.name.startswith("_")} == named


@pytest.mark.parametrize("made", [Level, Problem, QuadraticForm, Run, Solution, Target])
def test_a_public_member_has_a_docstring(made: type) -> None:
    own = {name for name, found in members(made).items() if callable(found) or isinstance(found, property)}
    assert [name for name in own if not members(made)[name].__doc__] == []


def test_the_required_fields_of_a_solution_are_the_first() -> None:
    required = [field.default is attrs.NOTHING for field in attrs.fields(Solution)]
    assert required == [True] * 5 + [False] * (len(required) - 5)


def test_every_kind_has_a_check_and_every_check_is_documented() -> None:
    assert set(plugins.KINDS) - {"loaders"} <= set(plugin.CHECKS)  # `check` says that loaders have none
    named = [name for name in vars(checks) if name.startswith("check_")]
    assert [name for name in named if f"`{name}" not in GUIDE] == []
