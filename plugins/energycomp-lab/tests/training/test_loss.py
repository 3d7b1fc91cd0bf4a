"""The denoising loss against its definition, written out for every sample, and where augment moves images to."""

from typing import Any, get_args

import pytest
import torch

from energycomp.components import Composition, Condition, combine, log_snr, predict, signal_noise
from energycomp.components.prediction import PREDICTION_TYPES
from energycomp.components.rules import Rule
from energycomp.denoisers import Conditional, count_rows
from energycomp.errors import InputError
from energycomp.seeds import seeded
from energycomp.testing import labels_model, planted, tiny_model
from energycomp_lab.training import augment, denoising_loss

CASES = [(rule, kind) for rule in get_args(Rule) for kind in PREDICTION_TYPES if rule != "sum" or kind == "epsilon"]


@pytest.mark.parametrize("kind", ["epsilon", "sample", "v_prediction", "flow"])
@torch.no_grad()
def test_a_perfect_predictor_has_no_loss(kind: Any) -> None:
    model = labels_model(6, prediction_type=kind)
    values = [torch.tensor([1, 4]), torch.tensor([], dtype=torch.long), torch.tensor([0, 2, 5]), torch.tensor([3])]
    samples = torch.cat([planted(model, v) for v in values])
    owner = torch.tensor([0, 0, 2, 2, 2, 3])

    def loss(which: torch.Tensor) -> float:
        return float(
            denoising_loss(model.denoiser, which, model.conditioner(torch.cat(values)), owner, generator=seeded(0))
        )

    assert loss(samples) < 1e-8
    assert loss(samples + 0.1) > 1e-3


@pytest.mark.parametrize("gamma", [None, 4.0])
@pytest.mark.parametrize(("rule", "kind"), CASES)
@torch.no_grad()
def test_against_the_definition(rule: Any, kind: Any, gamma: float | None) -> None:
    model = tiny_model(rule=rule, prediction_type=kind)
    denoiser, alphas = model.denoiser, model.denoiser.alphas_cumprod
    counts, floor = ([2, 1, 0, 3] if rule == "product" else [2, 1, 1, 3]), 0.3
    batch = len(counts)
    samples, places = torch.rand(batch, 3, 16, 16) * 2 - 1, torch.rand(sum(counts), 2)
    owner = torch.repeat_interleave(torch.arange(batch), torch.tensor(counts))
    with count_rows() as spent:
        got = denoising_loss(
            denoiser,
            samples,
            model.conditioner(places),
            owner,
            gamma=gamma,
            floor=floor,
            timesteps=(100, 900),
            generator=seeded(0),
        )
    free = sum(c != 1 for c in counts) if rule == "product" else 0
    assert (spent.rows, spent.trunks) == (sum(counts) + free, batch)

    generator = seeded(0)
    place = torch.randperm(batch, generator=generator) + torch.rand(batch, generator=generator)
    timestep = 100 + 800 * place / batch
    noise = torch.randn(samples.shape, generator=generator)
    a, s = signal_noise(alphas, timestep)
    total = 0.0
    for b, part in enumerate(places.split(counts)):
        leaves = [Conditional(denoiser, Condition(p.view(1, 1, 2))) for p in part]
        composition = combine(leaves, rule) if leaves else Composition.of(denoiser.unconditional)
        x = (a[b] * samples[b] + s[b] * noise[b])[None]
        eps = predict(composition, x, timestep[b : b + 1])
        error = float((eps[0] - noise[b]).square().mean())  # |eps - eps_hat|^2 per number
        snr = float(torch.exp(log_snr(alphas, timestep[b : b + 1])))
        own = {"epsilon": 1.0, "sample": snr, "v_prediction": snr / (1 + snr), "flow": snr / (1 + snr**0.5) ** 2}[
            kind
        ]  # one of the own type in eps
        weight = own if gamma is None else max(own * min(1.0, gamma / snr), floor)
        total += weight * error / own
    assert float(got) == pytest.approx(total / batch, rel=1e-4)


def test_gradients_and_another_module() -> None:
    model, other = tiny_model(), tiny_model(seed=1)
    batch = (torch.rand(2, 3, 16, 16), model.conditioner(torch.rand(2, 2)), torch.tensor([0, 0]))
    state = torch.get_rng_state()
    own, theirs = (denoising_loss(m.denoiser, *batch, generator=seeded(0)) for m in (model, other))
    assert torch.equal(state, torch.get_rng_state())
    swapped = denoising_loss(model.denoiser, *batch, module=other.denoiser.network, generator=seeded(0))
    assert float(swapped) == float(theirs) != float(own)
    swapped.backward()
    assert all(p.grad is None for p in model.denoiser.network.parameters())
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in other.denoiser.network.parameters())


def test_shapes_that_do_not_fit() -> None:
    model = tiny_model()
    for samples, owner, message in (
        (torch.zeros(3), torch.tensor([0]), "one owner a row"),
        (torch.zeros(3, 16, 16), torch.tensor([0]), r"got samples \(3, 16, 16\); expected \(B, 3, 16, 16\)"),
        (torch.zeros(1, 3, 16, 16), torch.tensor([0, 0]), "one owner a row"),
    ):
        with pytest.raises(InputError, match=message):
            denoising_loss(model.denoiser, samples, model.conditioner(torch.rand(1, 2)), owner)


@torch.no_grad()
def test_a_power_below_one_draws_noisy_timesteps_more_often() -> None:
    model, seen = tiny_model(), []
    features = model.denoiser.network.features

    def watched(sample: torch.Tensor, timestep: torch.Tensor) -> Any:
        seen.append(timestep)
        return features(sample, timestep)

    model.denoiser.network.features = watched
    rows, owner = model.conditioner(torch.rand(64, 2)), torch.arange(64)
    for power in (1.0, 0.5):
        denoising_loss(
            model.denoiser, torch.zeros(64, 3, 16, 16), rows, owner, timestep_power=power, generator=seeded(0)
        )
    even, noisy = (torch.cat([t for t in seen if len(t)]).reshape(2, -1) / len(model.denoiser.alphas_cumprod)).double()
    assert torch.allclose(noisy, even.sqrt(), atol=1e-5)


def centres(images: torch.Tensor) -> torch.Tensor:
    """The mean position (B, 2) of what is bright, as shares of the image."""
    weight = (images[:, 0] + 1).clamp(min=0)
    axis = (torch.arange(images.shape[-1]) + 0.5) / images.shape[-1]
    total = weight.sum((1, 2))
    return torch.stack([(weight.sum(1) * axis).sum(1), (weight.sum(2) * axis).sum(1)], 1) / total[:, None]


def test_jitter_moves_and_scales_within_its_share() -> None:
    images = torch.zeros(400, 3, 64, 64, dtype=torch.uint8)
    images[:, :, 28:36, 28:36] = 255
    shown, _ = augment(images, 0, exposure=0, tint=0, jitter=0.1)
    moved = (centres(shown) - 0.5).abs()
    assert 0.08 < float(moved.max()) < 0.12
    area = (shown[:, 0] > 0).sum((1, 2)).float() / 64
    assert 0.6 < float(area.min()) < 0.9
    assert 1.1 < float(area.max()) < 1.5
    white = torch.full((50, 3, 32, 32), 255, dtype=torch.uint8)
    repeated, _ = augment(white, 0, exposure=0, tint=0, jitter=0.2)
    assert float(repeated.min()) > 0.999  # the edge is repeated
    plain, flipped = augment(images, 0, exposure=0, tint=0)
    upright = torch.where(flipped[:, None, None, None], plain.flip(3), plain)
    torch.testing.assert_close(upright, images / 127.5 - 1, rtol=0, atol=1e-5)  # without jitter nothing moves
