"""How a codec of pictures is trained: reconstruction, then a critic of patches, then channels of one size.

Notation: variable -> symbol
    latents      z, noised by NOISE of their standard deviation on half of the pictures
    made         x^, the decoded picture
    error        20 (|x^ - x|^2 + |c(x^) - c(x)|^2) + a (|x^ - x| + |grad x^ - grad x| / 2) + |z|^2 / 10^4

c takes the mean of the channels away: with absolute errors alone, colours that few pixels have stay at their median.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, Self

import attrs
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from energycomp.errors import InputError
from energycomp.files import atomic_directory
from energycomp.images import ImageProcessor, from_bytes, to_bytes
from energycomp.models import Model, VAECodec
from energycomp.progress import progress
from energycomp.seeds import torch_seed
from energycomp_clevr.recipe import render_once
from energycomp_datasets.clevr.layout import read
from energycomp_datasets.pictures import image_files
from energycomp_lab.training import FitConfig, Recipe, Step

SIZE = 128  # pixels of a picture
CROP = 64  # pixels of what is trained on
REDUCTION = 8  # pixels of one position of the latents
WIDTHS = (48, 48, 96, 192)
RENDERED = 4_000
NOISE = 0.1
CHANGED = 0.3  # how often latents are flipped or made smaller, and the picture with them
CRITIC = 0.7  # share of the run after which the critic counts
SPREAD = 0.6  # standard deviation of each channel of the latents in the end, close to that of pixels


class Critic(nn.Module):
    """Tells patches of pictures from decoded ones: images (B, 3, H, W) to one number for each 4x4 pixels."""

    def __init__(self) -> None:
        super().__init__()
        act = nn.LeakyReLU(0.2)
        self.net = nn.Sequential(
            nn.PixelUnshuffle(2), nn.Conv2d(12, 48, 3, padding=1), act,
            nn.Conv2d(48, 96, 4, 2, 1), nn.GroupNorm(8, 96), act,
            nn.Conv2d(96, 128, 3, padding=1), nn.GroupNorm(8, 128), act, nn.Conv2d(128, 1, 3, padding=1),
        )  # fmt: skip

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.net(images)
        return out


@attrs.frozen(eq=False)
class Codec:
    """An autoencoder in training; pictures (N, 3, H, W), uint8, measure the spread of its latents."""

    vae: Any
    critic: Critic
    pictures: Tensor

    @property
    def trained(self) -> nn.ModuleDict:
        """The autoencoder and its critic."""
        return nn.ModuleDict({"vae": self.vae, "critic": self.critic})

    def to(self, device: Any) -> Self:
        """Itself, on a device."""
        self.trained.to(device)
        return self

    def save_pretrained(self, folder: str | Path, *, dtype: torch.dtype | None = None) -> None:
        """Writes the folder of the autoencoder, with channels of one spread, as `VAECodec` and diffusers read it."""
        self.vae.eval()
        with torch.no_grad():
            latents = torch.cat([self.vae.encode(from_bytes(one)).latent for one in self.pictures.split(10)])
        vae = spread(self.vae, latents.std((0, 2, 3)))
        with atomic_directory(folder) as temporary:
            vae.to(dtype).save_pretrained(temporary)


def codec(*, data: Path | None, init: Model | None, preset: str, cache: Path, vae: str = "") -> Recipe:
    """The recipe of a codec, 128x128 pixels to 16 channels of 16x16.

    Args:
        vae: folder of an autoencoder to start from.
    """
    if init is not None or preset != "default":
        raise InputError("got --init or a preset; expected neither, but --option vae=FOLDER for a codec to start from")
    pictures = _pictures(data, cache)
    made_from = _open_codec(vae) if vae else autoencoder()
    critic = Critic()
    made = Codec(made_from.to(memory_format=torch.channels_last), critic, pictures[:: max(1, len(pictures) // 300)])
    config = FitConfig(
        steps=8_500, batch_size=12, learning_rate=1.5e-3, ema_decay=0.998, mixed_precision="bf16", warmup_fraction=0.02
    )
    return Recipe(model=made, module=made.trained, loss=loss, data=pictures, config=config, can_sample=False)


def autoencoder() -> Any:
    """An untrained AutoencoderDC of 5 million weights, whose residual blocks change nothing at first."""
    from diffusers import AutoencoderDC

    with torch_seed(0):
        made: Any = AutoencoderDC(
            in_channels=3, latent_channels=16, attention_head_dim=32,
            encoder_block_types="ResBlock", encoder_block_out_channels=WIDTHS, encoder_layers_per_block=(0, 1, 1, 2),
            encoder_qkv_multiscales=((),) * 4, downsample_block_type="pixel_unshuffle",
            decoder_block_types="ResBlock", decoder_block_out_channels=WIDTHS, decoder_layers_per_block=(0, 1, 2, 3),
            decoder_qkv_multiscales=((),) * 4, upsample_block_type="pixel_shuffle", decoder_act_fns="silu",
        )  # fmt: skip
    for part in made.modules():
        if type(part).__name__ == "ResBlock":
            nn.init.zeros_(part.norm.weight)
    return made


def loss(module: nn.Module, batch: Tensor, step: Step) -> Tensor:
    """The error of a batch of pictures (B, 3, H, W), uint8, and in the last part of the run that of the critic."""
    made: Any = module
    images = _crops(batch, step.generator)
    generator = step.generator
    latents = made["vae"].encode(images).latent
    noise = torch.randn(latents.shape, generator=generator).to(latents) * NOISE * latents.detach().float().std()
    noised = latents + noise * (torch.rand(len(latents), 1, 1, 1, generator=generator) < 0.5).to(latents)
    noised, images = _change(noised, images, generator)
    decoded = made["vae"].decode(noised).sample.float()
    error = reconstruction(decoded, images, min(1.0, 0.2 + 1.12 * step.fraction)) + 1e-4 * latents.square().mean()
    if step.fraction > CRITIC - 0.03:
        error = error + F.relu(1 - made["critic"](images)).mean() + F.relu(1 + made["critic"](decoded.detach())).mean()
    if step.fraction > CRITIC:
        fixed = {name: weight.detach() for name, weight in made["critic"].named_parameters()}
        error = error - 0.02 * torch.func.functional_call(made["critic"], fixed, (decoded,)).mean()
    return error


def reconstruction(decoded: Tensor, images: Tensor, absolute: float) -> Tensor:
    """The error of decoded images (B, 3, H, W); `absolute` is a of the notation above."""
    difference = decoded - images
    colour = difference - difference.mean(1, keepdim=True)
    small = F.avg_pool2d(difference, 2)
    edges = sum((one.diff(dim=axis).abs().mean() for one in (difference, small) for axis in (2, 3)), torch.zeros(()))
    squares = difference.square().mean() + colour.square().mean()
    return 20 * squares + absolute * (difference.abs().mean() + 0.5 * edges.to(squares))


def spread(vae: Any, deviations: Tensor) -> Any:
    """A copy of an AutoencoderDC whose latents have the standard deviation `SPREAD` in every channel.

    The shortcuts around the last convolution of the encoder and the first of the decoder become part of them.
    """
    weights = copy.deepcopy(vae).state_dict()
    scale = SPREAD / deviations
    leave, enter = weights["encoder.conv_out.weight"], weights["decoder.conv_in.weight"]
    channels, width = leave.shape[:2]
    if vae.config.encoder_out_shortcut:
        share = width // channels
        for channel in range(channels):
            own = slice(channel * share, (channel + 1) * share)
            leave[channel, own, 1, 1] += 1 / share
            enter[own, channel, 1, 1] += 1
    leave *= scale[:, None, None, None]
    weights["encoder.conv_out.bias"] *= scale
    enter /= scale[:, None, None]
    config = {name: value for name, value in vae.config.items() if not name.startswith("_")}
    config |= {"encoder_out_shortcut": False, "decoder_in_shortcut": False, "scaling_factor": 1.0}
    made = type(vae)(**config)
    made.load_state_dict(weights)
    return made


def _crops(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Squares of `CROP` pixels in the lattice of the latents, or, at one step in ten, a quarter of them whole."""
    if torch.rand((), generator=generator) < 0.1:
        pictures = pictures[: max(1, len(pictures) // 4)]
    else:
        room = (pictures.shape[-1] - CROP) // REDUCTION + 1
        down, right = (torch.randint(room, (2,), generator=generator) * REDUCTION).tolist()
        pictures = pictures[..., down : down + CROP, right : right + CROP]
    if torch.rand((), generator=generator) < 0.5:
        pictures = pictures.flip(-1)
    return from_bytes(pictures).contiguous(memory_format=torch.channels_last)


def _change(latents: Tensor, images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Latents and images that are mirrored or smaller together, so that latents are as regular as images."""
    chance = float(torch.rand((), generator=generator))
    if chance > CHANGED:
        return latents, images
    if chance > CHANGED / 2:
        return latents.flip(-1), images.flip(-1)
    size = tuple(side // 2 for side in latents.shape[-2:])
    smaller = F.avg_pool2d(latents, 2)
    pixels = tuple(side * REDUCTION for side in size)
    return smaller, F.interpolate(images, size=pixels, mode="bilinear", antialias=True)


def _pictures(data: Path | None, cache: Path) -> Tensor:
    """The pictures of a folder, or rendered ones, (N, 3, 128, 128), uint8."""
    if data is None:
        scenes = render_once(
            cache / "clevr-codec.safetensors", [(RENDERED, {"objects": (0, 10), "size": SIZE})], columns=2
        )
        return torch.stack([scene["image"] for scene in scenes])
    processor = ImageProcessor(size=(SIZE, SIZE), resize="squash")
    found = [record.path for record in read(data)] if (data / "scenes").is_dir() else image_files(data)
    return torch.cat([to_bytes(processor(path)) for path in progress(found, "reading")])


def _open_codec(folder: str) -> Any:
    codec = VAECodec.read(folder, image_size=SIZE)
    if type(codec.vae).__name__ != "AutoencoderDC":
        raise InputError(f"got vae={folder}, an {type(codec.vae).__name__}; expected an AutoencoderDC")
    return codec.vae.requires_grad_(True).train()
