"""What a model is trained by: the denoising loss of a composition, and a recipe that ties model, data and settings."""

from __future__ import annotations

from collections.abc import Callable

import attrs
import torch
from torch import Tensor, nn

from energycomp.components.conditioning import Condition
from energycomp.denoisers.denoiser import Denoiser, log_snr, signal_noise
from energycomp.denoisers.evaluator import trunk
from energycomp.errors import InputError
from energycomp.inference.quadratic import compose_rows, error_scale, target
from energycomp.models.model import Model
from energycomp.training.fit import FitResult

__all__ = ["Recipe", "collate", "denoising_loss"]


@attrs.frozen(eq=False)
class Recipe:
    """What `energycomp train` runs.

    Args:
        model: whose network is trained in place.
        fit: `energycomp.fit` with everything but `out`, `steps` and what the command line overrides.
        steps: of the recipe.
    """

    model: Model
    fit: Callable[..., FitResult]
    steps: int


def collate(items: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """A ragged batch, for `fit(collate_fn=)`: pictures with the values of as many components as each has.

    Args:
        items: each with `image` (C, H, W) and `values` (K, *V), K of its own.

    Returns:
        `image` (B, C, H, W), flat `values` (R, *V) and their `owner` (R,).

    >>> one, two = ({"image": torch.zeros(3, 8, 8), "values": torch.rand(k, 2)} for k in (1, 2))
    >>> collate([one, two])["owner"]
    tensor([0, 1, 1])
    """
    counts = torch.tensor([len(item["values"]) for item in items])
    return {
        "image": torch.stack([item["image"] for item in items]),
        "values": torch.cat([item["values"] for item in items]),
        "owner": torch.repeat_interleave(torch.arange(len(items)), counts),
    }


def denoising_loss(
    denoiser: Denoiser,
    samples: Tensor,
    condition: Condition,
    owner: Tensor,
    *,
    module: nn.Module | None = None,
    gamma: float | None = 4.0,
    floor: float = 0.02,
    timesteps: tuple[float, float] | None = None,
    timestep_power: float = 1.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The denoising error of compositions, each of its own number of components (thesis alg. 3).

    The squared error of the network's own prediction is weighted as min(SNR, gamma) on x0 (Hang et al., 2023).

    Args:
        denoiser: its rule composes the rows.
        samples: x0, (B, C, H, W).
        condition: R flat rows over all samples.
        owner: (R,) the sample that each row belongs to.
        module: the network to call in place of the denoiser's own.
        gamma: the clamp; None for an unweighted error of eps.
        floor: least weight, such that the noisiest timesteps are learned too.
        timesteps: range [low, high); all when left out. They are stratified over the batch.
        timestep_power: they are low + (high - low) U^power, U uniform: below 1 the noisy ones, at which conditions
            matter most, come more often.
        generator: draws timesteps and noise.

    Returns:
        A scalar, mean over samples and numbers. Costs R rows, and under the product rule one for each sample whose
        number of components is not 1.

    >>> from energycomp.testing import tiny_model
    >>> model = tiny_model()
    >>> rows, owner = model.conditioner(torch.rand(3, 2)), torch.tensor([0, 0, 1])
    >>> denoising_loss(model.denoiser, torch.zeros(2, 3, 16, 16), rows, owner).ndim
    0
    """
    if samples.ndim != 4 or len(condition) != len(owner):
        raise InputError(
            f"got samples {tuple(samples.shape)}, {len(condition)} rows and {len(owner)} owners; expected (B, C, H, W) "
            "and one owner a row"
        )
    denoiser = denoiser if module is None else attrs.evolve(denoiser, network=module)
    schedule, kind, batch = denoiser.alphas_cumprod.to(samples.device), denoiser.prediction_type, len(samples)
    low, high = timesteps or (0.0, float(len(schedule)))
    source = generator.device if generator is not None else torch.device("cpu")
    place = torch.randperm(batch, generator=generator, device=source) + torch.rand(
        batch, generator=generator, device=source
    )
    timestep = (low + (high - low) * (place / batch) ** timestep_power).to(samples.device)
    noise = torch.randn(samples.shape, generator=generator, device=source).to(samples.device)
    signal, sigma = signal_noise(schedule, timestep, samples.dtype)
    composed = compose_rows(denoiser, trunk(denoiser, signal * samples + sigma * noise, timestep), condition, owner)
    weight = error_scale(schedule, timestep, kind)
    if gamma is not None:
        weight = (weight * (gamma * torch.exp(-log_snr(schedule, timestep))).clamp(max=1.0)).clamp(min=floor)
    error = (composed - target(samples, noise, schedule, timestep, kind)).square().flatten(1).mean(1)
    return (error * weight.to(error.dtype)).mean()
