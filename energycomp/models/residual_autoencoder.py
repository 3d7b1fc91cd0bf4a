"""The `AutoencoderDC` of diffusers where its blocks are residual blocks alone (Chen et al., 2024), of the same weights.

Importing that of diffusers takes three seconds of CPU time: all of its transformers, hooks and quantizers come with it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from energycomp.files import write_tensors

WEIGHTS = "diffusion_pytorch_model.safetensors"
EPS = 1e-5
KNOWN = {  # what the class below can be told from: with any other value the autoencoder has other blocks
    "encoder_block_types": "ResBlock", "decoder_block_types": "ResBlock", "decoder_norm_types": "rms_norm",
    "decoder_act_fns": "silu", "decoder_conv_act_fn": "relu", "upsample_block_type": "pixel_shuffle",
    "downsample_block_type": "pixel_unshuffle", "encoder_out_shortcut": False, "decoder_in_shortcut": False,
}  # fmt: skip


def is_residual(config: Mapping[str, Any]) -> bool:
    """Whether a config is that of an `AutoencoderDC` which `ResidualAutoencoder` can be."""
    widths = [config.get(f"{part}_block_out_channels") or () for part in ("encoder", "decoder")]
    layers = [config.get(f"{part}_layers_per_block") or (1,) for part in ("encoder", "decoder")]
    starts_halved = all(len(each) > 1 and number[0] == 0 for each, number in zip(widths, layers, strict=True))
    return (
        config.get("_class_name") == "AutoencoderDC"
        and starts_halved
        and all(config.get(name) == value for name, value in KNOWN.items())
    )


class ResidualAutoencoder(nn.Module):
    """Images (B, C, H, W) to latents and back: `encode(x)[0]`, `decode(z).sample`, as those of diffusers."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.config = dict(config)
        channels = config["in_channels"]
        latents = config["latent_channels"]
        self.encoder = _Encoder(
            channels, latents, config["encoder_block_out_channels"], config["encoder_layers_per_block"]
        )
        self.decoder = _Decoder(
            channels, latents, config["decoder_block_out_channels"], config["decoder_layers_per_block"]
        )

    @property
    def dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype

    def encode(self, images: Tensor) -> tuple[Tensor]:
        return (self.encoder(images),)

    def decode(self, latents: Tensor) -> Any:
        return SimpleNamespace(sample=self.decoder(latents))

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes config and weights as diffusers does, which reads them."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        (Path(folder) / "config.json").write_text(json.dumps(self.config, indent=2, sort_keys=True) + "\n")
        write_tensors(Path(folder) / WEIGHTS, self.state_dict(), {"format": "pt"})


class _Encoder(nn.Module):
    def __init__(self, channels: int, latents: int, widths: Sequence[int], layers: Sequence[int]) -> None:
        super().__init__()
        self.conv_in = _Down(channels, widths[1], shortcut=False)
        ends = [*pairwise(widths), (widths[-1], None)]
        blocks: list[nn.Module] = [nn.Sequential()]  # at the full size there is none
        for (width, following), number in zip(ends[1:], layers[1:], strict=True):
            block: list[nn.Module] = [_ResBlock(width) for _ in range(number)]
            if following is not None and number:
                block.append(_Down(width, following))
            blocks.append(nn.Sequential(*block))
        self.down_blocks = nn.ModuleList(blocks)
        self.conv_out = nn.Conv2d(widths[-1], latents, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for block in self.down_blocks:
            x = block(x)
        out: Tensor = self.conv_out(x)
        return out


class _Decoder(nn.Module):
    def __init__(self, channels: int, latents: int, widths: Sequence[int], layers: Sequence[int]) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(latents, widths[-1], 3, 1, 1)
        ends = [*pairwise(widths), (widths[-1], None)]
        blocks: list[nn.Module] = [nn.Sequential()]
        for (width, before), number in zip(ends[1:], layers[1:], strict=True):
            block: list[nn.Module] = [_ResBlock(width) for _ in range(number)]
            if before is not None and number:
                block.insert(0, _Up(before, width))
            blocks.append(nn.Sequential(*block))
        self.up_blocks = nn.ModuleList(blocks)
        self.norm_out = _RMSNorm(widths[1])
        self.conv_out = _Up(widths[1], channels, shortcut=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for block in reversed(self.up_blocks):
            x = block(x)
        out: Tensor = self.conv_out(self.norm_out(x).relu())
        return out


class _ResBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, 1, 1)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.norm = _RMSNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.norm(self.conv2(nn.functional.silu(self.conv1(x))))
        return h + x


class _RMSNorm(nn.Module):
    """Over channels, the second axis; the mean square in float32."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        x = x.movedim(1, -1)
        x = x * torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + EPS)
        return (x.to(self.weight.dtype) * self.weight + self.bias).movedim(-1, 1)


class _Down(nn.Module):
    """Half the size; the shortcut averages groups of channels of 2x2 pixels."""

    def __init__(self, width: int, out: int, *, shortcut: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, out // 4, 3, 1, 1)
        self.group = width * 4 // out if shortcut else 0

    def forward(self, x: Tensor) -> Tensor:
        h = pixel_unshuffle(self.conv(x), 2)
        return h + pixel_unshuffle(x, 2).unflatten(1, (-1, self.group)).mean(dim=2) if self.group else h


class _Up(nn.Module):
    """Twice the size; the shortcut repeats channels."""

    def __init__(self, width: int, out: int, *, shortcut: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, out * 4, 3, 1, 1)
        self.repeats = out * 4 // width if shortcut else 0

    def forward(self, x: Tensor) -> Tensor:
        h = pixel_shuffle(self.conv(x), 2)
        return h + pixel_shuffle(x.repeat_interleave(self.repeats, dim=1), 2) if self.repeats else h
