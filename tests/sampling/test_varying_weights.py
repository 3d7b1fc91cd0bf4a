"""Sampling with weights that vary: batched is looped, and a component without weight at a step costs no row."""

from typing import Any, cast

import pytest
import torch
from torch import Tensor

from energycomp.components import Composition, PredictionType, convert, during, predict, ramp, region
from energycomp.denoisers import count_rows
from energycomp.sampling import Composer, make_scheduler, sample as follow
from energycomp.testing import tiny_model

KINDS = ["epsilon", "sample", "v_prediction", "flow"]
MASK = torch.rand(16, 16, generator=torch.Generator().manual_seed(0))
COLUMN = torch.arange(16).expand(16, 16)


def is_early(timestep: float, share: float) -> bool:
    """Whether a step of ten lies in the first `share` of them: timesteps are 999, 899, ..., 99."""
    return (999 - timestep) / 1000 < share - 1e-9


CASES: dict[str, tuple[Any, Any]] = {
    # composition of a, b and u; weights of a and b by timestep, as tensors
    "halves": (
        lambda a, b, _: 3 * region("left half") * a & 3 * region("right half") * b,
        lambda t: (3.0 * (COLUMN < 8), 3.0 * (COLUMN >= 8)),
    ),
    "halves of weight 1": (
        lambda a, b, _: region("left half") * a & region("right half") * b,
        lambda t: (1.0 * (COLUMN < 8), 1.0 * (COLUMN >= 8)),
    ),
    "one after another": (
        lambda a, b, _: during(until=0.4) * a & during(from_=0.4) * b,
        lambda t: (float(is_early(t, 0.4)), float(not is_early(t, 0.4))),
    ),
    "guidance interval": (
        lambda a, b, u: 7.5 * during(0.0, 0.3) * a & 2 * b & u,
        lambda t: (7.5 * is_early(t, 0.3), 2.0),
    ),
    "negation in a mask, rising": (
        lambda a, b, _: 2 * a & ~(ramp(0.1, 0.5) * region(MASK) * b),
        lambda t: (2.0, -min(max(((999.5 - t) / 1000 - 0.1) / 0.4, 0.0), 1.0) * MASK),
    ),
}


def models(kind: str) -> tuple[Any, Any, Any]:
    model = tiny_model(rule="product", prediction_type=kind)
    return model(0.2, 0.2), model(0.8, 0.7), model.unconditional


def by_hand(
    case: str, leaves: tuple[Any, Any, Any], sample: Tensor, timestep: Tensor, kind: PredictionType = "epsilon"
) -> Tensor:
    """The weighted sum of the predictions of one sample after another, in float64."""
    rows = []
    for x, t in zip(sample.split(1), timestep.split(1), strict=True):
        wa, wb = (torch.as_tensor(weight).double() for weight in CASES[case][1](float(t)))
        a, b, u = (predict(Composition.of(leaf), x, t, prediction_type=kind).double() for leaf in leaves)
        rows.append(u + wa * (a - u) + wb * (b - u))
    return torch.cat(rows)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", CASES)
def test_batched_is_looped_at_any_timestep(case: str, kind: str) -> None:
    leaves = models(kind)
    composition = Composition.of(CASES[case][0](*leaves))
    generator = torch.Generator().manual_seed(0)
    sample, timestep = torch.randn(4, 3, 16, 16, generator=generator), torch.tensor([899.0, 599.0, 899.0, 99.0])
    expected = by_hand(case, leaves, sample, timestep).detach()
    got = composition.eps(sample, timestep).detach().double()
    assert float((got - expected).abs().max() / expected.abs().max()) < 1e-5


@pytest.mark.parametrize("kind", ["sample", "v_prediction", "flow"])
@pytest.mark.parametrize("case", CASES)
def test_samples_follow_the_sum_of_every_step(case: str, kind: PredictionType) -> None:
    """A component without weight at a step costs no row of it."""
    leaves = models(kind)
    composer, reports = Composer(CASES[case][0](*leaves)), []
    options: Any = {"num_inference_steps": 10, "generator": 0, "progress": False}
    with count_rows() as spent:
        got = composer.sample(2, output_type="latent", report=reports.append, **options)
    steps = [CASES[case][1](999.0 - 100 * step) for step in range(10)]
    active = [sum(bool(torch.as_tensor(w).any()) for w in (wa, wb, 1 - wa - wb)) for wa, wb in steps]
    assert spent.rows == reports[0].evaluations == 2 * sum(active)
    assert spent.trunks == 2 * len(steps)
    alphas_cumprod = composer.noised_space.alphas_cumprod
    ddim = make_scheduler(None, alphas_cumprod, prediction_type=kind, value_range=(-1.0, 1.0))

    def predicted(x: Tensor, timestep: Tensor, wanted: str) -> Tensor:
        assert wanted == ("v_prediction" if kind == "flow" else kind)  # the mass is 1 everywhere
        return by_hand(case, leaves, x, timestep, cast("PredictionType", wanted)).float()

    torch.testing.assert_close(got, follow(predicted, (2, 3, 16, 16), ddim, **options), atol=1e-3, rtol=0)


def test_constant_weights_run_the_rows_that_they_ran(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights that are numbers are not evaluated at all."""
    monkeypatch.setattr("energycomp.components.terms.noise_share", pytest.fail)
    a, b, _ = models("sample")
    with count_rows() as spent:
        Composer(2 * a & b).sample(2, num_inference_steps=10, progress=False)
    assert spent.rows == 2 * 3 * 10


def test_a_composition_without_weight_predicts_no_noise() -> None:
    late = during(from_=0.5) * models("sample")[0]
    with count_rows() as spent:
        assert not late.eps(torch.randn(2, 3, 16, 16), torch.full((2,), 999.0)).any()
    assert spent.rows == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_composition_without_weight_at_a_timestep_predicts_no_noise_as_any_type(kind: PredictionType) -> None:
    model = tiny_model()
    x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    t = torch.full((2,), 99.0)
    signal, noise = model.denoiser.noised_space.levels(t)
    expected = convert(torch.zeros_like(x), x, signal, noise, source="epsilon", target=kind)
    found = predict(during(until=0.4) * model(0.2, 0.3), x, t, prediction_type=kind)
    torch.testing.assert_close(found, expected)
