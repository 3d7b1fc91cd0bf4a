"""What makes latents tell parts: the denoising error of their composition, and prices on what parts should not do."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from energycomp.conditioning import Condition
from energycomp.denoiser import Denoiser, signal_noise
from energycomp.errors import InputError
from energycomp.evaluate import rows, trunk

__all__ = ["imbalance", "overlap", "parts_loss", "spread"]


def parts_loss(
    denoiser: Denoiser,
    latents: Tensor,
    samples: Tensor,
    *,
    overlap_weight: float = 2.0,
    imbalance_weight: float = 0.1,
    spread_weight: float = 1.0,
    timestep_power: float = 0.25,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The squared error of x0 = u + sum of (e_k - u) (thesis eq. 4.9), and prices on what the added e_k - u share.

    Args:
        denoiser: predicts x0 under the rule product, from a constant u in `network.base`.
        latents: of each sample, (B, K, D).
        samples: x0, (B, C, H, W).
        overlap_weight, imbalance_weight, spread_weight: of `overlap`, without which objects are shared between parts,
            of `imbalance`, without which a latent may stay unused for good, and of `spread`, without which a part may
            show two objects.
        timestep_power: timesteps are T U^power, stratified over the batch. Near T noise hides the picture, and what is
            predicted comes from the latents: a low power teaches them, a higher one the steps that draw edges.
        generator: draws timesteps and noise.

    Returns:
        A scalar. Costs B K rows and B trunk passes.
    """
    if denoiser.prediction_type != "sample" or denoiser.rule != "product":
        raise InputError(
            f"got a denoiser that predicts {denoiser.prediction_type!r} under the rule {denoiser.rule!r}; expected "
            "'sample' and 'product'"
        )
    batch, parts, _ = latents.shape
    place = torch.randperm(batch, generator=generator) + torch.rand(batch, generator=generator)
    timestep = (len(denoiser.alphas_cumprod) * (place / batch) ** timestep_power).to(samples.device)
    noise = torch.randn(samples.shape, generator=generator).to(samples.device)
    signal, sigma = signal_noise(denoiser.alphas_cumprod.to(samples.device), timestep, samples.dtype)
    owner = torch.arange(batch, device=samples.device).repeat_interleave(parts)
    shared = trunk(denoiser, signal * samples + sigma * noise, timestep)
    base: Any = denoiser.network.base
    added = (rows(denoiser, shared, Condition(latents.flatten(0, 1)[:, None]), owner) - base).unflatten(0, (batch, -1))
    error = (base + added.sum(1) - samples).square().mean()
    prices = overlap_weight * overlap(added) + imbalance_weight * imbalance(added) + spread_weight * spread(added)
    return error + prices


def overlap(added: Tensor) -> Tensor:
    """How much parts (B, K, C, H, W) share pixels: the mean of sum over j < k of g_j g_k, g = mean |h| over channels.

    >>> apart = torch.zeros(1, 2, 3, 4, 4)
    >>> apart[:, 0, :, :2], apart[:, 1, :, 2:] = 1.0, 1.0
    >>> overlap(apart).item(), overlap(apart + 1).item()
    (0.0, 2.0)
    """
    g = added.abs().mean(2)
    return ((g.sum(1).square() - g.square().sum(1)) / 2).mean()


def imbalance(added: Tensor) -> Tensor:
    """How unevenly K parts (B, K, C, H, W) are used: the squared coefficient of variation of their mean |h|.

    It is 0 where each adds as much to a batch as the others, K - 1 where one adds all (Shazeer et al., 2017, eq. 7).

    >>> imbalance(torch.tensor([1.0, 1.0, 1.0]).view(1, 3, 1, 1, 1)).item()
    0.0
    >>> round(imbalance(torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1, 1)).item(), 4)
    2.0
    """
    use = added.abs().mean((0, 2, 3, 4))
    return use.var(correction=0) / use.mean().square().clamp(min=1e-8)


def spread(added: Tensor) -> Tensor:
    """How far parts (B, K, C, H, W) reach: the mean of sum over k of g_k |p - c_k|^2, with g = mean |h| over channels.

    p is the place of a pixel, in [0, 1], and c_k the centre of g_k. Two objects in one part cost their distance.

    >>> corners = torch.zeros(1, 2, 1, 2, 2)
    >>> corners[:, 0, :, 0, 0] = corners[:, 1, :, 1, 1] = 1.0
    >>> spread(corners).item(), spread(corners.sum(1, keepdim=True)).item()
    (0.0, 0.0625)
    """
    g = added.abs().mean(2)
    v, u = ((torch.arange(n, device=g.device) + 0.5) / n for n in g.shape[-2:])
    mass = g.sum((2, 3)).clamp(min=1e-6)
    y, x = (g.sum(3) * v).sum(2) / mass, (g.sum(2) * u).sum(2) / mass
    square = (v - y[..., None]).square()[..., :, None] + (u - x[..., None]).square()[..., None, :]
    return (g * square).sum(1).mean()
