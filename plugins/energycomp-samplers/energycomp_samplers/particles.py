"""Weighted particles: effective sample size and systematic resampling. G groups of P particles each."""

from __future__ import annotations

import torch
from torch import Tensor

from energycomp.sampling import Generator, draw_noise


def effective_sample_size(log_weights: Tensor) -> Tensor:
    """(sum w)^2 / sum w^2 as a share of the particles, (G,), for log weights (G, P).

    >>> effective_sample_size(torch.tensor([[0.0, 0.0], [0.0, -100.0]])).tolist()
    [1.0, 0.5]
    """
    w = torch.softmax(log_weights, dim=1)
    return 1.0 / (w.square().sum(dim=1) * w.shape[1])


def systematic(log_weights: Tensor, count: int, generator: Generator) -> Tensor:
    """Places (G, count) of the particles that stay, for log weights (G, P): systematic resampling.

    Particle p gets count w_p copies, rounded up or down, by one uniform number for each group (Kitagawa, 1996). A count
    of 1 draws one particle with the probabilities w.

    >>> systematic(torch.tensor([[0.0, -100.0, 0.0]]), 2, torch.Generator().manual_seed(0))
    tensor([[0, 2]])
    """
    start = uniform((len(log_weights), 1), generator, log_weights.device).cpu()
    points = (torch.arange(count) + start) / count
    edges = torch.softmax(log_weights.double().cpu(), dim=1).cumsum(dim=1)
    places = torch.searchsorted(edges, points).clamp(max=log_weights.shape[1] - 1)
    return places.to(log_weights.device)


def uniform(shape: tuple[int, ...], generator: Generator, device: torch.device) -> Tensor:
    """Uniform numbers in (0, 1) on a device, of one generator or of one for each row."""
    return torch.special.ndtr(draw_noise(shape, generator=generator, device=device).double())


def taken(values: Tensor, places: Tensor) -> Tensor:
    """Of values (G, P, ...) those at the places (G, count), (G, count, ...)."""
    group = torch.arange(len(values), device=values.device)[:, None]
    return values[group, places]
