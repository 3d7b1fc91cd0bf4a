"""Least-squares weights of the parts of a decomposition, and which parts are needed, from the quadratic form."""

from __future__ import annotations

from functools import reduce
from typing import Any

import attrs
import torch
from torch import Tensor

from energycomp.components import rule_weights
from energycomp.inference import QuadraticForm, draw_bank, nonnegative, quadratic_form
from energycomp.models import Model
from energycomp.seeds import as_generator, derived_seed
from energycomp_decomp.diffusion import DiffusionDecomposer


@attrs.frozen(eq=False)
class PartWeights:
    """How much each of K parts is needed.

    Args:
        weights: of the parts, (K,), at least 0, with the least denoising error over all images. Where the model
            composes well they are near 1 under the product rule, and near 1 / K under the mean rule.
        needed: the share (K,) of the error explained by all parts that is lost over all images without each part, with
            the weights of the others fitted again; about 0 for a redundant part.
        needed_by_image: the same for each image, (B, K), with the weights of the rule; about 0 for an empty part.
    """

    weights: Tensor
    needed: Tensor
    needed_by_image: Tensor


def part_weights(
    images: Any, model: Model, *, draws: int = 8, generator: int | torch.Generator | None = None
) -> PartWeights:
    """Least-squares weights of the parts that an encoder reads, and which parts are needed.

    Section 4.7.2 of Wang (2026, Figure 4.24) learns the weights with the network, by gradient descent. The denoising
    error is quadratic in them, so that their least squares need no training. Costs `draws` (K + 1) network evaluations
    and `draws` trunk passes per image.

    Raises:
        InputError: the model has no encoder.

    >>> from energycomp.testing import stripes_model
    >>> image = torch.full((1, 3, 16, 16), -0.2)
    >>> image[..., :4] = 0.9  # the first of four stripes differs from the background
    >>> part_weights(image, stripes_model(parts=4)).needed_by_image.round(decimals=2).abs().tolist()
    [[1.0, 0.0, 0.0, 0.0]]
    """
    decomposer = DiffusionDecomposer(model)
    latents = decomposer.encode(images)
    denoiser = model.denoiser
    defaults = model.defaults
    samples = model.encode(images)
    generator = as_generator(generator)
    if generator is None:
        generator = torch.Generator()
        generator.seed()
    seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
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
        forms.append(form.mean())
    by_image = reduce(QuadraticForm.cat, forms)  # an image in the place of a draw
    mean = by_image.mean()
    weights = nonnegative(mean.b[0], mean.gram()[0])
    return PartWeights(
        weights=weights.float(),
        needed=_need(mean, weights).float(),
        needed_by_image=_need_by_image(by_image, rule_weights(denoiser.rule, float(latents.shape[1]))[0]).float(),
    )


def _need(form: QuadraticForm, weights: Tensor) -> Tensor:
    """The share (K,) of what all parts explain that is lost without each, the others weighted anew."""

    def error(weights: Tensor) -> Tensor:
        return form.weighted_errors(weights[None])[0, 0]

    least = error(weights)
    lost = []
    for part in range(len(form)):
        others = [k for k in range(len(form)) if k != part]
        rest = form.take(others)
        refitted = torch.zeros_like(weights)
        refitted[others] = nonnegative(rest.b[0], rest.gram()[0])
        lost.append(error(refitted) - least)
    return torch.stack(lost) / (form.c[0] - least).clamp(min=1e-12)


def _need_by_image(form: QuadraticForm, weight: float) -> Tensor:
    """J without a part less J with all, over J of none less J with all, for weights of the rule: (B, K)."""
    every = list(range(len(form)))
    error = form.errors(every, weight)
    without = torch.stack([form.errors([k for k in every if k != part], weight) for part in every], dim=1)
    return (without - error[:, None]) / (form.c - error).clamp(min=1e-12)[:, None]
