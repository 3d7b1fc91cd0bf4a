"""Decoded pictures with the edges that their descriptions say.

Latents have a cell for 8x8 pixels, and a network that predicts them knows an outline to about two of them. Where the
edges of an object fall follows from its words, its place, its turn and the camera by geometry alone, as in `sketch`.
A small network sees a decoded picture beside the sketch of all its objects at half a pixel, and gives the picture with
straight edges. It learned from renders beside rough pictures of them, which `clevr` drew from their noised latents.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from energycomp_clevr.codes import ATTRIBUTES
from energycomp_clevr.sketch import POINTS, SKETCHED, distances, sketch

WORDS = sum(1 if len(words) == 2 else len(words) for words in ATTRIBUTES.values())  # columns of a token behind a place
FOLD = 2  # pixels along the side of a cell of the network
VIEW = 6  # numbers of a `Viewpoint`
MAPS = SKETCHED + WORDS + VIEW


class Finish(nn.Module):
    """Pictures (B, 3, H, W) in [-1, 1] and maps (B, 83, H/2, W/2) of `drawing` to pictures; 4 divides H and W."""

    def __init__(self, channels: Sequence[int] = (48, 80), blocks: Sequence[int] = (2, 4)) -> None:
        super().__init__()
        fine, coarse = channels
        self.enter = nn.Conv2d(3 * FOLD**2 + MAPS, fine, 3, padding=1)
        self.first = nn.Sequential(*(_Block(fine) for _ in range(blocks[0])))
        self.down = nn.Conv2d(fine, coarse, 2, stride=2)
        self.middle = nn.Sequential(*(_Block(coarse) for _ in range(blocks[1])))
        self.up = nn.ConvTranspose2d(coarse, fine, 2, stride=2)
        self.last = nn.Sequential(*(_Block(fine) for _ in range(blocks[0])))
        self.out = nn.Conv2d(fine, 3 * FOLD**2, 3, padding=1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]

    def forward(self, pictures: Tensor, maps: Tensor) -> Tensor:
        """The finished pictures."""
        fine = self.first(self.enter(torch.cat([F.pixel_unshuffle(pictures, FOLD), maps], dim=1)))
        fine = self.last(fine + self.up(self.middle(self.down(fine))))
        return pictures + F.pixel_shuffle(self.out(F.silu(fine)), FOLD)


class _Block(nn.Module):
    """A residual block, which adds nothing at first."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.one = nn.Conv2d(channels, channels, 3, padding=1)
        self.two = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.two.weight)
        nn.init.zeros_(self.two.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """The block of x (B, channels, h, w)."""
        change: Tensor = self.two(F.silu(self.one(F.silu(x))))
        return x + change


def drawing(tokens: Tensor, size: Sequence[int], view: Tensor | None = None) -> Tensor:
    """Maps (83, H/2, W/2) of the sketches and words of a picture's objects (K, 17 or more), and of the view (6,).

    Near objects hide those behind them. Objects whose outline is open are left out.
    """
    grid = [side // FOLD for side in size]
    maps = tokens.new_zeros(MAPS, *grid)
    camera = None
    if view is not None:
        camera = view[:3]
        maps[-VIEW:] = view.to(tokens)[:, None, None]
    if not len(tokens):
        return maps
    sketches = sketch(tokens, grid, camera)
    free = tokens.new_ones(POINTS**2, *grid)  # of what is nearer
    for k in distances(tokens, camera).argsort().tolist():
        seen = free * sketches[k, : POINTS**2]
        maps[: POINTS**2] += seen
        maps[POINTS**2 : SKETCHED] += sketches[k, POINTS**2 :] * free.repeat(3, 1, 1)
        maps[SKETCHED:-VIEW] += tokens[k, 2 : 2 + WORDS, None, None] * seen.mean(0)
        free = free * (1 - sketches[k, : POINTS**2])
    return maps
