"""Exact scores of single posteriors with the noise of sbi: what a perfect network would say, so that samplers are judged.

Notation: variable -> symbol
    log_weights, means, variances   w_j, m_j, v_j of the posterior sum_j w_j N(m_j, v_j I)
    a                               c_t of `sbi_networks`, and s_t^2 = 1 - c_t^2
    share                           w_j N(theta_t; c_t m_j, total_j I) as a share of all j
    total                           c_t^2 v_j + s_t^2

    score = sum_j share_j (c_t m_j - theta_t) / total_j
"""

from functools import cache

import torch
from torch import Tensor

from energycomp_posteriors.tasks import Parts, Task

BETAS = (0.01, 20.0)  # of sbi's "vp"


class Exact:
    """What `Posterior.of` takes in place of a network, of a task that has parts."""

    t_min = 1e-3

    def __init__(self, task: Task) -> None:
        parts = task.parts
        if parts is None:
            raise ValueError("got a task without parts; expected gaussian, mixture or two_moons; train a network")
        self.parts = cache(lambda x: parts(torch.tensor(x)))

    def mean_t_fn(self, times: Tensor) -> Tensor:
        """c_t, (R, 1)."""
        return torch.exp(-0.25 * times.square() * (BETAS[1] - BETAS[0]) - 0.5 * times * BETAS[0])[:, None]

    def std_fn(self, times: Tensor) -> Tensor:
        """s_t, (R, 1)."""
        return (1 - self.mean_t_fn(times).square()).sqrt()

    def score(self, sample: Tensor, observed: Tensor, times: Tensor) -> Tensor:
        """Of noised parameters (R, D), each of the posterior of its observation (R, M)."""
        seen, counts = observed.unique_consecutive(dim=0, return_counts=True)
        rows = zip(sample.split(counts.tolist()), self.mean_t_fn(times).split(counts.tolist()), strict=True)
        parts = [self.parts(tuple(x.tolist())) for x in seen]
        return torch.cat([_score(*row, one) for row, one in zip(rows, parts, strict=True)])


def _score(sample: Tensor, a: Tensor, parts: Parts) -> Tensor:
    log_weights, means, variances = parts
    total = a.square() * variances + 1 - a.square()  # (R, P)
    # |theta - c m|^2 by products of matrices, in float64: they cancel.
    x, m = sample.double(), means.double()
    far = x.square().sum(1, keepdim=True) - 2 * a * (x @ m.mT) + a.square() * m.square().sum(1)
    share = (log_weights - far / (2 * total) - sample.shape[1] / 2 * total.log()).softmax(1) / total
    return (a * (share @ m) - share.sum(1, keepdim=True) * x).to(sample)
