"""Networks, the loss against loops, and a recipe that trains on a folder."""

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor

import energycomp
from energycomp.components import combine, predict, signal_noise
from energycomp.denoisers import count_rows
from energycomp.errors import InputError
from energycomp.models import Model, save_pretrained
from energycomp.seeds import seeded, torch_seed
from energycomp.testing import tiny_model
from energycomp_datasets.shapes.source import shapes_source
from energycomp_datasets.shapes.training import Pictures
from energycomp_decomp.encoders import FactorsEncoder, PartsEncoder
from energycomp_decomp.loss import covariance, factors_loss, imbalance, overlap, parts_loss, spread
from energycomp_decomp.model import decomp, default, full, untrained_lit
from energycomp_decomp.networks import PartsUNet
from energycomp_decomp.recipe import decomp as train_recipe
from energycomp_lab.checks import check_encoder, check_network, check_recipe


@pytest.fixture
def model() -> Model:
    with torch_seed(0):
        model = default(parts=3, width=4, size=16)
        network = model.denoiser.network
        torch.nn.init.normal_(network.out[2].weight, std=0.2)
        network.base.copy_(torch.rand(3, 16, 16))
    model.trained.eval()
    return model


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed))


def test_networks_conform() -> None:
    check_network(PartsUNet)
    check_network(PartsUNet, sample_size=16, token_width=4)
    check_encoder(PartsEncoder(sample_size=16, parts=3))


def test_without_a_latent_the_picture_is_the_base_which_is_the_median(model: Model) -> None:
    sample, timestep = drawn(2, 3, 16, 16), torch.tensor([900.0, 100.0])
    u = predict(combine([model.unconditional], "sum"), sample, timestep, prediction_type="sample")
    assert torch.equal(u, model.denoiser.network.base.expand_as(u))
    images = torch.randint(0, 256, (9, 3, 4, 4), generator=seeded(0)).byte()
    expected = np.median(images.numpy(), axis=0) / 127.5 - 1
    assert np.allclose(Pictures(images).median().numpy(), expected, atol=1e-6)


def test_the_product_adds_what_each_latent_adds(model: Model) -> None:
    sample, timestep, base = drawn(1, 3, 16, 16), torch.tensor([600.0]), model.denoiser.network.base
    leaves = [model.leaf(drawn(1, 4, seed=k)) for k in range(3)]
    alone = [predict(combine([leaf], "product"), sample, timestep, prediction_type="sample") for leaf in leaves]
    whole = predict(combine(leaves, "product"), sample, timestep, prediction_type="sample")
    assert torch.allclose(whole, base + sum(part - base for part in alone), atol=1e-5)
    assert float((alone[0] - alone[1]).detach().abs().max()) > 0.01


def test_latents_look_again_only_after_training() -> None:
    pictures = drawn(2, 3, 16, 16, seed=1)
    with torch_seed(0):
        encoder = PartsEncoder(sample_size=16, parts=3, token_width=4, channels=(8, 16, 8), look=1).eval()
        before = encoder(pictures)
        torch.nn.init.normal_(encoder.look.out[2].weight)
    moved = pictures.clone()
    moved[..., :8, :8] += 1
    assert not torch.allclose(encoder(pictures), before)
    look, encoder.look = encoder.look, None
    assert torch.equal(encoder(pictures), before)
    seen = drawn(2, 16, 4, 4)
    attended = look(before, seen)
    order = torch.randperm(3, generator=seeded(0))
    assert torch.allclose(look(before[:, order], seen), attended[:, order], atol=1e-5)  # every latent looks for itself


@torch.no_grad()
def test_an_encoder_that_trains_follows_its_latents() -> None:
    with torch_seed(0):
        encoder = PartsEncoder(sample_size=16, parts=3, token_width=4, channels=(8, 8, 8))
    pictures = drawn(4, 3, 16, 16)
    for _ in range(700):
        encoder(pictures)
    latents = encoder.eval()(pictures).flatten(0, 1)
    assert torch.allclose(latents.mean(0), torch.zeros(4), atol=0.01)
    assert torch.allclose(latents.std(0, correction=0), torch.ones(4), atol=0.01)


def test_prices_against_loops() -> None:
    added = drawn(2, 3, 3, 4, 4).double()
    g = added.abs().mean(2)
    pairs = [g[b, j] * g[b, k] for b in range(2) for j in range(3) for k in range(j + 1, 3)]
    assert float(overlap(added)) == pytest.approx(float(torch.stack(pairs).sum() / (2 * 16)))
    use = np.array([float(g[:, k].mean()) for k in range(3)])
    assert float(imbalance(added)) == pytest.approx(use.var() / use.mean() ** 2)
    places = np.array([((j + 0.5) / 4, (i + 0.5) / 4) for i in range(4) for j in range(4)])
    for radius in (0.0, 0.4):
        total = 0.0
        for weights in g.flatten(0, 1).flatten(1).numpy():
            centre = (weights[:, None] * places).sum(0) / weights.sum()
            total += (weights * np.maximum(((places - centre) ** 2).sum(1) - radius**2, 0)).sum()
        assert float(spread(added, radius)) == pytest.approx(total / (2 * 16), rel=1e-5)


def test_the_loss_of_parts_falls_with_the_radius(model: Model) -> None:
    samples, latents = drawn(2, 3, 16, 16), drawn(2, 3, 4, seed=1)

    def loss(radius: float) -> float:
        generator = seeded(5)
        return float(parts_loss(model.denoiser, latents, samples, radius=radius, generator=generator))

    assert loss(0.0) > loss(0.3) > loss(1.0)


def test_the_loss_is_the_error_of_the_composed_prediction(model: Model) -> None:
    """Of a product, of a mean, and of noise: against its definition."""
    samples, latents = drawn(4, 3, 16, 16, seed=3).clamp(-1, 1), drawn(4, 3, 4, seed=4)
    nothing = {"overlap_weight": 0.0, "imbalance_weight": 0.0, "spread_weight": 0.0}
    with torch_seed(0):
        mean = full(parts=3, width=4, size=16, channels=(8, 8), encoder=(8, 8, 8))
        noise = default(parts=3, width=4, size=16, prediction="epsilon")
        torch.nn.init.normal_(noise.denoiser.network.out[2].weight, std=0.2)
    for made, power in ((model, 0.5), (mean, 1.0), (noise, 1.0)):
        made.trained.eval()
        with count_rows() as spent:
            found = parts_loss(made.denoiser, latents, samples, generator=seeded(7), timestep_power=power, **nothing)
        assert made is not model or (spent.rows, spent.trunks) == (4 * 3, 4)
        generator = seeded(7)
        place = torch.randperm(4, generator=generator) + torch.rand(4, generator=generator)
        timestep = 1000 * (place / 4) ** power
        eps = torch.randn(samples.shape, generator=generator)
        signal, sigma = signal_noise(made.denoiser.alphas_cumprod, timestep, samples.dtype)
        noised, kind = signal * samples + sigma * eps, made.denoiser.prediction_type
        leaves = combine([made.leaf(latents[:, k]) for k in range(3)], made.denoiser.rule)
        wanted = samples if kind == "sample" else eps
        expected = (predict(leaves, noised, timestep, prediction_type=kind) - wanted).square().mean()
        assert torch.allclose(found, expected, rtol=1e-4)


def test_the_loss_of_factors() -> None:
    with torch_seed(0):
        model = untrained_lit(parts=3, width=2, size=16)
        torch.nn.init.normal_(model.denoiser.network.out[2].weight, std=0.2)
    samples, encoder = drawn(4, 3, 16, 16).clamp(-1, 1), cast("FactorsEncoder", model.encoder)

    def loss(**prices: float) -> Tensor:
        return factors_loss(model.denoiser, encoder, samples, generator=seeded(1), **prices)

    mean, log_variance = encoder.posterior(samples)
    normal = torch.distributions.Normal(mean, (log_variance / 2).exp())
    divergence = torch.distributions.kl_divergence(normal, torch.distributions.Normal(0.0, 1.0)).sum((1, 2)).mean()
    priced = loss(kl_weight=0.1, swap_weight=0.0) - loss(kl_weight=0.0, swap_weight=0.0)
    assert torch.allclose(priced, 0.1 * divergence, rtol=1e-3)
    plain = loss(kl_weight=0.0, swap_weight=0.0, covariance_weight=0.0)
    correlated = loss(kl_weight=0.0, swap_weight=0.0, covariance_weight=0.5) - plain
    table = torch.cov(mean.flatten(1).T, correction=0)
    expected = (table.square().sum() - table.diagonal().square().sum()) / (6 * 5)
    assert torch.allclose(covariance(mean.flatten(1)), expected, rtol=1e-4)
    assert torch.allclose(correlated, 0.5 * expected, rtol=1e-2, atol=1e-7)
    with count_rows() as spent:
        swapped = loss(kl_weight=0.0, swap_weight=1.0)
    assert (spent.rows, spent.trunks) == (6 * 3, 6)
    assert swapped.item() > loss(kl_weight=0.0, swap_weight=0.0).item()
    names = encoder(samples)[..., 2:]
    assert torch.equal(names[0], names[1])  # the name of a part is the same in every picture
    check_encoder(FactorsEncoder(sample_size=16, parts=3, channels=(8, 8, 8)))
    alone = torch.zeros(1, 3, 16, 16)  # is swapped with itself
    assert factors_loss(model.denoiser, encoder, alone, swap_weight=1.0).isfinite()


def test_the_preset_of_the_thesis_at_full_size() -> None:
    model = decomp(preset="paper")
    assert model.denoiser.sample_shape == (3, 64, 64)
    assert model.denoiser.token_shape == (1, 64)
    assert (model.denoiser.rule, model.denoiser.prediction_type) == ("mean", "sample")
    unet = model.denoiser.network.unet
    assert tuple(unet.config.block_out_channels) == (64, 128, 192)
    samples, encoder = drawn(1, 3, 64, 64), cast("PartsEncoder", model.encoder)
    nothing = {"overlap_weight": 0.0, "imbalance_weight": 0.0, "spread_weight": 0.0}
    loss = parts_loss(model.denoiser, encoder(samples), samples, generator=seeded(0), **nothing)
    loss.backward()
    assert all(p.grad is not None for name, p in model.trained.named_parameters() if "null" not in name)


def test_pictures_of_a_folder_are_trained_on_and_taken_apart(tmp_path: Path) -> None:
    shapes_source().write(tmp_path / "data", count=32, seed=0, options="", progress=lambda _: None)
    options = {"parts": "3", "width": "4", "size": "16"}
    recipe = train_recipe(data=tmp_path / "data", init=None, preset="default", cache=tmp_path, **options)
    check_recipe(recipe)
    assert float(recipe.model.denoiser.network.base.abs().max()) > 0.5
    save_pretrained(recipe.model, tmp_path / "model")
    model = energycomp.load(tmp_path / "model")
    found = energycomp.decompose(tmp_path / "data" / "images" / "000001.png", model, num_inference_steps=2)
    assert found.parts.images.shape == (1, 3, 3, 16, 16)
    again = train_recipe(data=tmp_path / "data", init=model, preset="default", cache=tmp_path)
    assert torch.equal(again.model.denoiser.network.base, model.denoiser.network.base)


@pytest.mark.parametrize(("options", "last"), [({}, 0.0), ({"radius": "0.2"}, 1.0)])
def test_a_run_turns_from_noisy_pictures_to_clear_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, str], last: float
) -> None:
    shapes_source().write(tmp_path / "data", count=8, seed=0, options="", progress=lambda _: None)
    options = {"parts": "3", "width": "4", "size": "16", **options}
    recipe = train_recipe(data=tmp_path / "data", init=None, preset="default", cache=tmp_path, **options)
    powers, spreads = [], []

    def loss(*args: object, timestep_power: float, spread_weight: float, **kwargs: object) -> Tensor:
        powers.append(timestep_power)
        spreads.append(spread_weight)
        return parts_loss(*args, timestep_power=timestep_power, spread_weight=spread_weight, **kwargs)

    monkeypatch.setattr("energycomp_decomp.recipe.parts_loss", loss)
    recipe.run(tmp_path / "run", steps=10, batch_size=4, progress=False)
    assert spreads == [1.0] * 7 + [last] * 3
    assert powers == [0.25] * 7 + [0.6] * 3


def test_models_and_recipes_that_are_not_there(tmp_path: Path) -> None:
    (tmp_path / "one.png").write_bytes(b"")
    noise, latents, samples = (
        default(parts=2, width=2, size=16, prediction="epsilon"),
        drawn(1, 2, 2),
        drawn(1, 3, 16, 16),
    )
    common: dict[str, Any] = {"data": None, "init": None, "preset": "default", "cache": tmp_path}
    for attempt, message in (
        (lambda: PartsEncoder(sample_size=18), "multiple of"),
        (lambda: PartsUNet(sample_size=18), "multiple of"),
        (lambda: PartsEncoder(sample_size=16, look=2), "one before the last"),
        (lambda: parts_loss(tiny_model().denoiser, latents, samples), "with a PartsUNet"),
        (lambda: parts_loss(noise.denoiser, latents, samples), "'sample' and 'product'"),
        (lambda: decomp(preset="large"), "expected"),
        (lambda: decomp(colour="red"), "expected"),
        (lambda: decomp(parts="3"), "expected"),
        (lambda: decomp(world="z"), "expected"),
        (lambda: decomp(pretrained=False, parts="few"), "whole number"),
        (lambda: train_recipe(**common | {"init": tiny_model()}), "one of this recipe alone"),
        (lambda: train_recipe(**common, world="z"), "got the world"),
        (lambda: train_recipe(**common | {"data": tmp_path}), r"one\.png"),
    ):
        with pytest.raises(InputError, match=message):
            attempt()
