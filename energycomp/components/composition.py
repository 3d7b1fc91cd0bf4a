"""The algebra of components: the operators, and the composition, a weighted sum of leaves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import attrs
from torch import Tensor

from energycomp.components.component import EnergyComponent, HasEnergy
from energycomp.components.predict import predict
from energycomp.components.rules import Rule, identifies_null, rule_weights
from energycomp.components.space import NoisedSpace, check_compatible
from energycomp.components.terms import Terms, added, formula, shared_space, shared_unconditional
from energycomp.components.weights import AnyWeight, Weight, as_weight, constant_weights
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
    The sums are exact at each timestep. Their samples are not those of the product in general (`Composer.sample`).
    """

    __slots__ = ()
    __array_ufunc__ = None  # numpy leaves `np.float32(2) * a` to `__rmul__`

    @property
    def terms(self) -> Mapping[Any, AnyWeight]:
        """The leaves that it is a weighted sum of; a leaf is itself, once."""
        return Terms([(self, 1.0)])

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
        return _mix(self, other) if is_term(other) else NotImplemented

    def __ror__(self, other: Any) -> Mixture:
        return _mix(other, self) if is_term(other) else NotImplemented

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
        spaces = [(leaf, leaf.noised_space) for leaf in self.terms]
        for other in spaces[1:]:
            check_compatible(spaces[0], other)

    @classmethod
    def of(cls, component: EnergyComponent) -> Composition:
        """A component as a composition."""
        if isinstance(component, Composition):
            return component
        if not is_term(component):
            raise CompositionError(
                f"got {type(component).__name__}; expected a component with `noised_space` and `eps`; call a model to "
                "make one: clevr(0.3, 0.4)"
            )
        return cls(component.terms if isinstance(component, Composable) else Terms([(component, 1.0)]))

    @property
    def mass(self) -> AnyWeight:
        """Sum of the weights; 1 is a normalised combination, which may be taken on x0 or v as well as on eps.

        A `Weight` where the weights vary and their sum does, too. It may be 1 everywhere, as that of two halves is.
        """
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

    def eps(self, sample: Tensor, timestep: Tensor) -> Tensor:
        """Composed noise prediction (B, C, H, W). Costs one row per distinct leaf and sample, one trunk per sample.

        A leaf whose weight is 0 at these timesteps costs no row.
        """
        return predict(self, sample, timestep)

    def energy(self, sample: Tensor, timestep: Tensor) -> Tensor:
        """Weighted sum of the energies (B,); every leaf must have one, and every weight must be a number.

        >>> import torch
        >>> from energycomp.components import Gaussian
        >>> (Gaussian(0.0) + Gaussian(0.0)).energy(torch.ones(1, 1, 1, 1), torch.zeros(1)) > 0
        tensor([True])
        """
        total = sample.new_zeros(len(sample))
        for leaf, weight in constant_weights(self.terms, "an energy", "use `eps`").items():
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
    mass = sum((part.mass for part in parts), 0.0)
    row, null = rule_weights(rule, mass)
    weighted: list[tuple[Any, AnyWeight]] = [(part, row) for part in parts]
    if identifies_null(rule):
        weighted = [(shared_unconditional([part.terms for part in parts]), null), *weighted]
    made = _linear(weighted)
    if rule == "mean" and isinstance(row, Weight):
        _, height, width = made.noised_space.sample_shape
        row.everywhere((height, width))  # raises where it divides by 0
    return made


def _linear(parts: Iterable[tuple[Any, AnyWeight]]) -> Composition:
    return Composition(added((Composition.of(part).terms, scale) for part, scale in parts))


def _sum(*parts: tuple[Any, AnyWeight]) -> Composition:
    """A sum of components, each times a number. The number 0 is the empty sum; other values are not ours."""
    components = [(part, scale) for part, scale in parts if is_term(part)]
    others = [part for part, _ in parts if not is_term(part)]
    return _linear(components) if all(as_weight(other) == 0 for other in others) else NotImplemented


def _mix(*parts: Any) -> Mixture:
    from energycomp.components.mixture import mix  # a mixture is a `Composable`

    return mix(parts)
