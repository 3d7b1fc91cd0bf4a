"""Slot attention: K slots compete for the cells of a feature map (Locatello et al., 2020)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

HEADS = 4  # of a transformer


class SlotAttention(nn.Module):
    """Iterative attention that is normalized over slots, so that few slots explain each cell.

    Args:
        channels: D' of a cell of the feature map.
        width: D of a slot.
        hidden: of the residual MLP after each update.
        iterations: the number of updates; gradients flow through all of them.
    """

    def __init__(self, *, channels: int, width: int, hidden: int = 128, iterations: int = 3) -> None:
        super().__init__()
        self.iterations = iterations
        self.scale = width**-0.5
        self.mean = nn.Parameter(nn.init.normal_(torch.empty(width), std=width**-0.5))
        self.log_sigma = nn.Parameter(torch.zeros(width))
        self.cells = nn.LayerNorm(channels)
        self.key = nn.Linear(channels, width, bias=False)
        self.value = nn.Linear(channels, width, bias=False)
        self.before = nn.LayerNorm(width)
        self.query = nn.Linear(width, width, bias=False)
        self.update = nn.GRUCell(width, width)
        self.residual = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, width)
        )
        for layer in (self.key, self.value, self.query):
            nn.init.xavier_uniform_(layer.weight)  # with torch's default every slot attends to everything at first

    def initial(self, noise: Tensor) -> Tensor:
        """Initial slots (B, K, D) from normal noise (B, K, D), with one learned mean and sigma for all slots."""
        return self.mean + self.log_sigma.exp() * noise

    def forward(self, cells: Tensor, slots: Tensor) -> tuple[Tensor, Tensor]:
        """Slots (B, K, D) from cells (B, N, D') and initial slots, and their attention (B, K, N) to each cell.

        # Notation: cells -> f_input; slots -> s_1:K; share -> atn
        """
        cells = self.cells(cells)
        key, value = self.key(cells), self.value(cells)
        batch, count, width = slots.shape
        share = slots.new_zeros(batch, count, cells.shape[1])
        for _ in range(self.iterations):
            query = self.query(self.before(slots)) * self.scale
            share = torch.einsum("bkd,bnd->bkn", query, key).softmax(dim=1)
            weights = share + 1e-8
            weights = weights / weights.sum(dim=2, keepdim=True)
            gathered = torch.einsum("bkn,bnd->bkd", weights, value)
            slots = self.update(gathered.reshape(-1, width), slots.reshape(-1, width)).view(batch, count, width)
            slots = slots + self.residual(slots)
        return slots, share


class SlotTransformer(nn.Module):
    """Slots as queries of a transformer decoder: an ablation without competition (Table 3.3 of Wang, 2026)."""

    def __init__(self, *, channels: int, width: int, hidden: int = 128, layers: int = 3) -> None:
        super().__init__()
        self.enter = nn.Linear(channels, width)
        layer = nn.TransformerDecoderLayer(width, nhead=HEADS, dim_feedforward=hidden, dropout=0.0, batch_first=True)
        self.layers = nn.TransformerDecoder(layer, layers)

    def forward(self, cells: Tensor, slots: Tensor) -> tuple[Tensor, Tensor]:
        """As `SlotAttention.forward`; the attention is uniform."""
        shares = slots.new_full((*slots.shape[:2], cells.shape[1]), 1 / slots.shape[1])
        return self.layers(slots, F.relu(self.enter(cells))), shares
