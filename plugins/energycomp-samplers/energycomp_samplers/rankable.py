"""Which compositions `rank` takes, and what is wrong with others."""

from __future__ import annotations

import attrs
import torch

from energycomp.components import (
    Composition,
    EnergyComponent,
    ability,
    constant_weights,
    groups_of,
    identifies_null,
    is_constant,
)
from energycomp.denoisers import Conditional, Denoiser
from energycomp.errors import CompositionError
from energycomp.models import Model, checked_model

APART = "which of two models explains an image better, the errors of `infer(image, model)` of both say"


@attrs.frozen(eq=False)
class Rankable:
    """A composition of one denoiser that `rank` takes.

    Args:
        labels: the other labels of the model, with which one component without u is compared; empty for others.
    """

    denoiser: Denoiser
    leaves: list[Conditional]
    weights: list[float]
    labels: list[Conditional]


def as_rankable(composition: EnergyComponent, model: Model | None = None) -> Rankable:
    """What is ranked by; raises `CompositionError` or `InputError` for what has no lifts."""
    # Only leaves of denoisers can be ranked
    whole = Composition.of(composition)
    for leaf in whole.terms:
        if not isinstance(leaf, Conditional):
            raise CompositionError(
                f"got {leaf!r}, which is no leaf of a denoiser; expected components of one model; rank each component "
                f"of a mixture by itself, and components before `match_snr`, `regional` or `within`; {APART}"
            )
    # Constant weights, and one denoiser; u of a denoiser with LoRA is that of its base
    terms = constant_weights(whole.terms, "a ranking", "rank its components with weights that are numbers")
    asked = {leaf: w for leaf, w in terms.items() if not bool(leaf.condition.null.all())}
    bases = {id(leaf.denoiser.base or leaf.denoiser) for leaf in terms}
    if len({id(leaf.denoiser) for leaf in asked}) > 1 or len(bases) > 1:
        raise CompositionError(f"got {whole!r}, leaves of several denoisers; expected one; {APART}")
    if not asked:
        raise CompositionError(f"got {whole!r} without components; expected at least one, such as model(0.3, 0.5)")
    # One condition each, for all images
    leaves = list(asked)
    weights = list(asked.values())
    for leaf in leaves:
        if len(leaf.condition) != 1:
            raise CompositionError(f"got {leaf!r} with {len(leaf.condition)} conditions; expected one for all images")
    denoiser = leaves[0].denoiser
    # Without u: a mean, or one label against the others
    labels: list[Conditional] = []
    if identifies_null(denoiser.rule) and not (denoiser.base or denoiser).null_trained:
        denoiser = attrs.evolve(denoiser, rule="mean")
    if len(terms) == 1 and not identifies_null(denoiser.rule):
        labels = _other_labels(leaves[0], model)
    _check_rule(whole, sum(terms.values()), weights, denoiser, alone=not labels)
    return Rankable(denoiser, leaves, weights, labels)


def _other_labels(leaf: Conditional, model: Model | None) -> list[Conditional]:
    """All labels of the model but that of a leaf; none of a model without labels, or with attributes."""
    labels = None if model is None else checked_model(model).conditioner
    listed = ability(labels, "enumerate_support")
    if model is None or labels is None or listed is None or groups_of(labels) is not None:
        return []
    # Compared by their tokens, since a leaf need not be made of a label
    every = [model.leaf(value[None]) for value in listed()]
    return [one for one in every if not torch.equal(one.condition.rows, leaf.condition.rows)]


def _check_rule(whole: Composition, mass: float, weights: list[float], denoiser: Denoiser, *, alone: bool) -> None:
    if denoiser.rule == "sum" and alone:
        why = "a sum without one component predicts no noise, so that no component has a lift"
        raise CompositionError(f"got {whole!r} under the rule 'sum'; expected 'product' or 'mean'; {why}")
    if not is_constant(mass, 1.0):
        why = "compose with `&`, Composer([...]) or model.compose(values)"
        raise CompositionError(f"got {whole!r} of mass {mass:g}; expected weights whose sum is 1; {why}")
    # Without one of them there is still a mean: two at least, of positive weights, and no u among them
    is_mean = len(weights) == len(whole.terms) and len(weights) >= 2 and min(weights) >= 0
    if denoiser.rule == "mean" and alone and not is_mean:
        expected = "two of its components with positive weights, or one and model= with other labels to compare it with"
        raise CompositionError(f"got {whole!r} without an unconditional prediction; expected {expected}; {APART}")
