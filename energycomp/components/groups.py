"""Groups: which leaves of a composition are predicted together, and the leaves inside of wrappers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import Any

import attrs
from torch import Tensor

from energycomp.components.component import LeafGroup, compositions_in
from energycomp.components.condition import Condition
from energycomp.components.ledger import count_component
from energycomp.components.prediction import PredictionType


@attrs.frozen
class Independent:
    """The group of components that predict noise themselves, one after another."""

    prediction_type: PredictionType = "epsilon"
    rule: None = None
    device: None = None
    decode: None = None

    def predict(self, leaves: Sequence[Any], sample: Tensor, timestep: Tensor) -> Sequence[Tensor]:
        """Each component's own eps (B, C, H, W)."""
        predicted = []
        for leaf in leaves:
            with count_component(len(sample)):
                predicted.append(leaf.eps(sample, timestep))
        return predicted


_INDEPENDENT = Independent()


@attrs.frozen(eq=False)
class WrappedGroup(ABC):
    """The group of leaves that wrap leaves of another group, and change the samples or timesteps that these are given.

    A leaf of it has the leaf that it wraps as `inner`. Predictions are of the type of the group `inner`.
    """

    inner: LeafGroup

    prediction_type = property(attrgetter("inner.prediction_type"))
    rule = property(attrgetter("inner.rule"))
    device = property(attrgetter("inner.device"))
    decode = property(attrgetter("inner.decode"))

    @abstractmethod
    def predictions(
        self, leaves: Sequence[Any], owners: Sequence[Tensor | None], sample: Tensor, timestep: Tensor
    ) -> Sequence[Tensor]:
        """As `predict_some`; an owner of None stands for all samples."""

    def predict(self, leaves: Sequence[Any], sample: Tensor, timestep: Tensor) -> Sequence[Tensor]:
        """As `LeafGroup.predict`."""
        return self.predictions(leaves, [None] * len(leaves), sample, timestep)

    def predict_some(
        self, leaves: Sequence[Any], owners: Sequence[Tensor], sample: Tensor, timestep: Tensor
    ) -> Sequence[Tensor]:
        """As `predict_some` of a `LeafGroup`."""
        return self.predictions(leaves, owners, sample, timestep)


def group_of(leaf: Any) -> LeafGroup:
    """The group that predicts a leaf."""
    group: LeafGroup = getattr(leaf, "group", _INDEPENDENT)
    return group


def inner_of(leaf: Any) -> Any:
    """The leaf that a leaf wraps; None for one that wraps none."""
    return leaf.inner if isinstance(group_of(leaf), WrappedGroup) else None


def unwrap(leaf: Any) -> Any:
    """The leaf inside all wrappers: of `match_snr`, and of `within`."""
    while (inner := inner_of(leaf)) is not None:
        leaf = inner
    return leaf


def rewrap(leaf: Any, inner: Any) -> Any:
    """Another leaf in the wrappers of a leaf."""
    own = inner_of(leaf)
    return inner if own is None else attrs.evolve(leaf, inner=rewrap(own, inner))


def differs_by_sample(leaf: Any) -> bool:
    """Whether a leaf, or one inside of it, has a condition for each sample, and so knows samples by their places."""
    bare = unwrap(leaf)
    if inside := compositions_in(bare):
        return any(differs_by_sample(one) for part in inside for one in part.terms)
    condition = getattr(bare, "condition", None)
    return isinstance(condition, Condition) and len(condition) > 1


def group_leaves(leaves: Iterable[Any]) -> list[tuple[LeafGroup, list[Any]]]:
    """The groups of leaves, each with its leaves. Groups are compared by identity."""
    groups: dict[int, tuple[LeafGroup, list[Any]]] = {}
    for leaf in leaves:
        group = group_of(leaf)
        groups.setdefault(id(group), (group, []))[1].append(leaf)
    return list(groups.values())
