"""The domain of each component's value, a conditioner's support or a list of candidates; and of their number."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor
from torch.distributions import constraints

from energycomp.components.conditioning import FiniteConditioner
from energycomp.components.support import MixedSupport
from energycomp.components.values import values_of
from energycomp.errors import InputError
from energycomp.fields import MOST
from energycomp.models.model import Model


@attrs.frozen(eq=False)
class Slot:
    """What one component's value may be.

    Args:
        support: the set of legal values, for gradient solvers.
        candidates: all legal values (M, *V) where they are finite, else None.
    """

    support: constraints.Constraint
    candidates: Tensor | None = None


def value_slot(model: Model, least: int, candidates: Any) -> Slot:
    """The slot of an exchangeable component: the candidates, else all values of a finite conditioner, else its support.

    Args:
        least: the least number of components; there must be as many candidates if values must differ.
    """
    if candidates is not None:
        listed: Tensor | None = _checked_candidates(candidates, model)
    else:
        conditioner = model.conditioner
        listed = conditioner.enumerate_support() if isinstance(conditioner, FiniteConditioner) else None
    if listed is not None and model.defaults.distinct and len(listed) < least:
        raise InputError(
            f"got {len(listed)} values for at least {least} components that differ; expected as many; lower count= or "
            "list more candidates="
        )
    if listed is not None:
        return Slot(model.conditioner.support, listed.to(model.denoiser.device))
    support = model.conditioner.support
    return Slot(support.continuous if isinstance(support, MixedSupport) else support)


def attribute_slots(
    groups: tuple[Tensor, ...], model: Model, counts: tuple[int, int] | None, candidates: Any
) -> tuple[tuple[Slot, ...], tuple[int, int]]:
    """A slot for each attribute with the values that it may take, and their number as least and greatest count."""
    if candidates is not None:
        wanted = _checked_candidates(candidates, model)
        asked = wanted.tolist()
        groups = tuple(group[torch.tensor([value in asked for value in group.tolist()])] for group in groups)
        groups = tuple(group for group in groups if len(group))
    high = len(groups)
    if counts not in (None, (high, high)):
        raise InputError(
            f"got counts {counts} for a model of {high} attributes; expected one of each; leave count= out, and name "
            "the attributes with candidates="
        )
    device = model.denoiser.device
    return tuple(Slot(model.conditioner.support, group.to(device)) for group in groups), (high, high)


def _checked_candidates(candidates: Any, model: Model) -> Tensor:
    """The distinct candidates, in order of value."""
    values = values_of(model.conditioner, candidates, name="candidates")
    if not len(values):
        raise InputError(
            "got candidates of shape (0,); expected legal values, at least one; leave candidates= out to search all"
        )
    return torch.unique(values, dim=0)


def count_range(count: Any) -> tuple[int, int]:
    """Least and greatest of a whole number, or of two."""
    ends = count if isinstance(count, Sequence | np.ndarray | Tensor) and np.ndim(count) else (count, count)
    try:
        low, high = map(_whole, ends)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"got count={count!r}; expected a whole number, or least and greatest, such as 3 or (2, 4); change count="
        ) from error
    if not 0 <= low <= high <= MOST:
        raise InputError(f"got counts from {low} to {high}; expected 0 <= least <= greatest <= {MOST:,}; change count=")
    return low, high


def _whole(number: Any) -> int:
    """A whole number of Python, NumPy or a tensor; raises TypeError for anything else, flags included."""
    if isinstance(number, bool) or getattr(number, "dtype", None) == torch.bool:
        raise TypeError(number)
    return operator.index(number)
