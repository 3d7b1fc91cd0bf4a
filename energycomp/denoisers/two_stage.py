"""A two-stage U-Net that plugins share, and its blocks: one trunk per noised sample, one small head per condition."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import attrs
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from energycomp.components.condition import Condition
from energycomp.denoisers.configured import configured
from energycomp.denoisers.time_embedding import TimestepEmbedding, Timesteps
from energycomp.errors import InputError


class Stage(nn.ModuleList):
    """Blocks one after the other under one embedding."""

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
        """Maps (R, channels, h, w) under embeddings (R, width) to the same shape."""
        for block in self:
            h = block(h, embedding)
        return h


class FiLMBlock(nn.Module):
    """A residual block of two 3x3 convolutions, scaled and shifted by an embedding (Perez et al., 2018).

    >>> FiLMBlock(8, width=4)(torch.zeros(2, 8, 5, 5), torch.zeros(2, 4)).shape
    torch.Size([2, 8, 5, 5])
    """

    def __init__(self, channels: int, width: int, groups: int = 8) -> None:
        super().__init__()
        self.norm1 = GroupNorm(groups, channels)
        self.norm2 = GroupNorm(groups, channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.film = nn.Linear(width, 2 * channels)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
        scale, shift = self.film(F.silu(embedding))[..., None, None].chunk(2, dim=1)
        out = self.conv1(F.silu(self.norm1(h)))
        out = self.conv2(F.silu(self.norm2(out) * (1 + scale) + shift))
        return h + out


class GroupNorm(nn.GroupNorm):
    """In the type of its weights: under autocast maps arrive in bfloat16, where a CPU norms slowly.

    >>> norm = GroupNorm(2, 4)
    >>> norm(torch.ones(1, 4, 2, 2, dtype=torch.bfloat16)).dtype
    torch.float32
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        return super().forward(input.to(self.weight.dtype))


@attrs.frozen(eq=False)
class Cells:
    """Which cells of a grid each of R conditions sees: all of them, or a window of its own.

    Args:
        rows: (R, h) of each, or (1, h) of all conditions.
        columns: (R, w), or (1, w).
        grid: height and width of the whole grid.

    >>> windows = Cells.around(torch.tensor([[0.5, 0.5], [0.0, 1.0]]), side=2, grid=(4, 6))
    >>> windows.rows.tolist(), windows.columns.tolist()
    ([[1, 2], [2, 3]], [[2, 3], [0, 1]])
    """

    rows: Tensor
    columns: Tensor
    grid: tuple[int, int]

    @classmethod
    def all(cls, grid: Sequence[int], device: torch.device | None = None) -> Cells:
        """Every cell of a grid (h, w), for any number of conditions."""
        h, w = grid
        return cls(torch.arange(h, device=device)[None], torch.arange(w, device=device)[None], (h, w))

    @classmethod
    def around(cls, place: Tensor, *, side: int, grid: Sequence[int]) -> Cells:
        """Squares of `side` cells, as far as the grid (h, w) has them, around places (R, 2), moved to lie inside."""
        h, w = grid
        return cls(_window(place[:, 1], side, h), _window(place[:, 0], side, w), (h, w))

    def __getitem__(self, index: Tensor) -> Cells:
        """What some of the conditions see."""
        rows, columns = (one if len(one) == 1 else one[index] for one in (self.rows, self.columns))
        return Cells(rows, columns, self.grid)

    def centres(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Of rows (R, h) and of columns (R, w), in shares of the sample, in the type of `like`."""
        h, w = self.grid
        return (self.rows.to(like) + 0.5) / h, (self.columns.to(like) + 0.5) / w

    def divided(self, parts: int) -> Cells:
        """The same windows on a grid whose cells are `parts` times smaller."""
        within = torch.arange(parts, device=self.rows.device)
        rows, columns = ((one[..., None] * parts + within).flatten(1) for one in (self.rows, self.columns))
        return Cells(rows, columns, (self.grid[0] * parts, self.grid[1] * parts))

    def crop(self, maps: Tensor, owner: Tensor) -> Tensor:
        """What row r sees of maps (B, C, h, w), of those of its owner[r]: (R, C, s, s)."""
        cut = maps.movedim(1, -1)[owner[:, None, None], self.rows[:, :, None], self.columns[:, None, :]]
        return cut.movedim(-1, 1)

    def paste(self, maps: Tensor, index: Tensor, values: Tensor) -> Tensor:
        """Maps (N, C, h, w) to whose row index[r] values (R, C, s, s) are added, in the window of r."""
        at = (index[:, None, None], self.rows[:, :, None], self.columns[:, None, :])
        return maps.movedim(1, -1).index_put(at, values.movedim(1, -1), accumulate=True).movedim(-1, 1)


def _distinct(condition: Condition) -> tuple[Tensor, Tensor]:
    """The first of each of the D distinct conditions among R, (D,), and which of these each condition is, (R,)."""
    keys = torch.cat([condition.rows.detach().flatten(1), condition.null[:, None].to(condition.rows)], dim=1)
    distinct, number = keys.unique(dim=0, return_inverse=True)
    order = torch.arange(len(keys), device=keys.device)
    first = order.new_zeros(len(distinct)).scatter_reduce(0, number, order, "amin", include_self=False)
    return first, number


def _window(share: Tensor, side: int, cells: int) -> Tensor:
    """The numbers of up to `side` of all cells of an axis around shares (R,) of it, (R, s)."""
    side = min(side, cells)
    first = (share.detach().float() * cells - side / 2).round().clamp(0, cells - side).long()
    return first[:, None] + torch.arange(side, device=share.device)


def place_maps(place: Tensor, grid: Sequence[int] | Cells, widths: Sequence[float]) -> Tensor:
    """Offsets, squared distance and Gaussian bumps around places (R, 2) on cells: (R, 3 + len(widths), h, w).

    >>> dx, dy, square, bump = place_maps(torch.tensor([[0.25, 0.25]]), (2, 2), widths=[0.5])[0]
    >>> dx.tolist(), square.tolist(), bump[0, 0].item()
    ([[0.0, 0.5], [0.0, 0.5]], [[0.0, 0.25], [0.25, 0.5]], 1.0)
    """
    cells = grid if isinstance(grid, Cells) else Cells.all(grid, place.device)
    v, u = cells.centres(place)
    dx = (u - place[:, :1])[:, None, :].expand(-1, v.shape[1], -1)
    dy = (v - place[:, 1:])[:, :, None].expand(-1, -1, u.shape[1])
    square = dx**2 + dy**2
    return torch.stack([dx, dy, square, *(torch.exp(-square / (2 * s**2)) for s in widths)], dim=1)


@configured
class TwoStageUNet(nn.Module):
    """A small U-Net trunk over patches and a FiLM head for each condition.

    A sample is folded by `pixel_unshuffle` to a grid of H/patch x W/patch, on which the head works at the width
    `head_channels`; the head's input projection of the trunk is linear in the trunk, so it is computed once per sample.
    With `positions` the first two numbers of a token are a place (x, y) in [0, 1]: the head then sees the offsets
    (u - x, v - y) of every grid cell, their squared length and Gaussian bumps around the place.

    Args:
        sample_channels: C of a sample.
        sample_size: H and W of a sample, or one number for both.
        token_width: D of a condition row (L is 1).
        patch: side of the patches that are folded into channels.
        channels, blocks: widths of the trunk, fine to coarse, and residual blocks at each resolution.
        head_channels, head_blocks: width and depth of the head.
        width: of the embeddings of timesteps and tokens; by default four times the finest width of the trunk.
        positions: whether a token holds a place.
        groups: of the norms; or a number for each width of the trunk, and for the head at last.
        unplaced: whether the last number of a token is 1 where it holds none, as that of a camera.
        window: side of the square of grid cells, around the place of a condition, on which its head works; the whole
            grid when left out. Outside of its window a component is the unconditional prediction, which then is the
            shared part alone and costs no head.
        skip: whether a learned multiple of the noised sample, which depends on the timestep, is added to the
            prediction: the noise in eps, v or a flow need not pass through the network then.

    >>> net = TwoStageUNet(sample_size=16, channels=(8, 16), head_channels=8)
    >>> features = net.features(torch.zeros(2, 3, 16, 16), torch.tensor([10.0, 500.0]))
    >>> net.head(features, Condition(torch.rand(3, 1, 2)), torch.tensor([0, 0, 1])).shape
    torch.Size([3, 3, 16, 16])
    """

    bump_widths = (0.04, 0.1, 0.25)
    engine_methods = ("features", "convolve")

    def __init__(
        self,
        *,
        sample_channels: int = 3,
        sample_size: int | Sequence[int] = 64,
        token_width: int = 2,
        patch: int = 4,
        channels: Sequence[int] = (64, 96, 128),
        blocks: int = 1,
        head_channels: int = 64,
        head_blocks: int = 2,
        width: int | None = None,
        groups: int | Sequence[int] = 8,
        positions: bool = True,
        unplaced: bool = False,
        window: int | None = None,
        skip: bool = False,
    ) -> None:
        super().__init__()
        sides = (sample_size,) * 2 if isinstance(sample_size, int) else tuple(sample_size)
        if any(side % (patch * 2 ** (len(channels) - 1)) for side in sides):
            got = f"got sample_size {sample_size} with patch {patch} and {len(channels)} resolutions"
            raise InputError(f"{got}; expected a multiple of {patch * 2 ** (len(channels) - 1)}; change one of them")
        # The trunk: a UNet of the noised sample, to a shared part of the prediction and to the input of the head
        folded = sample_channels * patch**2
        width = width or channels[0] * 4
        self.patch = patch
        self.unplaced = unplaced
        self.window = window
        *trunk_groups, head_groups = [groups] * (len(channels) + 1) if isinstance(groups, int) else groups
        self.time = nn.Sequential(Timesteps(width // 4), TimestepEmbedding(width // 4, width))
        self.stem = nn.Conv2d(folded, channels[0], 3, padding=1)
        stages = list(zip(channels, trunk_groups, strict=True))
        self.down = nn.ModuleList(Stage(FiLMBlock(c, width, g) for _ in range(blocks)) for c, g in stages)
        self.shrink = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in pairwise(channels))
        self.grow = nn.ModuleList(nn.Conv2d(b + a, a, 3, padding=1) for a, b in pairwise(channels))
        self.up = nn.ModuleList(Stage(FiLMBlock(c, width, g) for _ in range(blocks)) for c, g in stages[:-1])
        self.base = nn.Conv2d(channels[0], folded, 3, padding=1)
        self.enter = nn.Conv2d(channels[0], head_channels, 3, padding=1)
        # The head: what one condition adds, by its embedding and its place
        enter, leave = nn.Linear(token_width, width), nn.Linear(width, width)
        nn.init.normal_(enter.weight)  # embeddings of one-hot tokens start out as far apart as those of time;
        nn.init.normal_(leave.weight, std=1.5 / width**0.5)  # torch's own init leaves 1/20 of that
        self.token = nn.Sequential(enter, nn.SiLU(), leave)
        self.null = nn.Parameter(nn.init.normal_(torch.empty(width), std=0.02))
        maps = 3 + len(self.bump_widths)
        self.place = nn.Conv2d(maps, head_channels, 3, padding=1, bias=False) if positions else None
        self.blocks = Stage(FiLMBlock(head_channels, width, head_groups) for _ in range(head_blocks))
        last = nn.Conv2d(head_channels, folded, 3, padding=1)
        nn.init.zeros_(last.weight)
        self.out = nn.Sequential(GroupNorm(head_groups, head_channels), nn.SiLU(), last)
        # Of the noised sample, nothing at first
        self.skip = nn.Linear(width, 1) if skip else None
        if self.skip is not None:
            nn.init.zeros_(self.skip.weight)
            nn.init.zeros_(self.skip.bias)

    def features(self, sample: Tensor, timestep: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Head input (B, head_channels, h, w), shared part of the prediction (B, C, H, W), time embedding (B, E)."""
        time = self.time[1](self.time[0](timestep).to(self.stem.weight.dtype))  # the sinusoids are float32
        h = self.stem(F.pixel_unshuffle(sample, self.patch))
        skips = []
        for level, stage in enumerate(self.down):
            h = stage(h, time)
            if level < len(self.shrink):
                skips.append(h)
                h = self.shrink[level](h)
        for level in reversed(range(len(self.up))):
            h = F.interpolate(h, scale_factor=2.0, mode="nearest")
            h = self.grow[level](torch.cat([h, skips[level]], dim=1))
            h = self.up[level](h, time)
        base = F.pixel_shuffle(self.base(h), self.patch)
        if self.skip is not None:
            base = base + self.skip(F.silu(time))[..., None, None] * sample
        return self.enter(h), base, time

    def head(self, features: tuple[Tensor, ...], condition: Condition, owner: Tensor) -> Tensor:
        """Predictions (R, C, H, W): the shared part of the owner plus what this condition adds."""
        shared, base, time = features
        if self.window is None:
            cells = Cells.all(shared.shape[-2:], owner.device)
            added = self._added(shared[owner], condition, time[owner], cells)
            return base[owner] + F.pixel_shuffle(added, self.patch)
        grid = shared.shape[-2:]
        folded = base.shape[1] * self.patch**2
        added = base.new_zeros((len(owner), folded, *grid))
        token, null = condition.rows[:, 0], condition.null
        everywhere = ~null & (token[:, -1] > 0) if self.unplaced else torch.zeros_like(null)
        # Those of no place work on the whole grid, the others on their windows
        if len(wide := everywhere.nonzero()[:, 0]):
            cells = Cells.all(grid, owner.device)
            made = self._added(shared[owner[wide]], condition[wide], time[owner[wide]], cells)
            added = added.index_add(0, wide, made.to(added))
        if len(local := (~null & ~everywhere).nonzero()[:, 0]):
            windows = Cells.around(token[local, :2], side=self.window, grid=grid)
            seen = windows.crop(shared, owner[local])
            made = self._added(seen, condition[local], time[owner[local]], windows)
            added = windows.paste(added, local, made.to(added))
        return base[owner] + F.pixel_shuffle(added, self.patch)

    def _added(self, h: Tensor, condition: Condition, time: Tensor, cells: Cells) -> Tensor:
        """What conditions add to the shared part on cells of which the trunk says h, folded."""
        if self.place is not None:
            # What a place adds depends on the condition alone: once for all samples under the same one
            first, number = _distinct(condition)
            h = h + self.placed(condition[first], cells[first])[number]
        return self.convolve(h, condition, time)

    def convolve(self, h: Tensor, condition: Condition, time: Tensor) -> Tensor:
        """The head without geometry: R rows of its input, conditions and times, to what is added (R, *, h, w)."""
        token, null = condition.rows[:, 0], condition.null[:, None]
        embedding = torch.where(null, self.null.to(token.dtype), self.token(token).to(token.dtype)) + time
        added: Tensor = self.out(self.blocks(h, embedding))
        return added

    def placed(self, condition: Condition, cells: Cells) -> Tensor:
        """What the place of a condition adds to the input of the head, (R, head_channels, h, w)."""
        token, null = condition.rows[:, 0], condition.null[:, None]
        maps = place_maps(token[:, :2], cells, self.bump_widths)
        nowhere = null | (token[:, -1:] > 0) if self.unplaced else null
        maps = torch.where(nowhere[..., None, None], torch.zeros_like(maps), maps)
        added: Tensor = self.place(maps.contiguous(memory_format=torch.channels_last))  # type: ignore[misc]
        return added
