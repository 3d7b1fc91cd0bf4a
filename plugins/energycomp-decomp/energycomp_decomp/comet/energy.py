"""Energies of images given a latent, gradient descent on their sum, and the loss that trains them.

Du et al., "Unsupervised Learning of Compositional Energy Concepts" (2021); section 4.3 of Wang (2026).
"""

from __future__ import annotations

from typing import Any, cast

import attrs
import torch
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor, nn
from torch.nn import functional as F

from energycomp.components import Composable, Condition, NoisedSpace, rule_weights
from energycomp.denoisers import Conditional, Denoiser, configured, rows, trunk
from energycomp.errors import InputError

STEPS = 4
STEP_SIZE = 0.5


@configured
class EnergyNet(nn.Module):
    """A one-stage network whose prediction is the gradient of an energy, grad_x E(x, z), at any timestep.

    E(x, z) = |x - base|^2 / 2 + f(x - base, z), and the first term alone without a latent. Under the product rule an
    image minimizes |x - base|^2 / 2 + sum of f(x - base, z_k): eq. 4.1 of Wang (2026), and one energy without a latent,
    which counts once for any number of latents. f grows more slowly than a quadratic (SiLU between linear maps), so
    that the energy has a minimum and exp(-E) is a density.

    f works on patches of the image. A latent is mapped to two feature maps that gate units: the derivative of SiLU
    goes from 0 to 1 and is smooth, so that training can differentiate the gradient again.

    Args:
        sample_channels, sample_size: C and H = W of a sample.
        token_width: D of a latent (L is 1).
        patch: side of the patches that are folded into channels.
        channels: of the feature maps.
        width: of the embedding of a latent.

    >>> net = EnergyNet(sample_size=16, token_width=4, channels=8)
    >>> sample, latents = torch.randn(2, 3, 16, 16), Condition(torch.randn(2, 1, 4))
    >>> net.energy(sample, latents).shape, net(sample, torch.zeros(2), latents).shape
    (torch.Size([2]), torch.Size([2, 3, 16, 16]))
    """

    base: Tensor

    def __init__(
        self,
        *,
        sample_channels: int = 3,
        sample_size: int = 32,
        token_width: int = 8,
        patch: int = 4,
        channels: int = 32,
        width: int = 128,
    ) -> None:
        super().__init__()
        if min(sample_size, patch) < 1 or sample_size % patch:
            raise InputError(f"got sample_size {sample_size} and patch {patch}; expected a multiple of it; change one")
        self.patch = patch
        self.side = sample_size // patch
        self.token = nn.Sequential(nn.Linear(token_width, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.maps = nn.Linear(width, 2 * channels * self.side**2)
        self.stem = nn.Conv2d(sample_channels * patch**2, channels, 3, padding=1)
        self.join = nn.Conv2d(channels, channels, 3, padding=1)
        self.out = nn.Conv2d(channels, 1, 1)
        self.register_buffer("base", torch.zeros(sample_channels, sample_size, sample_size))

    def energy(self, sample: Tensor, condition: Condition) -> Tensor:
        """E (R,) of samples (R, C, H, W) under R conditions."""
        offset = sample - self.base
        token = self.token(condition.rows[:, 0])
        first, second = self.maps(token).unflatten(1, (-1, self.side, self.side)).chunk(2, dim=1)
        h = F.silu(self.stem(F.pixel_unshuffle(offset, self.patch)) + first)
        h = h + F.silu(self.join(h) + second)
        part = self.out(h).flatten(1).sum(1)
        return offset.square().flatten(1).sum(1) / 2 + torch.where(condition.null, torch.zeros_like(part), part)

    def forward(self, sample: Tensor, timestep: Tensor, condition: Condition) -> Tensor:
        """grad_x E (R, C, H, W); differentiable where gradients are enabled."""
        del timestep
        differentiable = torch.is_grad_enabled()
        with torch.enable_grad():
            x = sample if sample.requires_grad else sample.detach().requires_grad_()
            energy = self.energy(x, condition).sum()
            (gradient,) = torch.autograd.grad(energy, x, create_graph=differentiable)
        return gradient


class _Energies(nn.Module):
    """An `EnergyNet` whose predictions are energies (R, 1, 1, 1), so that the evaluator runs and counts them."""

    def __init__(self, network: EnergyNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, sample: Tensor, timestep: Tensor, condition: Condition) -> Tensor:
        del timestep
        return self.network.energy(sample, condition)[:, None, None, None]


@attrs.frozen(eq=False, repr=False)
class LatentEnergy(Composable):
    """The leaf of a latent: its energy and gradient, at any timestep. Leaves are compared by identity."""

    leaf: Conditional
    unconditional: LatentEnergy = attrs.field(default=attrs.Factory(lambda self: self, takes_self=True))

    @property
    def noised_space(self) -> NoisedSpace:
        """Pixels, under a schedule (2,) whose sigma is 1."""
        return self.leaf.noised_space

    def eps(self, sample: Tensor, timestep: Tensor) -> Tensor:
        """grad_x E (B, C, H, W). Costs B rows."""
        return self.leaf.eps(sample, timestep)

    def energy(self, sample: Tensor, timestep: Tensor) -> Tensor:
        """E (B,). Costs B network evaluations."""
        denoiser = self.leaf.denoiser
        denoiser = attrs.evolve(denoiser, network=_Energies(cast("EnergyNet", denoiser.network)))
        condition = self.leaf.condition.expand(len(sample)).to(sample.device)
        owner = torch.arange(len(sample), device=sample.device)
        return rows(denoiser, trunk(denoiser, sample, timestep), condition, owner).flatten()

    def __repr__(self) -> str:
        return repr(self.leaf)


def descend(denoiser: Denoiser, latents: Tensor, start: Tensor, *, steps: int, step_size: float) -> list[Tensor]:
    """Gradient descent from noise on a sum of energies (eq. 4.3 of Wang, 2026): x_1 to x_N, (B, C, H, W) each.

    # Notation: step_size -> gamma; latents[:, k] -> z_k; start -> x_0
    x_n = x_{n-1} - gamma grad_x [|x - base|^2 / 2 + sum over k of f(x - base, z_k)]

    Returns:
        One image per step, differentiable where gradients are enabled. Costs B K network evaluations per step.
    """
    batch, count, _ = latents.shape
    base: Any = denoiser.network.base
    owner = torch.arange(batch, device=start.device).repeat_interleave(count)
    condition = Condition(latents.flatten(0, 1)[:, None])
    timestep = start.new_zeros(batch)
    row, null = rule_weights(denoiser.rule, float(count))
    x = start
    found = []
    for _ in range(steps):
        gradients = rows(denoiser, trunk(denoiser, x, timestep), condition, owner).unflatten(0, (batch, count))
        # Every row holds the gradient of |x - base|^2 / 2, which counts once: u of the rule product, at no row.
        x = x - step_size * (row * gradients.sum(1) + null * (x - base))
        found.append(x)
    return found


def comet_loss(
    denoiser: Denoiser,
    latents: Tensor,
    samples: Tensor,
    *,
    steps: int = STEPS,
    step_size: float = STEP_SIZE,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The squared error of the images of descent from noise, the mean over all steps (eq. 4.2 of Wang, 2026).

    Returns:
        A scalar. Costs B K network evaluations per step, each differentiated twice.
    """
    start = randn_tensor(samples.shape, generator=generator, device=samples.device)
    found = descend(denoiser, latents, start, steps=steps, step_size=step_size)
    return torch.stack([(x - samples).square().mean() for x in found]).mean()
