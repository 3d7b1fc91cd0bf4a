"""Pictures as the network of a composition finishes them: with edges and texture that its samples are too coarse for.

A network of latents knows an outline to about two cells, a small one of pixels blurs what it is unsure of. What should
be there is described, though. `Finish` sees a picture beside maps that draw its description, and gives the picture with
details; each network says what its maps are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from energycomp.components import Condition
from energycomp.components.algebra import Composition
from energycomp.denoisers.denoiser import Conditional
from energycomp.sampling.target import shown_by

FOLD = 2  # pixels along the side of a cell of `Finish`


class Finish(nn.Module):
    """Pictures (B, 3, H, W) in [-1, 1] and maps (B, M, H/2, W/2) to pictures; 4 divides H and W.

    >>> Finish(maps=5)(torch.zeros(1, 3, 8, 12), torch.zeros(1, 5, 4, 6)).shape
    torch.Size([1, 3, 8, 12])
    """

    def __init__(self, maps: int, channels: Sequence[int] = (48, 80), blocks: Sequence[int] = (2, 4)) -> None:
        super().__init__()
        self.maps = maps
        fine, coarse = channels
        self.enter = nn.Conv2d(3 * FOLD**2 + maps, fine, 3, padding=1)
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


def finish_pictures(
    edges: Finish, network: nn.Module, composition: Composition, pictures: Tensor, draw: Callable[[Tensor], Tensor]
) -> Tensor:
    """Pictures (B, 3, H, W) of a composition, finished; as they are where another network has a part in it.

    Args:
        draw: the tokens (K, D) that a picture shows to its maps (M, H/2, W/2).
    """
    shown = shown_conditions(composition, network, len(pictures))
    if shown is None:
        return pictures
    kind = edges.enter.weight  # in half precision, say, or on a GPU
    made = []
    for picture, condition in zip(pictures.split(1), shown, strict=True):
        maps = draw(condition.rows[~condition.null, 0].to(picture))
        made.append(edges(picture.to(kind), maps[None].to(kind)).to(picture))
    return torch.cat(made).clamp(-1, 1)


def shown_conditions(composition: Composition, network: nn.Module, n: int) -> list[Condition] | None:
    """The rows that each of n samples shows, after a null row; None where not all leaves are of this network."""
    shown: list[list[Condition]] = [[] for _ in range(n)]
    nothing = None
    for leaf, weight in composition.terms.items():
        if not isinstance(leaf, Conditional) or leaf.denoiser.network is not network:
            return None
        rows = leaf.condition.expand(n)
        nothing = Condition.unconditional(*rows.shape, device=rows.rows.device)
        for number in shown_by(weight, n).nonzero()[:, 0].tolist():
            shown[number].append(rows[number : number + 1])
    return None if nothing is None else [Condition.cat([nothing, *one]) for one in shown]


def finisher(composition: Composition, decode: Callable[[Tensor], Tensor] | None) -> Callable[[Tensor], Tensor] | None:
    """What decodes samples of a composition, and has the network of its first component finish them."""
    finishes = [leaf.denoiser.finish for leaf in composition.terms if isinstance(leaf, Conditional)]
    if not finishes or finishes[0] is None:
        return decode
    finish = finishes[0]
    return lambda samples: finish(composition, samples if decode is None else decode(samples))
