"""Components and their algebra: a composition is a weighted sum of leaves, `{leaf: weight}`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import attrs
import torch
from torch import Tensor

from energycomp.components.conditioning import Condition
from energycomp.errors import CompositionError

if TYPE_CHECKING:
    from energycomp.components.mixture import Mixture
    from energycomp.denoisers.denoiser import Denoiser

__all__ = ["Composable", "Composition", "Conditional", "EnergyComponent", "HasEnergy", "Leaf", "Rule", "combine"]

Rule = Literal["sum", "mean", "product"]


class Leaf(Protocol):
    """What a composition needs to know of a leaf: whether two of them live in the same noised space.

    `alphas_cumprod` is the noise schedule (T,), `sample_shape` the (C, H, W) of one sample, `space` is "pixels" or
    the identity of the codec whose latents are composed. A leaf that has an `unconditional` leaf (whose own is itself)
    can be used with `&` and `~`. Leaves are keys, compared by identity.
    """

    @property
    def alphas_cumprod(self) -> Tensor: ...
    @property
    def sample_shape(self) -> tuple[int, int, int]: ...
    @property
    def space(self) -> str: ...


@runtime_checkable
class EnergyComponent(Leaf, Protocol):
    """Anything that predicts noise: eps_k(x, t) = sigma_t grad_x E_k(x, t) (thesis eq. 2.33)."""

    def eps(self, sample: Tensor, timestep: Tensor) -> Tensor:
        """Noise prediction (B, C, H, W) for a noised sample (B, C, H, W) at timesteps (B,), real numbers in [0, T]."""
        ...


@runtime_checkable
class HasEnergy(Protocol):
    """A component that knows its energy and not only the gradient."""

    def energy(self, sample: Tensor, timestep: Tensor) -> Tensor:
        """Energies (B,) of a noised sample (B, C, H, W) at timesteps (B,)."""
        ...


class Composable:
    """The operators of leaves and compositions. They are arithmetic on energies, not Boolean algebra.

    `a + b`, `a - b`, `2.0 * a` are literal. With the residual R(A) = A - mass(A) u, where u is the unconditional leaf,
    `a & b` = u + R(a) + R(b) (thesis eq. 5.12) and `~a` = u - R(a); so `a & a` sharpens. `a | b` is a mixture, a leaf.
    """

    __slots__ = ()

    def __add__(self, other: Any) -> Composition:
        if isinstance(other, int | float) and other == 0:  # sum() starts at 0
            return Composition.of(self)
        if not is_term(other):
            return NotImplemented
        return _linear([(Composition.of(self), 1.0), (Composition.of(other), 1.0)])

    __radd__ = __add__

    def __sub__(self, other: Any) -> Composition:
        if not is_term(other):
            return NotImplemented
        return _linear([(Composition.of(self), 1.0), (Composition.of(other), -1.0)])

    def __mul__(self, weight: Any) -> Composition:
        if not isinstance(weight, int | float):
            return NotImplemented
        if not math.isfinite(weight):
            raise CompositionError(f"got the weight {weight}; expected a finite number; check how it was computed")
        return _linear([(Composition.of(self), float(weight))])

    __rmul__ = __mul__

    def __neg__(self) -> Composition:
        return self * -1.0

    def __and__(self, other: Any) -> Composition:
        if not is_term(other):
            return NotImplemented
        return conjunction([Composition.of(self), Composition.of(other)])

    def __or__(self, other: Any) -> Mixture:
        if not is_term(other):
            return NotImplemented
        from energycomp.components.mixture import mix  # which is made of compositions

        return mix([Composition.of(self), Composition.of(other)])

    def __invert__(self) -> Composition:
        residual, u = _residual(Composition.of(self))
        return _linear([(Composition.of(u), 1.0), (residual, -1.0)])

    def __bool__(self) -> bool:
        raise CompositionError(
            "got the truth value of a component; expected a composition; write `a & b`, `a | b`, `~a` (not `a and b`, "
            "`a or b`, `not a`)"
        )


@attrs.frozen(eq=False, repr=False)
class Conditional(Composable):
    """The leaf: one denoiser under one condition. It is compared by identity.

    Args:
        denoiser: the network with its schedule; see `energycomp.denoisers.Denoiser`.
        condition: 1 row for a whole batch, or B rows, one a sample.
        name: what `repr` and errors call it.
    """

    denoiser: Denoiser
    condition: Condition
    name: str = "component"

    def __attrs_post_init__(self) -> None:
        if self.condition.shape != self.denoiser.token_shape:
            raise CompositionError(
                f"got a condition with tokens {self.condition.shape}; expected {self.denoiser.token_shape}, what the "
                f"denoiser of {self.name} takes; make it with that model's conditioner"
            )

    @property
    def alphas_cumprod(self) -> Tensor:
        """The noise schedule of the denoiser, (T,)."""
        return self.denoiser.alphas_cumprod

    @property
    def sample_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one sample."""
        return self.denoiser.sample_shape

    @property
    def space(self) -> str:
        """The identity of the codec, or "pixels"."""
        return self.denoiser.space

    @property
    def unconditional(self) -> Conditional:
        """The unconditional leaf of the same denoiser; raises `CompositionError` where it was never trained."""
        return self.denoiser.unconditional

    def __repr__(self) -> str:
        return self.name


@attrs.frozen(eq=False, repr=False)
class Composition(Composable):
    """An immutable weighted sum of leaves. Made by the operators; leaves of weight 0 are dropped.

    >>> from energycomp.testing import Gaussian
    >>> a, b = Gaussian(0.5, name="a"), Gaussian(-0.5, name="b")
    >>> 2 * a - b
    2 a - b
    >>> (2 * a - b).mass
    1.0
    >>> (a + b - a).terms[b]
    1.0
    """

    terms: Mapping[Any, float]

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "terms", MappingProxyType(dict(self.terms)))
        leaves = list(self.terms)
        for other in leaves[1:]:
            check_compatible(leaves[0], other)

    @classmethod
    def of(cls, component: Any) -> Composition:
        """A leaf or composition as a composition."""
        if isinstance(component, Composition):
            return component
        if not is_term(component):
            raise CompositionError(
                f"got {type(component).__name__}; expected a component with eps, alphas_cumprod, sample_shape and "
                "space; call a model to make one: clevr(0.3, 0.4)"
            )
        return cls({component: 1.0})

    @property
    def mass(self) -> float:
        """Sum of the weights; 1 is a normalised combination, which may be taken on x0 or v as well as on eps."""
        return sum(self.terms.values())

    @property
    def unconditional(self) -> Any:
        """The unconditional leaf that all leaves share."""
        return _shared_unconditional(self)

    def __repr__(self) -> str:
        if not self.terms:
            return "0"
        parts: list[str] = []
        for leaf, weight in self.terms.items():
            size = "" if abs(weight) == 1 else f"{abs(weight):g} "
            sign = ("-" if weight < 0 else "") if not parts else (" - " if weight < 0 else " + ")
            parts.append(f"{sign}{size}{leaf!r}")
        return "".join(parts)


def is_term(value: Any) -> bool:
    """Whether a value can stand in a composition: a composition, a `Conditional`, or what predicts noise itself."""
    return isinstance(value, Composition | Conditional) or all(
        hasattr(value, name) for name in ("alphas_cumprod", "sample_shape", "space", "eps")
    )


def combine(components: Iterable[Any], rule: Rule) -> Composition:
    """Composes components by a rule: sum (thesis eq. 5.4), mean (each over the total mass) or product (eq. 5.12).

    Args:
        components: leaves or compositions.
        rule: "sum", "mean" or "product".

    >>> from energycomp.testing import Gaussian
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
    if rule == "product":
        return conjunction(parts)
    if rule == "sum":
        return _linear([(part, 1.0) for part in parts])
    if rule == "mean":
        mass = sum(part.mass for part in parts)
        if mass == 0:
            raise CompositionError("got components whose weights sum to 0; expected a mean; use the rule 'sum'")
        return _linear([(part, 1.0 / mass) for part in parts])
    raise CompositionError(f"got rule {rule!r}; expected 'sum', 'mean' or 'product'")


def conjunction(parts: Sequence[Composition]) -> Composition:
    """u + sum of R(A_k) with R(A) = A - mass(A) u (thesis eq. 5.12). Costs no network row: it is arithmetic."""
    split = [_residual(part) for part in parts]
    units: list[Composition] = list({id(u): Composition.of(u) for _, u in split}.values())
    if len(units) != 1:
        raise CompositionError(
            f"got {' and '.join(map(repr, parts))} with {len(units)} unconditional leaves; expected one denoiser; "
            "compose different models with `+` and weights"
        )
    return _linear([(units[0], 1.0), *((residual, 1.0) for residual, _ in split)])


def check_compatible(a: Any, b: Any) -> None:
    """Raises `CompositionError`, naming both, where two leaves do not live in one noised space."""
    for what in ("space", "sample_shape"):
        if getattr(a, what) != getattr(b, what):
            raise CompositionError(
                f"got {a!r} with {what} {getattr(a, what)} and {b!r} with {what} {getattr(b, what)}; "
                f"expected one {what}; compose components of the same space"
            )
    if a.alphas_cumprod is b.alphas_cumprod:
        return
    same = a.alphas_cumprod.shape == b.alphas_cumprod.shape
    if not same or not torch.allclose(a.alphas_cumprod.cpu().double(), b.alphas_cumprod.cpu().double(), atol=1e-6):
        raise CompositionError(
            f"got {a!r} and {b!r} with different alphas_cumprod; expected one noise schedule; "
            "a timestep must mean the same noise level for both"
        )


def _linear(parts: Iterable[tuple[Composition, float]]) -> Composition:
    total: dict[Any, float] = {}
    for part, scale in parts:
        for leaf, weight in part.terms.items():
            total[leaf] = total.get(leaf, 0.0) + scale * weight
    return Composition({leaf: weight for leaf, weight in total.items() if abs(weight) > 1e-12})


def _shared_unconditional(part: Composition) -> Any:
    units: list[Any] = []
    for leaf in part.terms:
        unit = getattr(leaf, "unconditional", None)
        if unit is None:
            raise CompositionError(
                f"got {leaf!r}, which has no unconditional leaf; expected one for `&` and `~`; use `+` and `-`"
            )
        if all(unit is not known for known in units):
            units.append(unit)
    if len(units) != 1:
        raise CompositionError(
            f"got {part!r} with {len(units)} unconditional leaves; expected one denoiser for `&` and `~`; "
            "compose different models with `+` and weights"
        )
    return units[0]


def _residual(part: Composition) -> tuple[Composition, Any]:
    u = _shared_unconditional(part)
    return _linear([(part, 1.0), (Composition.of(u), -part.mass)]), u
