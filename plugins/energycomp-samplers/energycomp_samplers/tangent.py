"""Observations that are not linear: the linear one that stands for each sample where it is most probable.

Notation: variable -> symbol
    x0              m, the prediction of joint samples z, with the covariance C
    at              z*, the most probable z of N(z; m, C) N(y; f(z), R), by Gauss-Newton steps from m
    rows            J, the derivative of f at z*
    y               y - f(z*) + J z*, which z shows by J: f(z) is J z + f(z*) - J z* near z*

    N(y; J m, J C J' + R) of the linear one is Laplace's approximation of p(y | x_t), in which m alone would be a bad
    place to linearise, and w(z) = N(y; f(z), R) / N(y; J z, R) is what draws of the linear one are wrong by.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from energycomp_samplers.evidence import Evidence
from energycomp_samplers.joint import SMALL, Factor, Joint
from energycomp_samplers.kernels import as_column
from energycomp_samplers.operators import Linear, Pair, linearise

KEPT = 2**26  # numbers of the derivatives of all samples as matrices, at most: 512 MB


@attrs.define(eq=False)
class Rows:
    """J as a matrix (n, M, K D) for each sample (n, K, *shape), of which (n, *seen) is seen."""

    rows: Tensor
    shape: Sequence[int]
    seen: Sequence[int]
    _last: tuple[Joint, Factor] | None = None

    def forward(self, z: Tensor) -> Tensor:
        return torch.einsum("nmd,nd->nm", self.rows, z.flatten(1).to(self.rows)).to(z).reshape(-1, *self.seen)

    def adjoint(self, w: Tensor) -> Tensor:
        return torch.einsum("nmd,nm->nd", self.rows, w.flatten(1).to(self.rows)).to(w).reshape(-1, *self.shape)

    def invert(self, covariance: Any, noise: Tensor, v: Tensor) -> Tensor:
        return self.factor(covariance, noise).solve(v)

    def factor(self, covariance: Joint, noise: Tensor) -> Factor:
        """S = J C J' + R of each sample."""
        if self._last is None or self._last[0] is not covariance:
            pulled = covariance(self.rows.reshape(-1, *self.shape)).reshape(self.rows.shape)
            total = torch.einsum("nmd,nkd->nmk", self.rows, pulled) + torch.diag(noise.flatten().to(self.rows))
            root = torch.linalg.cholesky(total)

            def solve(v: Tensor) -> Tensor:
                return torch.cholesky_solve(v.flatten(1).to(root)[..., None], root).to(v).reshape(v.shape)

            determinant = 2.0 * root.diagonal(dim1=1, dim2=2).log().sum(1)
            self._last = (covariance, Factor(solve, determinant))
        return self._last[1]


@attrs.frozen(eq=False)
class Tangent:
    """An observation y (1, *seen) = f(z) + N(0, R) of joint samples. `benchmarks/parts/log_light.py` has one.

    Args:
        newton: Gauss-Newton steps of each level; fewer are cheaper, and linearise at less probable samples.
        halvings: of a step that leads nowhere.
        enough: squared standard deviations of the posterior; shorter steps are the last.
        tests: Metropolis tests of draws at the last level; more make draws those of f, at one evaluation of f each.
    """

    f: Callable[[Tensor], Tensor]
    y: Tensor
    noise: Tensor
    newton: int = 6
    halvings: int = 8
    enough: float = 1e-2
    tests: int = 20

    def at(self, at: Tensor) -> Evidence:
        """The linear observation that touches it at samples (n, K, *shape)."""
        pair, seen = linearise(self.f, at.float())
        linear: Linear = pair
        count = self.y.numel()
        if count <= SMALL and at.numel() * count <= KEPT:
            unit = torch.eye(count).to(seen).reshape(count, 1, *seen.shape[1:]).expand(count, *seen.shape)
            try:
                rows = torch.vmap(pair.adjoint)(unit)
            except RuntimeError:  # operations of the function that torch does not batch
                rows = torch.stack([pair.adjoint(one) for one in unit])
            linear = Rows(rows.flatten(2).transpose(0, 1).double(), at.shape[1:], seen.shape[1:])
        else:
            linear = in_single(pair)
        y = self.y.double() - seen.double() + linear.forward(at.double())
        return Evidence(linear, linear.forward, y, self.noise)

    def find_most_probable(self, x0: Tensor, covariance: Joint, start: Tensor | None = None) -> Tensor:
        """z* of the predictions x0; begins at `start`, where that is more probable than x0."""
        at = x0
        misfit = self._misfit(at, x0, covariance)
        if start is not None:
            other = self._misfit(start, x0, covariance)
            at = torch.where(as_column(other < misfit, at), start, at)
            misfit = torch.minimum(misfit, other)
        for _ in range(self.newton):
            # To the most probable z of the linear observation here, unless that is near
            linear = self.at(at)
            step = linear.condition(x0, covariance)[0] - at  # type: ignore[arg-type]
            length = _squares_of(step, covariance) + self._squares(linear.f(step), torch.zeros_like(self.y))
            is_moving = length > self.enough
            if not bool(is_moving.any()):
                break
            # Half of the step, and half of that, for samples that it does not improve
            for _ in range(self.halvings):
                found = self._misfit(at + step, x0, covariance)
                is_better = is_moving & (found < misfit)
                at = torch.where(as_column(is_better, at), at + step, at)
                misfit = torch.where(is_better, found, misfit)
                is_moving = is_moving & ~is_better
                if not bool(is_moving.any()):
                    break
                step = step / 2.0
        return at

    def test_draws(
        self, z: Tensor, linear: Evidence, draw: Callable[[], Tensor], uniform: Callable[[tuple[int, ...]], Tensor]
    ) -> Tensor:
        """Draws z of the linear observation, made those of this one by Metropolis tests against others of `draw`."""
        weight = self._log_weight(z, linear)
        for _ in range(self.tests):
            other = draw()
            found = self._log_weight(other, linear)
            accepted = uniform((len(z),)).log() < found - weight
            z = torch.where(as_column(accepted, z), other, z)
            weight = torch.where(accepted, found, weight)
        return z

    def _misfit(self, z: Tensor, x0: Tensor, covariance: Joint) -> Tensor:
        """-log N(z; m, C) N(y; f(z), R), up to a constant, (n,); infinite where f has no value."""
        return ((_squares_of(z - x0, covariance) + self._squares(self.f(z.float()), self.y)) / 2.0).nan_to_num(math.inf)

    def _log_weight(self, z: Tensor, linear: Evidence) -> Tensor:
        """log w, (n,)."""
        own = self._squares(self.f(z.float()), self.y)
        found = self._squares(linear.f(z), linear.y) - own
        return (found / 2.0).nan_to_num(-math.inf)

    def _squares(self, seen: Tensor, y: Tensor) -> Tensor:
        return ((seen.double() - y).square() / self.noise.double()).flatten(1).sum(1)


def linearise_at(
    evidence: Evidence | Tangent, x0: Tensor, covariance: Joint, start: Tensor | None = None
) -> tuple[Evidence, Tensor | None]:
    """The linear observation for each prediction x0 (n, K, *shape), and where it touches one that is not linear.

    >>> from energycomp_samplers.spread import Spread
    >>> seen = Tangent(lambda z: z[:, 0].square(), torch.full((1, 1), 4.0), torch.full((1, 1), 1e-4))
    >>> one = torch.ones(1)
    >>> _, at = linearise_at(seen, torch.ones(1, 1, 1), Joint([Spread(one)], one))
    >>> at.round(decimals=3)
    tensor([[[2.]]])
    """
    if isinstance(evidence, Evidence):
        return evidence, None
    at = evidence.find_most_probable(x0, covariance, start)
    return evidence.at(at), at


def _squares_of(v: Tensor, covariance: Joint) -> Tensor:
    """v' C^-1 v, (n,)."""
    return (v * covariance.apply(v, lambda precision: precision)).flatten(1).sum(1)


def in_single(pair: Pair) -> Pair:
    """A pair whose functions are given float32, as networks and physics take it.

    >>> pair = in_single(Pair(lambda z: z * torch.ones(1), lambda w: w))
    >>> pair.forward(torch.ones(1, dtype=torch.float64)).dtype
    torch.float64
    """
    return Pair(lambda z: pair.forward(z.float()).to(z), lambda w: pair.adjoint(w.float()).to(w))
