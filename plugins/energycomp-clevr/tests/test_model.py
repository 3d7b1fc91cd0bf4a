"""The coordinates conditioner, and both models of CLEVR scenes at full size."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from energycomp.denoisers import ConditionUNet, count_rows
from energycomp.errors import InputError
from energycomp.models import on_meta
from energycomp.sampling import Composer
from energycomp.seeds import seeded
from energycomp_clevr import recipe as recipes
from energycomp_clevr.coordinates import Coordinates
from energycomp_clevr.model import clevr, clevr_places, flow_from
from energycomp_clevr.recipe import clevr_places as recipe
from energycomp_datasets.clevr.layout import write
from energycomp_lab.checks import check_conditioner, check_model
from energycomp_lab.training import denoising_loss


def test_coordinates_and_the_default_conform() -> None:
    check_conditioner(Coordinates())
    assert Coordinates().parse(y=0.25, x=0.5).tolist() == [[0.5, 0.25]]
    check_model(clevr(preset="small", pretrained=False))


REFUSED: list[tuple[Callable[[], object], str]] = [
    *((lambda given=given: Coordinates().parse(*given), r"expected two numbers x, y in \[0, 1\]") for given in (
        (0.1,), (0.1, 0.2, 0.3), (1.01, 0.5), (-0.1, 0.5), ("a", 0.5), (float("nan"), 0.5))),
    *((lambda named=named: Coordinates().parse(**named), "expected two numbers") for named in (
        {"x": 0.5}, {"x": 0.5, "z": 0.5}, {"x": 0.1, "y": 0.2, "z": 0.3})),
    (lambda: Coordinates().parse(0.1, x=0.2), "expected two numbers"),  # which of them is x is not said
    (lambda: clevr(preset="large"), "expected one of default, small, paper"),
    (lambda: clevr(preset="paper"), "pretrained=False"),
    (lambda: flow_from(clevr(pretrained=False)), "got the model 'clevr' to start from"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "message"), REFUSED)
def test_places_presets_and_models_that_cannot_be(call: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()


@torch.no_grad()
def test_the_flow_twin_starts_with_the_features_of_a_model_of_x0() -> None:
    places = clevr_places(pretrained=False)
    for parameter in places.denoiser.network.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    made = flow_from(places)
    assert made.denoiser.prediction_type == "flow"
    sample, timestep = torch.randn(1, 3, 64, 64), torch.tensor([420.5])
    row, owner = made.conditioner(torch.tensor([[0.2, 0.3]])), torch.tensor([0])
    network, other = made.denoiser.network, places.denoiser.network
    of_flow = network.head(network.features(sample, timestep), row, owner)
    torch.testing.assert_close(of_flow, -other.head(other.features(sample, timestep), row, owner))
    network.skip.bias.fill_(2.0)
    with_skip = network.head(network.features(sample, timestep), row, owner)
    torch.testing.assert_close(with_skip, of_flow + 2 * sample, atol=1e-4, rtol=1e-4)


def test_the_flow_preset_trains_from_either_model(tmp_path: Path) -> None:
    scenes = tmp_path / "scenes"
    write(scenes, 4, objects=(1, 2), seed=0)
    for init in (clevr_places(pretrained=False), clevr_places(preset="flow", pretrained=False)):
        made = recipe(data=scenes, init=init, preset="flow", cache=tmp_path)
        assert made.model.denoiser.prediction_type == "flow"
        result = made.run(tmp_path / str(id(init)), steps=1, batch_size=2, progress=False)
        assert result.loss < 1.0


def test_kinds_of_scenes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[dict[str, object]] = []

    def render(count: int, **kind: object) -> tuple[Tensor, list[Tensor]]:
        drawn.append({"count": count, **kind})
        return torch.zeros(count, 3, 64, 64, dtype=torch.uint8), [torch.full((2, 6), 0.5)] * count

    monkeypatch.setattr(recipes, "render_objects", render)
    asked = {"data": None, "init": None, "preset": "default", "cache": tmp_path, "scenes": "400"}
    made = recipe(**asked, textured="0.1")
    assert drawn == [
        {"count": 250, "start": 0, "seed": 0, "objects": (0, 5)},
        {"count": 110, "start": 250, "seed": 0, "objects": (0, 5)},
        {"count": 40, "start": 0, "seed": 2, "objects": (0, 5), "textured": True},
    ]
    assert made.data[0]["values"].shape == (2, 2)
    recipe(**asked, textured=0.1)
    assert len(drawn) == 3  # once
    wrong: dict[str, object]
    for wrong in ({"textured": 2}, {"textured": -1}, {"scenes": 0}, {"scenes": "many"}):
        with pytest.raises(InputError, match=r"got (textured|scenes)=.*expected"):
            recipe(**asked | wrong)


def tiny_vae(folder: Path) -> Path:
    """An autoencoder of the latents' shape (a factor of 8 to 4 channels) that encodes in milliseconds."""
    from diffusers import AutoencoderKL

    AutoencoderKL(
        block_out_channels=[4] * 4,
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        norm_num_groups=2,
        latent_channels=4,
        sample_size=64,
    ).save_pretrained(folder)
    return folder


def test_the_network_of_the_thesis_trains_and_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is counted at full size, without memory, and trained with few channels."""
    sizes = []

    def thin(**config: Any) -> ConditionUNet:
        with on_meta():
            sizes.append(sum(one.numel() for one in ConditionUNet(**config).parameters()) / 1e6)
        return ConditionUNet(**{**config, "block_out_channels": [8, 8, 16, 16]})

    monkeypatch.setattr("energycomp.denoisers.unets.ConditionUNet", thin)
    model = clevr(preset="paper", pretrained=False, vae=str(tiny_vae(tmp_path / "vae")))
    assert sizes == [pytest.approx(134.6, abs=0.1)]
    network = model.denoiser.network

    generator = seeded(0)
    latents = torch.randn(2, 4, 8, 8, generator=generator)
    places, owner = torch.rand(3, 2, generator=generator), torch.tensor([0, 0, 1])
    optimizer = torch.optim.SGD(network.parameters(), lr=2e-5)
    before = next(network.parameters()).detach().clone()
    with count_rows() as spent:
        loss = denoising_loss(model.denoiser, latents, model.conditioner(places), owner, generator=generator)
    assert spent.rows == 3 + 1  # u for the sample of two objects
    loss.backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.parameters())
    optimizer.step()
    assert not torch.equal(before, next(network.parameters()))

    picture = Composer([model(0.3, 0.4), model(0.7, 0.6)]).sample(
        generator=generator, num_inference_steps=1, output_type="pt", progress=False
    )
    assert picture.shape == (1, 3, 64, 64)
    encoded = model.encode(model.given(picture))
    assert encoded.shape == (1, 4, 8, 8)
    assert torch.isfinite(encoded).all()
