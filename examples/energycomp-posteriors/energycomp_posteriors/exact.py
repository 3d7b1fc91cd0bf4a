"""Exact scores of single posteriors with the noise of sbi: what a perfect network would say, so that samplers are judged.

Notation: variable -> symbol
    a               c_t of `sbi_networks`, and s_t^2 = 1 - c_t^2
    log_weights, means, variances   w_j, m_j, v_j of a posterior sum_j w_j N(m_j, v_j I)
    share, total    w_j N(theta_t; c_t m_j, total_j I) as a share of all j, and c_t^2 v_j + s_t^2
    near            z_k = c_t theta_t + s_t xi_k, K draws of the clean sample under the prior N(0, I)
    far             z_j, N draws of the posterior
    likelihood      L(z) of the observation, with the evidence Z = E L(z) under the prior
    gain            g(z) = N(theta_t; c_t z, s_t^2 I) / N(theta_t; 0, I), so that the z_k have the density p(z) g(z)

    score = sum_j share_j (c_t m_j - theta_t) / total_j
    score = (c_t E(z | theta_t) - theta_t) / s_t^2, where both kinds of draws have the weights 1 / (K / L + N / (Z g))

The second is multiple importance sampling by the balance heuristic (Veach and Guibas, 1995) of p(z) L(z) g(z).
"""

import math
from collections.abc import Callable
from functools import cache
from typing import TypeAlias

import torch
from torch import Tensor

from energycomp_posteriors.tasks import Task, tempered

Score: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""Of noised parameters (R, D) and c_t (R, 1), the scores (R, D)."""

BETAS = (0.01, 20.0)  # of sbi's "vp"
ROWS = 50  # at a time


class Exact:
    """What `Posterior.of` takes in place of a network.

    Args:
        task: one whose posteriors are mixtures of Gaussians has its scores in closed form.
        near, far: the numbers of draws, of tasks without parts.
    """

    t_min = 1e-3

    def __init__(self, task: Task, near: int = 1_000, far: int = 4_000) -> None:
        def score(x: tuple[float, ...]) -> Score:
            # The same draws whenever an observation is asked for, others for each observation
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(hash(x) % 2**32)
                if task.parts is None:
                    return _of_likelihood(task, torch.tensor(x), near, far)
                return _of_parts(task, torch.tensor(x))

        self.of = cache(score)

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
        scores = [self.of(tuple(x.tolist())) for x in seen]
        return torch.cat([score(*row) for row, score in zip(rows, scores, strict=True)])


def _of_parts(task: Task, observation: Tensor) -> Score:
    """The score of a mixture of round Gaussians."""
    if task.parts is None:
        raise ValueError("got a task without parts; expected one with parts; take its likelihood")
    log_weights, means, variances = task.parts(observation)

    def score(sample: Tensor, a: Tensor) -> Tensor:
        total = a.square() * variances + 1 - a.square()  # (R, P)
        weights = log_weights - _apart(sample, means, a) / (2 * total) - sample.shape[1] / 2 * total.log()
        share = weights.softmax(1) / total
        return (a * (share @ means.double()) - share.sum(1, keepdim=True) * sample.double()).to(sample)

    return score


def _of_likelihood(task: Task, observation: Tensor, near: int, far: int) -> Score:
    """The score by draws of the posterior, which are many where noise is strong, and by draws around theta_t."""
    z, log_evidence = tempered(task, observation[None], far)
    z = task.mirrored(z)
    log_likelihood = task.log_likelihood(z, observation[None])
    squares = torch.cat([z, z.square().sum(1, keepdim=True)], 1).double()
    # xi_k of mean 0 and covariance I
    half = torch.randn(near // 2, task.dimensions, dtype=torch.float64)
    half = (half @ torch.linalg.inv(torch.linalg.cholesky(half.mT @ half / len(half))).mT).float()
    xi = torch.cat([half, -half])

    def log_weights(likelihood: Tensor, log_gain: Tensor) -> Tensor:
        return -torch.logaddexp(math.log(near) - likelihood, math.log(far) - log_evidence - log_gain)

    def some(sample: Tensor, a: Tensor) -> Tensor:
        theta, a = sample.double(), a.double()
        s = (1 - a.square()).sqrt()
        normaliser = theta.square().sum(1, keepdim=True) / 2 - theta.shape[1] * s.log()
        # Draws of the posterior: log g = normaliser - (|theta_t|^2 - 2 c_t theta_t . z + c_t^2 |z|^2) / (2 s_t^2)
        constant = normaliser - theta.square().sum(1, keepdim=True) / (2 * s.square())
        factors = torch.cat([a * theta, -a.square() / 2], 1) / s.square()
        far_weights = log_weights(log_likelihood, (constant + factors @ squares.mT).float())  # (R, N)
        # Draws around theta_t, and theta_t - c_t z in units of s_t
        drawn = (a * theta).float()[:, None] + s.float()[:, None] * xi  # (R, K, D)
        likelihood = task.log_likelihood(drawn.flatten(0, 1), observation[None]).reshape(len(theta), -1)
        apart = (s * theta).float()[:, None] - a.float()[:, None] * xi
        near_weights = log_weights(likelihood, normaliser.float() - apart.square().sum(2) / 2)  # (R, K)
        # E(z | theta_t) = far z + near (c_t theta_t + s_t xi)
        share = torch.cat([far_weights, near_weights], 1).softmax(1)
        far_share, near_share = share.split([far, len(xi)], 1)
        near_mean = near_share.sum(1, keepdim=True) * a * theta + s * (near_share @ xi)
        return ((a * (far_share @ z + near_mean) - theta) / s.square()).to(sample)

    def score(sample: Tensor, a: Tensor) -> Tensor:
        return torch.cat([some(*row) for row in zip(sample.split(ROWS), a.split(ROWS), strict=True)])

    return score


def _apart(sample: Tensor, means: Tensor, a: Tensor) -> Tensor:
    """|theta_t - c_t m_j|^2, (R, P), by products of matrices, in float64: they cancel."""
    x, m = sample.double(), means.double()
    return x.square().sum(1, keepdim=True) - 2 * a * (x @ m.mT) + a.square() * m.square().sum(1)
