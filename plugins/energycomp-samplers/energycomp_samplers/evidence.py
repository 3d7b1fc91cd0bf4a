"""What an observation says of noised samples, by the formulas of `energycomp_samplers.observation`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from energycomp.errors import InputError
from energycomp.images import decoded
from energycomp.sampling import Target
from energycomp_samplers.curved import Fit, fit_line, points_of
from energycomp_samplers.operators import AnyCovariance, Linear, Pair, check_operator, linearise, solve

FAR = 4.0  # standard deviations of the noise: 6 of 100,000 numbers are beyond
MOST = 0.01  # share of what is seen that may be beyond
UNEXPLAINED = 5.0  # standard errors by which the squared residual may be larger than the noise
NARROW = 0.05  # share of the variance that may be lost: 2.5 % of a standard deviation
SEEN = 32  # numbers of an observation up to which an operator that is not linear is fitted by a line


@attrs.frozen(eq=False)
class Evidence:
    """Observations in the units of the noised space: y (1, *seen), noise R (1, *seen).

    Operators that are not linear, `linear` is None, are fitted by a line, see `energycomp_samplers.curved`: of up to 32
    numbers that are seen, at several points, with its curvature as noise; of more, by the derivative at the prediction.

    Args:
        f: samples (B, *shape) to what is seen of them.
        points: at which f is fitted. More of them follow a function that bends often, at as many evaluations of f.
        rounds: how often the line is fitted anew where y says the sample is, at the last level.
    """

    linear: Linear | None
    f: Callable[[Tensor], Tensor]
    y: Tensor
    noise: Tensor
    points: int = 16
    rounds: int = 2

    def condition(
        self, x0: Tensor, covariance: AnyCovariance, draw: Tensor | None = None, error: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """E[z | x, y] of x0 (B, *shape), and log p(y | x) up to a constant, (B,), in float64.

        With d of N(0, C), `draw`, and normal noise `error` (B, *seen) the first result is a draw of p(z | x, y).
        """
        if self._is_fitted:
            fit = self._fit(x0, covariance)
            return fit.condition(draw, error), fit.log_density()
        # What is seen of the prediction.
        linear = self.linear
        if linear is None:
            linear, seen = linearise(self.f, x0)
        else:
            seen = linear.forward(x0)
        noise = self.noise.to(x0)
        missed = self.y.to(x0) - seen
        if draw is not None and error is not None:
            missed = missed + noise.sqrt() * error - linear.forward(draw)
        # Correct it, by how sure it is.
        pulled = solve(linear, covariance, noise, missed)
        moved = covariance(linear.adjoint(pulled))
        log_density = -0.5 * (missed.double() * pulled.double()).flatten(1).sum(1)
        return x0 + moved if draw is None else x0 + draw + moved, log_density

    def draw(self, x0: Tensor, covariance: AnyCovariance, draw: Tensor, error: Tensor) -> tuple[Tensor, Tensor]:
        """A draw z of p(z | x, y), and its log weight, log p(y | z) p(z | x) minus that of its density, (B,)."""
        if not self._is_fitted:
            return self.condition(x0, covariance, draw, error)[0], self.condition(x0, covariance)[1]
        fit = self._fit(x0, covariance)
        # Fit the line anew at draws of p(z | x, y)
        offsets, errors = self._points(x0, covariance)
        for _ in range(self.rounds):
            around = []
            for offset, one in zip(offsets, errors, strict=True):
                around.append(offset + fit.move(fit.noise.sqrt() * one - fit.line.forward(offset)))
            fit = self._fit(x0, covariance, fit.condition(), torch.stack(around))
        # Draw, and weigh by what f itself says
        z = fit.condition(draw, error)
        y = self.y.flatten(1).double()
        right = y - self.f(z).flatten(1).double()
        lined = y - fit.line.at(z)
        noise = self.noise.flatten(1).double()
        proposed = (lined.square() / fit.noise + fit.noise.log()).sum(1)
        return z, fit.log_density() + 0.5 * (proposed - (right.square() / noise).sum(1))

    def slope(self, x0: Tensor, v: Tensor) -> Tensor:
        """A v, or J v of the derivative at samples, (B, K), of v (B, *shape)."""
        linear = linearise(self.f, x0)[0] if self.linear is None else self.linear
        return linear.forward(v).flatten(1)

    @property
    def _is_fitted(self) -> bool:
        return self.linear is None and self.y.numel() <= SEEN

    def _points(self, x0: Tensor, covariance: AnyCovariance) -> tuple[Tensor, Tensor]:
        """Points of N(0, C), (M, B, *shape), and normal ones (M, 1, K) of what is seen."""
        size = x0[0].numel()
        points = points_of(size + self.y.numel(), self.points).to(x0.device)
        each = [covariance.root(one[:size].to(x0).reshape(x0.shape[1:]).expand_as(x0)) for one in points]
        return torch.stack(each), points[:, None, size:].double()

    def _fit(
        self, x0: Tensor, covariance: AnyCovariance, centre: Tensor | None = None, offsets: Tensor | None = None
    ) -> Fit:
        """The line of f at points of N(m, C), or at others, and what y says by it."""
        offsets = self._points(x0, covariance)[0] if offsets is None else offsets
        line = fit_line(self.f, x0 if centre is None else centre, offsets)
        missed = self.y.flatten(1).double() - line.at(x0)
        return Fit(line, covariance, x0, missed, self.noise.flatten(1).double() + line.curvature)


@attrs.frozen(eq=False)
class _Stacked:
    """Several linear operators as one, whose results are flat and joined."""

    parts: Sequence[Linear]
    shapes: Sequence[torch.Size]

    def forward(self, z: Tensor) -> Tensor:
        return torch.cat([part.forward(z).flatten(1) for part in self.parts], dim=1)

    def adjoint(self, w: Tensor) -> Tensor:
        # A' w = sum of A_i' w_i, each of its own share of w
        split = w.split([math.prod(shape) for shape in self.shapes], dim=1)
        pulled = []
        for part, own, shape in zip(self.parts, split, self.shapes, strict=True):
            pulled.append(part.adjoint(own.unflatten(1, shape)))
        return torch.stack(pulled).sum(0)

    def invert(self, covariance: AnyCovariance, noise: Tensor, v: Tensor) -> None:
        """None: conjugate gradients."""


def join(parts: Sequence[Evidence]) -> Evidence:
    if len(parts) == 1:
        return parts[0]
    # Linear operators make a linear one; with another among them, all are linearised
    linear = [one.linear for one in parts if one.linear is not None]
    stacked = _Stacked(linear, [one.y.shape[1:] for one in parts]) if len(linear) == len(parts) else None

    def f(z: Tensor) -> Tensor:
        return torch.cat([one.f(z).flatten(1) for one in parts], dim=1)

    # What was seen, flat and joined as the operators join it
    y = torch.cat([one.y.flatten(1) for one in parts], dim=1)
    noise = torch.cat([one.noise.flatten(1) for one in parts], dim=1)
    return Evidence(stacked, f, y, noise, min(one.points for one in parts))


def bind(operator: Any, y: Tensor, std: Tensor, target: Target) -> Evidence:
    """One observation of the samples of a composition. Of samples z in (-r, r), operators see (z + r) / 2r. Raises
    `InputError` for shapes that do not fit, a failing operator, or a pair that is not linear.
    """
    decode = target.decode
    shape = tuple(target.noised_space.sample_shape)
    value_range = target.noised_space.value_range
    see = operator.forward if isinstance(operator, Linear) else operator
    # What is seen of a sample of the noised space, in its scale
    is_scaled = value_range is not None and decode is None
    scale = 1.0 / (2.0 * value_range[1]) if value_range is not None and is_scaled else 1.0
    middle = 0.5 if is_scaled else 0.0

    def f(z: Tensor) -> Tensor:
        data = z * scale + middle if decode is None else decoded(z, "pt", decode=decode, value_range=value_range)
        seen: Tensor = see(data)
        return seen / scale

    # Shapes, and what is seen of the middle of the value range.
    offset = check_operator(f, torch.zeros(1, *shape, device=target.device))
    y = y.to(offset)[None]
    if y.shape != offset.shape:
        got = f"got y of shape {tuple(y.shape[1:])}, where the operator sees {tuple(offset.shape[1:])} of a sample"
        raise InputError(f"{got} of shape {shape}; expected the same shape; change y or the operator")
    noise = (std.to(y)[None] / scale).square()
    # Functions are fitted, and behind a codec, which is dear, all operators by their derivative.
    if decode is not None:
        return Evidence(None, f, y / scale, noise, points=1)
    if see is operator:
        return Evidence(None, f, y / scale, noise)
    # Of the others the offset goes to y.
    if isinstance(operator, Pair):
        operator.check(shape, target.device)
    return Evidence(operator, see, y / scale - offset, noise)


def note_misses(evidence: Evidence, samples: Tensor, *, is_weighed: bool) -> list[str]:
    """A sentence where samples z (B, *shape) miss y by more than its noise."""
    # y - A(z) in standard deviations of the noise; a mask hides numbers, which have no residual
    with torch.no_grad():
        left = (evidence.y.to(samples) - evidence.f(samples)).double() / evidence.noise.to(samples).double().sqrt()
    left = left.flatten(1)
    left = left[:, (left != 0.0).any(0)]
    if left.numel() == 0:
        return []
    beyond = float((left.abs() > FAR).double().mean())
    excess = float(left.square().mean()) - 1.0
    if beyond <= MOST and excess <= UNEXPLAINED * (2.0 / left.shape[1]) ** 0.5:
        return []
    missed = (
        f"samples miss the observation: {beyond:.2g} of what is seen of them is more than {FAR:g} std from y, and the "
        f"squared residual is {1.0 + excess:.3g} times the noise"
    )
    better = "use more particles or steps" if is_weighed else "use sampler='smc'"
    return [f"{missed}; {better}, unless the components contradict y, or std is too small"]


def note_narrow(evidence: Evidence, samples: Tensor, covariance: AnyCovariance, *, is_weighed: bool) -> list[str]:
    """A sentence where samples that ended at a mean lack much of the variance C that y leaves at the last level."""
    # J C J' beside R, for each number that is seen: the mean of z given y lacks their harmonic sum
    random = torch.Generator().manual_seed(0)
    draw = covariance.root(torch.randn(samples.shape, generator=random).to(samples))
    seen = evidence.slope(samples, draw).double().square().mean(0)
    noise = evidence.noise.flatten().double().to(seen)
    share = (seen / (seen + noise))[seen > 0.0]
    if share.numel() == 0 or (lost := float(share.mean())) <= NARROW:
        return []
    better = "SMC(last='draw')" if is_weighed else "Gauss(last='draw')" if evidence.linear else "sampler='smc'"
    left = (lost / (1.0 - lost)) ** 0.5
    ended = f"samples ended at the mean of what the last noise level leaves open, which is {left:.2g} times std"
    near = f"they are too near to each other, about {(1.0 - lost) ** 0.5:.2g} of their distance in what is seen"
    return [f"{ended}: {near}; use {better}, or more steps"]
