"""The algebra of components: a composition is a weighted sum of leaves, a mixture is a leaf made of compositions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, cast

import attrs
import torch
from torch import Tensor

from energycomp.components.component import EnergyComponent, HasEnergy
from energycomp.components.predict import predict
from energycomp.components.rules import Rule, identifies_null, rule_weights
from energycomp.components.space import NoisedSpace, check_compatible
from energycomp.components.terms import added, formula, shared_unconditional
from energycomp.errors import CompositionError

__all__ = ["Composable", "Composition", "Mixture", "combine"]


class Composable:
    """The operators of components. They are arithmetic on energies, not Boolean algebra.

    `a + b`, `a - b`, `2.0 * a` are literal. With the residual R(A) = A - mass(A) u, where u is the unconditional leaf,
    `a & b` = u + R(a) + R(b) (thesis eq. 5.12) and `~a` = u - R(a); so `a & a` sharpens. `a | b` is a mixture, a leaf.
    The sums are exact at each timestep. Their samples are not those of the product in general (`Composer.sample`).
    """

    __slots__ = ()

    @property
    def terms(self) -> Mapping[Any, float]:
        """The leaves that it is a weighted sum of; a leaf is itself, once."""
        return {self: 1.0}

    def __add__(self, other: Any) -> Composition:
        if isinstance(other, int | float) and other == 0:  # sum() starts at 0
            return Composition.of(self)
        return _linear([(self, 1.0), (other, 1.0)]) if is_term(other) else NotImplemented

    __radd__ = __add__

    def __sub__(self, other: Any) -> Composition:
        return _linear([(self, 1.0), (other, -1.0)]) if is_term(other) else NotImplemented

    def __mul__(self, weight: Any) -> Composition:
        if not isinstance(weight, int | float):
            return NotImplemented
        if not math.isfinite(weight):
            raise CompositionError(f"got the weight {weight}; expected a finite number; check how it was computed")
        return _linear([(self, float(weight))])

    __rmul__ = __mul__

    def __neg__(self) -> Composition:
        return self * -1.0

    def __and__(self, other: Any) -> Composition:
        return combine([self, other], "product") if is_term(other) else NotImplemented

    def __or__(self, other: Any) -> Mixture:
        return mix([Composition.of(self), Composition.of(other)]) if is_term(other) else NotImplemented

    def __invert__(self) -> Composition:
        own = Composition.of(self)  # u - R(A) = (1 + mass) u - A
        return _linear([(own.unconditional, 1.0 + own.mass), (own, -1.0)])

    def __bool__(self) -> bool:
        raise CompositionError(
            "got the truth value of a component; expected a composition; write `a & b`, `a | b`, `~a` (not `a and b`, "
            "`a or b`, `not a`)"
        )


@attrs.frozen(eq=False, repr=False)
class Composition(Composable):
    """An immutable weighted sum of leaves, which is a component. Made by the operators; leaves of weight 0 are dropped.

    Raises:
        CompositionError: leaves of different noised spaces, or a value that is no component.

    >>> from energycomp.components import Gaussian
    >>> a, b = Gaussian(0.5, name="a"), Gaussian(-0.5, name="b")
    >>> 2 * a - b
    2 a - b
    >>> (2 * a - b).mass, dict((a + b - a).terms)
    (1.0, {b: 1.0})
    """

    terms: Mapping[Any, float]

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "terms", MappingProxyType(dict(self.terms)))
        spaces = [(leaf, leaf.noised_space) for leaf in self.terms]
        for other in spaces[1:]:
            check_compatible(spaces[0], other)

    @classmethod
    def of(cls, component: Any) -> Composition:
        """A component as a composition."""
        if isinstance(component, Composition):
            return component
        if not is_term(component):
            raise CompositionError(
                f"got {type(component).__name__}; expected a component with `noised_space` and `eps`; call a model to "
                "make one: clevr(0.3, 0.4)"
            )
        return cls(component.terms if isinstance(component, Composable) else {component: 1.0})

    @property
    def mass(self) -> float:
        """Sum of the weights; 1 is a normalised combination, which may be taken on x0 or v as well as on eps."""
        return sum(self.terms.values())

    @property
    def noised_space(self) -> NoisedSpace:
        """Where the samples of all leaves live; raises `CompositionError` for a composition without leaves."""
        if not self.terms:
            raise CompositionError("got a composition without components; expected at least one of weight not 0")
        return cast("NoisedSpace", next(iter(self.terms)).noised_space)

    @property
    def unconditional(self) -> Any:
        """The unconditional leaf that all leaves share."""
        return shared_unconditional([self.terms])

    def eps(self, sample: Tensor, timestep: Tensor) -> Tensor:
        """Composed noise prediction (B, C, H, W). Costs one row per distinct leaf and sample, one trunk per sample."""
        return predict(self, sample, timestep)

    def energy(self, sample: Tensor, timestep: Tensor) -> Tensor:
        """Weighted sum of the energies (B,); every leaf must have one.

        >>> from energycomp.components import Gaussian
        >>> (Gaussian(0.0) + Gaussian(0.0)).energy(torch.ones(1, 1, 1, 1), torch.zeros(1)) > 0
        tensor([True])
        """
        total = sample.new_zeros(len(sample))
        for leaf, weight in self.terms.items():
            if not isinstance(leaf, HasEnergy):
                raise CompositionError(
                    f"got {leaf!r}, which has no energy; expected components with `energy(sample, timestep)`; use `eps`"
                )
            total = total + weight * leaf.energy(sample, timestep)
        return total

    def __repr__(self) -> str:
        return formula(self.terms)


def is_term(value: Any) -> bool:
    """Whether a value can stand in a composition; a `Composable` is not asked for its members, which may raise."""
    return isinstance(value, Composable) or isinstance(value, EnergyComponent)  # noqa: SIM101


def combine(components: Iterable[Any], rule: Rule) -> Composition:
    """Composes components by a rule (`energycomp.components.rules`). Costs no network row: it is arithmetic.

    Args:
        components: leaves or compositions; a composition counts as its mass.
        rule: "sum", "mean" or "product".

    Raises:
        CompositionError: no components, an unknown rule, a mean of mass 0, or a product without one unconditional leaf.

    >>> from energycomp.components import Gaussian
    >>> u = Gaussian(0.0, name="u")
    >>> a, b = (Gaussian(mean, name=name, unconditional=u) for mean, name in ((1.0, "a"), (2.0, "b")))
    >>> combine([a, b], "mean")
    0.5 a + 0.5 b
    >>> combine([a, b], "product")
    -u + a + b
    """
    parts = [Composition.of(c) for c in components]
    if not parts:
        raise CompositionError("got no components; expected at least one; for none use the model's `unconditional`")
    row, null = rule_weights(rule, float(sum(part.mass for part in parts)))
    weighted: list[tuple[Any, float]] = [(part, row) for part in parts]
    if identifies_null(rule):
        weighted = [(shared_unconditional([part.terms for part in parts]), null), *weighted]
    return _linear(weighted)


def _linear(parts: Iterable[tuple[Any, float]]) -> Composition:
    return Composition(added((Composition.of(part).terms, scale) for part, scale in parts))


def _compositions(parts: Iterable[Any]) -> tuple[Composition, ...]:
    return tuple(map(Composition.of, parts))


def _numbers(weights: Iterable[Any]) -> tuple[Any, ...]:
    return tuple(weights)


@attrs.frozen(eq=False, repr=False)
class Mixture(Composable):
    """The leaf `a | b`: the density is the sum of w_k exp(-E_k) over its components. It is compared by identity.

    E = -log sum_k exp(log w_k - E_k), and its gradient is that of each component in the share r_k that it has in the
    density at that sample: eps = sum_k r_k eps_k, r = softmax(log w - E).

    Energies are known up to a constant, and so are the shares: the share of a component that is normalised differently
    is not its weight, and changes with the timestep if the constant does (not for Gaussians of one variance).

    Args:
        components: at least one; every leaf of each must have an energy.
        log_weights: log w_k up to a constant; 0 each when left out.

    Raises:
        CompositionError: a leaf without an energy, leaves of different spaces, weights that are not finite numbers.

    >>> from energycomp.components import Gaussian
    >>> a, b, c = (Gaussian(mean, name=name) for mean, name in ((-1.0, "a"), (1.0, "b"), (4.0, "c")))
    >>> a | b | c
    (a | b | c)
    >>> origin, end = torch.zeros(1, 1, 1, 1), torch.tensor([0.0])
    >>> (a | b).eps(origin, end).item()  # halfway both pull alike
    0.0
    >>> Mixture([a, b], [0.0, math.log(3)]).shares(origin, end).flatten()  # the weights 1 : 3
    tensor([0.2500, 0.7500])
    """

    components: tuple[Composition, ...] = attrs.field(converter=_compositions)
    log_weights: tuple[float, ...] = attrs.field(converter=_numbers)
    _leaves: Composition = attrs.field(init=False)

    @log_weights.default
    def _equal(self) -> tuple[float, ...]:
        return (0.0,) * len(self.components)

    @log_weights.validator
    def _check_weights(self, _: Any, value: tuple[Any, ...]) -> None:
        numbers = all(isinstance(weight, int | float) and math.isfinite(weight) for weight in value)
        if len(value) != len(self.components) or not numbers:
            count = len(self.components)
            raise CompositionError(f"got {count} components and log weights {value}; expected one finite number each")

    @_leaves.default
    def _all(self) -> Composition:
        if not self.components or not all(part.terms for part in self.components):
            raise CompositionError("got a mixture of nothing, or of 0; expected components with at least one leaf each")
        leaves = {leaf: 1.0 for part in self.components for leaf in part.terms}
        for leaf in leaves:
            if not isinstance(leaf, HasEnergy):
                raise CompositionError(
                    f"got {leaf!r}, which has no energy; expected components with `energy(sample, timestep)` for `|`, "
                    "since only energies tell how much of each there is; use `+`, or `&` where a leaf is unconditional"
                )
        return Composition(leaves)

    @property
    def noised_space(self) -> NoisedSpace:
        """The space that the components share."""
        return self._leaves.noised_space

    @property
    def unconditional(self) -> Any:
        """The unconditional leaf that all components share, so that a mixture can stand in `&`."""
        return self._leaves.unconditional

    def eps(self, sample: Tensor, timestep: Tensor) -> Tensor:
        """Noise prediction (B, C, H, W). Costs the energy and the prediction of every distinct leaf."""
        share = self.shares(sample, timestep)  # (K, B)
        known = {leaf: leaf.eps(sample, timestep) for leaf in self._leaves.terms}
        total = torch.zeros_like(sample)
        for part, r in zip(self.components, share, strict=True):
            for leaf, weight in part.terms.items():
                total = total + weight * r[:, None, None, None].to(sample.dtype) * known[leaf]
        return total

    def energy(self, sample: Tensor, timestep: Tensor) -> Tensor:
        """-log sum_k w_k exp(-E_k), (B,). Costs the energy of every distinct leaf."""
        return -torch.logsumexp(self._logits(sample, timestep), dim=0)

    def shares(self, sample: Tensor, timestep: Tensor) -> Tensor:
        """The share r (K, B) of each component in the density at a sample; they sum to 1 over the components."""
        return torch.softmax(self._logits(sample, timestep), dim=0)

    def _logits(self, sample: Tensor, timestep: Tensor) -> Tensor:
        """log w_k - E_k, (K, B)."""
        known = {leaf: leaf.energy(sample, timestep) for leaf in self._leaves.terms}
        energies = [sum(weight * known[leaf] for leaf, weight in part.terms.items()) for part in self.components]
        return torch.stack([w - energy for w, energy in zip(self.log_weights, energies, strict=True)])

    def __repr__(self) -> str:
        return f"({' | '.join(map(repr, self.components))})"


def mix(parts: Sequence[Composition]) -> Mixture:
    """The mixture `|` of components; a mixture among the parts brings its components, so that `|` is associative."""
    inner: list[Mixture] = []
    for part in parts:
        leaf = next(iter(part.terms), None)
        inner.append(leaf if isinstance(leaf, Mixture) and dict(part.terms) == {leaf: 1.0} else Mixture([part]))
    return Mixture([c for m in inner for c in m.components], [w for m in inner for w in m.log_weights])
