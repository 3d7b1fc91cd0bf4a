"""Six tasks of simulation-based inference, and samples of their exact posteriors.

All parameters have the prior N(0, I): uniform ones in (-r, r) are r erf(z / sqrt(2)), correlated ones have a factor.
"""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import TypeAlias

import attrs
import numpy as np
import torch
from torch import Tensor
from torch.distributions import Independent, Normal

Parts: TypeAlias = tuple[Tensor, Tensor, Tensor]
"""Log weights (P,), means (P, D) and variances (P,)."""

CELL = 0.003  # of the grid of quadrature, on uniform parameters in (-1, 1)


@attrs.frozen(eq=False)
class Task:
    """How parameters (B, D) make observations (B, M).

    `log_likelihood` of parameters (B, D) and observations (n, M) is (B,). `mirrored` ones are as likely under any x.
    `parts` of an observation (M,) are those of its posterior as a mixture of round Gaussians: see `Parts`.
    """

    dimensions: int
    simulate: Callable[[Tensor], Tensor]
    log_likelihood: Callable[[Tensor, Tensor], Tensor]
    mirrored: Callable[[Tensor], Tensor] = lambda z: z
    parts: Callable[[Tensor], Parts] | None = None

    prior = property(lambda self: Independent(Normal(torch.zeros(self.dimensions), 1.0), 1))


def gaussian() -> Task:
    """Ten parameters, observed with noise of variance 1: gaussian_linear of Lueckmann et al. (2021), scaled."""
    return Task(
        10,
        lambda z: z + torch.randn(z.shape),
        lambda z, x: -(x - z[:, None]).square().sum((1, 2)) / 2,
        parts=lambda x: (torch.zeros(1), x[None] / 2, torch.full((1,), 0.5)),
    )


def mixture() -> Task:
    """A place in the plane, observed with noise of deviation 1 or 0.1: gaussian_mixture of Lueckmann et al., scaled."""
    variances = torch.tensor([1.0, 0.01])

    def log_likelihood(z: Tensor, x: Tensor) -> Tensor:
        apart = (x - z[:, None]).square().sum(2, keepdim=True)
        return (-apart / (2 * variances) - variances.log()).logsumexp(2).sum(1)

    def parts(x: Tensor) -> Parts:
        total = 1 + variances
        return -x.square().sum() / (2 * total) - total.log(), x / total[:, None], variances / total

    def simulate(z: Tensor) -> Tensor:
        return z + variances[torch.randint(2, (len(z), 1))].sqrt() * torch.randn(z.shape)

    return Task(2, simulate, log_likelihood, parts=parts)


def uniform() -> Task:
    """Ten uniform parameters, noise of variance 0.1: gaussian_linear_uniform of Lueckmann et al. (2021)."""
    variance = 0.1

    def place(z: Tensor) -> Tensor:
        return (z / 2**0.5).erf()

    return Task(
        10,
        lambda z: place(z) + variance**0.5 * torch.randn(z.shape),
        lambda z, x: -(x - place(z)[:, None]).square().sum((1, 2)) / (2 * variance),
    )


def glm() -> Task:
    """Offset and filter of a neuron, of which 100 steps of spikes are seen: bernoulli_glm of Lueckmann et al. (2021).

    An observation is X' y of spikes y (100,), which is sufficient: log p(y | b) = b' X' y - sum log(1 + exp(X b)).
    """
    size, steps = 9, 100
    # X: a column of ones, and the stimulus 0 to 8 steps before.
    stimulus = torch.from_numpy(np.random.RandomState(42).randn(steps)).float()
    columns = [torch.ones(steps)] + [torch.cat([torch.zeros(j), stimulus[: steps - j]]) for j in range(size)]
    design = torch.stack(columns, 1)
    # The prior: an offset of variance 2, and a filter of small second differences.
    difference = torch.eye(size) - torch.diag(torch.ones(size - 1), -1)
    smooth = difference @ difference + (torch.arange(size) / size).sqrt().diag()
    precision = torch.block_diag(torch.tensor([[0.5]]), smooth.mT @ smooth)
    factor = torch.linalg.cholesky(torch.linalg.inv(precision))
    whitened = design @ factor  # X b = X L z

    def simulate(z: Tensor) -> Tensor:
        return torch.bernoulli((z @ whitened.mT).sigmoid()) @ design

    def log_likelihood(z: Tensor, x: Tensor) -> Tensor:
        normaliser = torch.nn.functional.softplus(z @ whitened.mT).sum(1)
        return z @ factor.mT @ x.sum(0) - len(x) * normaliser

    return Task(size + 1, simulate, log_likelihood)


def slcp() -> Task:
    """Mean, scales and correlation of a normal distribution, of which four points are seen (Papamakarios et al., 2019)."""

    def parts(z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        p = 3 * (z / 2**0.5).erf()
        return p[:, None, :2], p[:, None, 2:4].square().clamp(min=1e-6), p[:, 4:].tanh()

    def simulate(z: Tensor) -> Tensor:
        mean, scale, rho = parts(z)
        first, second = torch.randn(2, len(z), 4)
        return (mean + scale * torch.stack([first, rho * first + (1 - rho.square()).sqrt() * second], 2)).flatten(1)

    def log_likelihood(z: Tensor, x: Tensor) -> Tensor:
        mean, scale, rho = parts(z)
        points = x.reshape(-1, 2)
        first, second = ((points[:, i] - mean[..., i]) / scale[..., i] for i in range(2))
        energy = (first.square() + (second - rho * first).square() / (1 - rho.square())).sum(1) / 2
        return -energy - first.shape[1] * (scale[:, 0].log().sum(1) + (1 - rho[:, 0].square()).log() / 2)

    def mirrored(z: Tensor) -> Tensor:
        return torch.cat([z[:, :2], z[:, 2:4] * (2.0 * torch.randint(2, (len(z), 2)) - 1.0), z[:, 4:]], 1)

    return Task(5, simulate, log_likelihood, mirrored)


def two_moons() -> Task:
    """A crescent in the plane, whose place two parameters say up to a mirror image (Greenberg et al., 2019)."""

    def place(z: Tensor) -> Tensor:
        a, b = (z / 2**0.5).erf().unbind(1)
        return torch.stack([0.25 - (a + b).abs() / 2**0.5, (b - a) / 2**0.5], 1)

    def simulate(z: Tensor) -> Tensor:
        angle, radius = torch.pi * (torch.rand(len(z)) - 0.5), 0.1 + 0.01 * torch.randn(len(z))
        return place(z) + radius[:, None] * torch.stack([angle.cos(), angle.sin()], 1)

    def log_likelihood(z: Tensor, x: Tensor) -> Tensor:
        apart = x - place(z)[:, None]
        radius = apart.norm(dim=2).clamp(min=1e-6)
        log = -((radius - 0.1) / 0.01).square() / 2 - radius.log()
        return torch.where(apart[..., 0] > 0, log, -1e4 * (1 - apart[..., 0])).sum(1)

    def mirrored(z: Tensor) -> Tensor:
        return torch.where(torch.rand(len(z), 1) < 0.5, z, -z.flip(1))

    def parts(x: Tensor) -> Parts:
        axis = torch.arange(-1 + CELL / 2, 1, CELL)
        z = 2**0.5 * torch.erfinv(torch.cartesian_prod(axis, axis))
        known = torch.cat([log_likelihood(one, x[None]) for one in z.split(100_000)])
        near = known > known.max() - 12
        return known[near], z[near], torch.full((int(near.sum()),), (1.25 * CELL) ** 2)

    return Task(2, simulate, log_likelihood, mirrored, parts)


def tempered(task: Task, observed: Tensor, n: int) -> tuple[Tensor, float]:
    """Particles (n, D) of the posterior, moved by differential evolution (ter Braak, 2006), and the log evidence."""
    z, evidence = task.prior.sample((n,)), 0.0
    known, prior = task.log_likelihood(z, observed), task.prior.log_prob(z)
    for before, power in pairwise([0.0, *(2.0**-k for k in range(24, -1, -1))]):
        # Weigh and resample
        weights = (power - before) * known.double()
        evidence += float(weights.logsumexp(0)) - math.log(n)
        kept = torch.multinomial(weights.softmax(0), n, replacement=True)
        z, known, prior = z[kept], known[kept], prior[kept]
        # Move
        for _ in range(10 if power < 1.0 else 200):
            apart = z[torch.randperm(n)] - z[torch.randperm(n)]
            y = z + 1.7 / z.shape[1] ** 0.5 * torch.rand(n, 1) * apart + 1e-4 * torch.randn(z.shape)
            new, new_prior = task.log_likelihood(y, observed), task.prior.log_prob(y)
            accepted = torch.rand(n).log() < power * (new - known) + new_prior - prior
            z = torch.where(accepted[:, None], y, z)
            known, prior = torch.where(accepted, new, known), torch.where(accepted, new_prior, prior)
    return z, evidence


def reference(task: Task, observed: Tensor, n: int) -> Tensor:
    """Samples (n, D) of the posterior."""
    return task.mirrored(tempered(task, observed, 2 * n)[0][:n])


TASKS = {
    "gaussian": gaussian,
    "mixture": mixture,
    "uniform": uniform,
    "glm": glm,
    "slcp": slcp,
    "two_moons": two_moons,
}
