"""What is refused as a prior, in one line that names it, and the energies of sums of factors."""

import math
from typing import Any

import attrs
import pytest
import torch
from torch import Tensor

from energycomp.errors import InputError
from energycomp.inference import COMPONENT_PENALTY, Prior, Solution, each, explain, infer, make_problem, pairwise
from energycomp.inference.judge import posterior
from energycomp.models import Calibration
from energycomp.testing import bumps_model, labels_model


def broken(values: Tensor) -> Tensor:
    raise RuntimeError("no such layout\nand more")


def nothing(values: Tensor) -> Tensor:
    return values.float() * torch.nan


def wide(values: Tensor) -> Tensor:
    return torch.zeros(len(values), 2)


class Layouts:
    """A prior of one energy for all answers."""

    def energy(self, values: Tensor) -> Tensor:
        return torch.zeros(())


@pytest.mark.parametrize(
    ("prior", "message"),
    [
        (each(broken), "got RuntimeError of the prior broken: no such layout; expected energies"),
        (each(nothing), "got an energy of NaN or -inf of the prior nothing; expected energies"),
        (each(wide), r"got \(\d+, 2\) of the prior wide; expected energies"),
        (each(lambda values: 0.5), "got float of the prior <lambda>; expected energies"),
        (Layouts(), r"got \(\) of the prior Layouts.energy; expected energies"),
        (pairwise(lambda a, b: -torch.inf * torch.ones(len(a))), "NaN or -inf of the prior <lambda>"),
        (torch.distributions.Uniform(0.0, 1.0), "of the prior Uniform"),
        ("layouts", "got prior='layouts'; expected an object with energy"),
        (Layouts, "got prior=<class"),
        ({}, r"got the prior of counts \{\}"),
        ({1: -0.5}, "got the prior of counts"),
        ({1.5: 0.5}, "got the prior of counts"),
        ({True: 0.5}, "got the prior of counts"),
        ({1: torch.nan}, "got the prior of counts"),
    ],
)
def test_is_refused_in_one_line(prior: Any, message: str) -> None:
    model = labels_model(4, beta=1.0, counts=(2, 2))
    with pytest.raises(InputError, match=message) as error:
        infer(torch.zeros(3, 16, 16), model, solver="enumerate", prior=prior)
    assert "\n" not in str(error.value)


def test_makers_and_sums_are_checked() -> None:
    with pytest.raises(InputError, match=r"got each\(3\); expected a function"):
        each(3)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="got prior=3"):
        each(nothing) + 3
    with pytest.raises(InputError, match="none in common"):
        make_problem(torch.zeros(1, 3, 16, 16), labels_model(4, beta=1.0), prior=each(wide) + {1: 1.0} + {2: 1.0})


def test_a_model_without_beta_has_no_posterior() -> None:
    with pytest.raises(InputError, match="no inverse temperature beta"):
        infer(torch.zeros(3, 16, 16), labels_model(4), solver="enumerate", prior={1: 1.0})


@pytest.mark.parametrize("constant", [0.0, 10.0, 40.0])
def test_a_constant_of_the_prior_does_not_change_the_posterior_of_an_answer(constant: float) -> None:
    """Of log errors the odds are (J' / J)^beta; errors with the prior are J exp(E / beta)."""
    model = bumps_model(beta=4.0, log_errors=True)
    problem = make_problem(torch.zeros(1, 3, 16, 16), model, prior=each(lambda v: torch.full((len(v),), constant)))
    difference = (3.0 - 2.0) * math.exp(constant / 4.0)
    answer = Solution(torch.tensor([[0.5, 0.5]]), 1, error=2.0, stderr=0.0, rows=0, difference=difference)
    assert posterior(answer, problem) == pytest.approx(1 / (1 + (2.0 / 3.0) ** 4))


def test_an_answer_that_was_compared_with_nothing_has_no_posterior() -> None:
    """It was 1: `explain` was sure of every answer that it was given."""
    values = torch.tensor([[0.5, 0.5]])
    levels = Calibration((1,), ((0.0, 0.0),), ((1.0, 1.0),), tuple(range(9)), 100, sure=(0.0, 1.0))
    model = bumps_model(beta=4.0, calibration=levels)
    given = explain(torch.full((3, 16, 16), 0.4), model, values)
    assert (given.sure, given.verdict) == (None, None if given.trusted else "not trusted")
    answer = Solution(values, 1, error=2.0, stderr=0.0, rows=0)
    problem = make_problem(torch.zeros(1, 3, 16, 16), model)
    assert posterior(answer, problem) is None
    assert posterior(attrs.evolve(answer, probability=torch.tensor([0.7])), problem) == pytest.approx(0.7)


@pytest.mark.parametrize("difference", [None, 40.0])
def test_an_answer_without_a_better_rival_is_compared_with_one_component_less(difference: float | None) -> None:
    """It was likely, though the error fell without one of its components."""
    problem = make_problem(torch.zeros(1, 3, 16, 16), bumps_model(beta=1.0, counts=(0, 3)))
    values, words = torch.tensor([[0.2, 0.2], [0.5, 0.5]]), (torch.tensor([[0.9, 0.1], [1.0, 0.0]]),)
    answer = Solution(values, 2, error=9.0, stderr=0.0, rows=0, posteriors=words, difference=difference)
    for gain in (-5.0, *([] if difference else [COMPONENT_PENALTY, 50.0])):
        expected = 0.9 / (1 + math.exp(COMPONENT_PENALTY - gain))
        assert posterior(answer, problem, torch.tensor([60.0, gain])) == pytest.approx(expected)
    given = make_problem(torch.zeros(1, 3, 16, 16), bumps_model(beta=1.0), count=2)
    assert posterior(answer, given, torch.tensor([60.0, -5.0])) == pytest.approx(0.9)


def test_the_doubt_of_a_word_counts_once_and_a_component_more_costs_its_place() -> None:
    """A runner-up with as many components says what the posteriors of words have said."""
    problem = make_problem(torch.zeros(1, 3, 16, 16), bumps_model(beta=1.0))
    values, words = torch.tensor([[0.5, 0.5]]), (torch.tensor([[0.9, 0.1]]), torch.tensor([[0.8, 0.2]]))
    answer = Solution(values, 1, error=2.0, stderr=0.0, rows=0, difference=0.0, posteriors=words)
    assert posterior(attrs.evolve(answer, runner_up=values + 0.01), problem) == pytest.approx(0.72)
    assert posterior(attrs.evolve(answer, runner_up=values, posteriors=None), problem) == pytest.approx(0.5)
    more = attrs.evolve(answer, runner_up=values.expand(2, -1))
    assert posterior(more, problem) == pytest.approx(0.72 / (1 + math.exp(-COMPONENT_PENALTY)))
    fewer = attrs.evolve(answer, runner_up=values[:0], difference=COMPONENT_PENALTY + 1)
    assert posterior(fewer, problem) == pytest.approx(0.72 / (1 + math.exp(-1)))


def test_a_table_of_pairs_gives_the_energies_of_each_answer() -> None:
    atoms = torch.rand(5, 2, generator=torch.Generator().manual_seed(0))
    prior = each(lambda v: v.sum(1)) + pairwise(lambda a, b: (a * b).sum(1) + a[:, 0]) + {3: 0.5}
    subsets = torch.combinations(torch.arange(5), 3)
    assert isinstance(prior, Prior)
    tables: dict[Any, Tensor] = {}
    found = prior.energies(atoms, subsets, tables)
    assert len(tables) == 2  # ten answers have more values, and pairs, than five atoms have
    assert torch.allclose(found, torch.cat([prior.energy(atoms[one][None]) for one in subsets]))
    assert torch.allclose(found, prior.energy(atoms[subsets.flip(1)]))
