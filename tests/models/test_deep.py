"""The class of residual autoencoders that is imported alone: the layers, weights and sums of diffusers' own."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch

from energycomp.models import deep
from energycomp.models.folder import _class_of

WIDTHS: Any = (8, 8, 16)
BLOCKS: Any = {
    "latent_channels": 4, "attention_head_dim": 4, "encoder_block_out_channels": WIDTHS,
    "decoder_block_out_channels": WIDTHS, "encoder_layers_per_block": (0, 1, 1), "decoder_layers_per_block": (0, 1, 2),
    "encoder_qkv_multiscales": ((),) * 3, "decoder_qkv_multiscales": ((),) * 3,
    "encoder_block_types": "ResBlock", "decoder_block_types": "ResBlock",
}  # fmt: skip


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"encoder_out_shortcut": False, "decoder_in_shortcut": False, "decoder_act_fns": "relu"},
        {"upsample_block_type": "interpolate", "downsample_block_type": "conv"},
    ],
    ids=str,
)
@torch.no_grad()
def test_it_is_that_of_diffusers(options: dict[str, Any], tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs: Any = diffusers.AutoencoderDC(**BLOCKS, **options).eval()
    ours = deep.AutoencoderDC.from_config(theirs.config).eval()
    ours.load_state_dict(theirs.state_dict())
    images = torch.rand(2, 3, 16, 16) * 2 - 1
    latents = ours.encode(images).latent
    assert torch.equal(latents, theirs.encode(images).latent)
    assert torch.equal(ours.encode(images)[0], latents)
    assert torch.equal(ours.decode(latents).sample, theirs.decode(latents).sample)
    again = pickle.loads(pickle.dumps(ours))  # noqa: S301 - our own
    assert torch.equal(again.decode(latents).sample, ours.decode(latents).sample)
    ours.save_pretrained(tmp_path)
    read = diffusers.AutoencoderDC.from_pretrained(tmp_path).eval()
    assert torch.equal(read.decode(latents).sample, ours.decode(latents).sample)


def test_other_blocks_and_classes_are_those_of_diffusers() -> None:
    plain = {"_class_name": "AutoencoderDC", "encoder_block_types": "ResBlock"}
    assert _class_of(plain) is deep.AutoencoderDC
    assert _class_of(plain | {"decoder_block_types": ["ResBlock", "EfficientViTBlock"]}) is diffusers.AutoencoderDC
    assert _class_of({"_class_name": "AutoencoderKL"}) is diffusers.AutoencoderKL


def test_where_the_file_has_changed_the_whole_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "energycomp.models.deep", None)
    assert _class_of({"_class_name": "AutoencoderDC"}) is diffusers.AutoencoderDC
