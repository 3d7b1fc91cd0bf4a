"""Prediction types against each other, the noise schedule between its points, and what a denoiser refuses."""

from concurrent.futures import ThreadPoolExecutor
from itertools import product
from threading import Barrier
from typing import Any

import attrs
import numpy as np
import pytest
import torch

from energycomp.components import Composition, Condition, convert, log_snr, signal_noise
from energycomp.errors import InputError
from energycomp.testing import Gaussian, cosine_schedule, stripes_model, tiny_model

ALPHAS = cosine_schedule()
TYPES = ("epsilon", "sample", "v_prediction", "flow")
EVERY = (*TYPES, "flow_to_data", "score", "edm")


@pytest.mark.parametrize("timestep", [500, torch.tensor(500.0), torch.zeros(1), torch.zeros(2, 1), None])
def test_timesteps_are_one_per_sample(timestep: Any) -> None:
    for component in (tiny_model()(0.2, 0.2), Gaussian(sample_shape=(3, 16, 16))):
        with pytest.raises(InputError, match=r"got the timestep .* for 2 samples; expected a tensor \(2,\)"):
            Composition.of(component).eps(torch.zeros(2, 3, 16, 16), timestep)


@pytest.mark.parametrize(("source", "target"), list(product(EVERY, EVERY)))
def test_every_conversion_against_the_definitions(source: str, target: str) -> None:
    generator = torch.Generator().manual_seed(0)
    x0, eps = (torch.randn(4, 3, 2, 2, generator=generator, dtype=torch.float64) for _ in range(2))
    a, s = signal_noise(ALPHAS, torch.tensor([5.0, 200.5, 600.0, 950.0]), torch.float64)
    noisy, sigma = x0 + s / a * eps, s / a  # of EDM, whose output is c_skip noisy + c_out F (Karras et al., table 1)
    total = (sigma**2 + 0.5**2).sqrt()
    truth = {
        "epsilon": eps, "sample": x0, "v_prediction": a * eps - s * x0, "flow": eps - x0, "flow_to_data": x0 - eps,
        "score": -eps / s, "edm": (x0 - 0.25 / total**2 * noisy) / (0.5 * sigma / total),
    }  # fmt: skip
    got = convert(truth[source], a * x0 + s * eps, a, s, source=source, target=target)  # type: ignore[arg-type]
    torch.testing.assert_close(got, truth[target], rtol=1e-9, atol=1e-9)


def test_schedule_is_reproduced_at_its_points_and_interpolated_in_log_snr() -> None:
    points = torch.arange(1000.0)
    torch.testing.assert_close(torch.sigmoid(log_snr(ALPHAS, points)), ALPHAS.double(), rtol=1e-9, atol=0)
    between = torch.tensor([-3.0, 0.25, 499.5, 998.9, 1000.0])  # clamped at the ends
    table = np.log(ALPHAS.double().numpy()) - np.log1p(-ALPHAS.double().numpy())
    expected = np.interp(between.double().numpy(), np.arange(1000), table)
    np.testing.assert_allclose(log_snr(ALPHAS, between).numpy(), expected, rtol=1e-12)
    a, s = signal_noise(ALPHAS, torch.linspace(0, 1000, 50), torch.float64)
    assert a.shape == (50, 1, 1, 1)
    torch.testing.assert_close(a**2 + s**2, torch.ones_like(a))
    assert signal_noise(ALPHAS, torch.zeros(1))[0].dtype == torch.float32


FALLING = r"expected \(T,\) falling"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        *(({"alphas_cumprod": torch.tensor(alphas)}, FALLING)
          for alphas in ([0.5], [0.1, 0.5], [1.0, 0.5], [0.5, 0.0], [[0.9, 0.5], [0.4, 0.1]])),
        ({"alphas_cumprod": [0.9, 0.1]}, "of type list; expected a tensor"),
        *(({"rule": "sum", "prediction_type": kind}, "rule 'sum'") for kind in ("sample", "v_prediction", "flow")),
        ({"prediction_type": "x0"}, "prediction_type"), ({"rule": "max"}, "rule"),
    ],
)  # fmt: skip
def test_denoisers_that_cannot_be(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        attrs.evolve(tiny_model().denoiser, **change)
    assert isinstance(error.value, InputError)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_to_moves_the_schedule_too() -> None:
    moved = tiny_model().denoiser.to("cuda")
    assert moved.device.type == moved.alphas_cumprod.device.type == "cuda"


def test_moving_nothing_gives_the_same_denoiser() -> None:
    model = tiny_model()
    before = model(0.2, 0.2)
    assert model.denoiser.to("cpu") is model.denoiser
    moved = model.to(torch.device("cpu"))
    assert moved.unconditional is model.unconditional
    assert len((before & moved(0.7, 0.7)).terms) == 3


def test_the_device_meta_is_refused_and_the_model_stays_whole() -> None:
    model = tiny_model()
    weights = {name: weight.clone() for name, weight in model.denoiser.network.state_dict().items()}
    for move in (model.denoiser.to, model.to, stripes_model().to):
        for device in ("meta", torch.device("meta")):
            with pytest.raises(InputError, match=r"'meta'.*expected "):
                move(device)
    assert all(torch.equal(weight, weights[name]) for name, weight in model.denoiser.network.state_dict().items())


def test_threads_share_one_unconditional_leaf(monkeypatch: pytest.MonkeyPatch) -> None:
    """All threads make a leaf at the same time, and all get the first."""
    denoiser, count = tiny_model().denoiser, 16
    together, make = Barrier(count, timeout=20), Condition.unconditional

    def slow(*args: Any, **kwargs: Any) -> Condition:
        together.wait()
        return make(*args, **kwargs)

    monkeypatch.setattr(Condition, "unconditional", slow)
    with ThreadPoolExecutor(count) as pool:
        leaves = list(pool.map(lambda _: denoiser.unconditional, range(count)))
    assert len({id(leaf) for leaf in leaves}) == 1
    assert denoiser.unconditional is leaves[0]
