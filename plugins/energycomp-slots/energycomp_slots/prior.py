"""What new global latents are drawn from: a small diffusion that is fitted to those of pictures.

Latents of pictures do not fill their normal prior: between them are scenes that are no scenes. The thesis answers with
StructDRAW, an autoregressive prior; this is another one, fitted afterwards.
"""

from __future__ import annotations

import torch
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor, nn
from torch.nn import functional as F

from energycomp.components import cosine_schedule, signal_noise, stratified_timesteps
from energycomp.denoisers import Timesteps
from energycomp.sampling import make_scheduler, sample

STEPS = 50


class LatentPrior(nn.Module):
    """A diffusion of vectors of `width` numbers: noise in, latents out, one for one.

    >>> prior = LatentPrior(4, hidden=16)
    >>> prior.loss(torch.randn(8, 4)).ndim, prior(torch.randn(3, 4)).shape
    (0, torch.Size([3, 4]))
    """

    alphas_cumprod: Tensor
    mean: Tensor
    spread: Tensor

    def __init__(self, width: int, *, hidden: int = 384, layers: int = 4) -> None:
        super().__init__()
        self.time = nn.Sequential(Timesteps(64), nn.Linear(64, hidden), nn.SiLU())
        self.enter = nn.Linear(width, hidden)
        self.layers = nn.ModuleList(Layer(hidden) for _ in range(layers))
        self.leave = nn.Linear(hidden, width)
        self.register_buffer("alphas_cumprod", cosine_schedule(), persistent=False)  # half precision would flatten it
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("spread", torch.ones(width))

    def measure(self, latents: Tensor) -> None:
        """Takes mean and spread of each number from latents (N, L): what is diffused has mean 0 and variance 1."""
        self.mean.copy_(latents.mean(0))
        self.spread.copy_(latents.std(0, correction=int(len(latents) > 1)).clamp_min(1e-3))

    def velocity(self, latents: Tensor, timestep: Tensor) -> Tensor:
        """v (B, L) of noised latents (B, L) at timesteps (B,): unlike eps, it tells of latents at full noise, too."""
        x = self.enter(latents)
        time = self.time(timestep)
        for layer in self.layers:
            x = layer(x, time)
        made: Tensor = self.leave(x)
        return made

    def loss(self, latents: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """The denoising error of latents (B, L), at one timestep each, stratified."""
        last = len(self.alphas_cumprod) - 1
        timestep = stratified_timesteps(len(latents), 0.0, last, generator=generator).to(latents.device)
        noise = randn_tensor(latents.shape, generator=generator, device=latents.device)
        latents = (latents - self.mean) / self.spread
        signal, sigma = (level[:, :, 0, 0] for level in signal_noise(self.alphas_cumprod, timestep, latents.dtype))
        target = signal * noise - sigma * latents
        return (self.velocity(signal * latents + sigma * noise, timestep) - target).square().mean()

    @torch.no_grad()
    def forward(self, noise: Tensor) -> Tensor:
        """Latents (B, L) of normal noise (B, L), by 50 steps of DDIM: the same noise, the same latents."""
        scheduler = make_scheduler("DDIMScheduler", self.alphas_cumprod, prediction_type="v_prediction")
        made = sample(
            lambda x, timestep, _: self.velocity(x[:, :, 0, 0], timestep)[..., None, None],
            (*noise.shape, 1, 1),
            scheduler,
            num_inference_steps=STEPS,
            initial=noise[..., None, None],
            progress=False,
        )
        return self.mean + self.spread * made[:, :, 0, 0]


class Layer(nn.Module):
    """A residual layer that knows the timestep."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.before = nn.LayerNorm(width)
        self.inside = nn.Linear(width, width)
        self.after = nn.Linear(width, width)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        changed: Tensor = self.after(F.silu(self.inside(self.before(x)) + time))
        return x + changed
