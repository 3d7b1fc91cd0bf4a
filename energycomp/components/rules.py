"""The rules of composition as one table: what each row and the null row weigh."""

from __future__ import annotations

from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from energycomp.components.weights import LEAST_VALUE, AnyWeight, varies
from energycomp.errors import CompositionError

Rule = Literal["sum", "mean", "product"]


W = TypeVar("W", bound="AnyWeight | Tensor")


def rule_weights(rule: Rule, mass: W) -> tuple[W, W]:
    """The weight of each row and the weight of the null row u, for rows whose own weights sum to `mass`.

    | rule    | row      | null     | thesis                      |
    | ------- | -------- | -------- | --------------------------- |
    | sum     | 1        | 0        | eqs 2.34, 4.9, 5.4, 5.5     |
    | mean    | 1 / mass | 0        | the code of its experiments |
    | product | 1        | 1 - mass | eq. 5.12                    |

    Args:
        rule: "sum", "mean" or "product".
        mass: K for K rows of weight 1; a tensor holds one mass per sample, a `Weight` one per pixel and noise level.

    Raises:
        CompositionError: an unknown rule, or a mass of 0 under the rule "mean".

    >>> [rule_weights(rule, 4.0) for rule in ("sum", "mean", "product")]
    [(1.0, 0.0), (0.25, 0.0), (1.0, -3.0)]
    """
    total: Any = mass
    none = total * 0.0
    if rule == "sum":
        return none + 1.0, none
    if rule == "mean":
        if not varies(total) and bool((torch.as_tensor(total).abs() < LEAST_VALUE).any()):
            got = "got a composition without components under the rule 'mean', or with weights that sum to 0"
            raise CompositionError(f"{got}; expected at least one component and another sum; use the rule 'sum'")
        return 1.0 / total, none
    if rule == "product":
        return none + 1.0, 1.0 - total
    raise CompositionError(f"got rule {rule!r}; expected 'sum', 'mean' or 'product'")


def identifies_null(rule: Rule) -> bool:
    """Whether a rule uses the unconditional prediction, so that training identifies it and K = 0 has a prediction."""
    return rule_weights(rule, 2.0)[1] != 0.0
