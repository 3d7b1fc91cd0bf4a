"""Maps of what a picture of `clevr` shows, by which its network finishes it.

Latents have a cell for 8x8 pixels, and a network that predicts them knows an outline to about two of them. Where the
edges of an object fall follows from its words, its place, its turn and the camera by geometry alone, as in `sketch`.
`Finish` sees a decoded picture beside the sketch of all its objects at half a pixel, and gives the picture with
straight edges. It learned from renders beside rough pictures of them, which `clevr` drew from their noised latents.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from energycomp.sampling import FOLD
from energycomp_clevr.codes import ATTRIBUTES
from energycomp_clevr.sketch import POINTS, SKETCHED, distances, sketch

WORDS = sum(1 if len(words) == 2 else len(words) for words in ATTRIBUTES.values())  # columns of a token behind a place
VIEW = 6  # numbers of a `Viewpoint`
MAPS = SKETCHED + WORDS + VIEW


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
