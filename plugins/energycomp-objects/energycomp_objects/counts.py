"""How many objects of each kind a photo holds, with intervals: counts of proposals, each there with its probability.

Objects of a photo are not independent: in one that is blurred, or whose marks are sparse, all are less likely than
their odds say. A shift of all log-odds of a photo, drawn from a Gaussian, makes counts as uncertain as they are.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

NODES = 7  # of the integral over the shift


def count_posterior(
    probabilities: Sequence[float],
    shares: Sequence[float] | None = None,
    counts: tuple[int, int] | None = None,
    *,
    spread: float = 0.0,
) -> Tensor:
    """The probabilities (n + 1,) of 0 to n objects, of n that are each there independently (Poisson binomial).

    Args:
        shares: the probability that each object, where it is there, is one of those that are counted.
        counts: least and greatest number of all objects, where that is known.
        spread: standard deviation of a shift of all log-odds, in which photos differ.

    >>> count_posterior([0.5, 0.5]).tolist()
    [0.25, 0.5, 0.25]
    >>> count_posterior([0.5, 0.5], [1.0, 0.0], counts=(2, 2)).tolist()
    [0.0, 1.0, 0.0]
    """
    if spread > 0:
        shifts, weights = _shifts(spread)
        log_odds = torch.tensor(probabilities, dtype=torch.float64).logit(1e-9)
        shifted = (log_odds + shifts[:, None]).sigmoid().tolist()
        return weights @ torch.stack([count_posterior(each, shares, counts) for each in shifted])
    joint = torch.ones(1, 1, dtype=torch.float64)  # (of those that are counted, of all)
    for probability, share in zip(probabilities, shares or [1.0] * len(probabilities), strict=True):
        absent = F.pad(joint, (0, 1, 0, 1)) * (1 - probability)
        counted = F.pad(joint, (1, 0, 1, 0)) * probability * share
        joint = absent + counted + F.pad(joint, (1, 0, 0, 1)) * probability * (1 - share)
    if counts is not None:
        number = torch.arange(joint.shape[1])
        low = min(counts[0], joint.shape[1] - 1)
        joint = joint * ((number >= low) & (number <= max(counts[1], low)))
    posterior = joint.sum(1)
    total = float(posterior.sum())
    # A number that no probability allows says nothing
    return posterior / total if total > 0 else count_posterior(probabilities, shares)


def answer_posterior(
    log_odds: Tensor, is_chosen: Tensor, counts: tuple[int, int] | None = None, *, spread: float = 0.0
) -> float:
    """The probability that the chosen of all proposals are there, and the others are not.

    Args:
        log_odds: (M,) of proposals.
        is_chosen: (M,) truth values.
        counts: as those of `count_posterior`.
        spread: likewise.

    >>> round(answer_posterior(torch.tensor([0.0, 0.0]), torch.tensor([True, False])), 2)
    0.25
    >>> round(answer_posterior(torch.tensor([0.0, 0.0]), torch.tensor([True, False]), (1, 1)), 2)
    0.5
    """
    shifts, weights = _shifts(spread)
    shifted = log_odds.double() + shifts[:, None]
    posterior = float(weights @ F.logsigmoid(torch.where(is_chosen, shifted, -shifted)).sum(1).exp())
    if counts is None:
        return posterior
    of_counts = count_posterior(log_odds.double().sigmoid().tolist(), spread=spread)
    allowed = float(of_counts[counts[0] : counts[1] + 1].sum())
    return min(1.0, posterior / allowed) if allowed > 0 else 0.0


def _shifts(spread: float) -> tuple[Tensor, Tensor]:
    """Nodes and weights of the integral over a Gaussian shift."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
    return spread * torch.from_numpy(nodes), torch.from_numpy(weights / weights.sum())


def interval(posterior: Tensor, level: float = 0.9) -> tuple[int, int]:
    """The least interval of counts that holds at least the level.

    >>> interval(torch.tensor([0.02, 0.95, 0.03]))
    (1, 1)
    """
    low = high = int(posterior.argmax())
    held = float(posterior[low])
    while held < level:
        below = float(posterior[low - 1]) if low > 0 else -1.0
        above = float(posterior[high + 1]) if high + 1 < len(posterior) else -1.0
        if above >= below:
            high += 1
        else:
            low -= 1
        held += max(above, below)
    return low, high
