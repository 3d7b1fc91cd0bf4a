"""How sure components are: covariances of clean samples by Tweedie's second formula, of the constant kind.

Notation: variable -> symbol
    x0, J           m, the prediction of x_0, and dm / dx at timestep t
    values, vectors eigenvalues and eigenvectors of P = Cov[x_0]^-1
    ratio           alpha_bar_t / (1 - alpha_bar_t)

    Cov[x_0 | x_t] = (1 - alpha_bar_t) / sqrt(alpha_bar_t) J         (Tweedie's second formula)
    Cov[x_0 | x_t] = (ratio I + P)^-1                                (the constant kind: exact for Gaussians)

P is measured once for each component, by the first formula where noise is strong, and solved for by the second. The
conditional covariance of a density of several modes depends on x_t; the constant kind has its mean.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import attrs
import torch
from torch import Tensor

from energycomp.components import Composition, unwrap
from energycomp.components.groups import rewrap
from energycomp.denoisers import Conditional
from energycomp.errors import InputError
from energycomp.sampling import Level, Target
from energycomp_samplers.stationary import ring_variances

MOST = 32  # numbers of a sample up to which the whole covariance is measured; above, one variance, and a spectrum
STRONG = 0.05  # alpha_bar_t where it is measured
MILDER = (0.2, 0.5, 0.8)  # alpha_bar_t where it is measured if it is in doubt there
DOUBT = 0.1  # relative error of measured precisions
POINTS = 4  # noised samples at which J is measured
PROBES = 8  # random directions in which one variance is measured
LEAST = 1e-5  # of measured variances
NEGATIVE = 0.1  # share of the largest variance by which a measured one may be below 0
SMALL = 1e-3  # eigenvalues of a product below this share of the least of its components count as not above 0


@attrs.frozen(eq=False)
class Spread:
    """The precision P of clean samples of D numbers, in float64.

    Args:
        values: eigenvalues (D,), or (1,) where all are the same; or (B, D), of each sample.
        vectors: eigenvectors (D, D), or (B, D, D), as columns; None where P is diagonal.
        problem: why it could not be measured; it is that of variance 1 then.
        doubt: the largest relative error of measured values, by `asymmetry`.
        spectrum: of images, the precision of each Fourier coefficient (C, H, W), see `energycomp_samplers.stationary`.

    >>> Spread(torch.tensor([4.0])).covariance(torch.tensor([1.0]))(torch.ones(1, 3))
    tensor([[0.2000, 0.2000, 0.2000]])
    """

    values: Tensor
    vectors: Tensor | None = None
    problem: str = ""
    doubt: float = 0.0
    spectrum: Tensor | None = None

    @classmethod
    def of_variance(cls, variance: float | Tensor, shape: Sequence[int]) -> Spread:
        """Of one variance, or of one for each number of a sample; raises `InputError` for another number of them."""
        values = torch.as_tensor(variance, dtype=torch.float64)
        try:
            values = values if values.numel() == 1 else values.expand(tuple(shape))
        except RuntimeError:
            got = f"got a variance of shape {tuple(values.shape)} for samples of shape {tuple(shape)}"
            raise InputError(f"{got}; expected one number, or one for each; change variance=") from None
        return cls(1.0 / (values.flatten()))

    def apply(self, v: Tensor, factor: Callable[[Tensor], Tensor]) -> Tensor:
        """V f(values) V' v of vectors v (B, *shape)."""
        flat = v.flatten(1).double()
        scale = factor(self.values.to(v.device))
        if self.vectors is None:
            return (flat * scale).to(v.dtype).reshape(v.shape)
        # Into the basis of the eigenvectors, scaled there, and back
        basis = self.vectors.to(flat)
        turned = (flat[:, None] @ basis) * scale[..., None, :]
        return (turned @ basis.mT).to(v.dtype).reshape(v.shape)

    def matrix(self, size: int) -> Tensor:
        """P, (D, D), or (B, D, D)."""
        if self.vectors is None:
            return torch.diag(self.values.expand(size))
        return self.vectors * self.values[..., None, :] @ self.vectors.mT

    def covariance(self, ratio: Tensor) -> Covariance:
        """(ratio I + P)^-1 at the noise levels (B,), or (1,), of samples."""
        return Covariance(self, ratio.double()[:, None])


@attrs.frozen(eq=False)
class Covariance:
    """C = Cov[x_0 | x_t] of samples (B, *shape), each at its noise level (B, 1). Called with v, it returns C v."""

    spread: Spread
    ratio: Tensor

    def __call__(self, v: Tensor) -> Tensor:
        return self.spread.apply(v, lambda values: 1.0 / (self.ratio.to(v.device) + values))

    def root(self, v: Tensor) -> Tensor:
        return self.spread.apply(v, lambda values: (self.ratio.to(v.device) + values).rsqrt())

    def diagonal(self, like: Tensor, shape: Sequence[int]) -> Tensor | None:
        """The diagonal of C, (B, *shape) or with axes of size 1 where all are the same; None where C has others."""
        if self.spread.vectors is not None:
            return None
        values = (1.0 / (self.ratio + self.spread.values)).to(like)
        return values.reshape(-1, *([1] * len(shape) if values.shape[1] == 1 else shape))


def ratio_of(level: Level, like: Tensor) -> Tensor:
    """alpha_bar / (1 - alpha_bar), (1,), in float64."""
    return torch.tensor([level.alpha / (1.0 - level.alpha)], dtype=torch.float64, device=like.device)


def product_spread(spreads: Sequence[Spread], weights: Sequence[float], size: int) -> tuple[Spread, bool]:
    """P = sum_i b_i P_i of components, of D numbers, and whether it is a precision as it stands.

    Where an eigenvalue is not above 0, as where a negated component is surer than the others, eigenvalues are at least
    the least of the components of positive weight. All are that where a component could not be measured.
    """
    pairs = list(zip(weights, spreads, strict=True))
    least = min((float(one.values.min()) for b, one in pairs if b > 0.0), default=1.0)
    # Without a measurement nothing is known: as wide as the least sure component
    if any(one.problem for one in spreads):
        return Spread(torch.tensor([least], dtype=torch.float64)), False
    # The sum: of numbers where all are in one basis, otherwise of matrices
    if all(one.vectors is None for one in spreads):
        values: Any = sum(b * one.values for b, one in pairs)
        total = Spread(values)
    else:
        matrix: Any = sum(b * one.matrix(size) for b, one in pairs)
        total = Spread(*torch.linalg.eigh(matrix.double()))
    # A precision as it stands, or one that is made so
    if bool((total.values > SMALL * least).all()):
        return total, True
    return Spread(total.values.clamp(min=least), total.vectors), False


# The spreads that were measured, as long as their component lives.
_kept: WeakKeyDictionary[Any, Spread] = WeakKeyDictionary()


def measure_spreads(target: Target) -> list[Spread]:
    """The spread of every leaf of a composition, measured once and kept.

    Costs 8 D evaluations of each leaf of D <= 32 numbers, and 16 of one of more numbers. Leaves whose measured J is not
    symmetric, by the errors of a network, cost as many again at less noise, up to 32 D.

    >>> from energycomp.components import Gaussian
    >>> (1.0 / measure_spreads(Target(Gaussian(0.5, 0.25)))[0].values).round(decimals=3)
    tensor([0.2500], dtype=torch.float64)
    """
    leaves = list(target.composition.terms)
    # Measure those that are not known yet, in one batch, without weights and guidance
    missing = [leaf for leaf in leaves if leaf not in _kept]
    if missing:
        of_missing = Composition([(_with_first_condition(leaf), 1.0) for leaf in missing])
        measured = _measure(attrs.evolve(target, composition=of_missing, guide=None))
        _kept.update(zip(missing, measured, strict=True))
    return [_kept[leaf] for leaf in leaves]


def spreads_for(target: Target, got: str, instead: str) -> list[Spread]:
    """`measure_spreads`; raises `InputError` for a leaf without a covariance."""
    spreads = measure_spreads(target)
    for one in spreads:
        if one.problem:
            raise InputError(f"got {got}, but {one.problem}; {instead}")
    return spreads


def _with_first_condition(leaf: Any) -> Any:
    bare = unwrap(leaf)
    if not isinstance(bare, Conditional) or len(bare.condition) == 1:
        return leaf
    return rewrap(leaf, attrs.evolve(bare, condition=bare.condition[:1]))


def alpha_at(target: Target, timestep: float) -> float:
    return float(torch.sigmoid(target.log_snr(torch.tensor([timestep]))))


def noisiest_timestep(target: Target, least: float = STRONG) -> float:
    return float((target.noised_space.alphas_cumprod >= least).sum().clamp(min=1) - 1)


def asymmetry(covariance: Tensor) -> Tensor:
    """How far covariances (..., D, D) are from symmetric, as those of a density are: the error of an eigenvalue."""
    return (covariance - covariance.mT).flatten(-2).norm(dim=-1) / (2.0 * covariance.shape[-1] ** 0.5)


@torch.no_grad()
def _measure(target: Target) -> list[Spread]:
    """The spread of every leaf, where noise is strong; at less noise where that is in doubt."""
    spreads = _measure_at(target, STRONG)
    for least in MILDER:
        doubted = [place for place, one in enumerate(spreads) if one.doubt > DOUBT]
        if not doubted:
            break
        # Keep of both measurements what is less in doubt
        leaves = list(target.composition.terms)
        rest = attrs.evolve(target, composition=Composition([(leaves[place], 1.0) for place in doubted]))
        for place, one in zip(doubted, _measure_at(rest, least), strict=True):
            spreads[place] = min(spreads[place], one, key=lambda spread: spread.doubt)
    return spreads


def covariance_along(target: Target, x: Tensor, probes: Tensor, timestep: float, step: float = 1.0) -> Tensor:
    """C v of each leaf, (K, n, D), at samples x (n, *shape), by Tweedie's second formula.

    J v is a central difference of predictions along the directions `probes`, v times `step`.
    """
    alpha = alpha_at(target, timestep)
    ends = torch.cat([x + probes, x - probes])
    rows = torch.full((len(ends),), timestep, device=ends.device)
    above, below = target.predict(ends, rows, prediction_type="sample").flatten(2).double().chunk(2, dim=1)
    return (1.0 - alpha) / alpha**0.5 * (above - below) / (2.0 * step)


def _measure_at(target: Target, least: float) -> list[Spread]:
    """The spread of every leaf, by differences of predictions at the noisiest level of at least this alpha_bar."""
    shape = tuple(target.noised_space.sample_shape)
    size = math.prod(shape)
    timestep = noisiest_timestep(target, least)
    # Directions: all, from each of a few noised samples; or random ones, each from a noised sample of its own.
    random = torch.Generator().manual_seed(0)
    whole = size <= MOST
    if whole:
        points = torch.randn(POINTS, size, generator=random).repeat_interleave(size, dim=0)
        probes = torch.eye(size).repeat(POINTS, 1)
    else:
        points = torch.randn(PROBES, size, generator=random)
        probes = torch.randint(0, 2, (PROBES, size), generator=random) * 2.0 - 1.0

    # C v of each direction v.
    x, v = (one.reshape(-1, *shape).to(target.device) for one in (points, probes))
    moved = covariance_along(target, x, v, timestep).cpu()

    # C, the mean over the points; or one variance, v' C v / D in the mean over random v (Hutchinson, 1990).
    variance = (moved * probes).mean((1, 2)).reshape(-1, 1, 1)
    measured = moved.unflatten(1, (POINTS, size)).mean(1) if whole else variance
    alpha = alpha_at(target, timestep)
    ratio = alpha / (1.0 - alpha)
    spreads = [_of_matrix(leaf, one, ratio) for leaf, one in zip(target.composition.terms, measured, strict=True)]
    if whole or len(shape) != 3 or target.decode is not None:
        return spreads
    # Of images in pixels, each ring of frequencies, too; behind a codec every step of conjugate gradients is dear
    for place, one in enumerate(moved):
        spectrum = ring_variances(probes.reshape(-1, *shape), one.reshape(-1, *shape))
        precision = 1.0 / spectrum.clamp(LEAST, 0.999 / ratio) - ratio
        spreads[place] = attrs.evolve(spreads[place], spectrum=precision)
    return spreads


def _of_matrix(leaf: Any, covariance: Tensor, ratio: float) -> Spread:
    """The spread of a leaf for its measured C, at a noise level."""
    # No density has such a covariance: nothing varies, or a variance is below 0 by more than an error of a network
    values, vectors = torch.linalg.eigh((covariance + covariance.mT) / 2.0)
    least = float(values.min())
    most = float(values.max())
    if most < LEAST or least < -NEGATIVE * most:
        got = f"{leaf!r} has no covariance: its predictions at strong noise give variances from {least:.2g} to"
        return Spread(torch.ones(1, dtype=torch.float64), problem=f"{got} {most:.2g}", doubt=math.inf)
    # What is below the error of the measurement is no variance.
    error = float(asymmetry(covariance))
    values = values.clamp(max(LEAST, min(error, most)), 0.999 / ratio)
    # P = C^-1 - ratio I, and how much the error changes it: dP / P = error / (C (1 - ratio C))
    doubt = float((error / (values * (1.0 - ratio * values))).max())
    return Spread(1.0 / values - ratio, None if len(values) == 1 else vectors, doubt=doubt)
