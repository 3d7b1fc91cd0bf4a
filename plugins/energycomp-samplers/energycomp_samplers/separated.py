"""What `separate` found: draws of every source, intervals, and the posterior of the count."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping

import attrs
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from energycomp.errors import EnergycompWarning, InputError
from energycomp.fields import is_number
from energycomp.sampling import SamplingReport

ROUNDS = 3  # in which draws are brought into the order of their mean
CLOSE = 1e-6  # rounding, of levels and of numbers of draws
APART = 1e12  # the squared distance of sources that cannot change places


@attrs.frozen
class Explanation:
    """One set of sources that was tried.

    Args:
        names: of its sources.
        probability: posterior, among all sets.
        log_evidence: log p(y | sources), a density of y in its own units, when several sets were tried.
        stderr: of `log_evidence`, from how many particles the draws descend from.
    """

    names: tuple[str, ...]
    probability: float
    log_evidence: float
    stderr: float


@attrs.frozen(eq=False)
class Separation:
    """Draws of the posterior of K sources, for the most probable K. Sources of images are in [0, 1].

    Sources that could change places are in one order, in which draws are most alike, the largest mean first. To compare
    with truths that are sorted, sort each draw: `samples.flatten(2).sum(2).sort(1, descending=True).values`.

    Args:
        samples: (n, K, *shape), draws of the posterior.
        kinds: (n, K), which of the given sources each is.
        names: (K,), as most draws have them.
        counts: the posterior probability of each count.
        explanations: all sets of sources that were tried, the most probable first.
        residual: what the mean does not explain, y - sum_k A_k mean_k, (*seen).
        report: of the sampler, for the most probable set; its `evaluations` are those of all sets.
        warnings: reasons not to trust the draws.

    >>> draws = torch.arange(19.0).reshape(19, 1, 1)
    >>> found = Separation(draws, torch.zeros(19, 1), ("a",), {1: 1.0}, (), torch.zeros(1))
    >>> [bound.item() for bound in found.interval(0.9)], found.mean
    ([0.0, 18.0], tensor([[9.]]))
    """

    samples: Tensor
    kinds: Tensor
    names: tuple[str, ...]
    counts: Mapping[int, float]
    explanations: tuple[Explanation, ...]
    residual: Tensor
    report: SamplingReport = attrs.field(factory=SamplingReport)
    warnings: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        """The most probable number of sources."""
        return self.samples.shape[1]

    @property
    def mean(self) -> Tensor:
        """The posterior mean of each source, (K, *shape)."""
        return self.samples.mean(0)

    def interval(self, level: float = 0.9, f: Callable[[Tensor], Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """Bounds, (K, *shape) each, between which each number is with a probability of `level`, above 0 and below 1.

        They are order statistics of n draws: right in the mean for any n >= 2 / (1 - level) - 1, 19 for 0.9. Of fewer
        they are the least and the greatest, and a warning says how much is between them.

        Args:
            f: of batches of sources (B, *shape) to (B, ...), such as the flux `lambda z: z.flatten(1).sum(1)`.
        """
        if not (is_number(level) and 0.0 < level < 1.0):
            raise InputError(f"got interval({level!r}); expected a probability between 0 and 1, such as 0.9")
        values = self.samples if f is None else f(self.samples.flatten(0, 1)).unflatten(0, self.samples.shape[:2])
        # Few draws do not tell so wide an interval: the least and the greatest have to do
        n = len(values)
        if level > most_level(n) + CLOSE:
            held = f"between the least and the greatest of which {most_level(n):.0%} is"
            got = f"got interval({level:g}) of {n} draws, {held}"
            needed = math.ceil(2.0 / (1.0 - level) - 1.0 - CLOSE)
            warnings.warn(f"{got}; draw at least {needed}", EnergycompWarning, 2)
        # Draw k of n, in order, exceeds k / (n + 1) of the distribution on average; quantile(q) is draw 1 + q (n - 1)
        low = ((1.0 - level) / 2.0 * (n + 1) - 1.0) / max(n - 1, 1)
        share = min(max(low, 0.0), 0.5)
        return values.quantile(share, dim=0), values.quantile(1.0 - share, dim=0)


def most_level(n: int) -> float:
    """The probability, on average, of what is between the least and the greatest of n draws."""
    return (n - 1) / (n + 1)


def align(samples: Tensor, kinds: Tensor, *, is_exchangeable: bool) -> tuple[Tensor, Tensor]:
    """Draws (n, K, *shape) and their kinds (n, K), with the sources of each in the order in which they are most
    alike.
    """
    flat = samples.flatten(2).double()
    if flat.shape[1] < 2:
        return samples, kinds
    places = torch.arange(flat.shape[1]).expand(flat.shape[:2]).clone()
    # Align the draws to their mean, which changes as they are aligned
    centre = flat[0]
    kind = kinds[0]
    for _ in range(ROUNDS):
        # Assign the sources of each draw to those of the mean.
        cost = torch.cdist(centre.expand(len(flat), -1, -1), flat).square()
        if not is_exchangeable:
            cost = cost + APART * (kind[None, :, None] != kinds[:, None, :])
        for index, one in enumerate(cost.cpu().numpy()):
            places[index] = torch.as_tensor(linear_sum_assignment(one)[1])
        # The mean of the draws in this order.
        centre = _reorder(flat, places).mean(0)
    # The largest first, among sources that can change places.
    sums = centre.sum(1)
    order = sorted(range(len(sums)), key=lambda k: -float(sums[k]))
    if not is_exchangeable:
        free = {value: [k for k in order if float(kind[k]) == value] for value in kind.tolist()}
        order = [free[value].pop(0) for value in kind.tolist()]
    places = places[:, order]
    return _reorder(samples, places), _reorder(kinds, places)


def _reorder(values: Tensor, places: Tensor) -> Tensor:
    """Values (n, K, ...) at the places (n, K)."""
    return values[torch.arange(len(values), device=values.device)[:, None], places.to(values.device)]
