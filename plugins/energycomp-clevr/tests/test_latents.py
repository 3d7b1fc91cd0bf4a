"""Whole objects on latents: the codec and its recipe, the view as a component, and where a training starts."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from diffusers import AutoencoderTiny

from energycomp import load
from energycomp.components import Condition
from energycomp.denoisers import rows, trunk
from energycomp.errors import CheckpointError, EnergycompError, InputError
from energycomp.files import atomic_directory
from energycomp.manifest import MANIFEST
from energycomp.models import Model, VAECodec
from energycomp.seeds import seeded
from energycomp_clevr.codec_recipe import SPREAD, codec, reconstruction, spread
from energycomp_clevr.latents_recipe import latents_of, turned_values_of, view_of
from energycomp_clevr.model import clevr
from energycomp_clevr.objects_recipe import clevr as recipe
from energycomp_clevr.seen import seen_from
from energycomp_clevr.viewpoint import AXES, HOME, Viewpoint
from energycomp_datasets.clevr.geometry import CAMERA_POSITION, camera_basis
from energycomp_datasets.clevr.layout import read
from energycomp_lab.checks import check_recipe
from energycomp_lab.training import Recipe


@pytest.fixture(scope="module")
def renders(rendered: Callable[..., Path]) -> Path:
    return rendered(6, objects=(0, 2), size=(48, 32))


def in_small_batches(made: Recipe) -> Recipe:
    return attrs.evolve(made, config=attrs.evolve(made.config, batch_size=2))


@torch.no_grad()
def test_channels_get_one_spread_and_pictures_stay(vae: Path) -> None:
    made = VAECodec.read(str(vae), image_size=64).vae
    images = torch.rand(2, 3, 64, 64) * 2 - 1
    latents = made.encode(images).latent
    level = spread(made, latents.std((0, 2, 3)))
    again = level.encode(images).latent
    torch.testing.assert_close(again.std((0, 2, 3)), torch.full((16,), SPREAD))
    torch.testing.assert_close(level.decode(again).sample, made.decode(latents).sample, atol=1e-4, rtol=1e-4)


def test_the_error_of_a_codec_sees_rare_colours() -> None:
    images = torch.zeros(1, 3, 16, 16)
    red, grey = images.clone(), images.clone()
    red[:, 0, 4:8, 4:8] = 0.6
    grey[:, :, 4:8, 4:8] = 0.12**0.5  # the same squared error
    assert reconstruction(images, images, 1.0) == 0
    assert reconstruction(red, images, 0.0) > 1.6 * reconstruction(grey, images, 0.0) > 0


def test_recipe_of_the_codec(tmp_path: Path, renders: Path, vae: Path) -> None:
    made = codec(data=renders, init=None, preset="default", cache=tmp_path, vae=str(vae))
    check_recipe(in_small_batches(made))
    made.model.save_pretrained(tmp_path / "codec", dtype=torch.float16)
    again = VAECodec.read(str(tmp_path / "codec"), image_size=128)
    assert again.latent_shape == (16, 16, 16)
    with pytest.raises(InputError, match="got --init or a preset"):
        codec(data=renders, init=None, preset="paper", cache=tmp_path)


def test_recipes_on_latents_go_on_from_a_model(tmp_path: Path, renders: Path, vae: Path, model: Model) -> None:
    made = recipe(data=renders, init=None, preset="default", cache=tmp_path, vae=str(vae))
    assert len(list(tmp_path.glob("clevr-latents-*.safetensors"))) == 1
    check_recipe(in_small_batches(made))
    made = recipe(data=renders, init=model, preset="default", cache=tmp_path)
    assert made.module is model.denoiser.network
    for other in ("clevr-small", "clevr-places"):
        with pytest.raises(InputError, match=f"got the model {other} to start from, which has another network"):
            recipe(data=renders, init=load(other), preset="default", cache=tmp_path)


def test_recipe_on_scenes_that_it_renders(tmp_path: Path, vae: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("energycomp_clevr.latents_recipe.SCENES", 2)
    for _ in range(2):  # made once
        made = recipe(data=None, init=None, preset="default", cache=tmp_path, vae=str(vae))
    assert len(made.data) == 8  # two of each kind, and their mirror images


def test_a_mirrored_scene_has_its_light_on_the_other_side(tmp_path: Path, renders: Path, model: Model) -> None:
    records = read(renders)
    scenes = latents_of(records, model, tmp_path)
    assert len(scenes) == 12
    plain, mirrored = next((a, b) for a, b in zip(scenes[::2], scenes[1::2], strict=True) if len(a["values"]))
    torch.testing.assert_close(mirrored["values"][:, 0], 1 - plain["values"][:, 0])
    turns = torch.cat([scene["values"][:, 6] for scene in scenes[::2]])
    other = torch.cat([scene["values"][:, 6] for scene in scenes[1::2]])
    assert other.equal(torch.where(turns > 0, (90 - (turns - 1)) % 90 + 1, 0.0))
    assert 0 < int((turns > 0).sum()) < len(turns)  # cubes alone have one
    torch.testing.assert_close(mirrored["view"][[0, 3]], torch.tensor([-plain["view"][0], -4.1 - plain["view"][3]]),
                               atol=0.1, rtol=0)  # fmt: skip
    assert (plain["said"].tolist(), mirrored["said"].tolist()) == ([False, True], [True, True])
    assert view_of(records[0]).abs().max() < 0.2 < view_of(records[5]).abs().max()


@torch.no_grad()
def test_the_view_is_a_component_without_a_place(model: Model) -> None:
    denoiser = model.denoiser
    view = Viewpoint(denoiser.token_shape)
    shared = trunk(denoiser, torch.randn(1, *denoiser.sample_shape), torch.tensor([300.0]))
    seen: list[torch.Tensor] = []
    hook = denoiser.network.place.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    both = Condition.cat([model.conditioner(model.conditioner.parse(0.3, 0.4)), view(view.parse(camera=(0, 0, 0.5)))])
    rows(denoiser, shared, both, torch.tensor([0, 0]))
    hook.remove()
    shows = [bool(one.abs().amax() > 0) for maps in seen for one in maps]
    assert sorted(shows) == [False, True]


def test_a_codec_of_another_size_is_refused(tmp_path: Path) -> None:
    AutoencoderTiny(latent_channels=16).save_pretrained(tmp_path / "large")
    AutoencoderTiny(
        encoder_block_out_channels=(8, 8), decoder_block_out_channels=(8, 8), num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1), latent_channels=16,
    ).save_pretrained(tmp_path / "fine")  # fmt: skip
    assert clevr(pretrained=False, vae=str(tmp_path / "large")).denoiser.sample_shape == (16, 16, 24)
    with pytest.raises(InputError, match=r"latents \(16, 64, 96\) of 192x128 pixels; expected 24x16"):
        clevr(pretrained=False, vae=str(tmp_path / "fine"))


@torch.no_grad()
def test_the_included_weights_know_turns() -> None:
    included = load("clevr")
    network: Any = included.denoiser.network
    read: Any = included.conditioner
    cubes = torch.cat([read.parse(0.4, 0.5, shape="cube", size="large", turn=turn) for turn in (0, 45, 89)])
    features = network.features(torch.randn(1, 16, 16, 24, generator=seeded(0)), torch.tensor([500.0]))
    edge, corner, almost = network.head(features, read(cubes), torch.zeros(3, dtype=torch.long))
    assert (edge - corner).square().mean() > 20 * (edge - almost).square().mean() > 0  # 89 degrees are nearly 0


def test_turns_of_a_record_are_whole_degrees(renders: Path) -> None:
    for record in read(renders):
        values = turned_values_of(record)
        is_cube = torch.tensor([one["shape"] == "cube" for one in record.attributes], dtype=torch.bool)
        assert (values[:, 6] > 0).equal(is_cube)
        away = (values[is_cube, 6] - 1 - record.turns[is_cube]).abs()
        assert bool((torch.minimum(away, 90 - away) <= 0.5).all())
        assert turned_values_of(attrs.evolve(record, turns=None))[:, 6].eq(0).all()


def test_a_model_keeps_its_small_codec_in_its_folder(tmp_path: Path, model: Model) -> None:
    model.save_pretrained(tmp_path / "one", dtype=torch.float16)
    (tmp_path / "one").rename(tmp_path / "two")
    again = load(tmp_path / "two")
    assert again.denoiser.codec.image_size == [128, 192]
    samples = torch.randn(1, 16, 16, 24)
    assert again.denoiser.codec.config()["source"] == str(tmp_path / "two" / "vae")
    for one, other in zip(model.decode(samples, "pt"), again.decode(samples, "pt"), strict=True):
        torch.testing.assert_close(one, other, atol=0.02, rtol=0)
    assert json.loads((tmp_path / "two" / "config.json").read_text())["codec"]["config"]["source"] == "vae"


def test_from_where_a_picture_was_seen(model: Model) -> None:
    """A prediction that moves with the viewpoint, in closed form: the value that explains the picture is found."""
    axes, home = torch.tensor(AXES), torch.tensor(HOME)
    torch.testing.assert_close(axes, camera_basis(torch.tensor(CAMERA_POSITION)), atol=1e-3, rtol=0)
    true = torch.tensor([0.3, -0.2, 0.4, 0.0, 0.0, 0.0])
    network = Shifted()
    toy = attrs.evolve(model, denoiser=attrs.evolve(model.denoiser, network=network))
    with torch.no_grad():
        image = toy.decode(network.shift(true), "pt")[0]
        sample = toy.encode(toy.given(image))
    network.base = sample - network.shift(true)
    found = seen_from(image, toy, torch.zeros(0, 7), draws=8, steps=60)
    torch.testing.assert_close(found.value, true, atol=0.08, rtol=0)
    torch.testing.assert_close(found.camera, home + true[:3] @ axes, atol=0.1, rtol=0)
    assert found.errors[1] < 0.2 * found.errors[0]
    assert found.rows == 8 * (0 + 1 + 60 + 1)
    # Of log J a beta of 0.1 is next to nothing, and the prior decides; of J it is much
    logs = attrs.evolve(toy, defaults=attrs.evolve(toy.defaults, beta=0.1, log_errors=True))
    assert seen_from(image, logs, torch.zeros(0, 7), draws=4, steps=60).value.abs().max() < 0.05
    with pytest.raises(InputError, match="takes no viewpoint"):
        seen_from(image, load("clevr-places"), torch.zeros(0, 2))


class Shifted(torch.nn.Module):
    """Predicts x0 as `base`, plus, under a viewpoint, a fixed direction for each of its numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(()))
        self.directions = torch.randn(6, 16, 16, 24, generator=seeded(0)) * 0.3
        self.base = torch.zeros(1, 16, 16, 24)

    def shift(self, value: torch.Tensor) -> torch.Tensor:
        return torch.einsum("...v,vchw->...chw", value, self.directions).reshape(-1, 16, 16, 24)

    def features(self, sample: torch.Tensor, timestep: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (self.base.expand_as(sample) * self.scale,)

    def head(self, features: tuple[torch.Tensor, ...], condition: Condition, owner: torch.Tensor) -> torch.Tensor:
        rows = condition.rows[:, 0, -7:]
        return features[0][owner] + torch.where(condition.null[:, None, None, None], 0.0, self.shift(rows[:, :6]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoder_block_out_channels": [48, 48, 96, 768_000]}, "larger than its weights"),
        ({"decoder_layers_per_block": [0, 1, 2, 100_000]}, "larger than its weights"),
        ({"latent_channels": 8}, "got 'decoder.conv_in.weight' of shape"),
        ({"_class_name": "UNet2DModel"}, "of the class 'UNet2DModel'"),
    ],
)
def test_a_codec_in_a_model_s_folder_takes_no_more_memory_than_its_weights(
    tmp_path: Path, model: Model, change: dict[str, Any], message: str
) -> None:
    model.save_pretrained(tmp_path / "good")
    with atomic_directory(tmp_path / "bad") as folder:
        shutil.copytree(tmp_path / "good", folder, dirs_exist_ok=True)
        (folder / MANIFEST).unlink()
        config = json.loads((folder / "vae" / "config.json").read_text())
        (folder / "vae" / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(CheckpointError, match=message):
        load(tmp_path / "bad")


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: Viewpoint().parse(camera=(1, 2)), r"got camera=\(1, 2\); expected three numbers"),
        (lambda: Viewpoint().parse(light=(9, 0, 0)), "expected three numbers of at most 6"),
        (lambda: Viewpoint()(torch.zeros(2, 3)), r"got views of shape \(2, 3\)"),
        (lambda: clevr(pretrained=False, vae="nowhere"), "got the VAE 'nowhere'"),
        (lambda: clevr(vae="folder"), "got the option 'vae'"),
    ],
)
def test_refused_in_one_line(act: Callable[[], Any], message: str) -> None:
    with pytest.raises(EnergycompError, match=message):
        act()
