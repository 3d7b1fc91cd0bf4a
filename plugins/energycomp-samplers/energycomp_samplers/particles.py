"""Weighted particles, in G groups of P each: effective sample size, systematic resampling, and where they are."""

from __future__ import annotations

from functools import cached_property

import attrs
import torch
from torch import Tensor

from energycomp.sampling import Target
from energycomp_samplers.kernels import clip
from energycomp_samplers.proposal import Proposal


def effective_sample_size(log_weights: Tensor) -> Tensor:
    """(sum w)^2 / sum w^2 as a share of the particles, (G,), for log weights (G, P).

    >>> effective_sample_size(torch.tensor([[0.0, 0.0], [0.0, -100.0]])).tolist()
    [1.0, 0.5]
    """
    w = torch.softmax(log_weights, dim=1)
    return 1.0 / (w.square().sum(dim=1) * w.shape[1])


def systematic(log_weights: Tensor, count: int, start: Tensor) -> Tensor:
    """Places (G, count) of the particles that stay, for log weights (G, P): systematic resampling (Kitagawa, 1996).

    Particle p gets count w_p copies, rounded up or down, by one uniform number for each group, `start` (G, 1). A count
    of 1 draws one particle with the probabilities w.

    >>> systematic(torch.tensor([[0.0, -100.0, 0.0]]), 2, torch.tensor([[0.3]]))
    tensor([[0, 2]])
    """
    # As many points as are drawn, evenly spaced in (0, 1), and shifted together by the uniform number
    points = (torch.arange(count) + start.cpu()) / count
    # Particle p has the stretch of length w_p, and one copy for each point in it
    edges = torch.softmax(log_weights.double().cpu(), dim=1).cumsum(dim=1)
    places = torch.searchsorted(edges, points).clamp(max=log_weights.shape[1] - 1)
    return places.to(log_weights.device)


def take(values: Tensor, places: Tensor) -> Tensor:
    """Of values (G, P, ...) those at the places (G, count), (G, count, ...)."""
    group = torch.arange(len(values), device=values.device)[:, None]
    return values[group, places]


@attrs.frozen(eq=False)
class Particles:
    """Particles x (G, P, *shape) at a noise level, and what all components predict there, x0 (K, G, P, *shape)."""

    x: Tensor
    x0: Tensor
    proposal: Proposal
    target: Target

    @cached_property
    def clean(self) -> Tensor:
        """The clean samples that are expected, inside the value range; at the last level those of its step."""
        mean = clip(self.proposal.mean(self.x0), self.target)
        return self.proposal.centre(self.x, mean) if self.proposal.level.is_last else mean

    @property
    def centre(self) -> Tensor:
        """The mean of the proposal."""
        return self.proposal.centre(self.x, clip(self.proposal.mean(self.x0), self.target))

    def take(self, places: Tensor) -> Particles:
        """Those at the places (G, P), without gradients."""
        x0 = torch.stack([take(one, places) for one in self.x0.detach()])
        return Particles(take(self.x.detach(), places), x0, self.proposal, self.target)
