"""Standard errors of stratified draws, and the paired test."""

import pytest
import torch
from scipy import stats
from scipy.special import stdtrit
from torch import Tensor

from energycomp.errors import InputError
from energycomp.inference import as_normal, make_problem, paired, standard_error
from energycomp.seeds import seeded
from energycomp.testing import labels_model, planted


def curves(readings: int, draws: int, seed: int = 0) -> Tensor:
    """Errors (readings, draws) that follow a curve over stratified times in [0, 1], with noise; their mean is 1/3."""
    strata = torch.arange(draws) + torch.rand(readings, draws, generator=seeded(seed), dtype=torch.float64)
    noise = torch.randn(readings, draws, generator=seeded(seed + 1), dtype=torch.float64)
    return (strata / draws) ** 2 + 0.1 * noise


@pytest.mark.parametrize("banks", [[8], [16], [64], [4, 4], [4, 4, 8, 4, 4, 8]], ids=str)
def test_intervals_cover_the_mean_of_stratified_draws(banks: list[int]) -> None:
    errors = torch.cat([curves(400, size, seed=10 * k) for k, size in enumerate(banks)], dim=1)
    found = [standard_error(reading, banks) for reading in errors]
    off = errors.mean(1) - 1 / 3
    inside = [abs(float(gap)) < stdtrit(f, 0.975) * s for gap, (s, f) in zip(off, found, strict=True)]
    z = off / torch.tensor([as_normal(*each) for each in found])
    assert 0.92 < sum(inside) / len(inside) < 0.98  # 1.0 for differences of neighbours
    assert 0.92 < float((z.abs() < 1.96).double().mean()) < 0.98
    assert 0.85 < float(z.std()) < 1.15  # 0.4 to 0.6 for differences of neighbours


@pytest.mark.parametrize("draws", [2, 4, 8])
def test_independent_draws_have_the_interval_of_their_spread(draws: int) -> None:
    errors = torch.randn(400, draws, generator=seeded(4))
    found = [standard_error(reading) for reading in errors]
    inside = [abs(float(each.mean())) < stdtrit(f, 0.975) * s for each, (s, f) in zip(errors, found, strict=True)]
    assert 0.92 < sum(inside) / len(inside) < 0.98
    assert sum(s**2 for s, _ in found) / len(found) == pytest.approx(1 / draws, rel=0.15)


def test_shuffled_draws_give_the_variance_without_stratification() -> None:
    errors = curves(1, 400)[0]
    shuffled = errors[torch.randperm(400, generator=seeded(2))]
    assert standard_error(shuffled)[0] == pytest.approx(float(errors.std() / 20), rel=0.1)
    assert standard_error(errors)[0] < 0.4 * standard_error(shuffled)[0]


def test_independent_draws_give_the_usual_test() -> None:
    a, b = torch.randn(300, generator=seeded(1)), torch.randn(300, generator=seeded(2)) + 0.1
    mean, stderr, p = paired(a, b)
    expected = stats.ttest_rel(b.double().numpy(), a.double().numpy(), alternative="greater")
    assert mean / stderr == pytest.approx(expected.statistic, rel=0.1)
    assert p == pytest.approx(expected.pvalue, rel=0.5)
    assert paired(b, a)[2] == pytest.approx(1 - p, rel=1e-5)


def test_rounding_decides_nothing() -> None:
    a = torch.randn(20, generator=seeded(1))
    same = torch.full((20,), 10.0)
    assert paired(a, a)[::2] == (0.0, 0.5)
    assert paired(same, same + 2e-6)[2] > 0.4
    assert paired(torch.zeros(3), torch.ones(3))[2] < 1e-9
    assert paired(a[:1], a[:1] + 1)[1:] == (float("inf"), 0.5)


def test_banks_must_hold_the_draws() -> None:
    with pytest.raises(InputError, match="banks whose draws add up to"):
        standard_error(torch.zeros(5), [2, 2])


def test_a_bank_comes_in_the_order_of_its_timesteps() -> None:
    model = labels_model(2)
    bank = make_problem(planted(model, torch.tensor([1])), model).draw(32, seeded(0))
    assert torch.equal(bank.timestep, bank.timestep.sort().values)
