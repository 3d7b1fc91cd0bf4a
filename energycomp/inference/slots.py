"""The domain of each component's value, a conditioner's support or a list of candidates; and of their number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor
from torch.distributions import constraints

from energycomp.components import MixedSupport, ability, values_of
from energycomp.components.weights import scalar
from energycomp.errors import InputError
from energycomp.fields import MOST, is_whole
from energycomp.models.model import Model


@attrs.frozen(eq=False)
class Slot:
    """What one component's value may be: its support, for gradient solvers, and where it is finite all values.

    >>> Slot(constraints.unit_interval).candidates, Slot(constraints.boolean, torch.tensor([0, 1])).candidates
    (None, tensor([0, 1]))
    """

    support: constraints.Constraint
    candidates: Tensor | None = None  # (M, *V)


def value_slot(model: Model, least: int, candidates: Any) -> Slot:
    """The slot of one of at least so many exchangeable components: candidates, else all values, else the support."""
    conditioner = model.conditioner
    support = model.conditioner.support
    # What is listed: by the caller, or by the conditioner; numbers have a support alone, and their words are open
    if candidates is not None:
        listed = _checked_candidates(candidates, model)
    elif (enumerate_support := ability(conditioner, "enumerate_support")) is not None:
        listed = enumerate_support()
    else:
        return Slot(support.continuous if isinstance(support, MixedSupport) else support)
    if model.defaults.distinct and len(listed) < least:
        got = f"got {len(listed)} values for at least {least} components that differ"
        raise InputError(f"{got}; expected as many; lower count= or list more candidates=")
    return Slot(support, listed.to(model.denoiser.device))


def attribute_slots(
    groups: tuple[Tensor, ...], model: Model, counts: tuple[int, int] | None, candidates: Any
) -> tuple[tuple[Slot, ...], tuple[int, int]]:
    """A slot for each attribute with the values that it may take, and their number as least and greatest count."""
    if candidates is not None:
        asked = _checked_candidates(candidates, model).tolist()
        # The candidates of each attribute; one without any is not asked about
        kept = []
        for group in groups:
            some = group[torch.tensor([value in asked for value in group.tolist()])]
            if len(some):
                kept.append(some)
        groups = tuple(kept)
    # Each attribute has one value
    high = len(groups)
    if counts not in (None, (high, high)):
        got = f"got counts {counts} for a model of {high} attributes"
        raise InputError(f"{got}; expected one of each; leave count= out, and name the attributes with candidates=")
    device = model.denoiser.device
    return tuple(Slot(model.conditioner.support, group.to(device)) for group in groups), (high, high)


def _checked_candidates(candidates: Any, model: Model) -> Tensor:
    """The distinct candidates, in order of value."""
    values = values_of(model.conditioner, candidates, name="candidates")
    if not len(values):
        raise InputError(
            "got candidates (0,); expected legal values, at least one; leave candidates= out to search all"
        )
    return torch.unique(values, dim=0)


def count_range(count: Any) -> tuple[int, int]:
    """Least and greatest of a whole number, or of two."""
    # One number is the least and the greatest
    are_two = isinstance(count, Sequence | np.ndarray | Tensor) and np.ndim(count)
    ends = list(count) if are_two else [count, count]
    numbers = list(map(scalar, ends))
    if len(numbers) != 2 or not all(map(is_whole, numbers)):
        raise InputError(
            f"got count={count!r}; expected a whole number, or least and greatest, such as 3 or (2, 4); change count="
        )
    low, high = map(int, numbers)
    if not 0 <= low <= high <= MOST:
        raise InputError(f"got counts from {low} to {high}; expected 0 <= least <= greatest <= {MOST:,}; change count=")
    return low, high
