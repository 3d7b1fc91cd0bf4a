"""The algebra of components: the operators, and what they make.

`Composable` has the operators. `Composition` is a weighted sum of leaves. `Mixture` is the leaf that `|` makes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

import attrs
from torch import Tensor

from energycomp.components.component import EnergyComponent, Gathers, HasEnergy
from energycomp.components.predict import predict
from energycomp.components.rules import Rule, identifies_null, rule_weights
from energycomp.components.space import NoisedSpace, check_compatible
from energycomp.components.terms import Terms, added, formula, shared_space, shared_unconditional
from energycomp.components.weight_values import constant_weights
from energycomp.components.weights import AnyWeight, Weight, as_weight, check_one_sign
from energycomp.errors import CompositionError

if TYPE_CHECKING:
    from energycomp.components.mixture import Mixture

    _Component = EnergyComponent  # a `Composable` has the members of the protocol, by its subclasses
else:
    _Component = object


class Composable(_Component):
    """The operators of components. They are arithmetic on energies, not Boolean algebra.

    `a + b`, `a - b`, `2.0 * a`, `a / 2` are literal. With the residual R(A) = A - mass(A) u, where u is the
    unconditional leaf, `a & b` = u + R(a) + R(b) (thesis eq. 5.12) and `~a` = u - R(a); so `a & a` sharpens. `a | b` is
    a mixture, a leaf. Weights are real numbers of Python, numpy or torch, or a `Weight`, which varies over pixels and
    noise levels: `region("left half") * a`. Then mass(A) is a `Weight`, too.
    The sums are exact at each timestep; samples are not those of the product in general (`Composer.sample`).

    >>> from energycomp.components import Gaussian
    >>> u = Gaussian(name="u", unconditional="self")
    >>> a, b = (Gaussian(mean, name=name, unconditional=u) for mean, name in ((1.0, "a"), (2.0, "b")))
    >>> a & b, ~a, 7.5 * a & u
    (-u + a + b, 2 u - a, -6.5 u + 7.5 a)
    """

    __slots__ = ()
    __array_ufunc__ = None  # numpy leaves `np.float32(2) * a` to `__rmul__`

    @property
    def terms(self) -> Mapping[Any, AnyWeight]:
        """The leaves that it is a weighted sum of; a leaf is itself, once."""
        return Terms([(self, 1.0)])

    def eps(self, sample: Tensor, timestep: Tensor) -> Tensor:
        """Noise prediction (B, C, H, W) of the leaves, whose groups predict them; see `predict`, also for the cost.

        A component that is its own leaf, in no group, has an `eps` of its own.
        """
        return predict(self, sample, timestep)

    def __pos__(self) -> Composition:
        return Composition.of(self)

    def __neg__(self) -> Composition:
        return _linear([(self, -1.0)])

    def __add__(self, other: Any) -> Composition:
        return _sum((self, 1.0), (other, 1.0))

    def __radd__(self, other: Any) -> Composition:  # `sum` starts at 0
        return _sum((other, 1.0), (self, 1.0))

    def __sub__(self, other: Any) -> Composition:
        return _sum((self, 1.0), (other, -1.0))

    def __rsub__(self, other: Any) -> Composition:
        return _sum((other, 1.0), (self, -1.0))

    def __mul__(self, weight: Any) -> Composition:
        scale = weight if isinstance(weight, Weight) else as_weight(weight)
        return NotImplemented if scale is None else _linear([(self, scale)])

    __rmul__ = __mul__

    def __truediv__(self, divisor: Any) -> Composition:
        number = as_weight(divisor)
        if number == 0:
            raise CompositionError(f"got {self!r} divided by 0; expected a number that is not 0; check it")
        return NotImplemented if number is None else _linear([(self, 1.0 / number)])

    def __and__(self, other: Any) -> Composition:
        return combine([self, other], "product") if is_term(other) else NotImplemented

    def __rand__(self, other: Any) -> Composition:
        return combine([other, self], "product") if is_term(other) else NotImplemented

    def __or__(self, other: Any) -> Mixture:
        return _mixed([self, other]) if is_term(other) else NotImplemented

    def __ror__(self, other: Any) -> Mixture:
        return _mixed([other, self]) if is_term(other) else NotImplemented

    def __invert__(self) -> Composition:
        own = Composition.of(self)  # u - R(A) = (1 + mass) u - A
        return _linear([(own.unconditional, 1.0 + own.mass), (own, -1.0)])

    def __bool__(self) -> bool:
        expected = "expected a composition; write `a & b`, `a | b`, `~a` (not `a and b`, `a or b`, `not a`)"
        raise CompositionError(f"got the truth value of a component; {expected}")


@attrs.frozen(eq=False, repr=False)
class Composition(Composable):
    """An immutable weighted sum of leaves, which is a component. Made by the operators; leaves of weight 0 are dropped.

    Leaves are compared by identity: two leaves that are equal by `==` are two terms.

    Raises:
        CompositionError: leaves of different noised spaces, or a value that is no component.

    >>> from energycomp.components import Gaussian
    >>> a, b = Gaussian(0.5, name="a"), Gaussian(-0.5, name="b")
    >>> 2 * a - b
    2 a - b
    >>> (2 * a - b).mass, dict((a + b - a).terms)
    (1.0, {b: 1.0})
    """

    terms: Mapping[Any, AnyWeight] = attrs.field(converter=Terms)

    def __attrs_post_init__(self) -> None:
        for leaf in self.terms:
            if not is_term(leaf):
                raise _no_component(leaf)
        spaces = [(leaf, leaf.noised_space) for leaf in self.terms]
        in_part = any(None in (space.places or ()) for _, space in spaces)  # the first one does not say all
        for one, other in combinations(spaces, 2) if in_part else ((spaces[0], other) for other in spaces[1:]):
            check_compatible(one, other)

    @classmethod
    def of(cls, component: EnergyComponent) -> Composition:
        """A component as a composition."""
        if isinstance(component, Composition):
            return component
        if not is_term(component):
            raise _no_component(component)
        return cls(component.terms if isinstance(component, Composable) else Terms([(component, 1.0)]))

    @property
    def mass(self) -> AnyWeight:
        """Sum of the weights; 1 is a normalised combination. A `Weight`, maybe 1 everywhere, where the sum varies."""
        return sum(self.terms.values())

    @property
    def noised_space(self) -> NoisedSpace:
        """Where the samples of all leaves live; raises `CompositionError` for a composition without leaves."""
        if not self.terms:
            raise CompositionError("got a composition without components; expected at least one of weight not 0")
        return shared_space(self.terms)

    @property
    def unconditional(self) -> Any:
        """The unconditional leaf that all leaves share."""
        return shared_unconditional([self.terms])

    def energy(self, sample: Tensor, timestep: Tensor) -> Tensor:
        """Weighted sum of the energies (B,); every leaf must have one, and every weight must be a number.

        >>> import torch
        >>> from energycomp.components import Gaussian
        >>> (Gaussian(0.0) + Gaussian(0.0)).energy(torch.ones(1, 1, 1, 1), torch.zeros(1)) > 0
        tensor([True])
        """
        weights = constant_weights(self.terms, "an energy", "use `eps`").values()
        energies = [leaf.energy(sample, timestep) for leaf in with_energies(self.terms, "; use `eps`")]
        none = sample.new_zeros(len(sample))
        return sum((weight * energy for weight, energy in zip(weights, energies, strict=True)), none)

    def __repr__(self) -> str:
        return formula(self.terms)


def with_energies(leaves: Iterable[Any], instead: str) -> list[HasEnergy]:
    """The leaves; raises `CompositionError` for one without an energy, and says what to do `instead`."""
    for leaf in (found := list(leaves)):
        if not isinstance(leaf, HasEnergy):
            raise CompositionError(f"got {leaf!r}, which has no energy; expected `energy(sample, timestep)`{instead}")
    return found


def is_term(value: Any) -> bool:
    """Whether a value can stand in a composition; a `Composable` is not asked for its members, which may raise."""
    return isinstance(value, Composable) or isinstance(value, EnergyComponent)  # noqa: SIM101


def _no_component(value: Any) -> CompositionError:
    expected = "expected a component with `noised_space` and `eps`; call a model to make one: clevr(0.3, 0.4)"
    return CompositionError(f"got {type(value).__name__}; {expected}")


def combine(components: Iterable[Any], rule: Rule) -> Composition:
    """Composes components by a rule (`energycomp.components.rules`). Costs no network row: it is arithmetic.

    Args:
        components: leaves or compositions; a composition counts as its mass.
        rule: "sum", "mean" or "product".

    Raises:
        CompositionError: no components, an unknown rule, a mean of mass 0 (at a pixel and noise level), or a product
            without one unconditional leaf.

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
    if identifies_null(rule) and len(parts) > 1:
        # A product with what gathers components is inside of it, whatever the order.
        for place, leaf in enumerate(map(sole_leaf, parts)):
            if isinstance(leaf, Gathers):
                return Composition.of(leaf.gathered([*parts[:place], *parts[place + 1 :]]))
    mass = sum((part.mass for part in parts), 0.0)
    row, null = rule_weights(rule, mass)
    weighted: list[tuple[Any, AnyWeight]] = [(part, row) for part in parts]
    if identifies_null(rule) and not (len(parts) == 1 and null == 0.0):  # one component alone needs no u
        weighted = [(shared_unconditional([part.terms for part in parts]), null), *weighted]
    made = _linear(weighted)
    if rule == "mean" and isinstance(mass, Weight):
        check_one_sign(mass, made.noised_space.sample_shape)
    return made


def sole_leaf(component: Any) -> Any:
    """The leaf that a component is; None for a sum of several, or one of another weight than 1.

    >>> from energycomp.components import Gaussian
    >>> a = Gaussian(name="a")
    >>> sole_leaf(Composition.of(a)), sole_leaf(2 * a)
    (a, None)
    """
    terms = Composition.of(component).terms
    return next(iter(terms)) if tuple(terms.values()) == (1.0,) else None


def _linear(parts: Iterable[tuple[Any, AnyWeight]]) -> Composition:
    return Composition(added((Composition.of(part).terms, scale) for part, scale in parts))


def _sum(*parts: tuple[Any, AnyWeight]) -> Composition:
    """A sum of components, each times a number. The number 0 is the empty sum; other values are not ours."""
    components = [(part, scale) for part, scale in parts if is_term(part)]
    others = [part for part, _ in parts if not is_term(part)]
    return _linear(components) if all(as_weight(other) == 0 for other in others) else NotImplemented


def _mixed(parts: Sequence[Any]) -> Mixture:
    from energycomp.components.mixture import mix  # which is made of compositions

    return mix(parts)
