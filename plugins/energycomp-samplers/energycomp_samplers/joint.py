"""Several clean samples z_1 ... z_K of one observation y = sum_k A_k z_k + noise, as one joint sample (B, K, *shape).

Notation: variable -> symbol
    Joint           C, block-diagonal: C_k of each source, see `energycomp_samplers.spread`
    Sum             A = (A_1, ..., A_K)
    total           S = sum_k A_k C_k A_k' + R
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from energycomp.errors import InputError
from energycomp_samplers.evidence import Evidence
from energycomp_samplers.factor import Cholesky, ClosedForm
from energycomp_samplers.operators import Gain, Linear, Pair
from energycomp_samplers.spread import Covariance, Spread

DENSE = 2048  # numbers of an observation, and of a sample, up to which S is a matrix
SMALL = 256  # the same of functions, which have a matrix for each sample
KEPT = 2**24  # numbers of matrices that are kept for other sets of sources: 128 MB


def group_alike(items: Sequence[Any]) -> list[tuple[Any, list[int]]]:
    """The different objects of a list, each with its places."""
    places: dict[int, list[int]] = {}
    for place, item in enumerate(items):
        places.setdefault(id(item), []).append(place)
    return [(items[own[0]], own) for own in places.values()]


@attrs.frozen(eq=False)
class Joint:
    """C of joint samples at one noise level; ratio (1,)."""

    spreads: Sequence[Spread]
    ratio: Tensor

    def apply(self, v: Tensor, factor: Callable[[Tensor], Tensor]) -> Tensor:
        # Sources of one spread are one batch
        ratio = self.ratio.to(v)
        result = torch.empty_like(v)
        for spread, places in group_alike(self.spreads):
            part = spread.apply(v[:, places].flatten(0, 1), lambda p: factor(ratio + p))
            result[:, places] = part.unflatten(0, (len(v), -1))
        return result

    def __call__(self, v: Tensor) -> Tensor:
        return self.apply(v, torch.reciprocal)

    def root(self, v: Tensor) -> Tensor:
        return self.apply(v, torch.rsqrt)


@attrs.define(eq=False)
class Sum:
    """The operator sum_k A_k z_k; `kept` has the matrices A_k C_k A_k', which other sums of the same sources share."""

    operators: Sequence[Linear]
    shape: Sequence[int]
    kept: dict[Any, Tensor] = attrs.field(factory=dict)
    _last: tuple[Joint, Cholesky | ClosedForm | None] | None = None

    def forward(self, z: Tensor) -> Tensor:
        # Sources of one operator are added before it: A z_1 + A z_2 = A (z_1 + z_2)
        parts = [one.forward(z[:, places].sum(1)) for one, places in group_alike(self.operators)]
        return torch.stack(parts).sum(0)

    def adjoint(self, w: Tensor) -> Tensor:
        back = w.new_empty(len(w), len(self.operators), *self.shape)
        for one, places in group_alike(self.operators):
            back[:, places] = one.adjoint(w)[:, None]
        return back

    def invert(self, covariance: Any, noise: Tensor, v: Tensor) -> Tensor | None:
        factor = self.factor(covariance, noise)
        return None if factor is None else factor.solve(v)

    def factor(self, covariance: Joint, noise: Tensor) -> Cholesky | ClosedForm | None:
        """S in closed form, or as a matrix; None where it has too many numbers."""
        # A step asks for the factor of one level several times
        if self._last is None or self._last[0] is not covariance:
            self._last = (covariance, self._factor(covariance, noise.double()))
        return self._last[1]

    def _factor(self, covariance: Joint, noise: Tensor) -> Cholesky | ClosedForm | None:
        ratio = covariance.ratio.to(noise)
        spreads = covariance.spreads
        numbers = noise.numel()
        gains = [one.gain.to(noise) for one in self.operators if isinstance(one, Gain)]
        variances = [1.0 / (ratio + spread.values.to(noise)) for spread in spreads]
        if len(gains) == len(self.operators):
            # Diagonal: sources whose numbers do not depend on each other, each seen by itself.
            if all(spread.vectors is None for spread in spreads):
                each = [v if len(v) == 1 else v.reshape(1, *self.shape) for v in variances]
                terms = [(a.square() * v).expand_as(noise) for a, v in zip(gains, each, strict=True)]
                diagonal = torch.stack(terms).sum(0) + noise
                return ClosedForm(lambda v: v / diagonal, float(diagonal.log().sum()))
            # One basis: all sources have one covariance, and noise is the same everywhere.
            basis = spreads[0]
            is_one = all(spread is spreads[0] for spread in spreads)
            if is_one and all(a.numel() == 1 for a in gains) and bool((noise == noise.flatten()[0]).all()):
                power = float(torch.stack([a.square().sum() for a in gains]).sum())
                values = power * variances[0] + noise.flatten()[0]
                return ClosedForm(lambda v: basis.apply(v, lambda _: 1.0 / values), float(values.log().sum()))
        # A matrix, where it is small enough.
        size = math.prod(self.shape)
        return self._dense(covariance, noise) if max(numbers, size) <= DENSE else None

    def _dense(self, covariance: Joint, noise: Tensor) -> Cholesky:
        """S = sum_k A_k C_k A_k' + R as a matrix; what each source adds is kept for its level."""
        total = torch.diag(noise.flatten())
        for one, spread in zip(self.operators, covariance.spreads, strict=True):
            key = (id(one), id(spread), float(covariance.ratio))
            if key not in self.kept:
                if (len(self.kept) + 1) * noise.numel() ** 2 > KEPT:
                    self.kept.clear()
                self.kept[key] = self._observe(one, spread.covariance(covariance.ratio), noise)
            total = total + self.kept[key]
        return Cholesky.of(total)

    def _observe(self, operator: Linear, covariance: Covariance, like: Tensor) -> Tensor:
        """A C A' of one source, (seen, seen)."""
        size = math.prod(self.shape)
        unit = torch.eye(size, dtype=like.dtype, device=like.device).reshape(size, *self.shape)
        # C A', whose columns are samples: A of each is A C A'.
        pulled = operator.forward(covariance(unit)).flatten(1)
        return operator.forward(pulled.T.reshape(-1, *self.shape)).flatten(1)


def log_density(evidence: Evidence, x0: Tensor, covariance: Joint, *, normalised: bool = True) -> Tensor:
    """log N(y; A x0, S), (n,); raises `InputError` where its determinant is wanted and S has too many numbers."""
    # The exponent of the Gaussian: log p without its normalisation
    _, exponent = evidence.condition(x0, covariance)  # type: ignore[arg-type]
    linear: Any = evidence.linear
    # Less (log |S| + n log 2 pi) / 2, where |S| is known
    factor = None if isinstance(linear, Pair) else linear.factor(covariance, evidence.noise)
    if factor is not None:
        return exponent - 0.5 * (factor.log_determinant + evidence.y.numel() * math.log(2.0 * math.pi))
    if normalised:
        raise InputError(
            f"got several sets of sources, whose evidence takes matrices of more than {DENSE} x {DENSE} numbers, or of "
            f"{SMALL} x {SMALL} for functions; expected one count, or numbers as operators= and one variance for each "
            "number"
        )
    return exponent
