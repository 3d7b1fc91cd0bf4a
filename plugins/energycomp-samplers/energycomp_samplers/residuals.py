"""Compositions with negated components in residual form: what is asked for, and what is not to be shown.

Notation: variable -> symbol
    unconditional       the leaf u, and its prediction
    positive, negated   the leaves with weights w_i > 0, and those with w_k < 0, without u; their predictions are e.
                        u within a region, or at other timesteps, is not negated: `within(where, a & b)` subtracts it;
                        nor is a component whose attributes were left open, which the guidance `attributes` subtracts

    u + sum_{w_i > 0} w_i (e_i - u) + sum_{w_k < 0} w_k (e_k - u)

This is the sum of a composition of mass 1, whatever the weight of u.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
import torch

from energycomp.components import (
    AnyWeight,
    Composition,
    Weight,
    bounds,
    compositions_in,
    is_constant,
    level_weights,
    noise_share,
    number_at,
    unwrap,
)
from energycomp.denoisers import Conditional
from energycomp.errors import CompositionError


@attrs.frozen(eq=False)
class Residuals:
    """The residual form of a composition with at least one negated leaf."""

    unconditional: Any
    positive: Mapping[Any, AnyWeight]
    negated: Mapping[Any, AnyWeight]

    @property
    def leaves(self) -> Composition:
        """All leaves, in the order u, positive, negated, each with the weight 1."""
        return Composition([(leaf, 1.0) for leaf in (self.unconditional, *self.positive, *self.negated)])

    def at(self, timestep: float) -> Residuals:
        space = self.leaves.noised_space
        share = float(noise_share(torch.tensor([timestep]), len(space.alphas_cumprod)))

        def numbers(terms: Mapping[Any, AnyWeight]) -> dict[Any, AnyWeight]:
            return {leaf: number_at(weight, share, space.sample_shape) for leaf, weight in terms.items()}

        return Residuals(self.unconditional, numbers(self.positive), numbers(self.negated))

    @property
    def wanted(self) -> Composition:
        """The composition without its negated leaves; u, where all are negated."""
        # u + sum_i w_i (e_i - u) = (1 - sum_i w_i) u + sum_i w_i e_i
        rest = Composition.of(self.unconditional) * (1.0 - sum(self.positive.values()))
        return sum((Composition.of(leaf) * weight for leaf, weight in self.positive.items()), rest)


def residuals(composition: Composition) -> Residuals | None:
    """The residual form of a composition, or None where no leaf but u has a negative weight.

    Raises:
        CompositionError: a negative weight in a composition without one unconditional leaf, of a mass other than 1, or
            inside a mixture or what is observed.
        InputError: a weight that varies over pixels or samples.
    """
    # Samplers of negations do not look inside a mixture, or what is observed.
    for leaf in composition.terms:
        if any(residuals(part) is not None for part in compositions_in(leaf)):
            got = f"got {leaf!r}, which has a negated component inside"
            raise CompositionError(
                f"{got}; expected it beside, such as `(a | b) & ~c`, since samplers of negations do not look inside; "
                "negate it there, or leave sampler= out"
            )
    shape = composition.noised_space.sample_shape
    terms = level_weights(composition.terms, shape, "a sampler of negations", "leave sampler= out")
    # Nothing of negative weight, or what guidance of attributes subtracts.
    if all(bounds(weight, shape)[0] >= 0 or _is_open(leaf) for leaf, weight in terms.items()):
        return None
    # Residuals are over one unconditional leaf.
    try:
        u = composition.unconditional
    except CompositionError as error:
        raise CompositionError(
            f"got {composition!r} with a negative weight; expected leaves of one unconditional leaf, over which a "
            f"component is negated; leave sampler= out: {error}"
        ) from error

    # Apart from u, leaves are asked for, or negated.
    positive: dict[Any, AnyWeight] = {}
    negated: dict[Any, AnyWeight] = {}
    for leaf, weight in terms.items():
        is_compared = unwrap(leaf) is unwrap(u) or _is_open(leaf)
        if leaf is u:
            continue
        if bounds(weight, shape)[0] < 0 and not is_compared:
            negated[leaf] = weight
        else:
            positive[leaf] = weight
    if not negated:
        return None
    # The sum of residuals is the composition where its mass is 1.
    mass = composition.mass
    if not is_constant(mass, 1.0, shape):
        shown = repr(mass) if isinstance(mass, Weight) else f"{mass:g}"
        raise CompositionError(
            f"got {composition!r} of mass {shown} with a negated component; expected mass 1; compose with "
            "`&` and `~`, such as `a & ~b`"
        )
    return Residuals(u, positive, negated)


def _is_open(leaf: Any) -> bool:
    """Whether a leaf is what the guidance `attributes` compares a component with."""
    bare = unwrap(leaf)
    return isinstance(bare, Conditional) and bare.is_open
