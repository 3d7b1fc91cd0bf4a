"""Energies against autograd, descent against a loop by hand, and a loss that falls."""

from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from torch import Tensor

import energycomp
from energycomp.components import Condition, EnergyComponent, HasEnergy, combine
from energycomp.denoisers import count_rows
from energycomp.errors import CompositionError, InputError
from energycomp.models import save_pretrained
from energycomp.sampling import Composer
from energycomp.seeds import seeded, torch_seed
from energycomp.testing import stripes_model
from energycomp_datasets.shapes.source import shapes_source
from energycomp_decomp.comet import CometDecomposer, untrained
from energycomp_decomp.comet.energy import EnergyNet, comet_loss, descend
from energycomp_decomp.comet.recipe import comet as train_recipe
from energycomp_lab.checks import check_component, check_model, check_network, check_recipe

WIDTH, SIZE = 4, 16


@pytest.fixture
def decomposer() -> CometDecomposer:
    with torch_seed(0):
        model = untrained(parts=3, width=WIDTH, size=SIZE)
        network = model.denoiser.network
        torch.nn.init.normal_(network.out.weight)
        network.base.copy_(0.5 * torch.rand(3, SIZE, SIZE))
    model.trained.eval()
    return CometDecomposer(model)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed))


def total(decomposer: CometDecomposer, x: Tensor, latents: Tensor) -> Tensor:
    """|x - base|^2 / 2 + sum over k of what latent k adds to it, (B,), one latent after another."""
    network: Any = decomposer.model.denoiser.network
    well = (x - network.base).square().flatten(1).sum(1) / 2
    energies = [network.energy(x, Condition(latents[:, k, None])) - well for k in range(latents.shape[1])]
    return well + torch.stack(energies).sum(0)


def test_the_network_conforms() -> None:
    check_network(EnergyNet)
    check_network(EnergyNet, sample_size=8, token_width=3, patch=2, channels=4, width=8)
    with pytest.raises(InputError, match="multiple"):
        EnergyNet(sample_size=18)


@pytest.mark.parametrize("grad", [True, False])
def test_the_prediction_is_the_gradient_of_the_energy(decomposer: CometDecomposer, grad: bool) -> None:
    network: Any = decomposer.model.denoiser.network.double()
    x, latents = drawn(3, 3, SIZE, SIZE).double(), Condition(drawn(3, 1, WIDTH).double())
    with torch.set_grad_enabled(grad):
        found = network(x, torch.zeros(3), latents)
    assert found.requires_grad == grad
    assert not x.requires_grad
    step = 1e-5 * drawn(3, 3, SIZE, SIZE, seed=1).double()
    with torch.no_grad():
        slope = (network.energy(x + step, latents) - network.energy(x - step, latents)) / 2
    assert torch.allclose((found * step).flatten(1).sum(1), slope, rtol=1e-6)
    null = Condition(latents.rows, torch.ones(3, dtype=torch.bool))
    assert torch.allclose(network(x, torch.zeros(3), null), x - network.base)


def test_the_gradient_is_differentiable_once_more(decomposer: CometDecomposer) -> None:
    network: Any = decomposer.model.denoiser.network.double()
    x, rows = drawn(1, 3, SIZE, SIZE).double(), drawn(1, 1, WIDTH).double().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda z: network(x, torch.zeros(1), Condition(z)).square().sum(), (rows,), rtol=1e-4
    )
    network(x, torch.zeros(1), Condition(rows)).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for name, p in network.named_parameters() if name != "out.bias")


def test_leaves_conform(decomposer: CometDecomposer) -> None:
    a, b, c = (decomposer.component(drawn(WIDTH, seed=k)) for k in range(3))
    for component in (a, decomposer.unconditional, a & b & c, a + b, a | b, (a & b) | c):
        check_component(component)
    assert isinstance(a, EnergyComponent)
    assert isinstance(a, HasEnergy)
    x, latents, t = drawn(2, 3, SIZE, SIZE), drawn(1, WIDTH, seed=0), torch.tensor([0.0, 1.0])
    assert torch.allclose(
        a.eps(x, t), decomposer.model.denoiser.network(x, t, Condition(latents[:, None].expand(2, 1, -1)))
    )
    with count_rows() as spent:
        a.energy(x, t)
        a.eps(x, t)
    assert spent.rows == 4


def test_the_product_of_leaves_is_the_sum_of_energies(decomposer: CometDecomposer) -> None:
    latents, x = drawn(1, 3, WIDTH, seed=2), drawn(1, 3, SIZE, SIZE).requires_grad_()
    both = Composer(combine([decomposer.component(latent) for latent in latents[0]], "product"))
    energy = both.energy(x, torch.zeros(1))
    assert torch.allclose(energy, total(decomposer, x, latents), rtol=1e-4)
    (gradient,) = torch.autograd.grad(energy.sum(), x)
    assert torch.allclose(both.eps(x.detach(), torch.zeros(1)), gradient, atol=1e-4)


@pytest.mark.parametrize("count", [1, 3, 5])
def test_descent_by_hand(decomposer: CometDecomposer, count: int) -> None:
    latents, x = drawn(2, count, WIDTH, seed=3), drawn(2, 3, SIZE, SIZE, seed=7)
    with count_rows() as spent:
        picture = decomposer.decode(latents, generator=seeded(7), num_inference_steps=3)
    assert (spent.rows, spent.trunks) == (2 * count * 3, 0)
    for _ in range(3):
        x = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(total(decomposer, x, latents).sum(), x)
        x = x - 0.5 * gradient
    assert torch.allclose(picture, x.detach().clamp(-1, 1), atol=1e-5)
    assert not picture.requires_grad


def test_descent_lowers_the_energy_and_its_loss_is_the_mean_over_the_steps(decomposer: CometDecomposer) -> None:
    latents, start = drawn(2, 3, WIDTH), drawn(2, 3, SIZE, SIZE)
    with torch.no_grad():
        found = descend(decomposer.model.denoiser, latents, start, steps=30, step_size=0.05)
        energies = torch.stack([total(decomposer, x, latents) for x in (start, *found)])
    assert bool((energies.diff(dim=0) < 1e-4).all())
    denoiser = decomposer.model.denoiser
    samples, latents = drawn(2, 3, SIZE, SIZE), drawn(2, 3, WIDTH, seed=1)
    with count_rows() as spent:
        loss = comet_loss(denoiser, latents, samples, steps=3, generator=seeded(5))
    assert spent.rows == 2 * 3 * 3
    start = torch.randn(samples.shape, generator=seeded(5))
    with torch.no_grad():
        found = descend(denoiser, latents, start, steps=3, step_size=0.5)
    errors = [float((x - samples).square().mean()) for x in found]
    assert loss.item() == pytest.approx(sum(errors) / 3, rel=1e-5)


def test_parts(decomposer: CometDecomposer) -> None:
    assert isinstance(decomposer, energycomp.Decomposer)
    latents = decomposer.encode(drawn(2, 3, SIZE, SIZE).clamp(-1, 1))
    assert latents.shape == (2, 3, WIDTH)
    with count_rows() as spent:
        found = decomposer.parts(latents, generator=seeded(0))
    assert spent.rows == 2 * 2 * 3 * decomposer.steps
    generator = [seeded(seed) for seed in (4, 5)]
    several = decomposer.decode(latents, generator=generator)
    alone = decomposer.decode(latents[1:], generator=seeded(5))
    assert torch.allclose(several[1:], alone, atol=1e-5)
    noise = seeded(0)
    assert torch.allclose(found.whole, decomposer.decode(latents, generator=noise), atol=1e-6)
    one = decomposer.decode(latents[:1, 1:2], generator=[seeded(0)])
    assert torch.allclose(found.images[0, 1], one[0], atol=1e-5)
    base: Any = decomposer.model.denoiser.network.base
    assert torch.equal(found.masks, ((found.images - base).abs() > 0.3).any(2))
    assert 0 < float(found.masks.float().mean()) < 1
    assert energycomp.decompose(torch.zeros(1, 3, SIZE, SIZE), decomposer).parts.images.shape == (1, 3, 3, SIZE, SIZE)


def test_two_pictures_are_learned() -> None:
    with torch_seed(0):
        model = untrained(parts=2, width=WIDTH, size=8)
    samples = torch.full((2, 3, 8, 8), -0.5)
    samples[0, 0, :4], samples[1, 2, :, 4:] = 0.8, 0.5
    optimizer = torch.optim.Adam(model.trained.parameters(), lr=5e-3)
    encoder: Any = model.encoder
    generator, errors = seeded(0), []
    for _ in range(50):
        latents = encoder(samples)
        loss = comet_loss(model.denoiser, latents, samples, generator=generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        errors.append(loss.item())
    assert errors[-1] < 0.35 * errors[0]
    learned = CometDecomposer(model)
    picture = learned.decode(learned.encode(samples), generator=seeded(1))
    error = (picture - samples).square().mean()
    assert float(error) < 0.25 * float((samples - samples.mean(0)).square().mean())


def test_the_model_conforms_and_keeps_its_steps(decomposer: CometDecomposer, tmp_path: Path) -> None:
    check_model(decomposer.model)
    save_pretrained(decomposer.model, tmp_path / "model")
    again = CometDecomposer(energycomp.load(tmp_path / "model"))
    assert (again.steps, again.step_size) == (decomposer.steps, decomposer.step_size)
    pictures = drawn(1, 3, SIZE, SIZE).clamp(-1, 1)
    assert torch.allclose(again.encode(pictures), decomposer.encode(pictures), atol=1e-5)


def test_nothing_of_diffusion_composes_with_it(decomposer: CometDecomposer) -> None:
    diffusion = stripes_model()
    other = diffusion.leaf(torch.zeros(1, *diffusion.conditioner.value_shape))
    assert other.noised_space.sample_shape == (3, SIZE, SIZE)
    mine = decomposer.component(drawn(WIDTH))
    own = decomposer.model.leaf(drawn(1, WIDTH))
    for attempt in (
        lambda: mine + other,
        lambda: other - mine,
        lambda: mine | other,
        lambda: Composer([own, other], rule="sum"),
    ):
        with pytest.raises(CompositionError, match="noise schedule"):
            attempt()
    with pytest.raises(InputError, match="expected one of energies"):
        CometDecomposer(diffusion)


def test_a_recipe_trains_on_a_folder(tmp_path: Path) -> None:
    shapes_source().write(tmp_path / "data", count=32, seed=0, options="", progress=lambda _: None)
    common: dict[str, Any] = {"preset": "default", "cache": tmp_path}
    recipe = train_recipe(data=tmp_path / "data", init=None, parts="3", width="4", size="16", **common)
    check_recipe(recipe)
    model, base = recipe.model, recipe.model.denoiser.network.base
    pictures = torch.cat([model.processor(path) for path in sorted((tmp_path / "data" / "images").iterdir())])
    assert torch.allclose(base, pictures.median(0).values, atol=0.01)
    assert train_recipe(data=tmp_path / "data", init=model, **common).model is model
    recipe.run(tmp_path / "run", steps=1, progress=False, sample_every=1, on_sample=lambda *_: pytest.fail("sampled"))
    with pytest.raises(InputError, match="this recipe alone"):
        train_recipe(data=None, init=stripes_model(), **common)
    (tmp_path / "one.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"one\.png"):
        train_recipe(data=tmp_path, init=None, **common)


def test_what_is_not_there(decomposer: CometDecomposer) -> None:
    for options in ({"preset": "large"}, {"colour": "red"}, {"parts": "few"}):
        with pytest.raises(InputError, match="expected"):
            train_recipe(data=None, init=None, **{"preset": "default", "cache": Path(), **options})
    for wrong in (drawn(1, 2, WIDTH + 1), drawn(2, WIDTH), drawn(1, 0, WIDTH)):
        with pytest.raises(InputError, match="latents"):
            decomposer.decode(wrong)
    with pytest.raises(InputError, match="one generator or 2"):
        decomposer.decode(drawn(2, 1, WIDTH), generator=[torch.Generator()])
    for field in ({"steps": 0}, {"step_size": 0.0}):
        with pytest.raises(InputError, match="at least 1"):
            attrs.evolve(decomposer, **field)
