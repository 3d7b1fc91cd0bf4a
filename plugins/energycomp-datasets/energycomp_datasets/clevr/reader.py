"""A reader of CLEVR scenes that shares nothing with the models: a detector that learned from renders alone."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from energycomp.errors import InputError
from energycomp_datasets.clevr.scenes import ATTRIBUTES
from energycomp_datasets.shipped import load_network

SIZE = 128  # pixels of an image
CELL = 4  # pixels of a cell of the maps
WORDS = tuple(map(len, ATTRIBUTES.values()))
SURE = 0.5  # least height of a peak that is an object: most counts of held-out renders are right
FINE, COARSE = 64, 128  # channels


class Block(nn.Module):
    """A residual block of two convolutions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))
        self.norms = nn.ModuleList(nn.GroupNorm(8, channels) for _ in range(2))

    def forward(self, h: Tensor) -> Tensor:
        out: Tensor = h + self.second(F.silu(self.norms[1](self.first(F.silu(self.norms[0](h))))))
        return out


class SceneReader(nn.Module):
    """Images (B, 3, 128, 128) in [-1, 1] to maps (B, 1 + 2 + 15, 32, 32): an object's centre, its offset, its words.

    Objects are peaks of the first map, as in CenterNet (Zhou et al., 2019).
    """

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Sequential(nn.PixelUnshuffle(CELL), nn.Conv2d(48, FINE, 3, padding=1), Block(FINE), Block(FINE))
        self.coarse = nn.Sequential(nn.Conv2d(FINE, COARSE, 3, stride=2, padding=1), Block(COARSE), Block(COARSE))
        self.join = nn.Conv2d(COARSE, FINE, 1)
        last = nn.Conv2d(FINE, 3 + sum(WORDS), 1)
        self.out = nn.Sequential(Block(FINE), Block(FINE), nn.GroupNorm(8, FINE), nn.SiLU(), last)
        nn.init.constant_(cast("Tensor", last.bias)[:1], -4.0)

    def forward(self, images: Tensor) -> Tensor:
        fine = self.fine(images)
        maps: Tensor = self.out(fine + F.interpolate(self.join(self.coarse(fine)), scale_factor=2.0))
        return maps

    @torch.no_grad()
    def read(self, images: Tensor) -> list[Tensor]:
        """The objects of images (B, 3, 128, 128), (K, 6) each: x, y, and the place of each word, from 1."""
        if images.ndim != 4 or images.shape[1:] != (3, SIZE, SIZE):
            raise InputError(f"got images of shape {tuple(images.shape)}; expected (B, 3, {SIZE}, {SIZE})")
        found = []
        for maps in self(images).float():
            heat = maps[0].sigmoid()
            peak = (heat == F.max_pool2d(heat[None], 3, 1, 1)[0]) & (heat > SURE)
            row, column = peak.nonzero().T
            own = maps[1:, row, column]
            places = (torch.stack([column, row]) + own[:2]).T / (SIZE // CELL)
            codes = [part.argmax(0) + 1 for part in own[2:].split(WORDS)]
            found.append(torch.cat([places.clamp(0, 1), torch.stack(codes, 1).to(places)], 1))
        return found


def load_reader(folder: str | Path | None = None) -> SceneReader:
    """The trained network, with the weights of this package or of a folder, as `load_network` reads them."""
    return load_network(SceneReader(), "reader", folder)
