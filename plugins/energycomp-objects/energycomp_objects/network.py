"""The network of placed objects: heads on windows of an object's size, samples of any size, and proposals.

Notation: variable -> symbol
    grid        cells of patch x patch pixels, on which trunk and heads work
    side        of the window of an object, in cells
    fade        1 around a place, 0 at the border of its window, so that a prediction has no edge there
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from energycomp.components import Condition
from energycomp.denoisers import Cells, TwoStageUNet, configured
from energycomp.denoisers.two_stage import GroupNorm

BUMPS = (1.0, 2.5, 6.0)  # cells, the widths of Gaussians around a place
TYPICAL = 6.0  # cells, the size whose logarithm is 0 in an embedding
MAPS = 9
ROOM = 1.4  # side of a window in sizes of its object, at least
LEAST = 8  # cells
OVERLAP = 0.4  # of two tiles, in their side


@configured
class PlacedUNet(TwoStageUNet):
    """A `TwoStageUNet` for tokens of `Objects`, whose trunk also proposes objects.

    A sample larger than `sample_size` is seen in overlapping tiles of that size, whose features blend into one map:
    heads see the map and not the tiles, so that an object at a seam is one component. Offsets and sizes are counted in
    cells, which mean the same in a sample of any size.

    Args:
        words: how many values each attribute has.
        box: whether tokens have a width and a height behind the place.
        proposals: channels of the layer between trunk and proposals.
        odds: weights of the log-odds of an object: constant, of the logit of its proposal, and of the logarithm of 1 +
            its gain, where it has one; fitted on photos kept back, see `energycomp_objects.score`.
        spread: of the log-odds of all objects of a photo, see `energycomp_objects.counts`; fitted on the same photos.
        sample_size, window, config: as of `TwoStageUNet`; the window is that of the largest objects, and of those whose
            size is open.

    >>> net = PlacedUNet(sample_size=32, words=(2,), channels=(8, 16), head_channels=8, window=8)
    >>> features = net.features(torch.zeros(1, 3, 48, 64), torch.tensor([10.0]))
    >>> net.head(features, Condition(torch.full((2, 1, 6), 0.3)), torch.tensor([0, 0])).shape
    torch.Size([2, 3, 48, 64])
    >>> {name: tuple(maps.shape) for name, maps in net.propose(features).items()}
    {'score': (1, 12, 16), 'offset': (1, 2, 12, 16), 'size': (1, 2, 12, 16), 'words': (1, 2, 12, 16)}
    """

    config: dict[str, Any]  # by `configured`
    window: int

    def __init__(
        self,
        *,
        words: Sequence[int] = (),
        box: bool = True,
        proposals: int = 96,
        window: int = 16,
        sample_size: int | Sequence[int] = 64,
        odds: Sequence[float] = (0.0, 1.0, 0.0),
        spread: float = 0.0,
        **config: Any,
    ) -> None:
        width = 3 * box + sum(words)
        super().__init__(window=window, sample_size=sample_size, token_width=max(1, width), **config)
        head = self.enter.out_channels
        self.box = box
        self.odds = tuple(map(float, odds))
        self.spread = float(spread)
        self.tile = (sample_size,) * 2 if isinstance(sample_size, int) else tuple(sample_size)
        self.sides = sorted({max(min(LEAST, window), _even(window * share)) for share in (0.5, 0.75, 1.0)})
        self.place = nn.Conv2d(MAPS, head, 3, padding=1, bias=False)
        self.proposals = nn.Sequential(
            GroupNorm(8, head),
            nn.SiLU(),
            nn.Conv2d(head, proposals, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(proposals, 5 + sum(words), 1),
        )
        last = self.proposals[-1]
        nn.init.zeros_(last.weight)  # type: ignore[arg-type]
        nn.init.constant_(last.bias[:1], -4.0)  # type: ignore[index]  # few cells hold the centre of an object

    def features(self, sample: Tensor, timestep: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As of `TwoStageUNet`, of samples (B, C, H, W) of any size that is a multiple of the patch."""
        size = sample.shape[-2:]
        tile = [min(a, b) for a, b in zip(self.tile, size, strict=True)]
        starts = [_starts(a, b, self.patch) for a, b in zip(size, tile, strict=True)]
        corners = list(itertools.product(*starts))
        if len(corners) == 1:
            return super().features(sample, timestep)
        # Run the trunk on all tiles of all samples
        (height, width), p = tile, self.patch
        tiles = torch.cat([sample[..., y : y + height, x : x + width] for y, x in corners])
        shared, base, time = super().features(tiles, timestep.repeat(len(corners)))
        # Blend: a tile counts most in its middle
        weight = _hat(height // p, sample.device)[:, None] * _hat(width // p, sample.device)
        maps = [_blend(shared, weight, [(y // p, x // p) for y, x in corners], [side // p for side in size])]
        fine = weight.repeat_interleave(p, 0).repeat_interleave(p, 1)
        maps.append(_blend(base, fine, corners, size))
        return maps[0], maps[1], time[: len(sample)]

    def head(self, features: tuple[Tensor, ...], condition: Condition, owner: Tensor) -> Tensor:
        """Predictions (R, C, H, W): the shared part of the owner plus what this condition adds in its window."""
        shared, base, _ = features
        added = base.new_zeros((len(owner), base.shape[1] * self.patch**2, *shared.shape[-2:]))
        for rows, windows, made in self.effects(features, condition, owner):
            added = windows.paste(added, rows, made.to(added))
        return base[owner] + F.pixel_shuffle(added, self.patch)

    def effects(
        self, features: tuple[Tensor, ...], condition: Condition, owner: Tensor
    ) -> list[tuple[Tensor, Cells, Tensor]]:
        """What conditions add to the shared part: for windows of each side the rows, their cells, and (R, F, s, s)."""
        shared, _, time = features
        grid = shared.shape[-2:]
        token = condition.rows[:, 0]
        sides = self._sides(token, grid)
        parts = []
        for side in self.sides:
            rows = (~condition.null & (sides == side)).nonzero()[:, 0]
            if not len(rows):
                continue
            windows = Cells.around(token[rows, :2], side=side, grid=grid)
            own = owner[rows]
            embedding = self.token(self._said(token[rows], grid).to(token.dtype)).to(token.dtype) + time[own]
            maps, fade = self._maps(token[rows], windows, side)
            h = windows.crop(shared, own) + self.place(maps.contiguous(memory_format=torch.channels_last))  # type: ignore[misc]
            parts.append((rows, windows, self.out(self.blocks(h, embedding)) * fade))
        return parts

    def propose(self, features: tuple[Tensor, ...]) -> dict[str, Tensor]:
        """Maps of every cell as the centre of an object.

        Returns:
            `score` (B, h, w), logits; `offset` (B, 2, h, w) of the centre from that of the cell, and the logarithm of
            `size` (B, 2, h, w), both in cells, x first; and `words` (B, W, h, w), logits of all words.
        """
        maps = self.proposals(features[0]).float()
        return {"score": maps[:, 0], "offset": maps[:, 1:3], "size": maps[:, 3:5], "words": maps[:, 5:]}

    def log_odds(self, logit: float, gain: float) -> float:
        """The log-odds that a proposal is an object, by its logit and how much the error rises without it."""
        constant, by_logit, by_gain = self.odds
        return constant + by_logit * logit + by_gain * math.copysign(math.log1p(abs(gain)), gain)

    def _sides(self, token: Tensor, grid: Sequence[int]) -> Tensor:
        """The side of the window of each row: the least that has room for it, and the greatest for an open size."""
        if not self.box:
            return torch.full((len(token),), self.sides[-1], device=token.device)
        cells = (token[:, 2:4].detach() * token.new_tensor([grid[1], grid[0]])).amax(1) * ROOM
        sides = torch.tensor(self.sides, device=token.device)
        index = torch.searchsorted(sides.to(cells), cells.contiguous()).clamp(max=len(sides) - 1)
        return sides[torch.where(token[:, 2] > 0, index, len(sides) - 1)]

    def _said(self, token: Tensor, grid: Sequence[int]) -> Tensor:
        """What tokens say beside the place: the logarithm of the size in cells, whether it is said, and words."""
        if not self.box:
            return token[:, 2:] if token.shape[1] > 2 else token.new_zeros(len(token), 1)
        is_said = token[:, 2:3] > 0
        size = (token[:, 2:4] * token.new_tensor([grid[1], grid[0]])).clamp(min=0.25) / TYPICAL
        return torch.cat([size.log() * is_said, is_said.to(token), token[:, 4:]], dim=1)

    def _maps(self, token: Tensor, windows: Cells, side: int) -> tuple[Tensor, Tensor]:
        """Offsets, bumps and the box of objects on their windows (R, 9, s, s), and the fade (R, 1, s, s)."""
        h, w = windows.grid
        v, u = windows.centres(token)
        dx = ((u - token[:, :1]) * w)[:, None, :].expand(-1, v.shape[1], -1)
        dy = ((v - token[:, 1:2]) * h)[:, :, None].expand(-1, -1, u.shape[1])
        square = dx**2 + dy**2
        bumps = [torch.exp(-square / (2 * width**2)) for width in BUMPS]
        boxed = [torch.zeros_like(dx)] * 3
        if self.box:
            is_said = (token[:, 2] > 0)[:, None, None]
            half_w = (token[:, 2] * w / 2).clamp(min=0.25)[:, None, None]
            half_h = (token[:, 3] * h / 2).clamp(min=0.25)[:, None, None]
            a, b = (dx / half_w).clamp(-2, 2) * is_said, (dy / half_h).clamp(-2, 2) * is_said
            boxed = [a, b, torch.exp(-(a**4) - b**4) * is_said]
        reach = 0.46 * side
        fade = torch.exp(-((dx / reach) ** 8) - (dy / reach) ** 8)
        return torch.stack([dx / TYPICAL, dy / TYPICAL, square / TYPICAL**2, *bumps, *boxed], dim=1), fade[:, None]


def _even(number: float) -> int:
    return 2 * round(number / 2)


def _starts(size: int, tile: int, patch: int) -> list[int]:
    """Where tiles of an axis begin, in pixels: evenly, multiples of the patch, overlapping by `OVERLAP` at least."""
    if size <= tile:
        return [0]
    count = 1 + -(-(size - tile) // int(tile * (1 - OVERLAP)))
    return [round(k * (size - tile) / (count - 1) / patch) * patch for k in range(count)]


def _hat(cells: int, device: torch.device) -> Tensor:
    """Weights (cells,) that fall from the middle to the ends."""
    middle = torch.arange(cells, device=device) + 0.5 - cells / 2
    return 1 - middle.abs() / (cells / 2 + 0.5) + 1e-2


def _blend(tiles: Tensor, weight: Tensor, corners: Sequence[Sequence[int]], size: Sequence[int]) -> Tensor:
    """Maps of tiles (T B, C, h, w), those of all samples tile by tile, as one map (B, C, H, W) of each sample."""
    parts = tiles.chunk(len(corners))
    out = tiles.new_zeros(len(parts[0]), tiles.shape[1], *size)
    total = tiles.new_zeros(*size)
    h, w = weight.shape
    for part, (y, x) in zip(parts, corners, strict=True):
        out[..., y : y + h, x : x + w] += part * weight.to(part)
        total[y : y + h, x : x + w] += weight.to(total)
    return out / total
