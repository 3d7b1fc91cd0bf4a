"""Observations y = A z + noise of a clean sample z, as factors of a composition: `scene & observe(A, y, std)`.

Notation: variable -> symbol
    x, z            a noised sample x_t, and its clean sample x_0
    x0              m = E[z | x], the prediction of the composition without observations
    covariance      C = Cov[z | x], see `energycomp_samplers.spread`, and of images `energycomp_samplers.stationary`
    operator, noise A, and R = diag(std^2)

    E[z | x, y] = m + C A' (A C A' + R)^-1 (y - A m)
    p(y | x) = N(y; A m, A C A' + R)
    z = m + d + C A' (A C A' + R)^-1 (y + e - A (m + d)),  d ~ N(0, C), e ~ N(0, R), is a draw of p(z | x, y)

Exact where z is Gaussian. With C = r^2 I and one operator this is PiGDM (Song et al., 2023) without its derivative of
the network. A line that fits it stands for an operator that is not linear, see `energycomp_samplers.curved`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from energycomp.components import AnyWeight, Composition, Weight, bounds, predict
from energycomp.components.algebra import combine, is_term, sole_leaf
from energycomp.components.terms import add_terms
from energycomp.errors import CompositionError, InputError
from energycomp.sampling import Target
from energycomp_samplers.composed_group import ComposedGroup, ComposedLeaf
from energycomp_samplers.evidence import Evidence, bind, join, note_misses, note_narrow
from energycomp_samplers.kernels import clip
from energycomp_samplers.operators import Blur, Gain, Pair, Pool, as_noise, as_numbers, check_reach
from energycomp_samplers.spread import Spread, product_spread, spreads_for
from energycomp_samplers.stationary import Stationary, product_stationary


@attrs.frozen(eq=False, repr=False)
class Observation:
    """What `observe` makes: a factor p(y | z), to be composed by `&`."""

    operator: Any
    y: Tensor
    std: Tensor
    variance: float | Tensor | None = None

    def __and__(self, other: Any) -> Observed:
        if not is_term(other):
            return NotImplemented
        leaf = sole_leaf(other)
        if isinstance(leaf, Observed):
            return Observed(leaf.composition, (*leaf.observations, self))
        return Observed(Composition.of(other), (self,))

    __rand__ = __and__

    def __repr__(self) -> str:
        return f"observed {tuple(self.y.shape)}"


def observe(operator: Any, y: Any, std: float | Tensor, *, variance: float | Tensor | None = None) -> Observation:
    """An observation of clean samples z, whose model is y = A z + N(0, std^2): a factor for `scene & seen`.

    The default sampler follows its conditional mean, "gauss" draws from the formulas above, and `SMC` corrects both by
    weights. Costs once 16 evaluations of each leaf, or 8 D for samples of D <= 32 numbers, which measure the variance.

    Args:
        operator: A. A tensor of 0 and 1 is a mask; `pool` and `blur` are others in closed form. A pair (A, A') of
            functions of batches is linear, such as `(physics.A, physics.A_adjoint)` of deepinv. One function of batches
            may be any, of torch. Batches are clean samples as `Composer.sample(output_type="pt")` gives them: images in
            [0, 1], latents decoded.
        y: what was observed of one sample, without a batch axis; of a mask, of the shape of a sample.
        std: of the noise, above 0: a number, or one for each number of y.
        variance: of the numbers of clean samples (images are in [-1, 1] there): one, or one for each; measured when
            left out, of images for each spatial frequency.

    Raises:
        InputError: numbers that are not finite, a std that is not above 0, a pair that is not linear, or shapes that
            do not fit, which `&` finds.

    >>> from energycomp import Composer
    >>> from energycomp.testing import Gaussian
    >>> seen = Gaussian(0.0, 1.0) & observe(torch.ones(1, 1, 1), torch.full((1, 1, 1), 2.0), std=0.5**0.5)
    >>> x = Composer(seen).sample(5000, sampler="gauss", output_type="pt", generator=0, progress=False)
    >>> abs(x.mean() - 4 / 3) < 0.03, abs(x.var() - 1 / 3) < 0.03
    (tensor(True), tensor(True))
    """
    made = as_operator(operator)
    y = as_numbers(y, "y", "give what was observed as a tensor, an array or a list")
    # A mask says which numbers were seen; the others may be anything.
    if isinstance(made, Gain):
        try:
            y = torch.where(made.gain.to(y.device).expand(y.shape) > 0, y, 0.0)
        except RuntimeError:
            got = f"got a mask of shape {tuple(made.gain.shape)} for y of shape {tuple(y.shape)}"
            raise InputError(f"{got}; expected y of the shape of a sample, 0 where it was not seen") from None
    check_reach(y, "y")
    std = as_noise(std, y, "std", "y")
    if variance is not None:
        given = as_numbers(variance, "variance", "leave it out to have it measured")
        if not bool((given.isfinite() & (given > 0)).all()):
            got = f"got variance={float(given.min()):g}"
            raise InputError(f"{got}; expected finite numbers above 0; leave it out to have it measured")
    return Observation(made, y, std, variance)


def pool(size: int) -> Pool:
    """The operator that averages blocks of size x size pixels, for `observe`: an image of lower resolution.

    >>> pool(2).forward(torch.tensor([[[1.0, 3.0], [5.0, 7.0]]]))
    tensor([[[4.]]])
    """
    return Pool(size)


def blur(kernel: Tensor) -> Blur:
    """The operator that convolves the last two axes with a kernel (h, w), for `observe`. Edges are joined (circular).

    >>> box = torch.full((1, 3), 1 / 3)
    >>> blur(box).forward(torch.tensor([[[3.0, 0.0, 0.0, 0.0]]])).round(decimals=3)
    tensor([[[1., 1., 0., 1.]]])
    """
    given: Any = kernel
    is_kernel = isinstance(given, Tensor) and given.ndim == 2 and not given.is_complex()
    if not is_kernel or not bool(given.isfinite().all()):
        got = f"{given.dtype} {tuple(given.shape)}" if isinstance(given, Tensor) else repr(given)
        raise InputError(f"got the kernel {got}; expected a tensor (h, w) of finite real numbers; change it")
    return Blur(kernel.detach().float())


def as_operator(given: Any) -> Any:
    """A linear operator, or a function, of what `observe` takes."""
    if isinstance(given, Gain | Pool | Blur | Pair):
        return given
    if isinstance(given, Tensor):
        mask = as_numbers(given.float() if given.dtype == torch.uint8 else given, "a mask", "give 0 and 1")
        if not bool(((mask == 0) | (mask == 1)).all()):
            raise InputError("got a tensor that is no mask; expected 0 and 1; give other operators as a pair (A, A')")
        return Gain(mask)
    if isinstance(given, tuple) and len(given) == 2 and all(map(callable, given)):
        return Pair(*given)
    if callable(given):
        return given
    got = f"got the operator {given!r}"
    raise InputError(f"{got}; expected a mask, pool(k), blur(kernel), a pair (A, A') of functions, or one function")


def evidence_of(observations: Sequence[Observation], target: Target) -> Evidence:
    """Observations of the samples of a composition; raises `InputError` where shapes do not fit."""
    return join([bind(one.operator, one.y, one.std, target) for one in observations])


def given_variance(observations: Sequence[Observation]) -> float | Tensor | None:
    """The one variance of clean samples that observations were given; raises `InputError` where they differ."""
    given = [one.variance for one in observations if one.variance is not None]
    if not given:
        return None
    first, *others = (torch.as_tensor(one).double().cpu() for one in given)
    if not all(torch.equal(first, other) for other in others):
        got = "got observations with variances of the same samples that differ"
        raise InputError(f"{got}; expected one; give observe(..., variance=) once")
    return given[0]


def spread_of(target: Target, variance: float | Tensor | None) -> Spread | Stationary:
    """The spread of the clean samples of a composition: given, or that of the product of its leaves."""
    space = target.noised_space
    if variance is not None:
        return Spread.of_variance(variance, space.sample_shape)
    if any(isinstance(weight, Weight) and weight.samples for weight in target.composition.terms.values()):
        got = f"got an observation of {target.composition!r}, one composition for each sample"
        raise InputError(f"{got}; expected each with its own; give per_sample([a & seen, b & seen])")
    try:
        weights = target.weights_at(0.0)
    except InputError as error:
        got = f"got {target.composition!r}, whose weights vary, and no variance of its samples"
        raise InputError(f"{got}; expected one; give observe(..., variance=)") from error
    spreads = observed_spreads(target)
    return stationary_of(spreads, weights) or product_spread(spreads, weights, math.prod(space.sample_shape))[0]


def observed_spreads(target: Target) -> list[Spread]:
    """The spread of every leaf, which an observation needs."""
    return spreads_for(target, "an observation of a component", "give observe(..., variance=)")


def stationary_of(spreads: Sequence[Spread], weights: Sequence[float]) -> Stationary | None:
    """The precision of a product of images by frequency; None of other samples."""
    spectra = [one.spectrum for one in spreads if one.spectrum is not None]
    return product_stationary(spectra, weights) if spectra and len(spectra) == len(spreads) else None


@attrs.frozen(eq=False)
class _Mean:
    """E[z | x, y] of an observed composition, whose target is without observations."""

    target: Target
    evidence: Evidence
    variance: float | Tensor | None

    def __call__(self, sample: Tensor, timestep: Tensor) -> Tensor:
        # Predict; numbers beyond the value range would be cut off after the observation, and miss it
        x0 = clip(predict(self.target.composition, sample, timestep, prediction_type="sample"), self.target)
        # Condition on y; networks may run in bfloat16, and operators not
        ratio = self.target.log_snr(timestep).exp()
        with torch.autocast(x0.device.type, enabled=False):
            return self.evidence.condition(x0, spread_of(self.target, self.variance).covariance(ratio))[0]


@attrs.frozen(eq=False, repr=False)
class Observed(ComposedLeaf):
    """The leaf `composition & observation`. `&` adds components and observations to what is inside, in any order."""

    composition: Composition
    observations: tuple[Observation, ...]
    group: ComposedGroup = attrs.field(init=False)

    @group.default
    def _group(self) -> ComposedGroup:
        target = Target(self.composition)
        mean = _Mean(target, evidence_of(self.observations, target), given_variance(self.observations))
        return ComposedGroup(target, mean)

    def doubts(self, samples: Tensor, timestep: float, *, is_drawn: bool, is_weighed: bool) -> list[str]:
        """Where samples miss y, or are less wide than its noise."""
        mean: Any = self.group.mean
        notes = note_misses(mean.evidence, samples, is_weighed=is_weighed)
        if is_drawn or len(samples) == 1:
            return notes
        ratio = mean.target.log_snr(torch.tensor([timestep])).exp()
        covariance = spread_of(mean.target, mean.variance).covariance(ratio)
        return notes + note_narrow(mean.evidence, samples, covariance, is_weighed=is_weighed)

    @property
    def compositions(self) -> tuple[Composition, ...]:
        return (self.composition,)

    def remade(self, compositions: Sequence[Composition], /) -> Observed:
        return attrs.evolve(self, composition=compositions[0])

    def __and__(self, other: Any) -> Any:
        if isinstance(other, Observation):
            return Observed(self.composition, (*self.observations, other))
        return self.gathered([other]) if is_term(other) else NotImplemented

    def gathered(self, others: Sequence[Any], /) -> Observed:
        """The product of all compositions, under all observations."""
        # p(z) p(y_1 | z) times q(z) p(y_2 | z): the product of p and q, under both observations
        compositions: list[Any] = [self.composition]
        observations = list(self.observations)
        rest = []
        for one in others:
            leaf = sole_leaf(one)
            if isinstance(leaf, Observed):
                compositions.append(leaf.composition)
                observations += leaf.observations
            else:
                rest.append(one)
        return Observed(combine([*compositions, *rest], "product"), tuple(observations))

    def __repr__(self) -> str:
        return f"({' & '.join(map(repr, (self.composition, *self.observations)))})"


def without_observations(target: Target) -> tuple[Target, tuple[Observation, ...]]:
    """A target without the observations of its composition, and these; the weight of an observed leaf stays with it.
    Raises `CompositionError` for one that is not above 0.
    """
    terms: list[tuple[Any, AnyWeight]] = []
    observations: list[Observation] = []
    for leaf, weight in target.composition.terms.items():
        if not isinstance(leaf, Observed):
            terms.append((Composition([(leaf, 1.0)]).terms, weight))
            continue
        if bounds(weight, target.noised_space.sample_shape)[0] <= 0.0:
            got = f"got {leaf!r} with the weight {weight!r}"
            raise CompositionError(f"{got}; expected one above 0; negate components before they are observed")
        # What was observed takes the weight, and its observations are set apart
        terms.append((leaf.composition.terms, weight))
        observations += leaf.observations
    if not observations:
        return target, ()
    return attrs.evolve(target, composition=Composition(add_terms(terms))), tuple(observations)
