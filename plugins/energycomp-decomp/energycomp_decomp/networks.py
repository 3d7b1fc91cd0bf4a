"""The network of decomposition, which predicts the parts of an image that its latents say."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from energycomp.components import Condition
from energycomp.denoisers import (
    FiLMBlock,
    GroupNorm,
    Stage,
    TimestepEmbedding,
    Timesteps,
    configured,
    place_maps,
)
from energycomp_decomp.blocks import check_size

BUMPS = (0.06, 0.12, 0.25)  # widths of the bumps around the position that a latent predicts


@configured
class PartsUNet(nn.Module):
    """A two-stage network whose rows are parts: h(x_t, t, z), added to a constant image.

    The prediction of x0 is base + h for a latent, and base without one. So the product rule, u + sum of (e_k - u), is
    base + sum of h_k. The trunk works at 1/2 and 1/4 of the size. A head maps its latent to a feature map at 1/4, and
    joins it with the features of the trunk there and at 1/2.

    Args:
        sample_channels, sample_size: C and H = W of a sample.
        token_width: D of a latent (L is 1).
        channels: widths of the trunk at 1/2 and 1/4.
        head_channels: widths of the head at 1/2 and 1/4.
        seed_channels: of the feature map of a latent.
        places: whether a latent also predicts one position, relative to which the head gets offsets.

    >>> net = PartsUNet(sample_size=16, token_width=4, channels=[8, 16], head_channels=[8, 16], seed_channels=8)
    >>> features = net.features(torch.zeros(2, 3, 16, 16), torch.tensor([10.0, 500.0]))
    >>> net.head(features, Condition(torch.rand(3, 1, 4)), torch.tensor([0, 0, 1])).shape
    torch.Size([3, 3, 16, 16])
    """

    base: Tensor

    def __init__(
        self,
        *,
        sample_channels: int = 3,
        sample_size: int = 32,
        token_width: int = 8,
        channels: tuple[int, int] | list[int] = (32, 64),
        head_channels: tuple[int, int] | list[int] = (32, 64),
        seed_channels: int = 32,
        places: bool = True,
    ) -> None:
        super().__init__()
        check_size(sample_size, 4)
        fine, coarse = channels
        head_fine, head_coarse = head_channels
        folded = 4 * sample_channels
        width = 2 * coarse
        self.side = sample_size // 4
        self.time = nn.Sequential(Timesteps(fine), TimestepEmbedding(fine, width))
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
        self.place = nn.Linear(width, 2) if places else None
        if places:
            maps = 3 + len(BUMPS)
            self.near_coarse, self.near_fine = (nn.Conv2d(maps, c, 3, padding=1) for c in (head_coarse, head_fine))
        self.head_coarse = Stage([FiLMBlock(head_coarse, width), FiLMBlock(head_coarse, width)])
        self.grow = nn.Conv2d(head_coarse, 4 * head_fine, 3, padding=1)
        self.head_fine = Stage([FiLMBlock(head_fine, width)])
        last = nn.Conv2d(head_fine, folded, 3, padding=1)
        nn.init.normal_(last.weight, std=0.01)
        self.out = nn.Sequential(GroupNorm(8, head_fine), nn.SiLU(), last)
        self.register_buffer("base", torch.zeros(sample_channels, sample_size, sample_size))

    def features(self, sample: Tensor, timestep: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features at 1/4 and at 1/2 of the size, (B, channels, h, w) each, and the time embedding (B, E)."""
        time = self.time[1](self.time[0](timestep).to(self.stem.weight.dtype))  # the sinusoids are float32
        fine = self.fine(self.stem(F.pixel_unshuffle(sample, 2)), time)
        coarse = self.coarse(self.shrink(fine) + self.skip(F.pixel_unshuffle(sample, 4)), time)
        return self.enter(coarse), self.detail(fine), time

    def head(self, features: tuple[Tensor, ...], condition: Condition, owner: Tensor) -> Tensor:
        """Predictions (R, C, H, W): the base, plus the part of each latent."""
        coarse, fine, time = features
        token = self.token(condition.rows[:, 0])
        embedding = token + time[owner]
        seed = self.seed(F.silu(token)).unflatten(1, (-1, self.side, self.side))
        h = coarse[owner] + self.join(seed)
        detail = fine[owner]
        if self.place is not None:
            place = 0.5 + 0.25 * self.place(F.silu(token)).float()
            h = h + self.near_coarse(self._near(place, h))
            detail = detail + self.near_fine(self._near(place, detail))
        h = self.head_coarse(h, embedding)
        h = self.head_fine(F.pixel_shuffle(self.grow(h), 2) + detail, embedding)
        part = F.pixel_shuffle(self.out(h), 2)
        return self.base + torch.where(condition.null[:, None, None, None], torch.zeros_like(part), part)

    @staticmethod
    def _near(place: Tensor, like: Tensor) -> Tensor:
        maps = place_maps(place, like.shape[-2:], BUMPS).to(like.dtype)
        return maps.contiguous(memory_format=torch.channels_last)
