"""Latents by search: an image is also encoded turned and mirrored, and the latents that explain it best are kept."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from energycomp.components import Condition, rule_weights
from energycomp.denoisers import Denoiser, Trunk, rows, trunk
from energycomp.errors import InputError
from energycomp.models import Model

# Quarter turns, and whether a mirror image follows. The first four keep the shape of any image.
VIEWS = ((0, False), (0, True), (2, False), (2, True), (1, False), (3, False), (1, True), (3, True))
LEVELS = (1.0, 0.9, 0.8, 0.7)  # shares of T at which latents are compared: noise hides most of the image


def turn(images: Tensor, view: tuple[int, bool]) -> Tensor:
    """Images (..., H, W) in a view of `VIEWS`."""
    turned = images.rot90(view[0], (-2, -1))
    return turned.flip(-1) if view[1] else turned


def turn_back(images: Tensor, view: tuple[int, bool]) -> Tensor:
    """The inverse of `turn`."""
    return (images.flip(-1) if view[1] else images).rot90(-view[0], (-2, -1))


def check_views(model: Model, views: int) -> None:
    """Raises `InputError` for a number that is not from 1 to 8, or is more than 1 where latents cannot be searched."""
    if type(views) is not int or not 1 <= views <= len(VIEWS):
        raise InputError(f"got views={views!r}; expected a whole number from 1 to {len(VIEWS)}")
    denoiser = model.denoiser
    if views > 1 and (denoiser.rule != "product" or denoiser.prediction_type != "sample"):
        got = f"got {views=} with {model.name!r}, which predicts {denoiser.prediction_type!r} under {denoiser.rule!r}"
        raise InputError(f"{got}; expected 'sample' under 'product', which show parts alone at full noise; set views=1")


@torch.no_grad()
def search_latents(model: Model, sample: Tensor, encode: Callable[[Tensor], Tensor], *, views: int) -> Tensor:
    """Latents (1, K, D) of a sample (1, C, H, W): those of the encoder, or of a view that explain the sample better.

    An encoder that gives one latent to two objects often keeps them apart in a mirrored image. Latents of a view encode
    mirrored places, so each part that they show is turned back and encoded alone. Of its latents, the one that
    differs most from those of an image without parts is the latent of the part. Then the candidates of all views are
    compared by their denoising error on the sample itself, with the same noise for all. Rows of the result are in no
    order, so latents that are identified by their row, such as factors, are not searched.

    Costs V + V K + 1 encodings, and 5 V K + 4 K + 5 network evaluations for V views.

    Raises:
        InputError: another model or number of views, or more than one sample.

    >>> from energycomp.testing import stripes_model
    >>> stripes = stripes_model(parts=2)
    >>> search_latents(stripes, torch.zeros(1, 3, 16, 16), stripes.encoder, views=2).shape
    torch.Size([1, 2, 4])
    """
    check_views(model, views)
    if len(sample) != 1:
        raise InputError(f"got {len(sample)} samples; expected one, (1, C, H, W); search them one by one")
    denoiser = model.denoiser
    chosen = VIEWS[: views if sample.shape[2] == sample.shape[3] else min(views, 4)]
    noise = torch.randn(len(LEVELS), *sample.shape[1:], generator=torch.Generator().manual_seed(0)).to(sample)
    seen = encode(torch.cat([turn(sample, view) for view in chosen]))
    count = seen.shape[1]
    timestep = torch.full((1,), float(len(denoiser.alphas_cumprod)), device=noise.device)  # full noise: x0 of each part
    full = trunk(denoiser, noise[:1], timestep)
    nothing, shown = _predict(denoiser, model.conditioner(seen.flatten(0, 1)), full)
    alone = [turn_back(parts, view) for parts, view in zip(shown[0].split(count), chosen, strict=True)]
    own = encode(torch.cat(alone))
    row = (own - encode(nothing)).square().sum(2).argmax(1)
    turned = own[torch.arange(len(own), device=row.device), row].view_as(seen)
    candidates = torch.cat([seen[:1], turned])
    errors = _errors(denoiser, model.conditioner(candidates.flatten(0, 1)), len(candidates), sample, noise)
    return candidates[errors.argmin()][None]


def _errors(denoiser: Denoiser, condition: Condition, candidates: int, sample: Tensor, noise: Tensor) -> Tensor:
    """Mean squared errors of x0 (N,) over all `LEVELS`, of N candidates of R / N condition rows each."""
    timestep = torch.tensor(LEVELS, device=sample.device) * len(denoiser.alphas_cumprod)
    signal, sigma = denoiser.noised_space.levels(timestep, sample.dtype)
    nothing, parts = _predict(denoiser, condition, trunk(denoiser, signal * sample + sigma * noise, timestep))
    parts = parts.unflatten(1, (candidates, -1))
    row, null = rule_weights(denoiser.rule, float(parts.shape[2]))
    composed = row * parts.sum(2) + null * nothing[:, None]
    return (composed - sample).square().mean((0, 2, 3, 4))


def _predict(denoiser: Denoiser, condition: Condition, shared: Trunk) -> tuple[Tensor, Tensor]:
    """Predictions for L noised samples: without a condition (L, C, H, W), and under each of R (L, R, C, H, W)."""
    levels = len(shared)
    device = shared.sample.device
    null = Condition.unconditional(*denoiser.token_shape, rows=1, device=device)
    every = Condition.cat([null.to(dtype=condition.rows.dtype), condition])
    owner = torch.arange(levels, device=device).repeat_interleave(len(every))
    predicted = rows(denoiser, shared, Condition.cat([every] * levels), owner).unflatten(0, (levels, -1))
    return predicted[:, 0], predicted[:, 1:]
