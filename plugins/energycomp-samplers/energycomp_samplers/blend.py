"""What is separated: an observation that is a sum of sources, and which sets of sources are tried."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

import attrs
import torch
from torch import Tensor

from energycomp.components import Composition
from energycomp.components.algebra import is_term
from energycomp.errors import InputError
from energycomp.fields import is_number, is_whole
from energycomp.sampling import Level, Target
from energycomp_samplers.evidence import Evidence
from energycomp_samplers.joint import Joint, Sum, log_density
from energycomp_samplers.kernels import clip
from energycomp_samplers.observation import as_operator
from energycomp_samplers.operators import Gain, Linear, Pair, as_noise, as_numbers, check_operator, check_reach
from energycomp_samplers.spread import Spread, measure_spreads, product_spread
from energycomp_samplers.tangent import Tangent, in_single, linearise_at

MOST = 64  # sources
MOST_SETS = 1_000  # of sources
MANY_SETS = 16  # up to which all are tried
LEFT_OUT = 30.0  # nats below the best set of its count, to Gaussians, from which a set is not tried
MAX_NUMBERS = 2**30  # of all samples, and of what a step makes of them: 4 GiB of float32
COPIES = 12  # of the samples of a step, at most

Operator: TypeAlias = Linear | Callable[[Tensor], Tensor]
Sets = list[tuple[tuple[int, ...], float]]  # kinds of each set of sources, and its prior probability


@attrs.frozen(eq=False)
class Blend:
    """What is separated: y and R (1, *seen) in the units of the noised space, and what is known of each kind of source.

    Args:
        offsets: what is seen of the middle of the value range, (1, *seen).
        scale: of a number of the noised space, in the data.
        kept: see `Sum`.
    """

    targets: Sequence[Target]
    spreads: Sequence[Spread]
    operators: Sequence[Operator]
    offsets: Sequence[Tensor]
    y: Tensor
    noise: Tensor
    scale: float
    kept: dict[Any, Tensor] = attrs.field(factory=dict)

    @classmethod
    def of(cls, image: Any, sources: Any, noise: Any, operators: Any, covariances: Any) -> Blend:
        # Sources of one space, whose images add up
        if not isinstance(sources, Sequence) or not sources or not all(map(is_term, sources)):
            raise InputError(f"got sources={sources!r}; expected a list of components, at least one, such as [a, b]")
        targets = [Target(Composition.of(source)) for source in sources]
        space = targets[0].noised_space
        for source, target in zip(sources, targets, strict=True):
            if target.noised_space != space:
                raise InputError(
                    f"got {sources[0]!r} and {source!r} of different spaces; expected sources of one space"
                )
            if target.decode is not None:
                got = f"got {source!r}, whose samples are latents, which do not add up as their images do"
                raise InputError(f"{got}; expected a model of pixels or numbers")
        # The image, and its noise
        y = as_numbers(image, "image", "give a tensor or an array of one image").to(targets[0].device)
        check_reach(y, "an image")
        std = as_noise(noise, y, "noise", "the image")
        # Sources z of images are in (-r, r), and what is seen is A (z + r) / 2r.
        r = None if space.value_range is None else space.value_range[1]
        scale, middle = (1.0, 0.0) if r is None else (0.5 / r, r)
        # What is seen of each source, and how its clean samples vary
        made = [_operator(one) for one in _each(operators, len(sources), "operators")]
        offsets = [_observe_middle(one, space.sample_shape, middle, y) for one in made]
        given = _each(covariances, len(sources), "covariances")
        spreads = [_spread(*one) for one in zip(sources, targets, given, strict=True)]
        return cls(targets, spreads, made, offsets, (y / scale)[None], (std / scale).square()[None], scale)

    def covariance(self, kinds: Sequence[int], level: Level) -> Joint:
        """C of joint samples of these kinds, at a noise level."""
        ratio = torch.tensor([level.alpha / (1.0 - level.alpha)], dtype=torch.float64)
        return Joint([self.spreads[kind] for kind in kinds], ratio)

    def evidence(self, kinds: Sequence[int]) -> Evidence | Tangent:
        """The observation of joint samples of these kinds: linear where all operators are."""
        operators = [self.operators[kind] for kind in kinds]
        linear = [one for one in operators if isinstance(one, Linear)]
        if len(linear) < len(operators):
            return Tangent(partial(self._observe, operators), self.y, self.noise)
        whole = Sum(linear, self.targets[0].noised_space.sample_shape, self.kept)
        offset = torch.stack([self.offsets[kind] for kind in kinds]).sum(0)
        return Evidence(whole, whole.forward, self.y - offset, self.noise)

    def _observe(self, operators: Sequence[Operator], z: Tensor) -> Tensor:
        """sum_k A_k(z_k) of joint samples, in the units of the noised space."""
        data = z * self.scale + (0.0 if self.scale == 1.0 else 0.5)
        parts = [_see(one)(data[:, k]) for k, one in enumerate(operators)]
        return torch.stack(parts).sum(0) / self.scale


def _each(given: Any, count: int, name: str) -> list[Any]:
    if not isinstance(given, list):
        return [given] * count
    if len(given) != count:
        raise InputError(f"got {len(given)} {name} for {count} sources; expected one, or a list of {count}")
    return given


def _operator(given: Any) -> Operator:
    # A brightness: 1, another one, or one for each number
    if given is None or is_number(given):
        return Gain(torch.tensor(1.0 if given is None else float(given)))
    if isinstance(given, Tensor):
        return Gain(as_numbers(given, "a brightness", "give one number for each"))
    # An operator as observations have them
    operator: Operator = as_operator(given)
    return in_single(operator) if isinstance(operator, Pair) else operator


def _see(operator: Operator) -> Callable[[Tensor], Tensor]:
    return operator.forward if isinstance(operator, Linear) else operator


def _observe_middle(operator: Operator, shape: Sequence[int], middle: float, y: Tensor) -> Tensor:
    """What is seen of the middle of the value range, (1, *seen); raises `InputError` where shapes do not fit."""
    if isinstance(operator, Pair):
        operator.check(shape, y.device)
    # What functions see is in the scale of the data, where the middle is 1/2
    value = middle if isinstance(operator, Linear) or not middle else 0.5
    seen = check_operator(_see(operator), torch.full((1, *shape), value, device=y.device))
    if seen.shape[1:] != y.shape:
        got = f"got an image of shape {tuple(y.shape)}, where {tuple(seen.shape[1:])} is seen of a source"
        raise InputError(f"{got} of shape {tuple(shape)}; expected the same shape; change the image or operators=")
    return seen


def _spread(source: Any, target: Target, given: Any) -> Spread:
    """The precision of clean samples of a source: given, or measured."""
    shape = target.noised_space.sample_shape
    size = math.prod(shape)
    # Measured: the product of the Gaussians of all components
    if given is None:
        measured = measure_spreads(target)
        product, is_gaussian = product_spread(measured, target.weights_at(0.0), size)
        problem = next((one.problem for one in measured if one.problem), "its components are no Gaussian together")
        if not is_gaussian:
            raise InputError(f"got the source {source!r}, but {problem}; give separate(..., covariances=)")
        return product
    # Given: as a matrix, or for each number
    as_numbers(given, "covariances", "give variances, or a matrix")
    covariance = torch.as_tensor(given).detach().double().cpu()
    if size > 1 and covariance.shape == (size, size):
        # A full covariance in its eigenvectors, where it is diagonal
        values, vectors = torch.linalg.eigh((covariance + covariance.mT) / 2.0)
        spread = Spread(1.0 / values, vectors)
    elif covariance.numel() == 1 or covariance.shape == tuple(shape):
        spread = Spread.of_variance(covariance, shape)
    else:
        expected = f"expected a number, {tuple(shape)} or ({size}, {size})"
        raise InputError(f"got covariances={tuple(covariance.shape)} for {source!r}; {expected}")
    if not bool((spread.values.isfinite() & (spread.values > 0)).all()):
        raise InputError(f"got a covariance of {source!r} that is not positive; expected variances above 0")
    return spread


def list_sets(kinds: int, count: Any, *, repeats: bool = True) -> Sets:
    """The sets of sources that are tried, each with its prior probability.

    >>> list_sets(2, (1, 2))
    [((0,), 0.25), ((1,), 0.25), ((0, 0), 0.125), ((0, 1), 0.25), ((1, 1), 0.125)]
    """
    if count is None:
        return [(tuple(range(kinds)), 1.0)]
    # The probability of each count
    given = count
    if is_whole(count):
        given = {count: 1.0}
    elif isinstance(count, tuple) and len(count) == 2 and all(map(is_whole, count)):
        low = max(count[0], 0)
        high = min(count[1], MOST + 1)  # one more than is legal is refused below, and millions are not listed
        given = dict.fromkeys(range(low, high + 1), 1.0)
    is_legal = isinstance(given, Mapping) and len(given) > 0
    if not is_legal or not all(is_whole(k) and 1 <= k <= MOST and is_number(p) and p > 0 for k, p in given.items()):
        expected = f"expected one of 1 to {MOST}, a range such as (1, 6), or probabilities such as {{1: 0.3, 2: 0.7}}"
        raise InputError(f"got count={count!r}; {expected}")
    if not repeats and max(given) > kinds:
        got = f"got count={count!r} of {kinds} sources, each at most once"
        raise InputError(f"{got}; expected at most {kinds}; narrow the count, or give repeats=True")
    # How many sets there are, before any is made
    number = sum(math.comb(kinds + k - 1 if repeats else kinds, k) for k in given)
    if number > MOST_SETS:
        got = f"got {kinds} sources and count={count!r}, which are {number:,} sets of sources"
        raise InputError(f"{got}; expected at most {MOST_SETS:,}; narrow the count, or mix sources by a | b")
    # The sets of each count, by how many ordered choices are the same set
    total = sum(given.values())
    chosen_sets = []
    sets = itertools.combinations_with_replacement if repeats else itertools.combinations
    for k, p in given.items():
        # All ordered choices of k sources have the same probability.
        choices = kinds**k if repeats else math.perm(kinds, k)
        for chosen in sets(range(kinds), k):
            # In how many orders a set can be drawn.
            orders = math.factorial(k) // math.prod(map(math.factorial, Counter(chosen).values()))
            chosen_sets.append((chosen, p / total * orders / choices))
    return chosen_sets


def check_size(blend: Blend, tried: Sets, n: Any, steps: Any) -> None:
    """Raises `InputError` before memory is taken."""
    if not (is_whole(n) and n >= 1 and is_whole(steps) and steps >= 1):
        raise InputError(f"got n={n!r} and num_inference_steps={steps!r}; expected whole numbers of at least 1")
    # What a step makes of the largest set, and the samples of all sets, which are kept until one is chosen
    size = math.prod(blend.targets[0].noised_space.sample_shape)
    most = max(len(kinds) for kinds, _ in tried)
    kept = sum(len(kinds) for kinds, _ in tried)
    numbers = n * size * (COPIES * most + kept)
    if numbers > MAX_NUMBERS:
        raise InputError(
            f"got {n:,} draws x {most} sources x {size:,} numbers, of which {len(tried):,} sets of sources take "
            f"{numbers:,} numbers; expected at most {MAX_NUMBERS:,} (4 GiB); lower n= or count="
        )


def screen(blend: Blend, tried: Sets, level: Level) -> Sets:
    """Of many sets, those that Gaussians of the same means and covariances do not exclude, at the noisiest level."""
    if len(tried) <= MANY_SETS:
        return tried
    # The mean of each kind: its prediction where nothing is left of the sample.
    means = []
    for target in blend.targets:
        x = torch.zeros(1, *target.noised_space.sample_shape, device=target.device)
        means.append(clip(target.compose(x, level.rows(x), prediction_type="sample"), target).double())
    # How probable y is then, beside the best set of as many sources.
    scores: dict[tuple[int, ...], float] = {}
    best: dict[int, float] = {}
    for kinds, prior in tried:
        mean = torch.stack([means[kind] for kind in kinds], dim=1)
        covariance = blend.covariance(kinds, level)
        linear, _ = linearise_at(blend.evidence(kinds), mean, covariance)
        scores[kinds] = float(log_density(linear, mean, covariance)) + math.log(prior)
        best[len(kinds)] = max(best.get(len(kinds), -math.inf), scores[kinds])
    return [(kinds, prior) for kinds, prior in tried if scores[kinds] > best[len(kinds)] - LEFT_OUT]
