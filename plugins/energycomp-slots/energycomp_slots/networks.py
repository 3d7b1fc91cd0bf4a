"""The network of Slot-VAE: images to slots, slots to images, and a global latent to slots (Wang, 2026, Fig. 3.1)."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from energycomp.components import Condition, cosine_schedule, signal_noise
from energycomp.denoisers import channels_last, configured
from energycomp.errors import InputError
from energycomp_slots.attention import HEADS, SlotAttention, SlotTransformer
from energycomp_slots.decoders import Deconvolutions, Drawn, SlotDecoder, places
from energycomp_slots.prior import LatentPrior

CENTRE, STRETCH = -0.2, 2.0  # inputs in [-1, 1] are normalized to (x - CENTRE) * STRETCH
LIMITS = {
    "sample_size": (16, 1024), "slots": (1, 256), "width": (1, 4096), "channels": (1, 4096), "stride": (1, 4),
    "iterations": (1, 64), "hidden": (1, 4096), "global_width": (1, 4096), "global_hidden": (1, 4096),
    "global_stride": (1, 4), "decoder_channels": (1, 4096), "prior_hidden": (1, 4096),
}  # fmt: skip
CHOICES: dict[str, tuple[Any, ...]] = {
    "prior": ("normal", "diffusion"),
    "slots_from": ("attention", "mlp", "transformer"),
    **dict.fromkeys(("shuffle", "share_weights", "share_initial", "plain"), (True, False)),
}


class GaussianHead(nn.Module):
    """Mean and log sigma from features, by one hidden layer."""

    def __init__(self, features: int, hidden: int, width: int) -> None:
        super().__init__()
        last = nn.Linear(hidden, 2 * width)
        with torch.no_grad():
            last.bias[width:] = -3.0  # little noise at first: more would prevent slots from learning
        self.layers = nn.Sequential(nn.Linear(features, hidden), nn.ReLU(), last)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_sigma = self.layers(features).chunk(2, dim=-1)
        return mean, log_sigma.clamp(-8.0, 2.0)


@configured
class SlotVAE(nn.Module):
    """One slot attention for two paths: from an image, and from a global latent.

    As a network of a `Denoiser` its condition is a whole scene, with one token for each slot, and its prediction of x0
    is exact: images of a scene are N(decode(z), sigma_x^2), noised N(sqrt(a) decode(z), a sigma_x^2 + 1 - a).

    Args:
        sample_size: H = W.
        slots: K in training.
        width: D of a slot and of its latent.
        channels: D' of the feature map.
        kernels: of the convolutions of the encoder.
        stride: of the first of them.
        iterations: of slot attention.
        hidden: of the MLPs of slots.
        global_width: L of the global latent z_g.
        global_hidden: of the MLPs from feature maps to the global latent and back.
        global_stride: of a convolution before the first of these; 1 for none.
        decoder_channels: of the decoder of slots, from the broadcast grid of 8x8 on.
        shuffle: whether the last upsampling is a PixelShuffle, which costs less than a transposed convolution.
        sigma_x: standard deviation of a pixel, in brightness of [-1, 1].
        prior: of z_g: "normal", or "diffusion", which is fitted after training.
        prior_hidden: of the layers of that diffusion.
        slots_from: the module that maps z_g to slots: "attention", or "mlp" or "transformer" as an ablation.
        share_weights: whether both paths share the slot attention.
        share_initial: whether both paths start from the same noise.
        plain: a plain Slot Attention autoencoder, with latents without noise and no prior.

    >>> net = SlotVAE(sample_size=16, slots=3, width=8, channels=8, decoder_channels=8, global_width=4)
    >>> noise = torch.randn(2, 3, 8)
    >>> mean, log_sigma = net.infer(net.encode(torch.zeros(2, 3, 16, 16)), noise)[0]
    >>> net.decode(mean).whole.shape, net.generate(torch.randn(2, 4), noise)[0][0].shape
    (torch.Size([2, 3, 16, 16]), torch.Size([2, 3, 8]))
    """

    config: dict[str, Any]
    alphas_cumprod: Tensor
    grid: Tensor

    def __init__(
        self,
        *,
        sample_size: int = 32,
        slots: int = 6,
        width: int = 48,
        channels: int = 32,
        kernels: tuple[int, ...] = (5, 5, 5, 3),
        stride: int = 2,
        iterations: int = 3,
        hidden: int = 96,
        global_width: int = 32,
        global_hidden: int = 256,
        global_stride: int = 2,
        decoder_channels: int = 32,
        shuffle: bool = True,
        sigma_x: float = 0.2,
        prior: str = "diffusion",
        prior_hidden: int = 384,
        slots_from: str = "attention",
        share_weights: bool = True,
        share_initial: bool = True,
        plain: bool = False,
    ) -> None:
        super().__init__()
        _check(self.config)
        self.slots = slots
        self.width = width
        self.sigma_x = sigma_x
        self.plain = plain
        self.share_initial = share_initial
        self.slots_from = slots_from
        self.global_width = global_width
        self.side = sample_size // stride
        strides = (stride, *(1 for _ in kernels[1:]))
        sizes = (3, *(channels for _ in kernels))
        self.stem = nn.ModuleList(
            nn.Conv2d(a, b, kernel, stride=step, padding=kernel // 2)
            for (a, b), kernel, step in zip(pairwise(sizes), kernels, strides, strict=True)
        )
        self.place = nn.Linear(4, channels)
        self.cells = nn.Sequential(
            nn.LayerNorm(channels), nn.Linear(channels, channels), nn.ReLU(), nn.Linear(channels, channels)
        )
        self.attention = SlotAttention(channels=channels, width=width, hidden=hidden, iterations=iterations)
        self.posterior = GaussianHead(width, hidden, width)
        self.decoder = SlotDecoder(sample_size, width, decoder_channels, shuffle=shuffle)
        before = nn.Conv2d(channels, channels, 3, stride=global_stride, padding=1)
        self.enter = nn.Sequential(
            *((before, nn.ReLU()) if global_stride > 1 else ()),
            nn.Flatten(),
            nn.Linear(channels * (self.side // global_stride) ** 2, global_hidden),
            nn.ReLU(),
            nn.Linear(global_hidden, global_hidden),
            nn.ReLU(),
        )
        self.global_head = nn.Linear(global_hidden, 2 * global_width)
        self.leave = Deconvolutions(self.side, global_width, channels, global_hidden)
        self.prior = LatentPrior(global_width, hidden=prior_hidden) if prior == "diffusion" else None
        self.own: nn.Module | None = None
        if slots_from == "mlp":
            self.own = nn.Sequential(
                nn.Linear(global_width, global_hidden), nn.ReLU(), nn.Linear(global_hidden, slots * width)
            )
        elif slots_from == "transformer":
            self.own = SlotTransformer(channels=channels, width=width, hidden=hidden)
        elif not share_weights:
            self.own = SlotAttention(channels=channels, width=width, hidden=hidden, iterations=iterations)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]
        self.register_buffer("grid", places(self.side), persistent=False)
        self.register_buffer("alphas_cumprod", cosine_schedule(), persistent=False)
        channels_last(self)

    def encode(self, samples: Tensor) -> Tensor:
        """Feature maps f_x (B, D', h, w) of samples (B, 3, H, W)."""
        x = ((samples - CENTRE) * STRETCH).contiguous(memory_format=torch.channels_last)
        for index, layer in enumerate(self.stem):
            x = layer(x if index == 0 else F.relu(x))
        return x

    def infer(self, features: Tensor, noise: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
        """Mean and log sigma (B, K, D) of q(z_s | x) from f_x and normal noise (B, K, D), and the attention of slots.

        The attention (B, K, h, w) says which cells each slot explains.
        """
        slots, share = self.attention(self._cells(features), self.attention.initial(noise))
        return self.posterior(slots), share.unflatten(2, (self.side, self.side))

    def summarise(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log sigma (B, L) of q(z_g | x)."""
        mean, log_sigma = self.global_head(self.enter(features)).chunk(2, dim=1)
        return mean, log_sigma.clamp(-8.0, 2.0)

    def generate(self, z_g: Tensor, noise: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
        """Mean and log sigma (B, K, D) of p(z_s | z_g) for global latents (B, L), and the intermediate feature maps.

        `noise` (B, K, D) is that of `infer`, unless `share_initial` is off.
        """
        features = self.leave(z_g)
        if self.slots_from == "mlp":
            slots = self.own(z_g).unflatten(1, (self.slots, self.width))  # type: ignore[misc]
        else:
            attention = self.attention if self.own is None else self.own
            start = self.attention if self.slots_from == "transformer" else attention
            slots, _ = attention(self._cells(features), start.initial(noise))  # type: ignore[operator]
        return self.posterior(slots), features

    def scene(self, noise: Tensor) -> Tensor:
        """New global latents z_g (B, L) from normal noise (B, L)."""
        return noise if self.prior is None else self.prior(noise)

    def decode(self, latents: Tensor) -> Drawn:
        """Decoded slot latents (B, K', D), for any K' of at least 1."""
        return self.decoder(latents)

    def features(self, sample: Tensor, timestep: Tensor) -> tuple[Tensor, ...]:
        """Stage one of two: what the prediction of x0 needs from the noised sample (B, C, H, W)."""
        signal, sigma = signal_noise(self.alphas_cumprod, timestep, sample.dtype)
        variance = self.sigma_x**2
        gain = signal * variance / (signal.square() * variance + sigma.square())
        return (gain * sample, 1 - gain * signal)

    def head(self, features: tuple[Tensor, ...], condition: Condition, owner: Tensor) -> Tensor:
        """Stage two: E[x0 | x_t] of the Gaussian of each scene."""
        known, rest = features
        return known[owner] + rest[owner] * self.decode(condition.rows).whole

    def _cells(self, features: Tensor) -> Tensor:
        cells = features.flatten(2).transpose(1, 2) + self.place(self.grid)
        mapped: Tensor = self.cells(cells)
        return mapped


def _check(config: dict[str, Any]) -> None:
    for name, (least, most) in LIMITS.items():
        if type(config[name]) is not int or not least <= config[name] <= most:
            raise InputError(f"got {name} {config[name]!r}; expected a whole number from {least} to {most}")
    size, kernels = config["sample_size"], config["kernels"]
    if size & (size - 1):
        raise InputError(f"got sample_size {size}; expected a power of 2 of at least 16; choose 32 or 64")
    if {config["stride"], config["global_stride"]} & {3}:
        raise InputError(f"got strides {config['stride']} and {config['global_stride']}; expected 1, 2 or 4")
    if not 1 <= len(kernels) <= 16 or not all(type(k) is int and 1 <= k <= 15 and k % 2 for k in kernels):
        raise InputError(f"got kernels {kernels}; expected odd numbers from 1 to 15, such as (5, 5, 5, 3)")
    for name, known in CHOICES.items():
        if config[name] not in known:
            raise InputError(f"got {name} {config[name]!r}; expected {' or '.join(map(str, known))}")
    if config["slots_from"] == "transformer" and config["width"] % HEADS:
        raise InputError(f"got width {config['width']} for a transformer; expected a multiple of {HEADS}")
    if not isinstance(config["sigma_x"], int | float) or not 0 < config["sigma_x"] < math.inf:
        raise InputError(f"got sigma_x {config['sigma_x']!r}; expected a number above 0, such as 0.2")
