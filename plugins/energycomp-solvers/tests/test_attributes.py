"""One value of each attribute: exact, by beam, by weights, with posteriors and with as few draws as are needed."""

import math
import time
from itertools import product
from typing import Any

import attrs
import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from scipy.special import ndtr
from torch import Tensor

from energycomp.denoisers import count_rows
from energycomp.errors import InputError
from energycomp.inference import QuadraticForm, each, make_problem
from energycomp.models import Model
from energycomp.seeds import seeded
from energycomp.testing import attributes_model, labels_model, planted
from energycomp_solvers.beam import Beam
from energycomp_solvers.enumerate import Enumerate, _keep
from energycomp_solvers.search.ranked import compare_halves
from energycomp_solvers.shared import Answers, all_errors, marginals, nominal_level, sequential_p_value, unravel
from energycomp_solvers.shared.answers import _best_of_chunk
from energycomp_solvers.weights import Weights


def noisy(model: Model, values: Tensor, scale: float, seed: int = 0) -> Tensor:
    return planted(model, values) + scale * torch.randn(1, 3, 16, 16, generator=seeded(seed))


def form_of(b: Tensor, gram: Tensor, c: float) -> QuadraticForm:
    return QuadraticForm(b[None], gram[None], b.new_tensor([c]))


PLAIN = make_problem(torch.zeros(1, 3, 16, 16), attributes_model(1))
TRUE = torch.tensor([0, 3, 5, 6])
LOOKS = (8, 16, 32, 64, 128)


@pytest.mark.parametrize("rule", ["product", "mean"])
@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_exact_is_brute_force(rule: Any, scale: float) -> None:
    model = attributes_model(4, rule=rule)
    picture = noisy(model, TRUE, scale)
    problem = make_problem(picture, model)
    choices = torch.tensor(list(product([0, 1], [2, 3], [4, 5], [6, 7])))
    expected = problem.errors(choices, problem.draw(6, seeded(0))).double().mean(1)
    solution = Enumerate(draws=6, p_value=None).solve(make_problem(picture, model), generator=seeded(0))
    assert solution.conditions.tolist() == choices[expected.argmin()].tolist()
    assert solution.trace["error"] == pytest.approx(expected.sort().values[:2].tolist(), rel=1e-5)
    assert solution.trace["configurations"] == [16]


@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_the_halves_of_the_draws_together_select(scale: float) -> None:
    model, generator = attributes_model(4, beta=0.01), seeded(0)
    picture = noisy(model, TRUE, scale)
    problem, choices = make_problem(picture, model), torch.tensor(list(product([0, 1], [2, 3], [4, 5], [6, 7])))
    errors = [problem.errors(choices, problem.draw(4, generator)).detach().double() for _ in range(2)]
    mean = torch.cat(errors, dim=1).mean(1)
    solution = Enumerate(draws=4).solve(make_problem(picture, model), generator=seeded(0))
    assert solution.conditions.tolist() == choices[mean.argmin()].tolist()
    assert solution.trace["error"] == pytest.approx(mean.sort().values[:2].tolist(), rel=1e-5)
    assert solution.error == pytest.approx(float(mean.min()), rel=1e-5)
    assert (solution.trace["draws"], solution.rows) == ([8], 8 * (8 + 1))
    joint = torch.softmax(-0.01 * mean, 0)
    of_each = [float(joint[(choices == value).any(1)].sum()) for value in solution.conditions]
    assert solution.probability.tolist() == pytest.approx(of_each, rel=1e-4)


def test_rows_are_those_of_the_values() -> None:
    model = attributes_model(6)
    values = torch.arange(0, 12, 2)
    with count_rows() as spent:
        Enumerate(draws=4, fresh_draws=1).solve(make_problem(planted(model, values), model), generator=seeded(0))
    assert spent.rows == 4 * (2 * 6 + 1) + 2 * 6 + 1  # 2K + 1 a draw; the answer and its rival once, with one u


def test_a_million_answers_take_a_second() -> None:
    atoms = torch.randn(40, 64, dtype=torch.float64, generator=seeded(0))
    start = time.process_time()
    errors = all_errors(form_of(atoms[:, 0], atoms @ atoms.T, 1.0), torch.arange(40).view(20, 2).tolist())
    posteriors = marginals(errors, [2] * 20, beta=0.01)
    assert len(errors) == 2**20
    assert all(float(p.sum()) == pytest.approx(1.0) for p in posteriors)
    assert time.process_time() - start < 4  # of both cores together


def test_probabilities_need_a_beta_and_fall_with_noise() -> None:
    def probability(scale: float, **options: Any) -> Tensor | None:
        model = attributes_model(4, **options)
        problem = make_problem(noisy(model, TRUE, scale), model)
        return Enumerate(draws=8).solve(problem, generator=seeded(0)).probability

    assert probability(0.0) is None
    clear, faint = probability(0.0, beta=0.02), probability(2.0, beta=0.02)
    assert clear.shape == (4,)
    assert float(clear.min()) > float(faint.min())
    assert bool(((clear <= 1) & (clear >= 0.5)).all())


def test_with_logarithms_only_the_ratio_of_errors_counts() -> None:
    model = attributes_model(4, beta=3.0, log_errors=True)
    problem = make_problem(noisy(model, TRUE, 1.0), model)
    errors = torch.rand(16, dtype=torch.float64, generator=seeded(0)) + 1.0
    one, other = (marginals(problem.posterior.energies(scale * errors), [2] * 4, 3.0) for scale in (1.0, 50.0))
    assert all(torch.allclose(p, q) for p, q in zip(one, other, strict=True))
    joint = errors**-3.0 / (errors**-3.0).sum()
    assert torch.allclose(one[0], joint.view(2, 8).sum(1))
    assert bool(problem.posterior.energies(torch.zeros(1)).isfinite())
    solution = Enumerate(draws=8).solve(problem, generator=seeded(0))
    assert bool(((solution.probability > 0.5) & (solution.probability < 1.0)).all())


@pytest.mark.parametrize(("scale", "is_tempered"), [(1.0, False), (-1.0, True)])
def test_posteriors_are_tempered_where_the_answer_explains_less_than_no_component(
    scale: float, is_tempered: bool
) -> None:
    model = attributes_model(4, beta=3.0, log_errors=True, distrust=6.0)
    problem = make_problem(scale * planted(model, TRUE), model)
    form = problem.quadratic(torch.arange(8), problem.draw(8, seeded(0)))
    errors = all_errors(form, [[2 * k, 2 * k + 1] for k in range(4)])
    fit = 1 - float(errors.min()) / float(form.c.mean())
    assert (fit < 0) == is_tempered
    chances = errors ** (-3.0 * math.exp(6.0 * min(fit, 0.0)))
    joint = (chances / chances.sum()).view(2, 2, 2, 2)
    best = np.unravel_index(int(errors.argmin()), joint.shape)
    expected = [float(joint.movedim(k, 0)[value].sum()) for k, value in enumerate(best)]
    solution = Enumerate(draws=8, p_value=None).solve(problem, generator=seeded(0))
    assert solution.probability.tolist() == pytest.approx(expected)


def test_a_prior_is_no_reason_for_distrust() -> None:
    """A prior that is the same for all answers changes no posterior."""
    model = attributes_model(4, beta=3.0, log_errors=True, distrust=6.0)
    found = []
    for prior in (None, each(lambda values: torch.full((len(values),), 3.0))):
        problem = make_problem(0.6 * planted(model, TRUE), model, prior=prior)
        found.append(Enumerate(draws=8, p_value=None).solve(problem, generator=seeded(0)).probability)
    torch.testing.assert_close(found[0], found[1])


@pytest.mark.parametrize("solver", [Beam(draws=6), Weights(draws=6)], ids=str)
def test_other_solvers_find_the_exact_answer_of_a_clear_picture(solver: Any) -> None:
    model = attributes_model(4)
    picture = noisy(model, TRUE, 0.1)
    with count_rows() as spent:
        solution = solver.solve(make_problem(picture, model), generator=seeded(0))
    assert solution.conditions.tolist() == TRUE.tolist()
    assert solution.runner_up is not None
    assert int((solution.runner_up != solution.conditions).sum()) == 1
    assert spent.rows == solution.rows <= 6 * (8 + 1) + 2 * 6 * (4 + 1)


@pytest.mark.parametrize("seed", range(4))
def test_a_wide_beam_is_exact(seed: int) -> None:
    model = attributes_model(4, seed=seed)
    picture = noisy(model, TRUE, 2.0, seed)
    exact, beam = (s.solve(make_problem(picture, model), generator=seeded(0)) for s in (Enumerate(), Beam(width=16)))
    assert exact.conditions.tolist() == beam.conditions.tolist()


def test_draws_are_added_until_the_answer_is_sure_and_beaten_values_are_dropped() -> None:
    model = attributes_model(4, draws=200)
    clear = planted(model, TRUE)
    between = (clear + planted(model, torch.tensor([0, 3, 5, 7]))) / 2
    with count_rows() as spent:
        clear_one = Enumerate().solve(make_problem(clear, model), generator=seeded(0))
    assert clear_one.conditions.tolist() == TRUE.tolist()
    assert clear_one.rows == spent.rows == 2 * 4 * (8 + 1)
    assert clear_one.p_value < 1e-2
    with count_rows() as spent:
        unsure = Enumerate().solve(make_problem(between, model), generator=seeded(0))
    assert unsure.p_value > 0.5
    assert unsure.trace["draws"] == [2 * 200]
    assert unsure.rows == spent.rows == 2 * 4 * (8 + 1) + 2 * 196 * (5 + 1)  # labels 1, 2 and 4 are dropped


def on_all_draws(image: Tensor, model: Model, choices: Tensor) -> Tensor:
    """The mean errors of choices on the 32 draws that Enumerate makes of a model of 16."""
    problem, generator = make_problem(image, model), seeded(0)
    banks = [problem.draw(n, generator) for n in (4, 4, 4, 4, 8, 8)]
    return torch.cat([problem.errors(choices, bank).detach().double() for bank in banks], dim=1).mean(1)


def test_values_of_some_probability_are_not_dropped() -> None:
    """And certainties are those of all answers, on all draws."""
    model = attributes_model(3, draws=16, beta=0.01)
    image = (planted(model, torch.tensor([0, 2, 4])) + planted(model, torch.tensor([0, 2, 5]))) / 2
    solution = Enumerate().solve(make_problem(image, model), generator=seeded(0))
    assert solution.trace["draws"] == [32]
    assert solution.rows == 32 * (6 + 1)
    choices = torch.tensor(list(product([0, 1], [2, 3], [4, 5])))
    joint = torch.softmax(-0.01 * on_all_draws(image, model, choices), 0)
    of_each = torch.stack([joint[(choices == value).any(1)].sum() for value in range(6)])
    assert float(of_each.min()) > 0.002
    assert torch.allclose(solution.probability, of_each[solution.conditions], atol=1e-4)


def test_many_improbable_values_keep_their_probability() -> None:
    """Of 80 values 78 have about 0.001 each: dropped one by one, a tenth of the probability would be missing."""
    model = labels_model(80, draws=16, beta=0.45, counts=(1, 1))
    image = (planted(model, torch.tensor([2])) + planted(model, torch.tensor([5]))) / 2
    solution = Enumerate().solve(make_problem(image, model), generator=seeded(0))
    posterior = torch.softmax(-0.45 * on_all_draws(image, model, torch.arange(80)[:, None]), 0)
    assert 0.05 < float(posterior.sum() - posterior[[2, 5]].sum()) < 0.15
    assert float(posterior.sort().values[-3]) < 0.005
    assert float(solution.probability) == pytest.approx(float(posterior[solution.conditions]), abs=0.003)


@pytest.mark.parametrize("beta", [None, 0.05])
def test_stopping_and_dropping_change_no_answer_of_a_noisy_image(beta: float | None) -> None:
    spent = []
    for seed in range(12):
        model = attributes_model(5, seed=seed, spread=0.3, beta=beta)
        values = torch.arange(0, 10, 2) + torch.randint(2, (5,), generator=seeded(seed))
        problems = [make_problem(noisy(model, values, 0.3, seed), model) for _ in range(2)]
        early, exact = (
            solver.solve(problem, generator=seeded(seed))
            for solver, problem in zip((Enumerate(), Enumerate(p_value=None)), problems, strict=True)
        )
        assert early.conditions.tolist() == exact.conditions.tolist() == values.tolist()
        assert early.rows <= exact.rows
        if beta is not None:
            assert float(early.probability.min()) > 0.5
        spent.append(early.rows / exact.rows)
    assert sum(spent) / len(spent) < 0.6


def simulated(gap: float, count: int, draws: int) -> list[QuadraticForm]:
    """Halves of draws of four labels in two pairs; the answers [0, 2] and [0, 3] differ by `gap`, in noise of 1."""
    generator = seeded(0)
    halves = []
    for _ in range(2 * count):
        b = torch.randn(draws, 4, generator=generator, dtype=torch.float64) * 0.25 * 2**0.5
        b += torch.tensor([5.0, 0.0, gap / 2, 0.0])
        halves.append(QuadraticForm(b, torch.zeros(draws, 4, 4, dtype=torch.float64), b.new_full((draws,), 20.0)))
    return halves


def answers_of(slots: list[list[int]]) -> Answers:
    """All choices of one atom a slot, of a problem without a prior."""
    count = len(slots)
    problem = attrs.evolve(PLAIN, counts=(count, count), exchangeable=False)
    return Answers(problem, torch.zeros(sum(map(len, slots)), 1), slots, 2**16)


def sure(halves: list[QuadraticForm]) -> float:
    """How often two halves are sure at p < 0.05."""
    slots, found = [[0, 1], [2, 3]], []
    for pair in zip(halves[::2], halves[1::2], strict=True):
        errors = [all_errors(half, slots) for half in pair]
        least = [e.topk(2, largest=False).indices.tolist() for e in errors]
        selected = [[(0.0, unravel(index, slots)) for index in two] for two in least]
        found.append(compare_halves(list(pair), selected, [len(pair[0].b)])[2] < 0.05)
    return sum(found) / len(found)


def test_halves_that_judge_each_other_are_seldom_wrongly_sure() -> None:
    assert 0.01 < sure(simulated(0.0, 1000, 10)) < 0.06  # both answers are equally good
    assert sure(simulated(0.7, 300, 10)) > 0.65  # a t of 3.1 over 20 draws, of few degrees of freedom


def test_the_best_answer_with_each_value_is_that_of_all_answers() -> None:
    atoms, slots = torch.randn(7, 9, dtype=torch.float64, generator=seeded(0)), [[0, 4], [2, 3, 1], [6, 5]]
    answers = list(product(*slots))
    form = form_of(atoms[:, 0], atoms @ atoms.T, 2.0)
    errors = all_errors(form, slots)
    expected = [min((e, list(a)) for e, a in zip(errors.tolist(), answers, strict=True) if k in a) for k in range(7)]
    assert answers_of(slots).rank(form).with_each == expected
    assert _best_of_chunk(errors, torch.tensor(answers), 8) == [*expected, (float("inf"), [])]


def test_equally_good_values_are_seldom_dropped() -> None:
    slots, dropped, beaten, p_value = [[0, 1], [2, 3, 4, 5]], 0, 0, 0.05
    for seed in range(300):
        generator, halves = seeded(seed), []
        for _ in range(2):
            b = torch.randn(8, 6, generator=generator, dtype=torch.float64) + torch.tensor(
                [5.0, 0.0, 0.0, 0.0, 0.0, 0.0]
            )
            halves.append(QuadraticForm(b, torch.zeros(8, 6, 6, dtype=torch.float64), b.new_full((8,), 20.0)))
        rankings = [answers_of(slots).rank(half) for half in halves]
        kept, _ = _keep(halves, rankings, [8], p_value, 0.0)
        assert kept[0] == 0
        beaten += 1 not in kept
        dropped += len(set(kept) - {0, 1}) < 4
    assert dropped < 2 * p_value * 300
    assert beaten > 0.9 * 300


def test_of_two_equal_labels_none_is_declared_better_wherever_the_search_stops() -> None:
    """If each of five looks at the draws spent 5%, 14% of the answers would be wrong (Armitage et al., 1969).

    The sequential test of 5% against 14% (Wald, 1945) ends after about 40 answers if none of them is wrong, and after
    200 at most. At 14% it passes with a probability of 0.02.
    """
    p_value, readings, evidence = 0.05, 0, 0.0  # the log likelihood ratio of 14% and 5%
    model = attributes_model(1, draws=64, spread=0.5)
    image = (planted(model, torch.tensor([0])) + planted(model, torch.tensor([1]))) / 2
    while evidence > math.log(0.02) and readings < 200:
        found = Enumerate(p_value=p_value).solve(make_problem(image, model), generator=seeded(readings)).p_value
        wrong = found is not None and found < p_value
        evidence += math.log(0.14 / 0.05 if wrong else 0.86 / 0.95)
        readings += 1
    assert evidence <= math.log(0.02)


def paths(drift: float) -> np.ndarray:
    """The two-sided p-values of 200,000 tests at each of the LOOKS, of a difference of `drift` standard errors."""
    steps = np.random.default_rng(0).standard_normal((200_000, len(LOOKS))) * np.diff([0, *LOOKS]) ** 0.5
    z = (steps.cumsum(1) + drift * np.array(LOOKS) / LOOKS[-1] ** 0.5) / np.array(LOOKS) ** 0.5
    return np.asarray(2 * ndtr(-abs(z)))


def last_of(found: np.ndarray) -> np.ndarray:
    """The p-values at which tests stop at a level of 0.01."""
    stops = found < nominal_level(LOOKS, 0.01)
    return np.asarray(found[np.arange(len(found)), np.where(stops.any(1), stops.argmax(1), len(LOOKS) - 1)])


def nominal_of(level: float) -> float:
    """The p-value of the last look that is one of `level` after all looks."""
    return float(brentq(lambda found: sequential_p_value(LOOKS, 0.01, found) - level, 1e-6, 1.0, xtol=1e-6))


def test_a_test_that_is_repeated_keeps_its_level_and_its_power() -> None:
    equal = last_of(paths(0.0))
    for level in (0.01, 0.05, 0.2):
        assert float((equal <= nominal_of(level)).mean()) == pytest.approx(level, rel=0.05)
    assert float((equal <= nominal_of(0.001)).mean()) <= 0.001  # not all looks are made then
    different = paths(2.8)  # a test of 0.05 that is made once finds 80 %
    alone = float((different[:, -1] < 0.05).mean())
    assert float((last_of(different) <= nominal_of(0.05)).mean()) > alone - 0.02
    assert alone == pytest.approx(0.8, abs=0.01)


def test_only_what_is_asked_is_answered() -> None:
    model = attributes_model(4)
    problem = make_problem(planted(model, TRUE), model, candidates=torch.tensor([2, 3, 6, 7]))
    assert [slot.candidates.tolist() for slot in problem.slots if slot.candidates is not None] == [[2, 3], [6, 7]]
    assert problem.counts == (2, 2)
    with pytest.raises(InputError, match="expected one of each"):
        make_problem(planted(model, TRUE), model, count=2)
