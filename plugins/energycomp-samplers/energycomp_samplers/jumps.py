"""Jumps of samples to where the others are, which end strays: samples that were left behind in a mode of no weight.

Notation: variable -> symbol
    x, y            a sample of one half, and its proposal
    places          z_1 ... z_m, the samples of the other half
    root            L, where L L' = h^2 Cov[z], h = m^(-1 / (D + 4)): the width of the kernels (Scott, 1992)
    FREEDOM         nu, of Student's t, whose kernels are wide: a sample that is far from all others may leave, too

    y = z_j + L g (nu / w)^(1/2),  g ~ N(0, I), w ~ chi^2_nu,  so that log q(y) = log sum_j t_nu(L^-1 (y - z_j))
    accept with probability min(1, a),  log a = log pi_t(y) - log pi_t(x) + log q(x) - log q(y)

The half that moves does not change q, so that each jump leaves the density of the level as it is: the move "KDE" of
emcee (Foreman-Mackey et al., 2013). The ratio of densities is the line integral of the score, see `chain`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from energycomp_samplers.chain import Density, State
from energycomp_samplers.kernels import axes

FREEDOM = 2.0  # chi^2 of two degrees of freedom is -2 log u
SHARE = 0.25  # of the log ratio, by which the rules of the integral may differ
JITTER = 1e-9  # of the variances, so that samples in a plane have a root


def jump(density: Density, x: Tensor, x0: Tensor, segments: int = 8) -> tuple[Tensor, Tensor]:
    """Samples (1, P, *shape) and their predictions (K, 1, P, *shape) after one jump of each.

    Costs as many evaluations of each leaf and sample as the line integral has segments. More of them are surer of a
    jump between modes (`benchmarks/sampling/inverse.py`).

    >>> from energycomp.components import Gaussian
    >>> from energycomp.sampling import Target
    >>> target, random = Target(Gaussian(0.0, 0.25)), torch.Generator().manual_seed(0)
    >>> level = target.levels(50)[-1]
    >>> density = Density(
    ...     target, level, lambda groups: torch.randn(*groups, 1, 1, 1, generator=random),
    ...     lambda groups: torch.rand(groups, generator=random),
    ... )  # fmt: skip
    >>> x = 0.5 * torch.randn(1, 100, 1, 1, 1, generator=random)
    >>> x[0, 0] = 20.0  # a stray
    >>> x0 = target.predict(x[0], level.rows(x[0]), prediction_type="sample")[:, None]
    >>> float(jump(density, x, x0)[0].max()) < 3.0
    True
    """
    x = x.clone()
    x0 = x0.clone()
    count = x.shape[1]
    halves = [torch.arange(start, count, 2, device=x.device) for start in (0, 1)]
    for own, other in (halves, halves[::-1]):
        # Propose: the place of a sample of the other half, and a step of Student's t
        places = x[0, other].flatten(1).double()
        root = _root(places)
        chosen = (density.uniform((1, len(own)))[0] * len(places)).long().clamp(max=len(places) - 1)
        width = (FREEDOM / (-2.0 * density.uniform((1, len(own)))[0].double().clamp(min=1e-300).log())).sqrt()
        steps = density.normal((1, len(own)))[0].flatten(1).double() * width[:, None]
        y = places[chosen] + steps @ root.T
        # Test: the ratio of the densities, and of the proposals there and back
        before = density.state(x[:, own], x0[:, :, own])
        after = density.state(y.to(x).reshape(before.x.shape))
        back = _log_kernels(before.x[0].flatten(1).double(), places, root) - _log_kernels(y, places, root)
        log_ratio, doubt = _integrate(density, before, after, segments)
        accepted = density.accepts(log_ratio + back[None]) & density.accepts(-doubt)
        state = before.accept(accepted, after)
        x[:, own] = state.x
        x0[:, :, own] = state.x0
    return x, x0


def _integrate(density: Density, before: State, after: State, segments: int) -> tuple[Tensor, Tensor]:
    """log pi_t(y) - log pi_t(x), (1, P), and how far it is beyond doubt, in nats: the same there and back."""
    # G . d along the straight line
    places = [place / segments for place in range(1, segments)]
    between = [density.state(torch.lerp(before.x, after.x, place)) for place in places]
    d = (after.x - before.x).double()
    along = torch.stack([(one.score.double() * d).sum(dim=axes(d)) for one in (before, *between, after)])
    # Simpson's rule, and by how much it differs from the trapezoidal one, beyond a share of it
    fine = torch.trapezoid(along, dim=0) / segments
    coarse = torch.trapezoid(along[::2], dim=0) * 2.0 / segments
    found = (4.0 * fine - coarse) / 3.0
    return found, ((found - fine).abs() - SHARE * found.abs()).clamp(min=0.0)


def _root(places: Tensor) -> Tensor:
    """L (D, D) of the samples (m, D)."""
    count, size = places.shape
    covariance = places.T.cov().reshape(size, size)
    covariance = covariance + JITTER * covariance.diagonal().mean() * torch.eye(size).to(covariance)
    return torch.linalg.cholesky(covariance) * count ** (-1.0 / (size + 4))


def _log_kernels(x: Tensor, places: Tensor, root: Tensor) -> Tensor:
    """log q of samples (B, D), up to a constant, (B,)."""
    white = [torch.linalg.solve_triangular(root, one.T, upper=False).T for one in (x, places)]
    squares = torch.cdist(*white).square()
    return (-(FREEDOM + x.shape[1]) / 2.0 * (squares / FREEDOM).log1p()).logsumexp(1)
