"""How latents encode factors, by MIG and MCC (thesis Table 4.2): functions, and torchmetrics around them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat

from energycomp.errors import InputError

BINS = 20


def mutual_information(latents: Tensor, factors: Tensor, *, bins: int = BINS) -> Tensor:
    """Mutual information (D, F) of latents (B, D) with factors (B, F), in nats, from histograms.

    A column of more than `bins` distinct values is cut into `bins` of equal width. The estimate is too large for few
    images: independent columns of b and m values get about (b - 1) (m - 1) / (2 B).
    """
    z, v = _codes(*_check(latents, factors), bins=bins)
    columns = []
    for factor in v.T:
        values = int(factor.max()) + 1
        first = torch.arange(z.shape[1]) * (bins * values)  # of the table of a dimension
        cells = torch.bincount((first + z * values + factor[:, None]).flatten(), minlength=z.shape[1] * bins * values)
        joint = cells.view(-1, bins, values).double() / len(z)
        columns.append(_entropy(joint.sum(2)) + _entropy(joint.sum(1)) - _entropy(joint.flatten(1)))
    return torch.stack(columns, 1).clamp(min=0)


def entropies(factors: Tensor, *, bins: int = BINS) -> Tensor:
    """The entropy of each factor (F,), in nats, from the histograms of `mutual_information`."""
    (v,) = _codes(_check(factors, factors)[1], bins=bins)
    return torch.stack([_entropy(factor.bincount()[None].double() / len(v))[0] for factor in v.T])


def information_gaps(latents: Tensor, factors: Tensor, *, bins: int = BINS) -> Tensor:
    """For each factor, how much more the best dimension tells of it than the second best, over its entropy (F,).

    The mean is the mutual information gap, eq. 6 of Chen et al. (2018). It is 1 where one dimension knows a factor and
    no other knows of it, 0 where two know the same. Parts (B, K, D) are K D dimensions.
    """
    information = mutual_information(_flat(latents), factors, bins=bins)
    entropy = entropies(factors, bins=bins)
    if len(information) < 2:
        raise InputError(f"got latents {tuple(latents.shape)}; expected two dimensions or more, for a gap between them")
    _check_varied(entropy > 0)
    best, second = information.topk(2, dim=0).values
    return (best - second) / entropy


def matched_correlations(latents: Tensor, factors: Tensor) -> Tensor:
    """The absolute correlation of each factor with the latent dimension that it is matched to (F,).

    The mean is the mean correlation coefficient of Hyvarinen & Morioka (2016): no two factors share a dimension, and
    the Hungarian algorithm takes the matching of the greatest sum. A factor without a dimension counts 0. A constant
    dimension correlates with nothing. Parts (B, K, D) are K D dimensions.
    """
    z, v = _check(_flat(latents), factors)
    _check_varied(v.amax(0) > v.amin(0))
    pairs = (_standard(z).T @ _standard(v)).abs().clamp(max=1)  # (D, F)
    rows, columns = (torch.as_tensor(index) for index in linear_sum_assignment(pairs.numpy(), maximize=True))
    matched = torch.zeros(v.shape[1], dtype=torch.float64)
    matched[columns] = pairs[rows, columns]
    return matched


class _Collected(Metric):
    """Latents and factors of all images; subclasses define the metric."""

    full_state_update = False
    higher_is_better = True
    latents: list[Tensor]
    factors: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        for name in ("latents", "factors"):
            self.add_state(name, [], dist_reduce_fx="cat")

    def update(self, latents: Tensor | Sequence[Tensor], factors: Tensor | Sequence[Tensor]) -> None:
        """Adds images: latents (B, D) or (B, K, D), factors (B, F); or lists of (K, D) and (1, F), one per image."""
        latents = latents if isinstance(latents, Tensor) else torch.stack(list(latents))
        factors = factors if isinstance(factors, Tensor) else torch.cat(list(factors))
        _check(_flat(latents), factors)
        self.latents.append(latents.detach())
        self.factors.append(factors.detach())

    def _all(self) -> tuple[Tensor, Tensor]:
        if not self.latents:
            raise InputError("got no images; expected latents and factors; add them with update")
        return dim_zero_cat(self.latents), dim_zero_cat(self.factors)


class MutualInformationGap(_Collected):
    """MIG, the mean of `information_gaps` over factors, in [0, 1]; the thesis gives it in percent."""

    def compute(self) -> Tensor:
        return information_gaps(*self._all()).mean()


class MeanCorrelation(_Collected):
    """MCC, the mean of `matched_correlations` over factors, in [0, 1]; the thesis gives it in percent."""

    def compute(self) -> Tensor:
        return matched_correlations(*self._all()).mean()


def _flat(latents: Tensor) -> Tensor:
    return latents.flatten(1) if latents.ndim == 3 else latents


def _check(latents: Tensor, factors: Tensor) -> tuple[Tensor, Tensor]:
    """Both on the CPU in float64, where they are (B, D) and (B, F) and finite."""
    if latents.ndim != 2 or factors.ndim != 2 or len(latents) != len(factors):
        raise InputError(
            f"got latents {tuple(latents.shape)} and factors {tuple(factors.shape)}; expected (B, D) and (B, F)"
        )
    if not (latents.numel() and factors.numel()):
        raise InputError(f"got latents {tuple(latents.shape)}, factors {tuple(factors.shape)}; expected none empty")
    z, v = latents.detach().cpu().double(), factors.detach().cpu().double()
    if not bool(torch.isfinite(z).all() and torch.isfinite(v).all()):
        raise InputError("got latents or factors that are not finite; expected numbers; leave such images out")
    return z, v


def _check_varied(varied: Tensor) -> None:
    if not bool(varied.all()):
        constant = int((~varied).nonzero()[0])
        raise InputError(f"got factor {constant} with one value only; expected factors that vary; leave it out")


def _codes(*tables: Tensor, bins: int) -> list[Tensor]:
    """Tables (B, D) of the number of the bin that each value lies in."""
    if bins < 2:
        raise InputError(f"got {bins} bins; expected two or more")
    return [torch.stack([_code(column, bins) for column in table.T], 1) for table in tables]


def _code(column: Tensor, bins: int) -> Tensor:
    values, codes = column.unique(return_inverse=True)
    if len(values) <= bins:
        return codes
    low, high = values[0], values[-1]
    return ((column - low) / (high - low) * bins).long().clamp(max=bins - 1)


def _entropy(probabilities: Tensor) -> Tensor:
    return torch.special.entr(probabilities).sum(1)


def _standard(columns: Tensor) -> Tensor:
    """Columns of mean 0 and length 1; a constant one becomes 0."""
    centred = columns - columns.mean(0)
    length = centred.norm(dim=0)
    flat = columns.amax(0) == columns.amin(0)
    return torch.where(flat, torch.zeros_like(centred), centred / length)
