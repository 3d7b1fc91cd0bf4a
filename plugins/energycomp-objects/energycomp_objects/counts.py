"""How many objects of each kind a photo holds, with intervals: counts of proposals, each there with its probability."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def count_posterior(probabilities: Sequence[float]) -> Tensor:
    """The probabilities (n + 1,) of 0 to n objects, of n that are each there independently (Poisson binomial).

    >>> count_posterior([0.5, 0.5]).tolist()
    [0.25, 0.5, 0.25]
    """
    posterior = torch.ones(1, dtype=torch.float64)
    for probability in probabilities:
        more = torch.nn.functional.pad(posterior, (1, 0)) * probability
        posterior = torch.nn.functional.pad(posterior, (0, 1)) * (1 - probability) + more
    return posterior


def interval(posterior: Tensor, level: float = 0.9) -> tuple[int, int]:
    """The least interval of counts that holds at least the level.

    >>> interval(torch.tensor([0.02, 0.9, 0.08]))
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
