"""The networks of decomposition: encoders of images as K latents, and the network that predicts their parts."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from torch import Tensor, nn
from torch.nn import functional as F

from energycomp.components import Condition
from energycomp.denoisers import FiLMBlock, GroupNorm, Stage, configured, place_maps
from energycomp.errors import InputError

MOMENTUM = 0.01
FLOOR = -3.0  # least log variance of a content vector: with less noise, one number may encode several factors
CEILING = 5.0  # greatest log variance: before the KL divergence counts, that of an unused latent grows without end
BUMPS = (0.06, 0.12, 0.25)  # widths of the bumps around the position that a latent predicts


@configured
class PartsEncoder(nn.Module):
    """Samples (B, C, H, W) to K latents each, (B, K, D).

    Convolutions to H/8 x W/8 cells are followed by one linear map, so that position determines which latent encodes an
    object. Each latent then attends to the cells of a finer resolution. In training the encoder updates running
    estimates of mean and variance of the output of the linear map, and normalizes by them.

    Args:
        sample_channels, sample_size: C and H = W of a sample.
        parts: K.
        token_width: D.
        channels: widths at 1/`fold` of the size and at each half of it.
        fold: side of the blocks of pixels that are folded into channels.
        last: whether a residual block follows the last convolution, as it does the others.
        look: the number of the resolution that latents attend to; None for no attention.

    >>> PartsEncoder(sample_size=16, parts=3, token_width=4, channels=[8, 8, 8])(torch.zeros(2, 3, 16, 16)).shape
    torch.Size([2, 3, 4])
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        *,
        sample_channels: int = 3,
        sample_size: int = 32,
        parts: int = 4,
        token_width: int = 8,
        channels: Sequence[int] = (32, 64, 128),
        fold: int = 2,
        last: bool = True,
        look: int | None = 1,
    ) -> None:
        super().__init__()
        if look is not None and not 0 <= look < len(channels) - 1:
            raise InputError(f"got look={look} with {len(channels)} resolutions; expected one before the last, or None")
        self.parts, self.fold = parts, fold
        self.stage = None if look is None else 2 * look + 1  # of the layers of the body
        self.body, width = _body(sample_channels, sample_size, channels, fold, last=last)
        self.out = nn.Linear(width, parts * token_width)
        self.look = (
            CrossAttention(token_width, channels[look], sample_size // (fold * 2**look)) if look is not None else None
        )
        self.register_buffer("mean", torch.zeros(token_width))
        self.register_buffer("std", torch.ones(token_width))

    def forward(self, samples: Tensor) -> Tensor:
        """Latents (B, K, D)."""
        cells = F.pixel_unshuffle(samples, self.fold)
        finer = None
        for number, layer in enumerate(self.body):
            cells = layer(cells)
            if number == self.stage:
                finer = cells
        latents: Tensor = self.out(cells.flatten(1)).unflatten(1, (self.parts, -1))
        if self.training:
            with torch.no_grad():
                flat = latents.detach().float().flatten(0, 1)
                self.mean.lerp_(flat.mean(0), MOMENTUM)
                self.std.copy_((self.std**2).lerp((flat - self.mean).square().mean(0), MOMENTUM).sqrt())
        latents = (latents - self.mean) / self.std
        return latents if self.look is None or finer is None else latents + self.look(latents, finer)


@configured
class FactorsEncoder(nn.Module):
    """Samples (B, C, H, W) to K latents (B, K, D): each is a content vector and a learned identity embedding.

    The content vector, the first D - N numbers, is the mean of a normal distribution from which training samples. The
    identity embedding, the other N numbers, says which factor the latent encodes, and is the same for every image. So
    rows of different images can be exchanged.

    Args:
        sample_channels, sample_size: C and H = W of a sample.
        parts: K.
        token_width: D.
        name_width: N.
        channels: as of `PartsEncoder`.

    >>> encoder = FactorsEncoder(sample_size=16, parts=3, token_width=4, name_width=2, channels=[8, 8, 8])
    >>> encoder(torch.zeros(2, 3, 16, 16)).shape, encoder.posterior(torch.zeros(2, 3, 16, 16))[0].shape
    (torch.Size([2, 3, 4]), torch.Size([2, 3, 2]))
    """

    def __init__(
        self,
        *,
        sample_channels: int = 3,
        sample_size: int = 32,
        parts: int = 6,
        token_width: int = 8,
        name_width: int = 6,
        channels: Sequence[int] = (32, 64, 128),
    ) -> None:
        super().__init__()
        self.parts = parts
        self.fold = 2
        self.body, width = _body(sample_channels, sample_size, channels, self.fold)
        self.out = nn.Linear(width, 2 * parts * (token_width - name_width))  # of each part: means, then log variances
        with torch.no_grad():  # little noise at first, or nothing is learned from the content vectors
            self.out.bias.view(parts, -1)[:, token_width - name_width :].fill_(-2.0)
        self.names = nn.Parameter(torch.randn(parts, name_width))

    def forward(self, samples: Tensor) -> Tensor:
        """Latents (B, K, D)."""
        return self.latents(self.posterior(samples)[0])

    def posterior(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance, from -3 to 5, of the content vectors, (B, K, D - N) each.

        At the upper bound the gradient of the log variance is not 0, so that the KL divergence can reduce it.
        """
        both = self.out(self.body(F.pixel_unshuffle(samples, self.fold)).flatten(1)).unflatten(1, (self.parts, -1))
        mean, log_variance = both.float().chunk(2, dim=-1)
        log_variance = FLOOR + F.softplus(log_variance)
        return mean, log_variance + (log_variance.clamp(max=CEILING) - log_variance).detach()

    def latents(self, content: Tensor) -> Tensor:
        """Latents (B, K, D) of content vectors (B, K, D - N)."""
        return torch.cat([content, self.names.to(content.dtype).expand(len(content), -1, -1)], dim=-1)


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
        _check_size(sample_size, 4)
        fine, coarse = channels
        head_fine, head_coarse = head_channels
        folded = 4 * sample_channels
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


class CrossAttention(nn.Module):
    """Cross-attention of latents (B, K, D) to maps (B, C, h, w), initialized to an output of zero.

    >>> attention = CrossAttention(4, 8, side=2)
    >>> attention(torch.rand(1, 3, 4), torch.rand(1, 8, 2, 2)).abs().max().item()
    0.0
    """

    def __init__(self, token_width: int, channels: int, side: int, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Sequential(nn.Linear(token_width, channels), nn.SiLU(), nn.Linear(channels, channels))
        self.norm = GroupNorm(8, channels)
        self.place = nn.Parameter(nn.init.normal_(torch.empty(side * side, channels), std=0.3))
        self.key, self.value = nn.Linear(channels, channels), nn.Linear(channels, channels)
        last = nn.Linear(channels, token_width)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.out = nn.Sequential(nn.Linear(channels, channels), nn.SiLU(), last)

    def forward(self, latents: Tensor, maps: Tensor) -> Tensor:
        """The residual of the latents, (B, K, D)."""
        cells = self.norm(maps).flatten(2).mT + self.place
        split = (self.query(latents), self.key(cells), self.value(cells))
        query, key, value = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in split)
        attended = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        out: Tensor = self.out(attended)
        return out


class Residual(nn.Module):
    """A residual block of two 3x3 convolutions.

    >>> Residual(8)(torch.zeros(1, 8, 4, 4)).shape
    torch.Size([1, 8, 4, 4])
    """

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


def _body(
    sample_channels: int, size: int, channels: Sequence[int], fold: int, *, last: bool = True
) -> tuple[nn.Sequential, int]:
    """Convolutions over samples whose `fold` x `fold` blocks are folded into channels, and the size of their output."""
    shrunk = fold * 2 ** (len(channels) - 1)
    _check_size(size, shrunk)
    layers: list[nn.Module] = [nn.Conv2d(fold**2 * sample_channels, channels[0], 3, padding=1)]
    for wide, wider in pairwise(channels):
        layers += [Residual(wide), nn.Conv2d(wide, wider, 3, stride=2, padding=1)]
    if last:
        layers.append(Residual(channels[-1]))
    layers.append(GroupNorm(8, channels[-1]))
    return nn.Sequential(*layers), channels[-1] * (size // shrunk) ** 2


def _check_size(size: int, multiple: int) -> None:
    if size < 1 or size % multiple:
        raise InputError(f"got sample_size {size}; expected a multiple of {multiple}; change it")
