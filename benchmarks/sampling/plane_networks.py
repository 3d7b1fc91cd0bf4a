"""Energy networks of densities in the plane, trained together from 8,000 points of each, on one CPU thread.

Notation: variable -> symbol
    x, signal, sigma    as in `plane_densities`
    head                f(x, log SNR), a network of three layers; x enters as it is and by 32 random waves
    potential           F = sigma |x|^2 / (2 (v signal^2 + sigma^2)) + f, v = 0.35: far from the points it is a Gaussian

    eps = grad F, energy = F / sigma + log Z_t: the network holds sigma times -log p, as those of CompLift do (Du et
    al., 2023). Trained by denoising score matching, |grad F - noise|^2, at log SNR ~ N(2, 3^2).
    log Z_t is a sum over a grid: the energies of a mixture must have one constant.
"""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import attrs
import torch
from torch import Tensor, nn

from benchmarks.sampling.plane_densities import CLEAN, NOISY, Shape
from energycomp import Composable
from energycomp.components import NoisedSpace, signal_noise
from energycomp.components.space import log_snr
from energycomp.training import FitConfig, Step, fit

__all__ = ["Network", "Stack", "is_trained", "normalised", "train"]

POINTS = 8000
WIDTH, WAVES, LEVELS = 128, 32, 8
VARIANCE = 0.35
CELLS, KNOTS = 128, 26  # of the grid along a side, and the timesteps of log Z
CONFIG = FitConfig(
    steps=11_000, batch_size=256, learning_rate=2e-3, weight_decay=0.0, save_every=500, keep=1, ema_decay=0.999
)


class Stack(nn.Module):
    """N networks of one form as one batch of matrix products.

    >>> stack = Stack(3)
    >>> stack(torch.zeros(3, 5, 2), torch.zeros(3, 5)).shape
    torch.Size([3, 5])
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.register_buffer("waves", 5.0 * torch.randn(2, WAVES, generator=generator))
        self.register_buffer("levels", 0.15 * torch.arange(1, LEVELS + 1))
        sizes = [2 + 2 * WAVES + 1 + 2 * LEVELS, WIDTH, WIDTH, WIDTH, 1]
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for inputs, outputs in itertools.pairwise(sizes):
            gain = (2.0 if outputs > 1 else 0.01) / inputs
            weight = gain**0.5 * torch.randn(count, inputs, outputs, generator=generator)
            self.weights.append(nn.Parameter(weight))
            self.biases.append(nn.Parameter(torch.zeros(count, 1, outputs)))

    def forward(self, x: Tensor, snr: Tensor, chosen: slice = slice(None)) -> Tensor:
        """The potential F (N, B) of samples (N, B, 2) at log SNRs (N, B); `chosen` are the networks that N counts."""
        angles, tones = x @ self.waves, snr[..., None] * self.levels
        h = torch.cat([x, angles.sin(), angles.cos(), snr[..., None] / 10, tones.sin(), tones.cos()], dim=-1)
        for weight, bias in zip(self.weights, self.biases, strict=True):
            h = torch.baddbmm(bias[chosen], h, weight[chosen])
            h = nn.functional.silu(h) if weight.shape[-1] > 1 else h[..., 0]
        signal2, sigma2 = torch.sigmoid(snr), torch.sigmoid(-snr)
        return h + sigma2.sqrt() * x.square().sum(-1) / (2 * (VARIANCE * signal2 + sigma2))

    def eps(self, x: Tensor, snr: Tensor, chosen: slice = slice(None), *, create_graph: bool = False) -> Tensor:
        """grad F, (N, B, 2)."""
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(self(x, snr, chosen).sum(), x, create_graph=create_graph)
        return gradient


def matching_loss(module: nn.Module, batch: Tensor, step: Step) -> Tensor:
    """Denoising score matching, for points (B, N, 2) of N densities."""
    points = batch.transpose(0, 1)
    snr = 2.0 + 3.0 * torch.randn(points.shape[:2], generator=step.generator)
    snr = snr.clamp(NOISY, math.log(1 / CLEAN**2 - 1))
    noise = torch.randn(points.shape, generator=step.generator)
    x = torch.sigmoid(snr)[..., None].sqrt() * points + torch.sigmoid(-snr)[..., None].sqrt() * noise
    return (module.eps(x, snr, create_graph=True) - noise).square().mean()


def train(shapes: list[Shape], folder: Path, *, config: FitConfig = CONFIG, progress: bool = True) -> Stack:
    """The trained networks of some shapes, in their order; a run that was stopped goes on from its checkpoint."""
    generator = torch.Generator().manual_seed(0)
    points = torch.stack([shape.sample(POINTS, generator).float() for shape in shapes], dim=1)  # (POINTS, N, 2)
    stack = Stack(len(shapes))
    result = fit(stack, matching_loss, points, config, out=folder, progress=progress)
    stack.load_state_dict(result.ema_state, strict=False)
    return stack.eval().requires_grad_(requires_grad=False)


def is_trained(folder: Path) -> bool:
    """Whether a finished run is in the folder."""
    return (folder / f"checkpoint-{CONFIG.steps:06d}.safetensors").is_file()


@attrs.frozen(eq=False, repr=False)
class Network(Composable):
    """One of the networks as a component.

    Args:
        place: of the network in the stack.
        log_z: log Z at evenly spaced timesteps from 0 to T - 1, (K,); 0 where energies need not be normalised.
    """

    stack: Stack
    place: int
    noised_space: NoisedSpace
    log_z: Tensor = attrs.field(factory=lambda: torch.zeros(2))

    def eps(self, sample: Tensor, timestep: Tensor) -> Tensor:
        """Noise prediction (B, 2, 1, 1): a backward pass."""
        x, snr, chosen = self._inputs(sample, timestep)
        return self.stack.eps(x, snr, chosen).view_as(sample)

    def energy(self, sample: Tensor, timestep: Tensor) -> Tensor:
        """-log p_t (B,), normalised as far as log Z is."""
        x, snr, chosen = self._inputs(sample, timestep)
        knots = len(self.log_z) - 1
        place = timestep / (len(self.noised_space.alphas_cumprod) - 1) * knots
        low = place.floor().long().clamp(0, knots - 1)
        log_z = torch.lerp(self.log_z[low], self.log_z[low + 1], place - low)
        return self.stack(x, snr, chosen)[0] / torch.sigmoid(-snr[0]).sqrt() + log_z

    def _inputs(self, sample: Tensor, timestep: Tensor) -> tuple[Tensor, Tensor, slice]:
        snr = log_snr(self.noised_space.alphas_cumprod, timestep).to(sample.dtype)
        return sample.flatten(1)[None], snr[None], slice(self.place, self.place + 1)


def normalised(network: Network) -> Network:
    """The network with log Z, the logarithm of a sum over a grid: seconds."""
    found = []
    for t in torch.linspace(0, len(network.noised_space.alphas_cumprod) - 1, KNOTS):
        signal, sigma = (float(value) for value in signal_noise(network.noised_space.alphas_cumprod, t[None]))
        side = 2.0 * signal + 4.0 * sigma
        axis = (torch.arange(CELLS) + 0.5) * (2 * side / CELLS) - side
        x = torch.cartesian_prod(axis, axis)[..., None, None]
        energy = torch.cat([network.energy(part, t.expand(len(part))) for part in x.split(4096)]).double()
        found.append(torch.logsumexp(-energy, 0) + 2 * math.log(2 * side / CELLS))
    return attrs.evolve(network, log_z=torch.stack(found).float())
