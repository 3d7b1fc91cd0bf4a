"""The VAE codec, on a tiny autoencoder that is made on the spot."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL

from energycomp.codec import VAECodec
from energycomp.errors import NotFoundError


@pytest.fixture
def vae() -> AutoencoderKL:
    torch.manual_seed(0)
    return AutoencoderKL(
        block_out_channels=[4, 4],
        down_block_types=["DownEncoderBlock2D"] * 2,
        up_block_types=["UpDecoderBlock2D"] * 2,
        norm_num_groups=2,
        latent_channels=4,
        sample_size=16,
    ).eval()


@pytest.mark.parametrize("subfolder", ["", "vae"])
@torch.no_grad()
def test_posterior_mean_scaled_and_back(tmp_path: Path, vae: AutoencoderKL, subfolder: str) -> None:
    vae.save_pretrained(tmp_path / subfolder)
    codec = VAECodec(str(tmp_path), image_size=16, scaling_factor=0.5, reduction=2)
    images = torch.rand(2, 3, 16, 16) * 2 - 1
    latents = codec.encode(images)
    assert latents.shape == (2, *codec.latent_shape) == (2, 4, 8, 8)
    torch.testing.assert_close(latents, vae.encode(images).latent_dist.mode() * 0.5)
    assert torch.equal(latents, codec.encode(images))  # the mean, not a draw
    torch.testing.assert_close(codec.decode(latents), vae.decode(latents / 0.5).sample.clamp(-1, 1))
    assert codec.vae is codec.vae


def test_frozen_and_rebuilt_by_its_config(tmp_path: Path, vae: AutoencoderKL) -> None:
    vae.save_pretrained(tmp_path)
    codec = VAECodec(str(tmp_path), image_size=16, reduction=2)
    assert not any(p.requires_grad for p in codec.vae.parameters())
    again = VAECodec(**codec.config())
    assert (again.identity, again.latent_shape) == (codec.identity, codec.latent_shape)
    assert VAECodec(str(tmp_path), image_size=16, scaling_factor=0.9).identity != codec.identity


def test_nothing_is_read_before_it_is_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for source in ("nobody/nothing", str(tmp_path)):
        codec = VAECodec(source, image_size=64)
        assert codec.latent_shape == (4, 8, 8)
        with pytest.raises(NotFoundError, match=source):
            codec.encode(torch.zeros(1, 3, 64, 64))
