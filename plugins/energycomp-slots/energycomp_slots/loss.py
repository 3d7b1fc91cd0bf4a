"""The loss of Slot-VAE: the negative evidence lower bound, and terms that align its two paths."""

from __future__ import annotations

import attrs
import torch
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor
from torch.nn import functional as F

from energycomp_slots.networks import SlotVAE


@attrs.frozen
class LossWeights:
    """The weight of each term of the loss. Equations are those of Wang (2026).

    Args:
        slots: of KL(q(z_s|x) || N(0, I)) (eq. 3.6).
        matched: of KL(q(z_s|x) || p(z_s|z_g)) (eq. 3.5); 0 skips the generative path.
        scene: beta, of KL(q(z_g|x) || N(0, I)).
        features: of the mean squared difference of the feature maps of the two paths.
    """

    slots: float = 0.5
    matched: float = 0.0
    scene: float = 0.1
    features: float = 100.0


@attrs.frozen(eq=False)
class Terms:
    """A loss, and its terms for the training log."""

    loss: Tensor
    parts: dict[str, Tensor]


def kl_normal(
    mean: Tensor, log_sigma: Tensor, prior_mean: Tensor | None = None, prior_log_sigma: Tensor | None = None
) -> Tensor:
    """KL divergence (B,) in nats of diagonal Gaussians (B, ...) from a prior, by default N(0, I).

    >>> kl_normal(torch.ones(1, 2), torch.zeros(1, 2))
    tensor([1.])
    """
    if prior_mean is None or prior_log_sigma is None:
        prior_mean, prior_log_sigma = torch.zeros_like(mean), torch.zeros_like(log_sigma)
    ratio = ((mean - prior_mean).square() + (2 * log_sigma).exp()) * (-2 * prior_log_sigma).exp()
    return (0.5 * (ratio - 1) + prior_log_sigma - log_sigma).flatten(1).sum(1)


def slot_loss(
    network: SlotVAE, samples: Tensor, weights: LossWeights, *, generator: torch.Generator | None = None
) -> Terms:
    """The reconstruction error, a sum over pixels, and the weighted KL terms (equations 3.5 to 3.7 of Wang, 2026).

    # Notation: network.sigma_x -> sigma_x; weights.scene -> beta
    -log N(x; decode(z_s), sigma_x^2) + weights.slots KL(q(z_s|x) || N(0, I))
    + weights.matched KL(q(z_s|x) || p(z_s|z_g)) + beta KL(q(z_g|x) || N(0, I)) + weights.features mean (f - f_x)^2,
    up to a constant; the last term is not in Wang (2026).

    >>> from energycomp_slots.model import untrained
    >>> network = untrained(slots=3, width=8, size=16).denoiser.network
    >>> sorted(slot_loss(network, torch.zeros(2, 3, 16, 16), LossWeights()).parts)  # without scenes, by default
    ['kl_slots', 'reconstruction', 'used']
    """
    features = network.encode(samples)
    noise = randn_tensor((len(samples), network.slots, network.width), generator=generator, device=samples.device)
    (mean, log_sigma), _ = network.infer(features, noise)
    latents = (
        mean
        if network.plain
        else mean + log_sigma.exp() * randn_tensor(mean.shape, generator=generator, device=samples.device)
    )
    drawn = network.decode(latents)
    error = (drawn.whole - samples).square().flatten(1).sum(1)
    parts = {"reconstruction": error.mean() / (2 * network.sigma_x**2)}
    loss = parts["reconstruction"]
    if not network.plain:
        parts["kl_slots"] = kl_normal(mean, log_sigma).mean()
        loss = loss + weights.slots * parts["kl_slots"]
    if weights.matched and not network.plain:
        path = _generate(network, features, noise, generator)
        parts["kl_matched"] = kl_normal(mean, log_sigma, *path.slots).mean()
        parts["kl_scene"] = path.kl
        parts["features"] = F.mse_loss(path.features, features.detach())
        loss = loss + weights.matched * parts["kl_matched"] + weights.scene * parts["kl_scene"]
        loss = loss + weights.features * parts["features"]
    return Terms(loss, {**parts, "used": used(drawn.log_masks)})


def generation_loss(
    network: SlotVAE, samples: Tensor, weights: LossWeights, *, generator: torch.Generator | None = None
) -> Terms:
    """The loss of the generative path alone; the inference path stays as it is.

    Wang (2026) has no such step. Without it, the divergence between slots that are not aligned yet leads to blurred
    scenes. Feature maps that agree align the slots, because both paths share the following layers.
    """
    with torch.no_grad():
        features = network.encode(samples)
        noise = randn_tensor((len(samples), network.slots, network.width), generator=generator, device=samples.device)
        (mean, log_sigma), _ = network.infer(features, noise)
    path = _generate(network, features, noise, generator)
    parts = {
        "features": F.mse_loss(path.features, features),
        "kl_scene": path.kl,
        "kl_matched": kl_normal(mean, log_sigma, *path.slots).mean(),
    }
    loss = weights.features * parts["features"] + weights.scene * parts["kl_scene"]
    if weights.matched:
        loss = loss + weights.matched * parts["kl_matched"]
    return Terms(loss, parts)


@attrs.frozen(eq=False)
class _Path:
    slots: tuple[Tensor, Tensor]
    features: Tensor
    kl: Tensor


def _generate(network: SlotVAE, features: Tensor, noise: Tensor, generator: torch.Generator | None) -> _Path:
    mean, log_sigma = network.summarise(features)
    z_g = mean + log_sigma.exp() * randn_tensor(mean.shape, generator=generator, device=mean.device)
    start = noise if network.share_initial else randn_tensor(noise.shape, generator=generator, device=noise.device)
    slots, made = network.generate(z_g, start)
    return _Path(slots, made, kl_normal(mean, log_sigma).mean())


def used(log_masks: Tensor) -> Tensor:
    """The mean number of slots with the largest mask in at least 1 % of the pixels, from log masks (B, K, 1, H, W).

    >>> masks = torch.zeros(1, 2, 1, 2, 2)
    >>> masks[:, 1] = -1.0  # the second slot has no pixel
    >>> used(masks).item()
    1.0
    """
    winner = log_masks.detach().argmax(1).flatten(1)
    shares = F.one_hot(winner, log_masks.shape[1]).float().mean(1)
    return (shares >= 0.01).float().sum(1).mean()
