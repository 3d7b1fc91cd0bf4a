"""The VAE codec, on a tiny autoencoder that is made on the spot."""

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from accelerate import cpu_offload, cpu_offload_with_hook
from diffusers import AutoencoderKL

from energycomp.errors import CompositionError, InputError, NotFoundError
from energycomp.models import VAECodec, execution_device
from energycomp.models.residual_autoencoder import ResidualAutoencoder, is_residual
from energycomp.testing import Gaussian
from energycomp_lab.checks import check_codec


def tiny(kind: str = "AutoencoderKL") -> Any:
    """Autoencoders with 4 channels at half the size, of the classes of diffusers."""
    torch.manual_seed(0)
    widths, blocks = (8, 8), (1, 1)
    options: dict[str, dict[str, Any]] = {
        "AutoencoderKL": {
            "block_out_channels": [4, 4], "down_block_types": ["DownEncoderBlock2D"] * 2, "norm_num_groups": 2,
            "up_block_types": ["UpDecoderBlock2D"] * 2, "sample_size": 16,
        },
        "AutoencoderTiny": {
            "encoder_block_out_channels": widths, "decoder_block_out_channels": widths,
            "num_encoder_blocks": blocks, "num_decoder_blocks": blocks,
        },
        "AutoencoderDC": {
            "attention_head_dim": 4, "encoder_block_out_channels": widths, "decoder_block_out_channels": widths,
            "encoder_layers_per_block": blocks, "decoder_layers_per_block": blocks,
            "encoder_qkv_multiscales": ((), ()), "decoder_qkv_multiscales": ((), ()), "scaling_factor": 0.5,
        },
    }  # fmt: skip
    return getattr(diffusers, kind)(latent_channels=4, **options[kind]).eval()


@pytest.fixture
def vae() -> Any:
    return tiny()


@pytest.mark.parametrize("subfolder", ["", "vae"])
@torch.no_grad()
def test_posterior_mean_scaled_and_back(tmp_path: Path, vae: Any, subfolder: str) -> None:
    vae.save_pretrained(tmp_path / subfolder)
    codec = VAECodec(str(tmp_path), image_size=16, scaling_factor=0.5, reduction=2)
    images = torch.rand(2, 3, 16, 16) * 2 - 1
    latents = codec.encode(images)
    assert latents.shape == (2, *codec.latent_shape) == (2, 4, 8, 8)
    torch.testing.assert_close(latents, vae.encode(images).latent_dist.mode() * 0.5)
    assert torch.equal(latents, codec.encode(images))  # the mean, not a draw
    torch.testing.assert_close(codec.decode(latents), vae.decode(latents / 0.5).sample.clamp(-1, 1))
    assert codec.vae is codec.vae
    assert not any(p.requires_grad for p in codec.vae.parameters())
    assert VAECodec(str(tmp_path), image_size=16, scaling_factor=0.9).identity != codec.identity


def test_gradients_of_latents_are_followed_through_the_decoder(tmp_path: Path, vae: AutoencoderKL) -> None:
    """As observations and constraints of latents need them; images of latents without one have none."""
    vae.save_pretrained(tmp_path)
    codec = VAECodec(str(tmp_path), image_size=16, scaling_factor=1.0, reduction=2)
    latents = torch.rand(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    assert not codec.decode(latents).requires_grad
    (found,) = torch.autograd.grad(codec.decode(latents.requires_grad_()).sum(), latents)
    (wanted,) = torch.autograd.grad(vae.decode(latents).sample.clamp(-1, 1).sum(), latents)
    torch.testing.assert_close(found, wanted)


@torch.no_grad()
def test_pictures_that_are_not_square(tmp_path: Path, vae: Any) -> None:
    vae.save_pretrained(tmp_path)
    codec = VAECodec.read(str(tmp_path), image_size=(16, 24))
    assert (codec.latent_shape, codec.sides, codec.reduction) == ((4, 8, 12), (16, 24), 2)
    images = torch.rand(1, 3, 16, 24) * 2 - 1
    assert codec.encode(images).shape == (1, *codec.latent_shape)
    again = VAECodec(**json.loads(json.dumps(codec.config())))
    assert (again.image_size, again.latent_shape) == ([16, 24], codec.latent_shape)
    square = VAECodec(str(tmp_path), image_size=16, reduction=2)
    assert (square.sides, square.config()["image_size"]) == ((16, 16), 16)


@pytest.mark.parametrize("size", [0, True, 16.0, "16", [16], [16, 24, 3], [16, 0], [16, "24"], None, [1, 24]])
def test_sizes_that_cannot_be(size: Any) -> None:
    with pytest.raises(InputError, match="expected"):
        VAECodec("some/vae", image_size=size, reduction=2)


def test_nothing_is_read_before_it_is_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for source in ("nobody/nothing", str(tmp_path)):
        codec = VAECodec(source, image_size=64)
        assert codec.latent_shape == (4, 8, 8)
        with pytest.raises(NotFoundError, match=source):
            codec.encode(torch.zeros(1, 3, 64, 64))


@torch.no_grad()
def test_of_a_batch_one_picture_at_a_time(vae: Any) -> None:
    codec, images = VAECodec.of(vae, latent_size=8), torch.rand(3, 3, 16, 16) * 2 - 1
    seen: list[int] = []
    for part in (vae.encoder, vae.decoder):
        part.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    latents = codec.encode(images)
    codec.decode(latents)
    assert seen == [1] * 6
    torch.testing.assert_close(latents, vae.encode(images).latent_dist.mode() * codec.scaling_factor, rtol=0, atol=1e-5)


def test_an_autoencoder_in_memory_is_known_by_its_weights(vae: Any) -> None:
    codec, again = (VAECodec.of(v, latent_size=8) for v in (vae, AutoencoderKL.from_config(vae.config)))
    assert (codec.image_size, codec.reduction, codec.channels, codec.vae) == (16, 2, 4, vae)
    assert again.identity != codec.identity
    again.vae.load_state_dict(vae.state_dict())
    assert VAECodec.of(again.vae, latent_size=8).identity == codec.identity
    assert VAECodec.of(vae, latent_size=8, source="some/vae").identity == codec.identity
    vae.register_to_config(scaling_factor=None)
    with pytest.raises(InputError, match=r"scaling_factor=None .* a number above 0"):
        VAECodec.of(vae, latent_size=8)


def leaf_over(codec: VAECodec) -> Any:
    """A component over the latents of a codec."""
    return Gaussian(0.0, sample_shape=codec.latent_shape, space=codec.identity)


def test_one_autoencoder_of_two_folders_composes(tmp_path: Path, vae: Any) -> None:
    vae.save_pretrained(tmp_path / "one" / "vae")
    vae.save_pretrained(tmp_path / "two" / "vae")
    vae.bfloat16().save_pretrained(tmp_path / "half")
    vae.float().decoder.conv_out.bias.data[0] += 1
    vae.save_pretrained(tmp_path / "other")
    one, *same, other = (
        leaf_over(VAECodec(str(tmp_path / name), image_size=16, reduction=2))
        for name in ("one", "two", "half", "other")
    )
    for leaf in same:
        assert len((one + leaf).terms) == 2
    with pytest.raises(CompositionError, match="expected one space"):
        _ = one + other


@torch.no_grad()
def test_one_that_is_offloaded_layer_by_layer_has_the_same_identity(vae: Any) -> None:
    """As by `enable_sequential_cpu_offload`, which leaves tensors on the meta device."""
    codec = VAECodec.of(copy.deepcopy(vae), latent_size=8)
    cpu_offload(vae, torch.device("cpu"))
    offloaded, latents = VAECodec.of(vae, latent_size=8), torch.randn(1, 4, 8, 8)
    assert next(vae.parameters()).is_meta
    assert offloaded.identity == codec.identity
    torch.testing.assert_close(offloaded.decode(latents), codec.decode(latents))
    with pytest.raises(InputError, match="on the device 'meta'"):
        _ = VAECodec.of(AutoencoderKL.from_config(vae.config).to("meta"), latent_size=8).identity


@torch.no_grad()
def test_latents_are_shifted_as_in_flux(vae: Any) -> None:
    vae.register_to_config(shift_factor=0.1, scaling_factor=0.5)
    codec = VAECodec.of(vae, latent_size=8)
    images = torch.rand(1, 3, 16, 16) * 2 - 1
    latents = codec.encode(images)
    torch.testing.assert_close(latents, (vae.encode(images).latent_dist.mode() - 0.1) * 0.5)
    torch.testing.assert_close(codec.decode(latents), vae.decode(latents / 0.5 + 0.1).sample.clamp(-1, 1))
    assert codec.identity.endswith(":0.5:0.1")
    with pytest.raises(InputError, match=r"shift_factor=nan .* a number"):
        VAECodec("a/b", image_size=16, shift_factor=float("nan"))


@torch.no_grad()
def test_one_that_overflows_in_float16_decodes_in_float32(vae: Any) -> None:
    latents, kinds = torch.randn(1, 4, 8, 8), []
    vae.half().decoder.register_forward_pre_hook(lambda _, given: kinds.append(given[0].dtype))
    images = VAECodec.of(vae, latent_size=8).decode(latents)
    assert kinds == [torch.float32]
    assert (images.dtype, vae.dtype) == (torch.float32, torch.float16)


@torch.no_grad()
def test_one_that_is_offloaded_computes_where_its_hook_says(vae: Any) -> None:
    latents = torch.randn(1, 4, 8, 8)
    expected = VAECodec.of(vae, latent_size=8).decode(latents)
    assert execution_device(vae) is None
    cpu_offload_with_hook(vae, "cpu")
    assert execution_device(vae) == torch.device("cpu")
    torch.testing.assert_close(VAECodec.of(vae, latent_size=8).decode(latents), expected)


@pytest.mark.parametrize("kind", ["AutoencoderKL", "AutoencoderTiny", "AutoencoderDC"])
@torch.no_grad()
def test_other_autoencoders_of_diffusers(tmp_path: Path, kind: str) -> None:
    vae = tiny(kind)
    vae.save_pretrained(tmp_path / "vae")
    codec = VAECodec.read(str(tmp_path), image_size=16)
    check_codec(codec, factory=VAECodec)
    assert (codec.latent_shape, codec.scaling_factor) == ((4, 8, 8), vae.config.scaling_factor)
    images = torch.rand(2, 3, 16, 16) * 2 - 1
    latents, encoded = codec.encode(images), vae.encode(images)
    mean = encoded.latent_dist.mode() if kind == "AutoencoderKL" else encoded[0]
    torch.testing.assert_close(latents, mean * codec.scaling_factor)
    expected = vae.decode(latents / codec.scaling_factor).sample.clamp(-1, 1)
    torch.testing.assert_close(codec.decode(latents), expected)
    assert type(codec.vae) is type(vae)


def test_a_network_that_is_no_autoencoder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"_class_name": "UNet2DModel"}')
    with pytest.raises(NotFoundError, match=r"its class is 'UNet2DModel'.* expected AutoencoderKL, AutoencoderDC"):
        VAECodec.read(str(tmp_path), image_size=16)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_a_residual_autoencoder_is_that_of_diffusers(tmp_path: Path, dtype: torch.dtype) -> None:
    blocks = {"block_out_channels": [8, 8, 16], "qkv_multiscales": [[]] * 3}
    config = {f"{part}_{name}": value for part in ("encoder", "decoder") for name, value in blocks.items()}
    theirs = diffusers.AutoencoderDC(
        latent_channels=4, encoder_layers_per_block=[0, 1, 2], decoder_layers_per_block=[0, 2, 1],
        encoder_out_shortcut=False, decoder_in_shortcut=False, **config,
    )  # fmt: skip
    theirs = theirs.eval().to(dtype)
    ours = ResidualAutoencoder(theirs.config)
    ours.load_state_dict(theirs.state_dict())
    ours = ours.eval().to(dtype)
    images = torch.rand(2, 3, 16, 24, dtype=dtype)
    latents = theirs.encode(images)[0]
    assert ours.encode(images)[0].equal(latents)
    assert ours.decode(latents).sample.equal(theirs.decode(latents).sample)
    ours.save_pretrained(tmp_path)
    again = diffusers.AutoencoderDC.from_pretrained(tmp_path, torch_dtype=dtype)
    assert again.decode(latents).sample.equal(theirs.decode(latents).sample)
    assert not is_residual({**theirs.config, "encoder_out_shortcut": True})


def test_an_included_model_is_loaded_without_the_transformers_of_diffusers() -> None:
    code = "import sys, energycomp; energycomp.load('clevr'); print('diffusers.models.transformers' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
