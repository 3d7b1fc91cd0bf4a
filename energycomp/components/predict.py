"""The prediction of a composition: leaves by group, one batch per group, one weighted sum."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import attrs
import torch
from torch import Tensor

from energycomp.components.component import Leaf, LeafGroup, WeightedSum
from energycomp.components.prediction import PredictionType, convert
from energycomp.components.space import signal_noise
from energycomp.components.terms import shared_space
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


def grouped(composition: WeightedSum) -> list[tuple[LeafGroup, list[Any]]]:
    """The groups of a composition, each with its leaves. Groups are compared by identity."""
    groups: dict[int, tuple[LeafGroup, list[Any]]] = {}
    for leaf in composition.terms:
        group = group_of(leaf)
        groups.setdefault(id(group), (group, []))[1].append(leaf)
    return list(groups.values())


def native_type(composition: WeightedSum) -> PredictionType:
    """The type in which a composition is summed: its groups' own if they share one and the mass is 1, else "epsilon".

    At mass 1 sums of x0 or v predictions are x0 or v predictions; a round trip through eps would divide by
    sqrt(alpha_bar), 5e-5 at the noisy end of a cosine schedule.
    """
    kinds = {group.prediction_type for group, _ in grouped(composition)}
    if len(kinds) == 1 and abs(sum(composition.terms.values()) - 1.0) < 1e-6:
        return kinds.pop()
    return "epsilon"


def predict(
    composition: WeightedSum, sample: Tensor, timestep: Tensor, *, prediction_type: PredictionType = "epsilon"
) -> Tensor:
    """The composed prediction of a batch of noised samples.

    Args:
        composition: `{leaf: weight}`.
        sample: (B, C, H, W).
        timestep: (B,) real numbers in [0, T].
        prediction_type: the type of the result.

    Returns:
        (B, C, H, W). Costs one row per distinct leaf and sample, and one trunk pass per denoiser and sample.

    Raises:
        NonFiniteError: naming the component whose prediction is not finite.
    """
    common = native_type(composition)
    total = torch.zeros_like(sample, dtype=torch.promote_types(sample.dtype, torch.float32))
    if not composition.terms:
        return total
    levels = cache(lambda: signal_noise(shared_space(composition.terms).alphas_cumprod, timestep, total.dtype))

    def converted(prediction: Tensor, source: PredictionType, target: PredictionType) -> Tensor:
        return prediction if source == target else convert(prediction, sample, *levels(), source=source, target=target)

    parts = list(_predictions(composition, sample, timestep))
    for leaf, prediction, source in parts:
        total = torch.add(total, converted(prediction, source, common), alpha=composition.terms[leaf])
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
    parts = list(_predictions(composition, sample, timestep))
    levels = signal_noise(shared_space(composition.terms).alphas_cumprod, timestep, torch.float32)
    known = {
        id(leaf): convert(prediction, sample, *levels, source=source, target=prediction_type)
        for leaf, prediction, source in parts
    }
    stacked = torch.stack([known[id(leaf)] for leaf in composition.terms])
    if not bool(torch.isfinite(stacked.sum())):
        _name_what_is_not_finite(parts, timestep)
    return stacked


def _predictions(
    composition: WeightedSum, sample: Tensor, timestep: Tensor
) -> Iterator[tuple[Any, Tensor, PredictionType]]:
    for group, leaves in grouped(composition):
        for leaf, prediction in zip(leaves, group.predict(leaves, sample, timestep), strict=True):
            yield leaf, prediction, group.prediction_type


def _name_what_is_not_finite(parts: Sequence[tuple[Any, Tensor, PredictionType]], timestep: Tensor) -> None:
    for leaf, prediction, _ in parts:
        if not bool(torch.isfinite(prediction).all()):
            raise NonFiniteError(
                f"got a prediction of {leaf!r} that is not finite at timesteps {timestep.tolist()[:4]}; expected "
                "numbers; check the weights, the input and the precision"
            )
