"""Which parts of a decomposition are needed: least squares over the weights of all parts, from the quadratic form."""

from __future__ import annotations

from typing import Any

import attrs
import torch
from torch import Tensor

from energycomp.decomposition.decomposer import DiffusionDecomposer
from energycomp.inference.noise import draw_bank
from energycomp.inference.quadratic import nonnegative, quadratic_form
from energycomp.models.model import Model
from energycomp.training.order import derived_seed

__all__ = ["PartWeights", "part_weights"]


@attrs.frozen(eq=False)
class PartWeights:
    """How much each of K parts is needed.

    Args:
        weights: of the parts (K,), at least 0, that together leave the least denoising error over all pictures; near 1
            under the rule product and 1 / K under mean where the model composes well.
        needed: the share (K,) of what all parts explain that is lost over all pictures without one of them, the others
            weighted anew; about 0 for a part that is superfluous.
        needed_by_image: the same for each picture, (B, K), with the weights of the rule: about 0 where a part is empty.
    """

    weights: Tensor
    needed: Tensor
    needed_by_image: Tensor


def part_weights(images: Any, model: Model, *, draws: int = 8, generator: torch.Generator | None = None) -> PartWeights:
    """Weights of the parts that an encoder reads, and which of them could be left out (thesis 4.7.2, Fig. 4.24).

    The thesis learns the weights beside the network, by gradients. The denoising error is quadratic in them, so that
    their least squares need no training: `draws` (K + 1) rows and `draws` trunk passes a picture, then arithmetic.

    Args:
        images: paths, Pillow images, arrays or tensors (B, 3, H, W) in [-1, 1]; at least one.
        model: with an encoder.
        draws: of the noise bank, for each picture.
        generator: of the draws.

    >>> from energycomp.testing import stripes_model
    >>> picture = torch.full((1, 3, 16, 16), -0.2)
    >>> picture[..., :4] = 0.9  # the first of four stripes differs from the ground
    >>> part_weights(picture, stripes_model(parts=4)).needed_by_image.round(decimals=2).abs().tolist()
    [[1.0, 0.0, 0.0, 0.0]]
    """
    decomposer = DiffusionDecomposer(model)
    latents = decomposer.encode(images)
    denoiser, defaults = model.denoiser, model.defaults
    samples = model.encode(images)
    if generator is None:
        generator = torch.Generator()
        generator.seed()
    seed = generator.initial_seed()
    forms = []
    for index, (sample, rows) in enumerate(zip(samples, latents, strict=True)):
        bank = draw_bank(
            draws,
            denoiser.sample_shape,
            denoiser.alphas_cumprod,
            timesteps=defaults.timesteps,
            gamma=defaults.gamma,
            generator=torch.Generator().manual_seed(derived_seed(seed, "picture", index)),
        )
        with torch.no_grad():
            form = quadratic_form(denoiser, sample[None], bank, model.conditioner(rows))
        forms.append((form.b.mean(0), form.gram().mean(0)))
    b, gram = (torch.stack(parts) for parts in zip(*forms, strict=True))
    weights = nonnegative(b.mean(0), gram.mean(0))
    return PartWeights(
        weights=weights.float(),
        needed=_needed(b.mean(0), gram.mean(0), weights).float(),
        needed_by_image=_needed_by_image(b, gram, 1.0 if denoiser.rule != "mean" else 1.0 / latents.shape[1]).float(),
    )


def _needed(b: Tensor, gram: Tensor, weights: Tensor) -> Tensor:
    """What is lost without each part (K,), the others weighted anew, over what all of them explain."""

    def explained(chosen: list[int], w: Tensor) -> Tensor:
        return 2 * b[chosen] @ w - w @ gram[chosen][:, chosen] @ w

    every = list(range(len(b)))
    total = explained(every, weights)
    lost = []
    for part in every:
        others = [k for k in every if k != part]
        refitted = nonnegative(b[others], gram[others][:, others]) if others else b[:0]
        lost.append(total - (explained(others, refitted) if others else 0.0))
    return torch.stack(lost) / total.clamp(min=1e-12)


def _needed_by_image(b: Tensor, gram: Tensor, weight: float) -> Tensor:
    """J without a part less J with all, over J of none less J with all, for weights of the rule: (B, K)."""
    w = torch.full_like(b[0], weight)
    total = 2 * b @ w - torch.einsum("k,bkl,l->b", w, gram, w)
    lost = 2 * weight * b - 2 * weight * (gram @ w) + weight**2 * gram.diagonal(dim1=1, dim2=2)
    return lost / total[:, None].clamp(min=1e-12)
