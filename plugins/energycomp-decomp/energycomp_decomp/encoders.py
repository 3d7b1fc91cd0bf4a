"""Networks that read latents from an image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from energycomp.denoisers import configured
from energycomp.errors import InputError
from energycomp_decomp.blocks import CrossAttention, convolutions

MOMENTUM = 0.01
FLOOR = -3.0  # least log variance of a content vector: with less noise, one number may encode several factors
CEILING = 5.0  # greatest log variance: before the KL divergence counts, that of an unused latent grows without end


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
        self.parts = parts
        self.fold = fold
        self.stage = None if look is None else 2 * look + 1  # of the layers of the body
        self.body, width = convolutions(sample_channels, sample_size, channels, fold, last=last)
        self.out = nn.Linear(width, parts * token_width)
        self.look = (
            CrossAttention(token_width, channels[look], sample_size // (fold * 2**look)) if look is not None else None
        )
        self.register_buffer("mean", torch.zeros(token_width))
        self.register_buffer("std", torch.ones(token_width))

    def forward(self, samples: Tensor) -> Tensor:
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
        self.body, width = convolutions(sample_channels, sample_size, channels, self.fold)
        self.out = nn.Linear(width, 2 * parts * (token_width - name_width))  # of each part: means, then log variances
        with torch.no_grad():  # little noise at first, or nothing is learned from the content vectors
            self.out.bias.view(parts, -1)[:, token_width - name_width :].fill_(-2.0)
        self.names = nn.Parameter(torch.randn(parts, name_width))

    def forward(self, samples: Tensor) -> Tensor:
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
