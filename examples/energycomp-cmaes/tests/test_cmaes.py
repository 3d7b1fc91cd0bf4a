"""The conformance check, an image whose exact answer is known, and the cost of an answer."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from energycomp import infer, plugins
from energycomp.inference import make_problem
from energycomp.testing import bumps_model, planted
from energycomp_lab.checks import check_plugin
from energycomp_lab.evaluation import match

from energycomp_cmaes.cmaes import CMAES

README = Path(__file__).parents[1] / "README.md"
PLACES = torch.tensor([[0.2, 0.25], [0.75, 0.3], [0.5, 0.8]])


def test_it_is_installed_and_conforms() -> None:
    assert isinstance(plugins.find("solvers", "cmaes")(), CMAES)
    passed = {check.what for check in check_plugin("energycomp-cmaes") if check.passed}
    assert passed >= {"import", "solver cmaes"}


@pytest.mark.parametrize("count", [None, 3])
def test_it_finds_three_places(count: int | None) -> None:
    model = bumps_model()
    solution = infer(planted(model, PLACES) / 2 + 0.5, model, solver=CMAES(), count=count)
    assert solution.count == 3
    assert match(solution.conditions, PLACES).max() < 2e-4


def test_what_is_held_is_run_once_a_search() -> None:
    model = bumps_model()
    problem = make_problem(planted(model, PLACES), model, count=3)
    CMAES(starts=50, population=6, generations=4, draws=8, tolerance=0.0).solve(problem)
    calls = [[held, 50, *[6] * 4] for held in range(3)]
    rows = sum(sum(search) + 1 for search in calls)  # one more a search: the unconditional prediction
    assert problem.rows == rows * 8 + (3 + 1) * 16


def test_the_readme_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)
    exec(compile(block, str(README), "exec"), {})  # noqa: S102 - the README is this package's own
    assert capsys.readouterr().out.startswith("2 ")
