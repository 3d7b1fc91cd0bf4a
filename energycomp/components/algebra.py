"""The algebra of components: the operators, and what they make.

`Composable` has the operators. `Composition` is a weighted sum of leaves. `Mixture` is the leaf that `|` makes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import attrs
import torch
from torch import Tensor

from energycomp.components.component import EnergyComponent, HasEnergy
from energycomp.components.predict import predict
from energycomp.components.rules import Rule, identifies_null, rule_weights
from energycomp.components.space import NoisedSpace, by_sample, check_compatible
from energycomp.components.terms import Terms, add_terms, formula, shared_space, shared_unconditional
from energycomp.components.weight_values import constant_weights, is_constant, level_weights, noise_share
from energycomp.components.weights import LEAST_VALUE, AnyWeight, as_weight, check_one_sign, scalar, varies
from energycomp.errors import CompositionError

if TYPE_CHECKING:
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
        """Noise prediction (B, C, H, W) of the leaves, whose groups predict them; see `predict`, also for the cost."""
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
        scale = weight if varies(weight) else as_weight(weight)
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
        return mix([self, other]) if is_term(other) else NotImplemented

    def __ror__(self, other: Any) -> Mixture:
        return mix([other, self]) if is_term(other) else NotImplemented

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
        """A component as a composition; a composition stays one."""
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
        """Weighted sum of the energies (B,); every leaf must have one, and every weight must be a number."""
        weights = constant_weights(self.terms, "an energy", "use `eps`").values()
        energies = [leaf.energy(sample, timestep) for leaf in with_energies(self.terms, "; use `eps`")]
        none = sample.new_zeros(len(sample))
        return sum((weight * energy for weight, energy in zip(weights, energies, strict=True)), none)

    def __repr__(self) -> str:
        return formula(self.terms)


def with_energies(leaves: Mapping[Any, AnyWeight], instead: str) -> list[HasEnergy]:
    """The leaves; raises `CompositionError` for one without an energy, and says what to do `instead`."""
    for leaf in leaves:
        if not isinstance(leaf, HasEnergy):
            raise CompositionError(f"got {leaf!r}, which has no energy; expected `energy(sample, timestep)`{instead}")
    return list(leaves)


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
            if (gathered := getattr(leaf, "gathered", None)) is not None:
                return Composition.of(gathered([*parts[:place], *parts[place + 1 :]]))
    mass = sum((part.mass for part in parts), 0.0)
    row, null = rule_weights(rule, mass)
    weighted: list[tuple[Any, AnyWeight]] = [(part, row) for part in parts]
    if identifies_null(rule) and not (len(parts) == 1 and null == 0.0):  # one component alone needs no u
        weighted = [(shared_unconditional([part.terms for part in parts]), null), *weighted]
    made = _linear(weighted)
    if rule == "mean" and varies(mass):
        check_one_sign(mass, made.noised_space.sample_shape)
    return made


def sole_leaf(component: Any) -> Any:
    """The leaf that a component is; None for a sum of several, or one of another weight than 1."""
    terms = Composition.of(component).terms
    return next(iter(terms)) if tuple(terms.values()) == (1.0,) else None


def _linear(parts: Iterable[tuple[Any, AnyWeight]]) -> Composition:
    return Composition(add_terms((Composition.of(part).terms, scale) for part, scale in parts))


def _sum(*parts: tuple[Any, AnyWeight]) -> Composition:
    """A sum of components, each times a number. The number 0 is the empty sum; other values are not ours."""
    components = [(part, scale) for part, scale in parts if is_term(part)]
    others = [part for part, _ in parts if not is_term(part)]
    return _linear(components) if all(as_weight(other) == 0 for other in others) else NotImplemented


def _compositions(parts: Iterable[Any]) -> tuple[Composition, ...]:
    return tuple(map(Composition.of, parts))


def _scalars(values: Iterable[Any]) -> tuple[Any, ...]:
    return tuple(map(scalar, values))


@attrs.frozen(eq=False, repr=False)
class Mixture(Composable):
    """The leaf `a | b`: the density is the sum of w_k exp(-E_k) over its components. It is compared by identity.

    `0.2 * a | 0.8 * b` is the mixture of a and b with the shares 0.2 and 0.8: the mass of each part is its share.
    Shares sum to 1, so the mixture `0.2 * a | 0.3 * b` has `total` 0.5 and waits for the rest; only `|` takes it.

    E = -log sum_k exp(log w_k - E_k), and its gradient is that of each component in the share r_k that it has in the
    density at that sample: eps = sum_k r_k eps_k, r = softmax(log w - E).

    Energies are known up to a constant, and so are the shares: the share of a component that is normalised differently
    is not its weight, and changes with the timestep if the constant does (not for Gaussians of one variance). Only
    compositions of mass 1 have comparable energies at noisy timesteps.

    Args:
        components: at least one, each of mass 1. `eps` and `energy` need an energy of every leaf; the sampler `mixture`
            of energycomp-samplers needs none.
        log_weights: log w_k up to a constant; 0 each when left out.
        total: the sum of the shares that `|` was given; None for a mixture without shares.

    Raises:
        CompositionError: a component of another mass, leaves of different spaces, weights that are not finite numbers;
            from `eps` and `energy`, a leaf without an energy; from all but `|`, shares that do not sum to 1 yet.
        InputError: a component whose weights vary over pixels or samples, or whose mass varies.

    >>> from energycomp.components import Gaussian
    >>> a, b, c = (Gaussian(mean, name=name) for mean, name in ((-1.0, "a"), (1.0, "b"), (4.0, "c")))
    >>> a | b | c
    (a | b | c)
    >>> 0.2 * a | 0.3 * b | 0.5 * c
    (0.2 a | 0.3 b | 0.5 c)
    >>> origin, end = torch.zeros(1, 1, 1, 1), torch.tensor([0.0])
    >>> (a | b).eps(origin, end).item()  # halfway both pull alike
    0.0
    >>> Mixture([a, b], torch.tensor([1, 3]).log()).shares(origin, end).flatten()  # the weights 1 : 3
    tensor([0.2500, 0.7500])
    """

    components: tuple[Composition, ...] = attrs.field(converter=_compositions)
    log_weights: tuple[float, ...] = attrs.field(converter=_scalars)
    total: float | None = attrs.field(default=None, kw_only=True)
    leaves: Composition = attrs.field(init=False)

    @log_weights.default
    def _equal(self) -> tuple[float, ...]:
        return (0.0,) * len(self.components)

    @log_weights.validator
    def _check_weights(self, _: Any, value: tuple[Any, ...]) -> None:
        if len(value) != len(self.components) or None in map(as_weight, value):
            count = len(self.components)
            raise CompositionError(f"got {count} components and log weights {value}; expected one finite number each")

    @leaves.default
    def _all(self) -> Composition:
        if not self.components or not all(part.terms for part in self.components):
            raise CompositionError("got a mixture of nothing, or of 0; expected components with at least one leaf each")
        leaves = Terms((leaf, 1.0) for part in self.components for leaf in part.terms)
        for part in self.components:
            mass = _mass(part)
            if abs(mass - 1.0) > LEAST_VALUE:
                raise _another_mass(part, mass)
        return Composition(leaves)

    @property
    def terms(self) -> Mapping[Any, AnyWeight]:
        """The mixture itself, once; raises `CompositionError` where its shares do not sum to 1 yet."""
        if self.total is not None and self.total < 1.0 - LEAST_VALUE:
            got = f"got {self!r} with shares that sum to {self.total:g}"
            rest = 1.0 - self.total
            raise CompositionError(f"{got}; expected 1; add the rest, such as `... | {rest:g} * c`")
        return Terms([(self, 1.0)])

    noised_space = property(attrgetter("leaves.noised_space"))
    unconditional = property(attrgetter("leaves.unconditional"))
    compositions = property(attrgetter("components"))

    def remade(self, compositions: Sequence[Composition], /) -> Mixture:
        """The mixture of other components, in the same shares."""
        return attrs.evolve(self, components=compositions)

    def eps(self, sample: Tensor, timestep: Tensor) -> Tensor:
        """Noise prediction (B, C, H, W). Costs the energy and the prediction of every distinct leaf."""
        share = self.shares(sample, timestep)  # (K, B)
        known = {id(leaf): leaf.eps(sample, timestep) for leaf in self.leaves.terms}
        total = torch.zeros_like(sample)
        for part, r in zip(self.components, share, strict=True):
            for leaf, weight in self._numbers(part, timestep):
                scale = by_sample(weight, sample.ndim).to(sample.dtype) if isinstance(weight, Tensor) else weight
                total = total + scale * by_sample(r, sample.ndim).to(sample.dtype) * known[id(leaf)]
        return total

    def energy(self, sample: Tensor, timestep: Tensor) -> Tensor:
        """-log sum_k w_k exp(-E_k), (B,). Costs the energy of every distinct leaf."""
        return -torch.logsumexp(self._logits(sample, timestep), dim=0)

    def shares(self, sample: Tensor, timestep: Tensor) -> Tensor:
        """The share r (K, B) of each component in the density at a sample; they sum to 1 over the components."""
        return torch.softmax(self._logits(sample, timestep), dim=0)

    def _logits(self, sample: Tensor, timestep: Tensor) -> Tensor:
        """log w_k - E_k, (K, B)."""
        _ = self.terms  # raises for shares that do not sum to 1
        leaves = with_energies(
            self.leaves.terms,
            " for `|`, since only energies tell how much of each there is; use `+`, or `&` where a leaf is "
            "unconditional, or sample with sampler='mixture'",
        )
        known: dict[int, Any] = {id(leaf): leaf.energy(sample, timestep) for leaf in leaves}
        energies = [
            sum(weight * known[id(leaf)] for leaf, weight in self._numbers(part, timestep)) for part in self.components
        ]
        return torch.stack([w - energy for w, energy in zip(self.log_weights, energies, strict=True)])

    def _numbers(self, part: Composition, timestep: Tensor) -> list[tuple[Any, float | Tensor]]:
        """Leaves of a component with their weights at timesteps (B,): numbers, or (B,) where they vary over these."""
        space = self.noised_space
        share = noise_share(timestep, len(space.alphas_cumprod))
        numbers: list[tuple[Any, float | Tensor]] = []
        for leaf, weight in part.terms.items():
            if varies(weight):
                numbers.append((leaf, weight.at(share, space.sample_shape).flatten().to(timestep.device)))
            else:
                numbers.append((leaf, weight))
        return numbers

    @property
    def has_shares(self) -> bool:
        """Whether the components have shares, given by `|` or by log weights, rather than one weight for all."""
        return self.total is not None or any(self.log_weights)

    def __repr__(self) -> str:
        parts = list(map(repr, self.components))
        if self.has_shares:
            alone = [tuple(part.terms.values()) == (1.0,) for part in self.components]
            parts = [part if bare else f"({part})" for part, bare in zip(parts, alone, strict=True)]
            shares = map(math.exp, _summing_to(self.total or 1.0, self.log_weights))
            parts = [f"{share:.3g} {part}" for share, part in zip(shares, parts, strict=True)]
        return f"({' | '.join(parts)})"


def _mass(part: Composition) -> float:
    instead = "multiply the whole mixture, such as `region(...) * (a | b)`"
    mass = part.mass
    if varies(mass) and not is_constant(mass, 1.0, part.noised_space.sample_shape):
        constant_weights(part.terms, "a part of a mixture", instead)  # raises
    # Weights of guidance vary over the noise level, but their sum does not.
    level_weights(part.terms, part.noised_space.sample_shape, "a part of a mixture", instead)
    return 1.0 if varies(mass) else mass


def _another_mass(part: Composition, mass: float) -> CompositionError:
    return CompositionError(
        f"got {part!r} of mass {mass:g} in a mixture; expected mass 1, or a share between 0 and 1 for every part of "
        "`|`; write `0.5 * a + 0.5 * b` for `a + b`, and shares that sum to 1, such as `0.4 * a | 0.6 * b`"
    )


def mix(parts: Iterable[Any]) -> Mixture:
    """The mixture `|` of components; a mixture among the parts brings its components, so that `|` is associative.

    Either every part has mass 1, and all components have the same share. Or the mass of every part is its share: it is
    above 0 and below 1, and the component is the part divided by it. Anything else raises `CompositionError`, because
    `2 * a | b` could be read as shares 2 to 1, or as the squared density of a beside that of b.
    """
    given = list(parts)
    inner = [_as_mixture(part) for part in given]
    components = [c for m in inner for c in m.components]
    log_weights = [w for m in inner for w in m.log_weights]
    if not any(m.has_shares for m in inner):
        return Mixture(components, log_weights)
    if bare := [part for part, m in zip(given, inner, strict=True) if not m.has_shares]:
        got = f"got {' | '.join(map(repr, given))}, where {bare[0]!r} has no share and another part has one"
        raise CompositionError(f"{got}; expected one of all, or of none; write `0.5 * a | 0.5 * (b | c)`")
    total = sum(1.0 if m.total is None else m.total for m in inner)
    if total > 1.0 + LEAST_VALUE:
        got = f"got {' | '.join(map(repr, given))} with shares that sum to {total:g}"
        raise CompositionError(f"{got}; expected 1; choose smaller shares, such as `0.5 * (a | b) | 0.5 * c`")
    return Mixture(components, log_weights, total=total)


def _as_mixture(part: Any) -> Mixture:
    """A part of `|` as a mixture: of one component, or of those of the mixture that it is."""
    if isinstance(part, Mixture):
        return part
    whole = Composition.of(part)
    if not whole.terms:
        return Mixture([whole])  # raises
    share = _mass(whole)
    leaves = list(whole.terms)
    is_whole = abs(share - 1.0) <= LEAST_VALUE
    if not is_whole and not LEAST_VALUE < share < 1.0:
        raise _another_mass(whole, share)
    if len(leaves) != 1 or not isinstance(leaves[0], Mixture):
        return Mixture([whole]) if is_whole else Mixture([whole / share], [math.log(share)], total=share)
    mixture = leaves[0]
    return mixture if is_whole else Mixture(mixture.components, _summing_to(share, mixture.log_weights), total=share)


def _summing_to(total: float, log_weights: Sequence[float]) -> list[float]:
    """Logarithms of weights, so that the weights sum to a total."""
    most = max(log_weights)
    rest = math.log(total) - most - math.log(sum(math.exp(weight - most) for weight in log_weights))
    return [weight + rest for weight in log_weights]
