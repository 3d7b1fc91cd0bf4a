"""What the data of an adoption show: of tables, of moved times, of labels among many, and of samples to read."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import energycomp
from energycomp.components import cosine_schedule, signal_noise
from energycomp.errors import InputError
from energycomp.models import NumberProcessor
from energycomp.seeds import seeded
from energycomp.testing import Ideal
from energycomp_adopt import Adoption, adopt, check_adoption
from energycomp_adopt.checks.calls import Calls
from energycomp_adopt.checks.case import Case
from energycomp_adopt.checks.window import WINDOW, choose_window, measure_gaps
from energycomp_adopt.process import CLOCKS

ALPHAS = cosine_schedule()
MEANS = 0.8 * torch.randn(3, 6, generator=seeded(0))


def adopted(network: Ideal, **changed: Any) -> energycomp.Model:
    classes, width = network.means.shape
    options: dict[str, Any] = {"shape": (width,), "classes": classes, "null": classes, "process": "cosine"}
    return adopt(network, **{**options, "data_range": None, **changed})


def data(count: int, means: Tensor = MEANS, std: float = 0.3, seed: int = 1) -> tuple[Tensor, Tensor]:
    labels = torch.arange(count) % len(means)
    return means[labels] + std * torch.randn(count, means.shape[1], generator=seeded(seed)), labels


def wrong(found: Adoption) -> dict[str, str]:
    return {one.what: one.change for one in found.findings if one.verdict == "wrong"}


NORMAL = torch.tensor([[0.7] * 6, [-0.7] * 6])  # with a deviation of 0.7 the numbers of both classes are nearly N(0, 1)


@pytest.mark.parametrize("bent", [lambda z: (1.5 * z).exp(), lambda z: z**3], ids=["exp", "cube"])
def test_quantiles_that_were_left_out_are_named(bent: Callable[[Tensor], Tensor]) -> None:
    z, labels = data(128, NORMAL, 0.7)
    table = bent(z)
    network = Ideal(NORMAL, 0.7)
    without = check_adoption(adopted(network, processor=NumberProcessor.fit(table)), table, labels)
    assert without.near_miss is not None, str(without)
    assert without.near_miss.instead == "NumberProcessor.fit(data, quantiles=100)"
    right = NumberProcessor.fit(table, quantiles=100)
    assert check_adoption(adopted(network, processor=right), table, labels).ok


def test_rows_on_another_scale_are_said_as_they_are() -> None:
    z, labels = data(128, NORMAL, 0.7)
    found = check_adoption(adopted(Ideal(NORMAL, 0.7), processor=NumberProcessor.fit(z)), 10 * z, labels)
    assert found.near_miss is not None, str(found)
    assert found.near_miss.got == "numbers of standard deviations 10 to 10"


class Line(nn.Module):
    """E[eps | x] of 64 numbers that are equal; the level of strong noise is taken from them, not from the time."""

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        _, told = signal_noise(ALPHAS, t.clamp(0, 999), ndim=2)
        own = x.std(1, keepdim=True)
        noise = torch.where(own > 0.25, own, told)
        mean = x.mean(1, keepdim=True)
        share = noise**2 / 64 / (1 - noise**2 + noise**2 / 64)
        return (x - mean + share * mean) / noise


def test_a_time_that_is_moved_shows_where_noise_is_weak() -> None:
    x = torch.randn(64, 1, generator=seeded(1)).expand(-1, 64).clone()
    options: dict[str, Any] = {"shape": (64,), "process": "cosine", "data_range": None}
    right = check_adoption(adopt(Line(), **options), x)
    assert "other options" not in wrong(right), str(right)
    moved = check_adoption(adopt(Line(), **options, call=lambda net, x, t, c: net(x, t + 50)), x)
    said = next(one.measured for one in moved.findings if one.what == "other options")
    assert "t -50, by call=, explains the samples better" in said


@pytest.mark.parametrize("seed", range(3))
def test_two_labels_swapped_among_ten_that_overlap(seed: int) -> None:
    means = 0.25 * torch.randn(10, 6, generator=seeded(seed))
    x, labels = data(96, means, seed=100 + seed)
    network = Ideal(means)
    assert check_adoption(adopted(network), x, labels).near_miss is None
    swapped = torch.tensor([0, 1, 6, 3, 4, 5, 2, 7, 8, 9])
    found = check_adoption(adopted(network), x, swapped[labels])
    assert found.near_miss is not None, str(found)
    assert found.near_miss.instead == "label 6 for 2, label 2 for 6"


class Flow(nn.Module):
    """The velocity eps - x0 of the same data, of (1 - t) x0 + t eps, told 1000 t."""

    def forward(self, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        time = (t / 1000).clamp(1e-3, 1 - 1e-3)[:, None]
        sigma = time / (1 - time)
        noised = x / (1 - time)
        mean = MEANS[label]
        x0 = mean + 0.3**2 / (0.3**2 + sigma**2) * (noised - mean)
        return (noised - x0) / sigma - x0


def test_a_flow_that_is_taken_for_v_of_betas() -> None:
    options: dict[str, Any] = {"shape": (6,), "classes": 3, "data_range": None}
    model = adopt(Flow(), predicts="v", process="linear", **options)
    found = check_adoption(model, *data(64))
    code = "predicts='flow', process='flow', call=lambda net, x, t, c: net(x, 1000 * t, c)"
    assert wrong(found)["other options"] == code
    call = lambda net, x, t, c: net(x, 1000 * t, c)  # noqa: E731
    assert check_adoption(adopt(Flow(), predicts="flow", process="flow", call=call, **options), *data(64)).ok


def test_random_weights_get_one_advice() -> None:
    class Random(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.first, self.second = nn.Linear(7, 64), nn.Linear(64, 6)

        def forward(self, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
            return self.second(torch.cat([x, label[:, None] + t[:, None] / 1000], 1) @ self.first.weight.T)

    options: dict[str, Any] = {"shape": (6,), "classes": 3, "process": "cosine", "data_range": None}
    with torch.random.fork_rng():
        changes = wrong(check_adoption(adopt(Random(), **options), *data(64)))
    assert len(changes) > 2
    assert set(changes.values()) == {"see other options", "data, weights or call=, or several options at once"}


class DeceivedByOthers(Ideal):
    """Below t = 600 it takes one label for another, in samples whose last number is large."""

    def forward(self, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        signal, _ = signal_noise(ALPHAS, t.clamp(0, 999), ndim=2)
        other = (t < 600) & (x[:, -1] / signal[:, 0] > 1.5)
        return super().forward(x, t, torch.where(other, (len(self.means) - label) % len(self.means), label))


def test_samples_that_will_be_read_propose_the_timesteps_and_accuse_no_option() -> None:
    means = torch.cat([MEANS, torch.zeros(3, 1)], 1)
    x, labels = data(64, means)
    other = x + torch.tensor([0.0] * 6 + [3.0])
    model = adopted(DeceivedByOthers(means))
    assert not check_adoption(model, other, labels).ok
    found = check_adoption(model, x, labels, to_read=(other, labels))
    assert found.ok, str(found)
    low = found.model.defaults.timesteps
    assert low is not None
    assert low[0] > 450
    assert check_adoption(model, x, labels).model.defaults.timesteps == model.defaults.timesteps
    with pytest.raises(InputError, match="got to_read without labels"):
        check_adoption(model, x, labels, to_read=(other, None))


@pytest.mark.parametrize("reads", ["badly everywhere", "well at one end or the other"])
def test_a_window_that_does_not_surely_read_better_is_not_proposed(reads: str) -> None:
    model = adopted(Ideal(MEANS))
    case = Case(model, *data(16), 100, seeded(0), Calls())
    gaps = -torch.ones(16, len(WINDOW), 2).double()
    if reads != "badly everywhere":
        gaps[:8, 0] = gaps[8:, -1] = 2.0  # each end alone reads half of the samples
    key: Any = measure_gaps
    case.measured[key.__wrapped__] = gaps, torch.tensor(WINDOW) / case.samples.var()  # by which `once` keeps it
    found = choose_window(case)
    assert found.defaults["timesteps"] == model.defaults.timesteps
    assert reads == "badly everywhere" or found.reason.startswith("the default is kept: only ")


def test_a_new_clock_is_a_line_of_one_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CLOCKS, "half", lambda _, timestep, sigma: timestep / 2)

    class Half(Ideal):
        def forward(self, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
            return super().forward(x, 2 * t, label)

    own: Any = {"clock": "half"}
    assert check_adoption(adopted(Half(MEANS), **own), *data(64)).ok
    assert wrong(check_adoption(adopted(Half(MEANS)), *data(64)))["other options"] == "clock='half'"
