"""What makes latents tell parts: the denoising error of their composition, and prices on what parts should not do."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from energycomp.components import Condition
from energycomp.denoisers import Denoiser, rows, signal_noise, trunk
from energycomp.errors import InputError
from energycomp.inference import target
from energycomp_decomp.networks import FactorsEncoder

__all__ = ["factors_loss", "imbalance", "orthogonality", "overlap", "parts_loss", "spread"]


def parts_loss(
    denoiser: Denoiser,
    latents: Tensor,
    samples: Tensor,
    *,
    overlap_weight: float = 2.0,
    imbalance_weight: float = 0.1,
    spread_weight: float = 1.0,
    orthogonality_weight: float = 0.0,
    timestep_power: float = 0.25,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The squared error of the composed prediction (thesis eq. 4.9), and prices on what parts share.

    Args:
        denoiser: under the rule mean, or under the rule product with the constant u in `network.base`; prices need the
            second, and predictions of x0: they are paid on e_k - u, what parts add.
        latents: of each sample, (B, K, D).
        samples: x0, (B, C, H, W).
        overlap_weight, imbalance_weight, spread_weight: of `overlap`, without which objects are shared between parts,
            of `imbalance`, without which a latent may stay unused for good, and of `spread`, without which a part may
            show two objects.
        orthogonality_weight: of `orthogonality`, of the latents themselves.
        timestep_power: timesteps are T U^power, stratified over the batch. Near T noise hides the picture, and what is
            predicted comes from the latents: a low power teaches them, a higher one the steps that draw edges.
        generator: draws timesteps and noise.

    Returns:
        A scalar. Costs B K rows and B trunk passes.
    """
    predicted, error = _denoised(denoiser, latents, samples, timestep_power, generator)
    if orthogonality_weight:
        error = error + orthogonality_weight * orthogonality(latents)
    if not (overlap_weight or imbalance_weight or spread_weight):
        return error
    if denoiser.prediction_type != "sample" or denoiser.rule != "product":
        raise InputError(
            f"got prices with a denoiser that predicts {denoiser.prediction_type!r} under the rule {denoiser.rule!r}; "
            "expected 'sample' and 'product', or weights of 0"
        )
    base: Any = denoiser.network.base
    added = predicted - base
    return error + overlap_weight * overlap(added) + imbalance_weight * imbalance(added) + spread_weight * spread(added)


def factors_loss(
    denoiser: Denoiser,
    encoder: FactorsEncoder,
    samples: Tensor,
    *,
    kl_weight: float = 7e-4,
    swap_weight: float = 0.03,
    timestep_power: float = 0.5,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The squared error of the composed prediction, with bottlenecks that make latents tell independent factors.

    Args:
        denoiser: predicts x0 under the rule product.
        encoder: what it says of each factor is drawn from a normal distribution.
        samples: x0, (B, C, H, W).
        kl_weight: in squared error a nat, of the divergence from N(0, I).
        swap_weight: of the squared error with which the encoder reads back what half the batch says with parts of other
            pictures, of what the network makes of it from noise.
        timestep_power: as of `parts_loss`.
        generator: draws timesteps, noise, latents and who changes places.

    Returns:
        A scalar. Costs 1.5 B K rows and 1.5 B trunk passes.
    """
    mean, log_variance = encoder.posterior(samples)
    drawn = mean + (log_variance / 2).exp() * _normal(mean, generator)
    _, error = _denoised(denoiser, encoder.named(drawn), samples, timestep_power, generator)
    divergence = (mean.square() + log_variance.exp() - 1 - log_variance).sum((1, 2)).mean() / 2
    total = error + kl_weight * divergence
    if swap_weight:
        half = len(samples) // 2
        said = torch.stack([part[torch.randperm(half, generator=generator)] for part in mean[:half].unbind(1)], dim=1)
        timestep = torch.full((half,), float(len(denoiser.alphas_cumprod)), device=samples.device)
        _, made = _composed(denoiser, encoder.named(said), _normal(samples[:half], generator), timestep)
        total = total + swap_weight * (encoder.posterior(made)[0] - said).square().mean()
    return total


def _denoised(
    denoiser: Denoiser, latents: Tensor, samples: Tensor, timestep_power: float, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """Predictions of all parts (B, K, C, H, W) at drawn timesteps, and the mean squared error of their composition."""
    batch, steps = len(samples), len(denoiser.alphas_cumprod)
    place = torch.randperm(batch, generator=generator) + torch.rand(batch, generator=generator)
    timestep = (steps * (place / batch) ** timestep_power).to(samples.device)
    noise, schedule = _normal(samples, generator), denoiser.alphas_cumprod.to(samples.device)
    signal, sigma = signal_noise(schedule, timestep, samples.dtype)
    predicted, composed = _composed(denoiser, latents, signal * samples + sigma * noise, timestep)
    true = target(samples, noise, schedule, timestep, denoiser.prediction_type)
    return predicted, (composed - true).square().mean()


def _composed(denoiser: Denoiser, latents: Tensor, noised: Tensor, timestep: Tensor) -> tuple[Tensor, Tensor]:
    """Predictions of all parts (B, K, C, H, W) and their composition; u, where there is one, is a constant picture."""
    batch, parts, _ = latents.shape
    owner = torch.arange(batch, device=noised.device).repeat_interleave(parts)
    condition = Condition(latents.flatten(0, 1)[:, None])
    predicted = rows(denoiser, trunk(denoiser, noised, timestep), condition, owner).unflatten(0, (batch, parts))
    if denoiser.rule == "mean":
        return predicted, predicted.mean(1)
    base: Any = getattr(denoiser.network, "base", None)
    if denoiser.rule != "product" or not isinstance(base, Tensor):
        raise InputError(
            f"got a denoiser with the rule {denoiser.rule!r} and the network {type(denoiser.network).__name__}; "
            "expected the rule 'mean', or 'product' with a constant picture `base`, as PartsUNet has"
        )
    return predicted, base + (predicted - base).sum(1)


def _normal(like: Tensor, generator: torch.Generator | None) -> Tensor:
    return torch.randn(like.shape, generator=generator).to(like.device)


def orthogonality(latents: Tensor) -> Tensor:
    """How alike the latents (B, K, D) of a picture are: the mean squared cosine of two of them.

    >>> orthogonality(torch.eye(3)[None]).item(), round(orthogonality(torch.ones(1, 2, 3)).item(), 4)
    (0.0, 1.0)
    """
    directions = torch.nn.functional.normalize(latents, dim=2)
    square = (directions @ directions.mT).square()
    parts = latents.shape[1]
    return (square.sum((1, 2)) - square.diagonal(dim1=1, dim2=2).sum(1)).mean() / max(parts * (parts - 1), 1)


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
