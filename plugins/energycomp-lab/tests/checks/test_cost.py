"""What a solver costs on a problem as large as a real one, and that one which takes too long is stopped."""

import re
from typing import Any

import pytest
import torch

from energycomp import plugins
from energycomp.inference import Solution
from energycomp_lab.checks.cost import measure_solver
from energycomp_lab.checks.expect import NotCheckedError
from energycomp_lab.checks.plugin import check_plugin


class Random:
    """The best of many random answers, on as many draws as the model has by default."""

    needs = "continuous"

    def solve(self, problem: Any, *, generator: Any = None) -> Solution:
        bank = problem.draw(problem.default_draws, generator)
        answers = torch.rand(200, 10, *problem.value_shape, generator=generator)
        errors = torch.cat([problem.errors(answers[k : k + 20], bank) for k in range(0, 200, 20)]).mean(1)
        return Solution(answers[errors.argmin()], 10, float(errors.min()), 0.0, problem.rows)


@pytest.mark.parametrize("name", ["pursuit", "enumerate"])
def test_solvers_say_what_a_reading_costs(name: str) -> None:
    said = measure_solver(plugins.find("solvers", name)())
    assert re.fullmatch(r"[\d,]+ network evaluations for five of up to ten components: about \d+ s an image .*", said)


def test_a_solver_that_takes_too_long_is_stopped() -> None:
    with pytest.raises(
        NotCheckedError, match=r"stopped after 2[\d,]+ network evaluations.* clevr would take more than \d+ s"
    ):
        measure_solver(Random())  # type: ignore[arg-type]


def test_the_check_of_a_plugin_measures_its_solvers(monkeypatch: pytest.MonkeyPatch) -> None:
    plugins.register("solvers", "of-mine", Random)
    info = plugins.PluginInfo("mine", "energycomp-mine", "1.0", {"solvers": ("of-mine",)})
    monkeypatch.setattr("energycomp_lab.checks.plugin.listing", lambda *, load: (info,))
    monkeypatch.setattr("energycomp_lab.checks.plugin.check_solver", lambda solver: None)
    found = {check.what: check for check in check_plugin("mine")}
    assert found["solver of-mine"].passed
    assert (found["cost of of-mine"].passed, "more than" in found["cost of of-mine"].reason) == (None, True)
