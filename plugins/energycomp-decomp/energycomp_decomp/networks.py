"""The two networks of decomposition: a picture to K latents, and a latent to its part of the picture."""

from __future__ import annotations

import torch
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from torch import Tensor, nn
from torch.nn import functional as F

from energycomp.conditioning import Condition
from energycomp.errors import InputError
from energycomp.networks import FiLMBlock, GroupNorm, Stage

__all__ = ["PartsEncoder", "PartsUNet"]

MOMENTUM = 0.01


class PartsEncoder(nn.Module):
    """Samples (B, C, H, W) to K latents each, (B, K, D), of mean 0 and variance 1 over the pictures of training.

    Convolutions to H/8 x W/8 cells, then one linear map: what sits where decides which latent tells it. While it
    trains, it follows the mean and the variance of its latents; `PartsUNet` undoes the scaling by the same numbers, so
    that training is that of latents as they come.

    Args:
        sample_channels, sample_size: C and H = W of a sample.
        parts: K.
        token_width: D.
        channels: widths at 1/2, 1/4 and 1/8 of the size.

    >>> PartsEncoder(sample_size=16, parts=3, token_width=4, channels=[8, 8, 8])(torch.zeros(2, 3, 16, 16)).shape
    torch.Size([2, 3, 4])
    """

    mean: Tensor
    std: Tensor
    seen: Tensor

    def __init__(
        self,
        *,
        sample_channels: int = 3,
        sample_size: int = 32,
        parts: int = 4,
        token_width: int = 8,
        channels: tuple[int, int, int] | list[int] = (32, 64, 64),
    ) -> None:
        super().__init__()
        _check_size(sample_size, 8)
        self.config = {
            "sample_channels": sample_channels, "sample_size": sample_size, "parts": parts,
            "token_width": token_width, "channels": list(channels),
        }  # fmt: skip
        first, second, third = channels
        self.parts = parts
        self.body = nn.Sequential(
            nn.Conv2d(4 * sample_channels, first, 3, padding=1),
            Residual(first),
            nn.Conv2d(first, second, 3, stride=2, padding=1),
            Residual(second),
            nn.Conv2d(second, third, 3, stride=2, padding=1),
            Residual(third),
            GroupNorm(8, third),
        )
        self.out = nn.Linear(third * (sample_size // 8) ** 2, parts * token_width)
        self.register_buffer("mean", torch.zeros(token_width))
        self.register_buffer("std", torch.ones(token_width))
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))  # batches of training

    def forward(self, samples: Tensor) -> Tensor:
        """Latents (B, K, D)."""
        latents: Tensor = self.out(self.body(F.pixel_unshuffle(samples, 2)).flatten(1)).unflatten(1, (self.parts, -1))
        if self.training:
            with torch.no_grad():
                self.seen += 1
                flat = latents.detach().float().flatten(0, 1)
                self.mean.lerp_(flat.mean(0), MOMENTUM)
                self.std.copy_((self.std**2).lerp((flat - self.mean).square().mean(0), MOMENTUM).sqrt())
        return (latents - self.mean) / self.std


class PartsUNet(nn.Module):
    """A two-stage network whose every row is one part: h(x_t, t, z), added to one constant picture.

    The prediction of x0 for a latent is base + h, and base itself without one. So the rule "product", u + sum of
    (e_k - u), is base + sum of h_k. The trunk works at 1/2 and 1/4 of the size; a head draws its latent as a map at
    1/4, joins it with the trunk there and at 1/2.

    Args:
        sample_channels, sample_size: C and H = W of a sample.
        token_width: D of a latent (L is 1).
        channels: widths of the trunk at 1/2 and 1/4.
        head_channels: widths of the head at 1/2 and 1/4.
        seed_channels: of the map that a latent is drawn as.

    >>> net = PartsUNet(sample_size=16, token_width=4, channels=[8, 16], head_channels=[8, 16], seed_channels=8)
    >>> features = net.features(torch.zeros(2, 3, 16, 16), torch.tensor([10.0, 500.0]))
    >>> net.head(features, Condition(torch.rand(3, 1, 4)), torch.tensor([0, 0, 1])).shape
    torch.Size([3, 3, 16, 16])
    """

    base: Tensor
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        *,
        sample_channels: int = 3,
        sample_size: int = 32,
        token_width: int = 8,
        channels: tuple[int, int] | list[int] = (32, 64),
        head_channels: tuple[int, int] | list[int] = (32, 64),
        seed_channels: int = 32,
    ) -> None:
        super().__init__()
        _check_size(sample_size, 4)
        self.config = {
            "sample_channels": sample_channels, "sample_size": sample_size, "token_width": token_width,
            "channels": list(channels), "head_channels": list(head_channels), "seed_channels": seed_channels,
        }  # fmt: skip
        (fine, coarse), (head_fine, head_coarse), folded = channels, head_channels, 4 * sample_channels
        width, self.side = 2 * coarse, sample_size // 4
        self.time = nn.Sequential(Timesteps(fine, True, 0), TimestepEmbedding(fine, width))
        self.stem = nn.Conv2d(folded, fine, 3, padding=1)
        self.fine = Stage([FiLMBlock(fine, width)])
        self.shrink = nn.Conv2d(fine, coarse, 3, stride=2, padding=1)
        self.skip = nn.Conv2d(4 * folded, coarse, 1)
        self.coarse = Stage([FiLMBlock(coarse, width), FiLMBlock(coarse, width)])
        self.enter = nn.Conv2d(coarse, head_coarse, 3, padding=1)
        self.detail = nn.Conv2d(fine, head_fine, 3, padding=1)
        self.token = nn.Sequential(nn.Linear(token_width, width), nn.SiLU(), nn.Linear(width, width))
        self.seed = nn.Linear(width, seed_channels * self.side**2)
        self.join = nn.Conv2d(seed_channels, head_coarse, 3, padding=1)
        self.head_coarse = Stage([FiLMBlock(head_coarse, width), FiLMBlock(head_coarse, width)])
        self.grow = nn.Conv2d(head_coarse, 4 * head_fine, 3, padding=1)
        self.head_fine = Stage([FiLMBlock(head_fine, width)])
        last = nn.Conv2d(head_fine, folded, 3, padding=1)
        nn.init.normal_(last.weight, std=0.01)
        self.out = nn.Sequential(GroupNorm(8, head_fine), nn.SiLU(), last)
        self.register_buffer("base", torch.zeros(sample_channels, sample_size, sample_size))
        self.register_buffer("mean", torch.zeros(token_width))
        self.register_buffer("std", torch.ones(token_width))

    def features(self, sample: Tensor, timestep: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What a head sees at 1/4 and at 1/2 of the size, (B, channels, h, w) each, and the time embedding (B, E)."""
        time = self.time[1](self.time[0](timestep).to(self.stem.weight.dtype))  # the sinusoids are float32
        fine = self.fine(self.stem(F.pixel_unshuffle(sample, 2)), time)
        coarse = self.coarse(self.shrink(fine) + self.skip(F.pixel_unshuffle(sample, 4)), time)
        return self.enter(coarse), self.detail(fine), time

    def head(self, features: tuple[Tensor, ...], condition: Condition, owner: Tensor) -> Tensor:
        """Predictions (R, C, H, W): the base, and on it what each latent adds."""
        coarse, fine, time = features
        token = self.token(condition.rows[:, 0] * self.std + self.mean)
        embedding, seed = token + time[owner], self.seed(F.silu(token)).unflatten(1, (-1, self.side, self.side))
        h = self.head_coarse(coarse[owner] + self.join(seed), embedding)
        h = self.head_fine(F.pixel_shuffle(self.grow(h), 2) + fine[owner], embedding)
        part = F.pixel_shuffle(self.out(h), 2)
        return self.base + torch.where(condition.null[:, None, None, None], torch.zeros_like(part), part)


class Residual(nn.Module):
    """A residual block of two 3x3 convolutions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block = nn.Sequential(
            GroupNorm(8, channels),
            nn.SiLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            GroupNorm(8, channels),
            nn.SiLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, h: Tensor) -> Tensor:
        """Maps (B, channels, h, w) to the same shape."""
        out: Tensor = h + self.block(h)
        return out


def _check_size(size: int, multiple: int) -> None:
    if size < 1 or size % multiple:
        raise InputError(f"got sample_size {size}; expected a multiple of {multiple}; change it")
