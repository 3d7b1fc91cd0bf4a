"""Sets on which clean samples must lie, such as a conservation law, given by the nearest point of the set.

Predict, project and go on is Predict-Project-Renoise (PPR; arXiv 2601.21033). Here its steps are a proposal, whose
error the weights of the particles correct, and moves along the set at the end leave the restricted density as it is.

Notation: variable -> symbol
    project         P, the nearest point of the set
    x0, covariance  m = E[z | x] and C = Cov[z | x], see `energycomp_samplers.spread`
    apart           d = m - P(m)
    tangent         T_x = dP / dx at a point of the set, onto its tangent space

    E[z | x, set] = P(m - C d |d|^2 / (d' C d)),    log p(set | x) = -|d|^4 / (2 d' C d)

which is exact where z is Gaussian and the set is flat. A draw of N(m, C) takes the place of m at the end.

Moves (Zappa, Holmes-Cerfon and Goodman, 2018), with the step h and the score s at the last noise level:
    v = T_x (h s(x) + sqrt(2 h) n),    y in the set with T_x (y - x - v) = 0,    w = T_y (x - y)
    log a = log p(y) - log p(x) + (|v - h T_x s(x)|^2 - |w - h T_y s(y)|^2) / (4 h),    0 unless w leads back to x
A set with an inside has T = 1, and what leaves it is not accepted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import attrs
import torch
from torch import Tensor

from energycomp.errors import InputError
from energycomp_samplers.chain import Density, Moves, State
from energycomp_samplers.evidence import Evidence
from energycomp_samplers.kernels import as_column, sum_of_squares
from energycomp_samplers.operators import AnyCovariance

Project: TypeAlias = Callable[[Tensor], Tensor]
ROUNDS = 10  # of finding the point of the set over a step; each is about a digit where steps are short
CLOSE = 1e-3  # share of the length of a step by which a point of the set may be missed
STEP = 1e-3  # of differences, in the deviation of the data
INSIDE = 0.05  # share of points around samples that are in a set with an inside


@attrs.frozen(eq=False)
class ProjectedEvidence:
    """As `Evidence`, of the set, after what was observed."""

    project: Project
    inner: Evidence | None

    @property
    def y(self) -> Tensor:
        return torch.zeros(1, 0) if self.inner is None else self.inner.y

    def condition(
        self, x0: Tensor, covariance: AnyCovariance, draw: Tensor | None = None, error: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """E[z | x, set] of x0 (B, *shape), or a draw, and log p(set | x), (B,), in float64."""
        seen: Tensor | float = 0.0
        if self.inner is not None:
            x0, seen = self.inner.condition(x0, covariance, draw, error)
        elif draw is not None:
            x0 = x0 + draw
        apart = x0 - self.project(x0)
        pulled = covariance(apart)
        length = apart.double().square().flatten(1).sum(1)
        along = (apart.double() * pulled.double()).flatten(1).sum(1)
        share = torch.where(along > 0.0, length / along.clamp(min=torch.finfo().tiny), 0.0)
        moved = self.project(x0 - as_column(share, x0).to(x0) * pulled)
        return moved, seen - 0.5 * share * length

    def draw(self, x0: Tensor, covariance: AnyCovariance, draw: Tensor, error: Tensor) -> tuple[Tensor, Tensor]:
        """A draw of p(z | x, set), and its log weight, (B,)."""
        return self.condition(x0, covariance, draw, error)[0], self.condition(x0, covariance)[1]


def check_projection(project: Project, x: Tensor) -> Project:
    """Raises `InputError` where a function is no projection of samples like x (B, *shape)."""
    once = project(x)
    missed = float((project(once) - once).abs().max())
    if once.shape != x.shape or not missed <= CLOSE * (1.0 + float(once.abs().max())):
        got = f"got project= that returns {tuple(once.shape)} for {tuple(x.shape)}, and moves it by {missed:.2g} then"
        raise InputError(f"{got}; expected the nearest points of a set, which stay; correct it")
    return project


def has_inside(project: Project, x: Tensor, noise: Tensor) -> bool:
    """Whether points around a set's points (B, *shape) are in it, too."""
    near = x + STEP * noise
    missed = (project(near) - near).flatten(1).norm(dim=1)
    return float((missed < CLOSE * (near - x).flatten(1).norm(dim=1)).float().mean()) > INSIDE


@attrs.frozen(eq=False)
class ProjectedMALA(Moves):
    """Metropolis-adjusted Langevin moves along a set, of particles (G, P, *shape) on it.

    Each costs nodes - 1 evaluations per component and particle, and some thirty projections.

    Args:
        project: of particles at the noise level of the moves, (B, *shape).
        tilt: log density beside that of the components, (B,).
        is_solid: whether the set has an inside.
    """

    project: Project
    tilt: Callable[[Tensor], Tensor]
    is_solid: bool
    moves: int = 20
    nodes: int = 5
    acceptance: float = 0.57
    step_size: float = 0.3

    def move(self, density: Density, state: State, c: Tensor) -> tuple[State, Tensor]:
        x = state.x
        h = c * density.noise
        drift = h.to(x)
        # Propose: along the tangent space, and back onto the set.
        ahead = drift * self.tangent(x, state.score)
        v = ahead + (2.0 * h).sqrt().to(x) * self.tangent(x, density.normal(tuple(x.shape[:2])))
        y, found = self._step(x, v)
        proposed = density.state(y)
        # Back: the step from y that leads to x, which has to be found again.
        w = self.tangent(y, x - y)
        again, returns = self._step(y, w)
        returns = returns & self._is_near(again - x, v)
        # Accept: by the ratio of the densities, and that of the proposals from both ends.
        behind = drift * self.tangent(y, proposed.score)
        apart = (sum_of_squares(v - ahead, x) - sum_of_squares(w - behind, x)) / (4.0 * h.flatten(1))
        tilted = self.tilt(y.flatten(0, 1)) - self.tilt(x.flatten(0, 1))
        log_ratio = density.log_ratio([state, proposed], self.nodes) + apart + tilted.unflatten(0, x.shape[:2])
        accepted = density.accepts(log_ratio.nan_to_num(-torch.inf)) & found & returns
        return state.accept(accepted, proposed), accepted

    def tangent(self, x: Tensor, v: Tensor) -> Tensor:
        """T_x v of particles (G, P, *shape)."""
        if self.is_solid:
            return v
        flat, along = x.flatten(0, 1), v.flatten(0, 1)
        # Of torch: the derivative of a nearest point, which is symmetric
        with torch.enable_grad():
            point = flat.detach().requires_grad_()
            nearest = self.project(point)
        if nearest.requires_grad:
            return torch.autograd.grad(nearest, point, along.to(nearest))[0].to(v).reshape(v.shape)
        # Of others: a central difference
        step = STEP / along.flatten(1).norm(dim=1).clamp(min=torch.finfo(v.dtype).tiny)
        probe = as_column(step, along) * along
        change = (self.project(flat + probe) - self.project(flat - probe)) / (2.0 * as_column(step, along))
        return change.to(v).reshape(v.shape)

    def _step(self, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """The point of the set over x + v in the normal direction of x, and whether there is one, (G, P)."""
        y = x + v
        if self.is_solid:
            return y, self._is_near(y - self._onto(y), v)
        for _ in range(ROUNDS):
            y = self._onto(y)
            missed = self.tangent(x, y - x - v)
            y = y - missed
        return self._onto(y), self._is_near(missed, v)

    def _onto(self, y: Tensor) -> Tensor:
        return self.project(y.flatten(0, 1)).reshape(y.shape)

    def _is_near(self, missed: Tensor, v: Tensor) -> Tensor:
        return sum_of_squares(missed, v) <= CLOSE**2 * sum_of_squares(v, v)
