"""The prediction of a composition: leaves by group, one batch per group, one weighted sum."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import Any

import attrs
import torch
from torch import Tensor

from energycomp.components.component import Leaf, LeafGroup, WeightedSum
from energycomp.components.prediction import PredictionType, convert
from energycomp.components.terms import shared_space, weights_at
from energycomp.components.weights import LEAST_VALUE, Weight
from energycomp.errors import NonFiniteError

__all__ = ["Independent", "group_of", "grouped", "native_type", "predict", "predict_leaves"]


@attrs.frozen
class Independent:
    """The group of components that predict noise themselves, one after another."""

    prediction_type: PredictionType = "epsilon"
    rule: None = None
    device: None = None
    decode: None = None

    def predict(self, leaves: Sequence[Any], sample: Tensor, timestep: Tensor) -> Sequence[Tensor]:
        """Each component's own eps (B, C, H, W)."""
        return [leaf.eps(sample, timestep) for leaf in leaves]


_INDEPENDENT = Independent()


def group_of(leaf: Any) -> LeafGroup:
    """The group that predicts a leaf."""
    return leaf.group if isinstance(leaf, Leaf) else _INDEPENDENT


def grouped(leaves: Iterable[Any]) -> list[tuple[LeafGroup, list[Any]]]:
    """The groups of leaves, each with its leaves. Groups are compared by identity."""
    groups: dict[int, tuple[LeafGroup, list[Any]]] = {}
    for leaf in leaves:
        group = group_of(leaf)
        groups.setdefault(id(group), (group, []))[1].append(leaf)
    return list(groups.values())


def native_type(composition: WeightedSum) -> PredictionType:
    """The type in which a composition is summed: its groups' own if they share one and the mass is 1, else "epsilon".

    At mass 1 sums of x0, v or flow predictions are predictions of that type; a round trip through eps would divide by
    sqrt(alpha_bar), 5e-5 at the noisy end of a cosine schedule. Where weights vary, the mass has to be 1 at every pixel
    and noise level.
    """
    mass: Any = sum(composition.terms.values())
    if isinstance(mass, Weight):
        _, height, width = shared_space(composition.terms).sample_shape
        mass = mass.everywhere((height, width))
    return _common_type(composition.terms, mass)


def _common_type(leaves: Iterable[Any], mass: float | Tensor) -> PredictionType:
    kinds = {group.prediction_type for group, _ in grouped(leaves)}
    is_one = bool((mass - 1.0).abs().max() < LEAST_VALUE) if isinstance(mass, Tensor) else abs(mass - 1.0) < LEAST_VALUE
    return kinds.pop() if len(kinds) == 1 and is_one else "epsilon"


def predict(
    composition: WeightedSum, sample: Tensor, timestep: Tensor, *, prediction_type: PredictionType = "epsilon"
) -> Tensor:
    """The composed prediction of a batch of noised samples.

    Args:
        composition: `{leaf: weight}`; a weight may vary over pixels and timesteps.
        sample: (B, C, H, W).
        timestep: (B,) real numbers in [0, T].
        prediction_type: the type of the result.

    Returns:
        (B, C, H, W). Costs one row per distinct leaf and sample, and one trunk pass per denoiser and sample. A leaf
        whose weight is 0 at these timesteps and at every pixel costs none.

    Raises:
        NonFiniteError: naming the component whose prediction is not finite.
    """
    total = torch.zeros_like(sample, dtype=torch.promote_types(sample.dtype, torch.float32))
    if not composition.terms:
        return total
    active = weights_at(composition.terms, timestep, (sample.shape[-2], sample.shape[-1]))
    weights = {id(leaf): weight for leaf, weight in active}
    common = _common_type([leaf for leaf, _ in active], sum(weights.values()))
    levels = cache(lambda: shared_space(composition.terms).levels(timestep, total.dtype))

    def converted(prediction: Tensor, source: PredictionType, target: PredictionType) -> Tensor:
        return prediction if source == target else convert(prediction, sample, *levels(), source=source, target=target)

    parts = list(_predictions([leaf for leaf, _ in active], sample, timestep))
    for leaf, prediction, source in parts:
        part, weight = converted(prediction, source, common), weights[id(leaf)]
        if isinstance(weight, Tensor):
            total = total + part * weight.to(total.dtype).to(total.device)
        else:
            total = torch.add(total, part, alpha=weight)
    if not bool(torch.isfinite(total.sum())):
        _name_what_is_not_finite(parts, timestep)
    return converted(total, common, prediction_type)


def predict_leaves(
    composition: WeightedSum, sample: Tensor, timestep: Tensor, *, prediction_type: PredictionType = "epsilon"
) -> Tensor:
    """The predictions of all leaves, (K, B, C, H, W), in the order of `composition.terms`. Arguments as of `predict`.

    Costs what `predict` costs: one batch per group.

    Raises:
        NonFiniteError: naming the component whose prediction is not finite.
    """
    parts = list(_predictions(composition.terms, sample, timestep))
    levels = shared_space(composition.terms).levels(timestep)
    known = {
        id(leaf): convert(prediction, sample, *levels, source=source, target=prediction_type)
        for leaf, prediction, source in parts
    }
    stacked = torch.stack([known[id(leaf)] for leaf in composition.terms])
    if not bool(torch.isfinite(stacked.sum())):
        _name_what_is_not_finite(parts, timestep)
    return stacked


def _predictions(
    leaves: Iterable[Any], sample: Tensor, timestep: Tensor
) -> Iterator[tuple[Any, Tensor, PredictionType]]:
    for group, members in grouped(leaves):
        for leaf, prediction in zip(members, group.predict(members, sample, timestep), strict=True):
            yield leaf, prediction, group.prediction_type


def _name_what_is_not_finite(parts: Sequence[tuple[Any, Tensor, PredictionType]], timestep: Tensor) -> None:
    for leaf, prediction, _ in parts:
        if not bool(torch.isfinite(prediction).all()):
            raise NonFiniteError(
                f"got a prediction of {leaf!r} that is not finite at timesteps {timestep.tolist()[:4]}; expected "
                "numbers; check the weights, the input and the precision"
            )
