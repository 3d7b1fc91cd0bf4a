"""Blending: what was repainted at a model's size, in an image of any size, without a seam."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from energycomp.images import as_picture
from energycomp.models import Model

UNSEEN = 0.02  # of the range of grey: a pixel that the model draws otherwise by less keeps the image's own value


def blended(image: Any, old: Tensor, new: Tensor, mask: Tensor, model: Model) -> Image.Image:
    """The given image with what was repainted, at its own size.

    Inside the mask a pixel is repainted as far as the model draws it in another way than before: what it leaves alone
    keeps its detail. What differs around the mask, such as the exposure, is continued into it.

    Args:
        old, new: what the model makes of the sample before and after, (1, 3, H, W) in [0, 1].
        mask: 1 where the sample was repainted.
    """
    picture = as_picture(image)
    left, top, right, bottom = model.processor.box(picture)
    size, side = (bottom - top, right - left), new.shape[-2:]
    room = F.interpolate(mask, side)
    reach = max(1, side[0] // 32)
    change = F.max_pool2d((new - old).abs().amax(1, keepdim=True) * room, 2 * reach + 1, 1, reach)
    amount = ((change - UNSEEN) / UNSEEN).clamp(0, 1)
    amount = torch.minimum(*(F.interpolate(amount, size, mode=how) for how in ("bilinear", "nearest")))
    amount = amount * F.interpolate(room, size)
    given = torch.from_numpy(np.array(picture.crop((left, top, right, bottom)))).permute(2, 0, 1)[None] / 255
    painted = F.interpolate(new.to(given), size, mode="bicubic", antialias=True)
    painted = painted + continued(given - painted, (amount == 0).to(given))
    blended = (given + amount * (painted - given)).clamp(0, 1)
    pixels = (blended[0].permute(1, 2, 0) * 255).round().byte().cpu().numpy()
    picture.paste(Image.fromarray(pixels), (left, top))
    return picture


def continued(known: Tensor, where: Tensor) -> Tensor:
    """Values (1, C, H, W) where `where` (1, 1, H, W) is 1, continued smoothly elsewhere (pull-push; Gortler et al.).

    >>> where = (torch.arange(4) < 1).float().expand(1, 1, 4, 4)
    >>> continued(torch.full((1, 1, 4, 4), 0.5) * where, where)[0, 0, 0]
    tensor([0.5000, 0.5000, 0.5000, 0.5000])
    """
    if bool(where.all()) or max(where.shape[-2:]) == 1:
        return known * where
    share = F.avg_pool2d(where, 2, ceil_mode=True)
    mean = F.avg_pool2d(known * where, 2, ceil_mode=True) / share.clamp(min=1e-6)
    coarse = continued(mean, (share > 0).to(share))
    return torch.where(where > 0, known, F.interpolate(coarse, known.shape[-2:], mode="bilinear"))
