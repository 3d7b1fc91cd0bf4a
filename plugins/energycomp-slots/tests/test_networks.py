"""Slots against what must hold of them: order, sharing, closed forms, and any number of them."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Independent, Normal, kl_divergence

from energycomp.decomposition import decomposer_of, sampler_of
from energycomp.denoisers import count_rows
from energycomp.errors import InputError
from energycomp.sampling import Composer
from energycomp.seeds import seeded, torch_seed
from energycomp_lab.checks import check_component, check_decomposer, check_model, check_network
from energycomp_slots.attention import SlotAttention
from energycomp_slots.decomposer import SlotAutoencoder, SlotDecomposer
from energycomp_slots.loss import LossWeights, generation_loss, kl_normal, slot_loss
from energycomp_slots.model import slots, untrained
from energycomp_slots.networks import SlotVAE

SIZE, SLOTS, WIDTH = 16, 3, 8
SMALL: dict[str, Any] = {"sample_size": SIZE, "slots": SLOTS, "width": WIDTH, "channels": 8, "decoder_channels": 8}


def network(**options: Any) -> SlotVAE:
    with torch_seed(0):
        return SlotVAE(**{**SMALL, "global_width": 4, "global_hidden": 16, **options}).eval()


@pytest.fixture
def decomposer() -> SlotDecomposer:
    with torch_seed(0):
        return SlotDecomposer(untrained(size=SIZE, **{k: v for k, v in SMALL.items() if k != "sample_size"}))


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed))


def test_the_network_and_a_model_conform(decomposer: SlotDecomposer) -> None:
    check_network(SlotVAE)
    check_network(SlotVAE, **SMALL, slots_from="transformer", share_initial=False)
    check_network(SlotVAE, **SMALL, share_weights=False)
    check_model(decomposer.model)


@torch.no_grad()
def test_slots_follow_the_order_of_their_noise() -> None:
    net, order = network(), [2, 0, 1]
    features, noise = net.encode(drawn(2, 3, SIZE, SIZE)), drawn(2, SLOTS, WIDTH)
    (mean, _), share = net.infer(features, noise)
    (turned, _), turned_share = net.infer(features, noise[:, order])
    assert torch.allclose(turned, mean[:, order], atol=1e-5)
    assert torch.allclose(turned_share, share[:, order], atol=1e-5)
    assert torch.allclose(net.decode(turned).whole, net.decode(mean).whole, atol=1e-5)
    assert not torch.allclose(mean[:, 0], mean[:, 1], atol=1e-3)


@torch.no_grad()
def test_cells_are_shared_out_among_slots_and_pixels_among_masks() -> None:
    net = network()
    for count in (1, SLOTS, 7):
        (mean, _), share = net.infer(net.encode(drawn(2, 3, SIZE, SIZE)), drawn(2, count, WIDTH))
        made = net.decode(mean)
        assert torch.allclose(share.sum(1), torch.ones(2, SIZE // 2, SIZE // 2), atol=1e-5)
        assert torch.allclose(made.log_masks.exp().sum(1), torch.ones(2, 1, SIZE, SIZE), atol=1e-5)
        assert made.images.shape == (2, count, 3, SIZE, SIZE)


def test_attention_is_a_weighted_mean_of_cells() -> None:
    attention = SlotAttention(channels=4, width=WIDTH, iterations=1)
    cells, start = drawn(1, 6, 4), drawn(1, SLOTS, WIDTH)
    slots, share = attention(cells, start)
    normal = attention.cells(cells)
    weights = share[0] / share[0].sum(1, keepdim=True)
    expected = attention.update(weights @ attention.value(normal)[0], start[0])
    assert torch.allclose(slots[0], expected + attention.residual(expected), atol=1e-5)


@pytest.mark.parametrize(
    "options", [{}, {"share_weights": False}, {"slots_from": "mlp"}, {"slots_from": "transformer"}]
)
@torch.no_grad()
def test_both_paths_agree_where_their_feature_maps_do(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    net = network(**options)
    features, noise = net.encode(drawn(2, 3, SIZE, SIZE)), drawn(2, SLOTS, WIDTH)
    monkeypatch.setattr(net.leave, "forward", lambda _: features)
    (mean, log_sigma), _ = net.infer(features, noise)
    (made, made_log_sigma), through = net.generate(drawn(2, 4), noise)
    assert through is features
    shared = not options
    assert torch.allclose(made, mean) == shared
    assert torch.allclose(made_log_sigma, log_sigma) == shared


def test_divergences_are_those_of_torch() -> None:
    mean, log_sigma, prior_mean, prior_log_sigma = (0.5 * drawn(4, 3, 5, seed=k) for k in range(4))

    def law(mean: Tensor, log_sigma: Tensor) -> Independent:
        return Independent(Normal(mean, log_sigma.exp()), 2)

    expected = kl_divergence(law(mean, log_sigma), law(prior_mean, prior_log_sigma))
    assert torch.allclose(kl_normal(mean, log_sigma, prior_mean, prior_log_sigma), expected, rtol=1e-4)
    standard = law(torch.zeros_like(mean), torch.zeros_like(mean))
    assert torch.allclose(kl_normal(mean, log_sigma), kl_divergence(law(mean, log_sigma), standard), rtol=1e-4)


def test_the_loss_is_the_sum_of_its_parts() -> None:
    net, samples = network(), drawn(2, 3, SIZE, SIZE).clamp(-1, 1)
    weights = LossWeights(slots=0.3, matched=0.7, scene=0.2, features=3.0)
    terms = slot_loss(net, samples, weights, generator=seeded(0))
    parts = terms.parts
    expected = parts["reconstruction"] + 0.3 * parts["kl_slots"] + 0.7 * parts["kl_matched"] + 0.2 * parts["kl_scene"]
    expected = expected + 3.0 * parts["features"]
    assert torch.allclose(terms.loss, expected)
    plain = network(plain=True)
    terms = slot_loss(plain, samples, weights, generator=seeded(0))
    noise = drawn(2, SLOTS, WIDTH)
    whole = plain.decode(plain.infer(plain.encode(samples), noise)[0][0]).whole
    log_likelihood = Normal(whole, plain.sigma_x).log_prob(samples).sum((1, 2, 3))
    best = Normal(samples, plain.sigma_x).log_prob(samples).sum((1, 2, 3))
    assert torch.allclose(terms.loss, (best - log_likelihood).mean(), rtol=1e-4)


def test_the_generative_path_learns_without_moving_that_of_inference() -> None:
    net = network()
    generation_loss(net, drawn(2, 3, SIZE, SIZE), LossWeights(matched=0.1), generator=torch.Generator()).loss.backward()
    moved = {name.partition(".")[0] for name, p in net.named_parameters() if p.grad is not None and p.grad.any()}
    assert {"enter", "leave", "global_head"} <= moved
    assert not {"stem", "decoder"} & moved


def test_a_scene_is_a_gaussian_that_composes(decomposer: SlotDecomposer) -> None:
    latents, model = drawn(2, SLOTS, WIDTH), decomposer.model
    leaves, closed = [model(*scene.tolist()) for scene in latents], [decomposer.component(scene) for scene in latents]
    sample, timestep = drawn(2, 3, SIZE, SIZE), torch.tensor([100.0, 900.0])
    for leaf, component in zip(leaves, closed, strict=True):
        check_component(component)
        assert torch.allclose(Composer(leaf).eps(sample, timestep), component.eps(sample, timestep), atol=1e-4)
    with count_rows() as spent:
        mixed = Composer(0.5 * leaves[0] + 0.5 * closed[1]).eps(sample, timestep)
    assert (spent.rows, spent.trunks) == (2 * len(sample), len(sample))  # one of the two has no network
    expected = 0.5 * (closed[0].eps(sample, timestep) + closed[1].eps(sample, timestep))
    assert torch.allclose(mixed, expected, atol=1e-4)
    either = closed[0] | closed[1]
    energies = torch.stack([component.energy(sample, timestep) for component in closed])
    assert torch.allclose(either.energy(sample, timestep), -torch.logsumexp(-energies, 0), rtol=1e-4)


@torch.no_grad()
def test_masks_share_pixels_out_and_any_number_of_slots_is_read(decomposer: SlotDecomposer) -> None:
    """`check_decomposer` says the rest of what a decomposer promises."""
    pictures = drawn(3, 3, SIZE, SIZE).clamp(-1, 1)
    latents = decomposer.encode(pictures)
    assert not torch.allclose(decomposer.encode(pictures[1:2], generator=seeded(1)), latents[1:2])
    parts = decomposer.parts(latents)
    assert bool((parts.masks.sum(1) == 1).all())
    assert torch.equal(parts.whole, decomposer.decode(latents))
    more = SlotDecomposer(decomposer.model, slots=6)
    assert more.encode(pictures).shape == (3, 6, WIDTH)
    assert more.scenes(2).shape == (2, 6, WIDTH)


def test_bad_input_is_refused(decomposer: SlotDecomposer) -> None:
    plain = SlotDecomposer(untrained(plain=True))
    for attempt, message in (
        (lambda: SlotDecomposer(decomposer.model, slots=0), "slots"),
        (lambda: decomposer.decode(torch.zeros(1, 2, WIDTH + 1)), "width"),
        (lambda: decomposer.decode(torch.full((1, 2, WIDTH), torch.nan)), "finite"),
        (lambda: decomposer.scenes(0), "n="),
        (lambda: decomposer.component(torch.zeros(1, 2, WIDTH)), "of one scene"),
        (lambda: SlotVAE(sample_size=24), "power of 2"),
        (lambda: SlotVAE(prior="magic"), "prior"),
        (lambda: slots(pretrained=False, colour="red"), "option"),
        (lambda: slots(pretrained=False, plain="perhaps"), "yes or no"),
        (lambda: slots(preset="large"), "preset"),
        (lambda: plain.scenes(1), "plain"),
    ):
        with pytest.raises(InputError, match=message):
            attempt()


def test_a_model_names_its_decomposer_and_a_plain_autoencoder_makes_no_scenes() -> None:
    model, plain = (untrained(size=SIZE, slots=SLOTS, width=WIDTH, channels=8, plain=plain) for plain in (False, True))
    assert isinstance(decomposer_of(model), SlotDecomposer)
    assert isinstance(decomposer_of(plain), SlotAutoencoder)
    assert sampler_of(model) is not None
    assert sampler_of(plain) is None
    for one in (model, plain):
        check_decomposer(decomposer_of(one))


def test_the_paper_preset_takes_a_step_at_full_size() -> None:
    with torch_seed(0):
        net: Any = slots(preset="paper", pretrained=False).denoiser.network
    assert net.config["sample_size"] == 128
    assert [tuple(layer.weight.shape[1:]) for layer in net.stem] == [(3, 5, 5), *[(64, 5, 5)] * 3]
    assert all(layer.kernel_size == (5, 5) for layer in net.decoder.layers if isinstance(layer, nn.ConvTranspose2d))
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-7)
    samples = drawn(1, 3, 128, 128).clamp(-1, 1)
    before = net.attention.mean.detach().clone()
    slot_loss(net, samples, LossWeights(matched=1.0), generator=seeded(0)).loss.backward()
    optimizer.step()
    assert not torch.equal(before, net.attention.mean)


def test_a_number_seeds_scenes_with_different_noises() -> None:
    found = SlotDecomposer(untrained(size=16, slots=3, width=8, channels=8))
    once, again = found.scenes(2, generator=0), found.scenes(2, generator=seeded(0))
    assert torch.equal(once, again)
    assert not torch.equal(once, found.scenes(2, generator=1))
    images = torch.zeros(1, 3, 16, 16)
    assert torch.equal(found.encode(images, generator=3), found.encode(images, generator=seeded(3)))
