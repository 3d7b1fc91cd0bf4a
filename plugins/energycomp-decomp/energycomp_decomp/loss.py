"""The loss of decomposition: the denoising error of the composed prediction, and regularization terms."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from energycomp.components import Condition, rule_weights, signal_noise, stratified_timesteps, target
from energycomp.denoisers import Denoiser, rows, trunk
from energycomp.errors import InputError
from energycomp_decomp.encoders import FactorsEncoder
from energycomp_decomp.networks import PartsUNet


def parts_loss(
    denoiser: Denoiser,
    latents: Tensor,
    samples: Tensor,
    *,
    overlap_weight: float = 2.0,
    imbalance_weight: float = 0.1,
    spread_weight: float = 1.0,
    radius: float = 0.0,
    timestep_power: float = 0.25,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The squared error of the composed prediction (eq. 4.9 of Wang, 2026), with weighted regularization terms.

    Args:
        denoiser: under the mean rule, or under the product rule with the constant u in `network.base`. Regularization
            needs the product rule and predictions of x0: it applies to e_k - u, the contributions of the parts.
        overlap_weight: of `overlap`, without which several parts share an object.
        imbalance_weight: of `imbalance`, without which a latent may remain unused.
        spread_weight: of `spread`, without which one part may show two objects.
        radius: of an object, for `spread`.
        timestep_power: timesteps are T U^power, stratified over the batch. Near T the image is hidden by noise, so that
            the prediction depends on the latents; a low power trains the latents, a higher one the steps that refine
            edges.

    Returns:
        A scalar. Costs B K network evaluations and B trunk passes.

    Raises:
        InputError: regularization of another rule or prediction type, or a network without `base`.
    """
    predicted, error = _denoise(denoiser, latents, samples, timestep_power, generator)
    if not (overlap_weight or imbalance_weight or spread_weight):
        return error
    if denoiser.prediction_type != "sample" or denoiser.rule != "product":
        raise InputError(
            f"got regularization terms with a denoiser that predicts {denoiser.prediction_type!r} under the rule "
            f"{denoiser.rule!r}; expected 'sample' and 'product', or weights of 0"
        )
    base: Any = denoiser.network.base
    added = predicted - base
    wide = spread_weight * spread(added, radius)
    return error + overlap_weight * overlap(added) + imbalance_weight * imbalance(added) + wide


def factors_loss(
    denoiser: Denoiser,
    encoder: FactorsEncoder,
    samples: Tensor,
    *,
    kl_weight: float = 1.1e-3,
    swap_weight: float = 0.03,
    covariance_weight: float = 0.1,
    timestep_power: float = 0.5,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The squared error of the composed prediction, with three terms that make latents encode independent factors.

    Args:
        encoder: its content vectors are sampled from their posterior, a normal distribution.
        kl_weight: squared error per nat of the KL divergence of the posterior from N(0, I).
        swap_weight: of the swap term. Half of the batch exchanges content vectors between images at random; the network
            predicts the recombined images from noise, and the term is the squared error of the content vectors that
            the encoder reads from them.
        covariance_weight: of `covariance`, without which two latents may share two factors.

    Returns:
        A scalar. Costs 1.5 B K network evaluations and 1.5 B trunk passes.
    """
    mean, log_variance = encoder.posterior(samples)
    drawn = mean + (log_variance / 2).exp() * _normal(mean, generator)
    _, error = _denoise(denoiser, encoder.latents(drawn), samples, timestep_power, generator)
    divergence = (mean.square() + log_variance.exp() - 1 - log_variance).sum((1, 2)).mean() / 2
    total = error + kl_weight * divergence + covariance_weight * covariance(mean.flatten(1))
    if swap_weight:
        half = (len(samples) + 1) // 2
        draws = torch.device("cpu") if generator is None else generator.device
        orders = (torch.randperm(half, generator=generator, device=draws).to(mean.device) for _ in range(mean.shape[1]))
        mixed = torch.stack([part[order] for part, order in zip(mean[:half].unbind(1), orders, strict=True)], dim=1)
        timestep = torch.full((half,), float(len(denoiser.alphas_cumprod)), device=samples.device)
        _, made = _compose(denoiser, encoder.latents(mixed), _normal(samples[:half], generator), timestep)
        total = total + swap_weight * (encoder.posterior(made)[0] - mixed).square().mean()
    return total


def _denoise(
    denoiser: Denoiser, latents: Tensor, samples: Tensor, timestep_power: float, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """Predictions of all parts (B, K, C, H, W) at drawn timesteps, and the mean squared error of their composition."""
    batch = len(samples)
    steps = len(denoiser.alphas_cumprod)
    timestep = stratified_timesteps(batch, 0.0, steps, power=timestep_power, generator=generator).to(samples.device)
    noise = _normal(samples, generator)
    schedule = denoiser.alphas_cumprod.to(samples.device)
    signal, sigma = signal_noise(schedule, timestep, samples.dtype)
    predicted, composed = _compose(denoiser, latents, signal * samples + sigma * noise, timestep)
    true = target(samples, noise, schedule, timestep, denoiser.prediction_type)
    return predicted, (composed - true).square().mean()


def _compose(denoiser: Denoiser, latents: Tensor, noised: Tensor, timestep: Tensor) -> tuple[Tensor, Tensor]:
    """Predictions of all parts (B, K, C, H, W) and their composition; u is the constant image `base`."""
    batch, parts, _ = latents.shape
    owner = torch.arange(batch, device=noised.device).repeat_interleave(parts)
    condition = Condition(latents.flatten(0, 1)[:, None])
    predicted = rows(denoiser, trunk(denoiser, noised, timestep), condition, owner).unflatten(0, (batch, parts))
    row, null = rule_weights(denoiser.rule, float(parts))
    composed = row * predicted.sum(1)
    if denoiser.rule == "mean":
        return predicted, composed
    network = denoiser.network
    if denoiser.rule != "product" or not isinstance(network, PartsUNet):
        raise InputError(
            f"got a denoiser with the rule {denoiser.rule!r} and the network {type(network).__name__}; expected the "
            "rule 'mean', or 'product' with a PartsUNet, whose unconditional prediction is the constant `base`"
        )
    return predicted, composed + null * network.base


def _normal(like: Tensor, generator: torch.Generator | None) -> Tensor:
    return randn_tensor(like.shape, generator=generator, device=like.device)


def covariance(codes: Tensor) -> Tensor:
    """Covariance between dimensions of codes (B, D): the mean of its squares over pairs of them.

    As in DIP-VAE (Kumar et al., 2018, eq. 6), without the term of the variances.

    >>> apart = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    >>> covariance(apart).item(), covariance(2 * apart[:, :1].expand(-1, 2)).item()
    (0.0, 1.0)
    """
    count, dimensions = codes.shape
    centred = codes - codes.mean(0)
    square = (centred.T @ centred / count).square()
    return (square.sum() - square.diagonal().sum()) / max(dimensions * (dimensions - 1), 1)


def overlap(added: Tensor) -> Tensor:
    """Shared pixels of parts (B, K, C, H, W): the mean of sum over j < k of g_j g_k, g = mean |h| over channels.

    >>> apart = torch.zeros(1, 2, 3, 4, 4)
    >>> apart[:, 0, :, :2], apart[:, 1, :, 2:] = 1.0, 1.0
    >>> overlap(apart).item(), overlap(apart + 1).item()
    (0.0, 2.0)
    """
    g = added.abs().mean(2)
    return ((g.sum(1).square() - g.square().sum(1)) / 2).mean()


def imbalance(added: Tensor) -> Tensor:
    """Uneven use of K parts (B, K, C, H, W): the squared coefficient of variation of their mean |h|.

    It is 0 where all parts contribute equally to a batch, and K - 1 where one contributes everything (eq. 7 of Shazeer
    et al., 2017).

    >>> imbalance(torch.tensor([1.0, 1.0, 1.0]).view(1, 3, 1, 1, 1)).item()
    0.0
    >>> round(imbalance(torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1, 1)).item(), 4)
    2.0
    """
    use = added.abs().mean((0, 2, 3, 4))
    return use.var(correction=0) / use.mean().square().clamp(min=1e-8)


def spread(added: Tensor, radius: float = 0.0) -> Tensor:
    """Extent of parts (B, K, C, H, W): the mean of sum over k of g_k max(|p - c_k|^2 - r^2, 0), g = mean |h|.

    p is the position of a pixel in [0, 1], and c_k the centre of g_k. Two objects in one part increase it with their
    distance. Within the radius r of the centre nothing is penalised: a single object of that size is not shrunk.

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
    return (g * (square - radius**2).clamp(min=0)).sum(1).mean()
