"""Maps of what a picture of placed objects shows, by which its network finishes it: boxes and words.

Notation: variable -> symbol
    u, v        offset from the centre of an object, in halves of its width and height
    inside      exp(-u^4 - v^4): 1 at the centre, 0.14 at the corners of the box
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from energycomp.sampling import FOLD

PLACED = 4  # maps before those of words: inside, u, v, and whether the size is said
OPEN = 24.0  # pixels: the size where none is said


def drawing(tokens: Tensor, size: Sequence[int], *, box: bool) -> Tensor:
    """Maps (4 + W, H/2, W/2) of the tokens (K, D) of `Objects`. A point shows the object whose centre is nearest.

    Args:
        size: H and W, of the picture.
        box: whether tokens have a width and a height behind the place.
    """
    height, width = size
    rows, columns = height // FOLD, width // FOLD
    words = tokens[:, 4 if box else 2 :]
    if not len(tokens):
        return tokens.new_zeros(PLACED + words.shape[1], rows, columns)
    is_said = (tokens[:, 2] > 0) if box else torch.zeros(len(tokens), dtype=torch.bool, device=tokens.device)
    open_size = tokens.new_tensor([OPEN / width, OPEN / height])
    extent = torch.where(is_said[:, None], tokens[:, 2:4], open_size) if box else open_size.expand(len(tokens), 2)
    x = (torch.arange(columns, device=tokens.device) + 0.5) / columns
    y = (torch.arange(rows, device=tokens.device) + 0.5) / rows
    u = ((x - tokens[:, :1]) / (extent[:, :1] / 2))[:, None, :].expand(-1, rows, -1)
    v = ((y - tokens[:, 1:2]) / (extent[:, 1:] / 2))[:, :, None].expand(-1, -1, columns)
    # The nearest object at each point
    nearest = (u**2 + v**2).argmin(0, keepdim=True)
    u, v = (side.gather(0, nearest)[0].clamp(-2, 2) for side in (u, v))
    inside = torch.exp(-(u**4) - v**4)
    said = torch.cat([is_said[:, None].to(words), words], dim=1)[nearest[0]].movedim(-1, 0)
    return torch.cat([torch.stack([inside, u * inside, v * inside]), said * inside])
