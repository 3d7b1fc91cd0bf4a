"""The noise bank: stratified, repeatable, weighted, extendable."""

from typing import Any

import pytest
import torch

from energycomp.components import log_snr, signal_noise
from energycomp.errors import InputError
from energycomp.inference import NoiseBank, draw_bank
from energycomp.testing import cosine_schedule

ALPHAS = cosine_schedule()


def draw(n: int, seed: int = 0, **options: object) -> NoiseBank:
    return draw_bank(n, (3, 4, 4), ALPHAS, generator=torch.Generator().manual_seed(seed), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("timesteps", [None, (300.0, 900.0), (0.0, 1.0)])
def test_one_draw_in_each_part_of_the_range(timesteps: tuple[float, float] | None) -> None:
    bank = draw(50, timesteps=timesteps)
    low, high = timesteps or (0.0, 1000.0)
    part = ((bank.timestep - low) / (high - low) * 50).floor().long()
    assert part.tolist() == list(range(50))


def test_noise_is_standard_normal() -> None:
    noise = draw(400).noise  # 19,200 numbers
    assert float(noise.mean()) == pytest.approx(0, abs=4 / noise.numel() ** 0.5)
    assert float(noise.std()) == pytest.approx(1, abs=0.03)


def test_weights() -> None:
    assert torch.equal(draw(8).weight, torch.ones(8))
    bank = draw(64, gamma=4.0)
    snr = torch.exp(log_snr(ALPHAS, bank.timestep))
    torch.testing.assert_close(bank.weight.double(), torch.minimum(torch.ones(64), 4.0 / snr), rtol=1e-5, atol=1e-7)
    assert bank.weight.min() < 0.1
    assert bank.weight.max() == 1


def test_repeatable_apart_from_the_global_state_and_indexed() -> None:
    state = torch.get_rng_state()
    a, b, c = (draw(5, seed, gamma=1.0) for seed in (1, 1, 2))
    assert torch.equal(state, torch.get_rng_state())
    some = a[torch.tensor([3, 4])]
    for name in ("timestep", "noise", "weight"):
        assert torch.equal(getattr(a, name), getattr(b, name))
        assert torch.equal(getattr(some, name), getattr(a, name)[3:])
    assert not torch.equal(a.noise, c.noise)
    assert len(a[1:]) == 4


def test_noised() -> None:
    bank, x = draw(6), torch.rand(1, 3, 4, 4)
    a, s = signal_noise(ALPHAS, bank.timestep)
    torch.testing.assert_close(bank.noised(x, ALPHAS), (a * x + s * bank.noise).float())


@pytest.mark.parametrize(
    ("draws", "timesteps"), [(0, None), (2.5, None), (3, (5.0, 5.0)), (3, (-1.0, 5.0)), (3, (0.0, 1001.0))]
)
def test_ranges_that_cannot_be(draws: Any, timesteps: tuple[float, float] | None) -> None:
    with pytest.raises(InputError, match="at least 1 draw"):
        draw(draws, timesteps=timesteps)


@pytest.mark.parametrize("gamma", [0.0, -1.0, float("nan")])
def test_weights_of_draws_are_positive(gamma: float) -> None:
    with pytest.raises(InputError, match="expected a number above 0"):
        draw(3, gamma=gamma)
