"""The fields of the solvers: what they refuse, and that sizes are checked before memory is taken."""

import re
from typing import Any

import attrs
import numpy as np
import pytest
import torch

from energycomp.denoisers import count_rows
from energycomp.errors import InputError
from energycomp.inference import infer, make_problem
from energycomp.seeds import seeded
from energycomp.testing import bumps_model, labels_model, planted
from energycomp_solvers.beam import Beam
from energycomp_solvers.enumerate import Enumerate
from energycomp_solvers.pursuit import Pursuit
from energycomp_solvers.relaxed import Relaxed
from energycomp_solvers.sgd import SGD
from energycomp_solvers.weights import Weights

SOLVERS = (Pursuit, SGD, Enumerate, Beam, Weights, Relaxed)
FIELDS = [(solver, field) for solver in SOLVERS for field in attrs.fields(solver)]
NAMED = [f"{solver.__name__}.{field.name}" for solver, field in FIELDS]


@pytest.mark.parametrize(("solver", "field"), FIELDS, ids=NAMED)
@pytest.mark.parametrize("value", [-1, "3", float("nan"), float("inf"), True, [1]], ids=str)
def test_every_field_refuses(solver: Any, field: Any, value: Any) -> None:
    message = rf"got {field.name}={re.escape(repr(value))} for {solver.__name__}; expected .*; change {field.name}="
    with pytest.raises(InputError, match=message):
        solver(**{field.name: value})


@pytest.mark.parametrize(("solver", "field"), FIELDS, ids=NAMED)
def test_every_field_takes_its_default_from_numpy(solver: Any, field: Any) -> None:
    value = np.asarray(field.default)[()] if isinstance(field.default, int | float) else field.default
    assert getattr(solver(**{field.name: value}), field.name) == field.default


OUT_OF_RANGE: dict[Any, list[tuple[str, Any]]] = {
    Pursuit: [("side", 1), ("side", 65_537), ("draws", 0), ("fresh_draws", 1), ("fresh_draws", 0), ("p_value", 2),
              ("p_value", 0), ("steps", 1.5)],
    Enumerate: [("draws", 0), ("fresh_draws", 0), ("p_value", 1.5), ("limit", 0), ("chunk", 0)],
    SGD: [("inits", 0), ("steps", 0), ("rounds", 0), ("fresh_draws", 1), ("draws", 100_001)],
    Beam: [("width", 0)],
    Weights: [("method", "adam"), ("steps", 2.5)],
    Relaxed: [("mix", "both")],
}  # fmt: skip


@pytest.mark.parametrize("solver", SOLVERS)
def test_values_out_of_range(solver: Any) -> None:
    for name, value in OUT_OF_RANGE[solver]:
        with pytest.raises(InputError, match=rf"got {name}={value!r} for {solver.__name__}"):
            solver(**{name: value})


@pytest.mark.parametrize(
    ("solver", "message"),
    [(Pursuit(side=300), "at most 65,536 points"), (SGD(inits=100_000, draws=100), "100,000 values x 100 draws")],
    ids=repr,
)
def test_sizes_are_checked_before_memory_is_taken(solver: Any, message: str) -> None:
    model = bumps_model(counts=(1, 2))
    with count_rows() as spent, pytest.raises(InputError, match=message):
        infer(torch.zeros(3, 16, 16), model, solver=solver)
    assert spent.rows == 0


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_number_seeds(solver: Any) -> None:
    model, true = (bumps_model(), torch.tensor([[0.3, 0.4]])) if solver is SGD else (labels_model(6), torch.tensor([2]))
    quick: Any = {SGD: SGD(inits=2, steps=3), Relaxed: Relaxed(steps=3)}.get(solver) or solver()

    def error(generator: Any) -> float:
        problem = make_problem(planted(model, true) * 0.9, model, count=1)
        return float(quick.solve(problem, generator=generator).error)

    assert error(0) == error(seeded(0))
    assert error(5) == error(seeded(5)) != error(0)
