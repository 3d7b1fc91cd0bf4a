"""Operators that are not linear, as lines that fit them where clean samples are expected (statistical linearisation).

Notation: variable -> symbol
    f, z            the operator, and a clean sample of N(m, C)
    centre, offsets c, and d_j: f is fitted at the points c + d_j
    matrix          J = mean_j f'(c + d_j), which is Cov[f(z), z] C^-1 by Stein's lemma
    seen            mean_j f(c + d_j)
    curvature       the diagonal of what the line misses, mean_j (f(c + d_j) - seen - J d_j)^2

    f(z) = seen + J (z - c) + e,  e ~ N(0, curvature)

With one point this is the derivative. At high noise levels the derivative at m says too much: of sin(3 z), for z of
N(0, 1), it says that y fixes z, while y fits several z. There J is near 0, and the curvature is the variance of f.
Where C is small, J is the derivative and the curvature is 0.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import attrs
import torch
from torch import Tensor

from energycomp.errors import InputError
from energycomp_samplers.factor import Cholesky


@attrs.frozen(eq=False)
class Line:
    """f(z) = seen + J (z - centre) + N(0, curvature) of samples (B, *shape), in float64."""

    centre: Tensor
    matrix: Tensor
    seen: Tensor
    curvature: Tensor

    def forward(self, z: Tensor) -> Tensor:
        """J z, (..., B, K), of (..., B, *shape)."""
        flat = z.double().flatten(1 - self.centre.ndim)
        return (self.matrix @ flat[..., None])[..., 0]

    def at(self, z: Tensor) -> Tensor:
        return self.seen + self.forward(z - self.centre)


@attrs.frozen(eq=False)
class Fit:
    """A line under noise and samples of N(m, C); `missed` is y less what the line sees of m, `noise` R + curvature."""

    line: Line
    covariance: Any
    x0: Tensor
    missed: Tensor
    noise: Tensor

    @cached_property
    def factor(self) -> Cholesky:
        """S = J C J' + R of each sample."""
        rows = [self.covariance(row.to(self.x0).reshape(self.x0.shape)) for row in self.line.matrix.unbind(1)]
        inner = torch.stack([self.line.forward(row) for row in rows], dim=2)
        return Cholesky.of((inner + inner.mT) / 2.0 + torch.diag_embed(self.noise))

    def move(self, missed: Tensor) -> Tensor:
        """C J' S^-1 of what is missed (B, K), (B, *shape)."""
        back = (self.line.matrix.mT @ self.factor.solve(missed)[..., None])[..., 0]
        return self.covariance(back.to(self.x0).reshape(self.x0.shape))

    def condition(self, draw: Tensor | None = None, error: Tensor | None = None) -> Tensor:
        """The mean of p(z | x, y); a draw of it by d of N(0, C), (B, *shape), and normal noise (B, *seen)."""
        if draw is None or error is None:
            return self.x0 + self.move(self.missed)
        missed = self.missed + self.noise.sqrt() * error.flatten(1) - self.line.forward(draw)
        return self.x0 + draw + self.move(missed)

    def log_density(self) -> Tensor:
        """log N(y; seen, S), (B,), without its constant."""
        return -0.5 * self.factor.whiten(self.missed).square().sum(1) - self.factor.log_determinant / 2.0


def points_of(size: int, count: int) -> Tensor:
    """Normal points (count, size), the same in each run: each number has as many quantiles (Latin hypercube), and -p
    is a point where p is. Of one point, the mean.
    """
    half = count // 2
    if half == 0:
        return torch.zeros(1, size)
    random = torch.Generator().manual_seed(0)
    lengths = torch.special.ndtri((torch.arange(half) + half + 0.5) / (2 * half))
    lengths = lengths / lengths.square().mean().sqrt()
    places = torch.rand(size, half, generator=random).argsort(1)
    signs = torch.randint(0, 2, (size, half), generator=random) * 2.0 - 1.0
    points = (lengths[places] * signs).T
    return torch.cat([points, -points])


def fit_line(f: Callable[[Tensor], Tensor], centre: Tensor, offsets: Tensor) -> Line:
    """The line of f about samples (B, *shape), for offsets (M, B, *shape). Costs 2 M evaluations of f, and K gradients.

    Where f is not finite at a point, the line of that sample is its derivative.
    """

    def values(points: Tensor) -> Tensor:
        found = f(points.flatten(0, 1))
        return found.reshape(*points.shape[:2], -1).double()

    # Leave the samples alone at which f cannot be averaged
    with torch.no_grad():
        finite = values(centre + offsets).isfinite().all(2).all(0)
    offsets = torch.where(finite.reshape(-1, *[1] * (centre.ndim - 1)), offsets, 0.0)
    # The derivative of the mean is the mean derivative
    with torch.enable_grad():
        at = centre.detach().requires_grad_()
        each = values(at + offsets)
        if not each.requires_grad:
            raise InputError("got an operator without a gradient; expected torch operations on samples; correct it")
        mean = each.mean(0)
        rows = []
        for one in mean.unbind(1):
            (row,) = torch.autograd.grad(one.sum(), at, retain_graph=True, materialize_grads=True)
            rows.append(row.double().flatten(1))
    line = Line(centre, torch.stack(rows, dim=1), mean.detach(), torch.zeros_like(mean))
    # What the line misses
    left = each.detach() - line.seen - line.forward(offsets)
    return attrs.evolve(line, curvature=left.square().mean(0))
