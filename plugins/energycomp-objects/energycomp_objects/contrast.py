"""`energycomp_lab.training.contrast` for objects that show in their windows alone: no whole sample is made of a rival.

Notation: variable -> symbol
    residual    r of the true composition, folded to cells
    alone       2 r.e + |e|^2 of an effect e that is added; with -2 r.e of one that is left out
    crossing    e.e' of the effect that is added and the one that it replaces, where their windows meet

A rival that adds e and leaves out e' has J(rival) - J(true) = lambda (2 r.e + |e|^2 - 2 r.e' + |e'|^2 - 2 e.e').
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from energycomp.components import Condition
from energycomp.components.ledger import count
from energycomp.denoisers import Cells, Denoiser, Trunk
from energycomp_lab.training import Rivals
from energycomp_lab.training.loss import error_weight
from energycomp_objects.network import PlacedUNet


def window_contrast(
    denoiser: Denoiser,
    noised: tuple[Trunk, Tensor, Tensor],
    condition: Condition,
    owner: Tensor,
    rivals: Rivals,
    *,
    weight: float = 1.0,
    gamma: float = 4.0,
    floor: float = 0.02,
) -> Tensor:
    """What `contrast` returns for a `PlacedUNet`, at the cost of windows. Counts R + M rows."""
    network = denoiser.network
    shared, goal, timestep = noised
    if not isinstance(network, PlacedUNet) or shared.features is None:
        raise TypeError(f"got the network {type(network).__name__}; expected a PlacedUNet")
    everything, owners = rivals.rows(condition, owner)
    has = rivals.added >= 0
    count(rows=len(owners))
    parts = [(rows, cells, made.float()) for rows, cells, made in network.effects(shared.features, everything, owners)]

    residual = F.pixel_unshuffle(shared.features[1].float() - goal, network.patch)
    for rows, cells, made in parts:
        true = (rows < len(owner)).nonzero()[:, 0]
        residual = cells[true].paste(residual, owner[rows[true]], made[true])
    scale = error_weight(denoiser, timestep, gamma).float()
    loss = (residual.square().mean((1, 2, 3)) * scale.clamp(min=floor)).mean()

    # Margins of effects alone, and those of pairs
    product = residual.new_zeros(len(owners) + 1)  # the last one is of no effect
    square = residual.new_zeros(len(owners) + 1)
    for rows, cells, made in parts:
        product = product.index_add(0, rows, (cells.crop(residual, owners[rows]) * made).sum((1, 2, 3)))
        square = square.index_add(0, rows, made.square().sum((1, 2, 3)))
    added = torch.where(has, rivals.added + len(owner), -1)
    margin = 2 * product[added] + square[added] - 2 * product[rivals.dropped] + square[rivals.dropped]
    both = (has & (rivals.dropped >= 0)).nonzero()[:, 0]
    crossing = _crossing(parts, added[both], rivals.dropped[both], len(owners))
    margin = scale[rivals.owner] * margin.index_add(0, both, -2 * crossing)
    return loss + weight * F.softplus(-margin).sum() / residual.numel()


def _crossing(parts: list[tuple[Tensor, Cells, Tensor]], one: Tensor, other: Tensor, number: int) -> Tensor:
    """Inner products (K,) of the effects of rows one[k] and other[k], each in a window of its own."""
    products = parts[0][2].new_zeros(len(one))
    place = [torch.full((number,), -1).index_put((rows,), torch.arange(len(rows))) for rows, _, _ in parts]
    for mine, (_, cells, made) in zip(place, parts, strict=True):
        for theirs, (_, other_cells, other_made) in zip(place, parts, strict=True):
            pairs = ((mine[one] >= 0) & (theirs[other] >= 0)).nonzero()[:, 0]
            a, b = mine[one[pairs]], theirs[other[pairs]]
            # Cells of the first window, counted in the second
            rows = cells.rows[a] - other_cells.rows[b, :1]
            columns = cells.columns[a] - other_cells.columns[b, :1]
            h, w = other_made.shape[2:]
            inside = ((rows >= 0) & (rows < h))[:, :, None] & ((columns >= 0) & (columns < w))[:, None, :]
            at = (b[:, None, None], rows.clamp(0, h - 1)[:, :, None], columns.clamp(0, w - 1)[:, None, :])
            met = other_made.movedim(1, -1)[at].movedim(-1, 1) * inside[:, None]
            products = products.index_add(0, pairs, (made[a] * met).sum((1, 2, 3)))
    return products
