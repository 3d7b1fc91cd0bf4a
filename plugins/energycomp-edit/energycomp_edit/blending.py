"""Blending: objects cut out of a photo of any size, and what was repainted at a model's size put in without a seam."""

from __future__ import annotations

import numpy as np
import torch
from scipy.ndimage import binary_fill_holes, label
from torch import Tensor
from torch.nn import functional as F

from energycomp.images import guided

OUTLINE = (0.4, 0.6)  # shares of the usual value of a field between which a pixel begins to be the component's
SCRAP = 0.1  # of the largest part of a component: a smaller part is none
UNSEEN = 0.02  # of the range of grey: a pixel that the model draws otherwise by less keeps the image's own value
SIDE = 640  # px, the longer side at which outlines are found


def cut_mattes(fields: Tensor, photo: Tensor) -> Tensor:
    """How much of each pixel of a photo is a component's, (K, 1, H, W) in [0, 1], along the edges of the photo.

    Args:
        fields: the difference that each component makes, (K, 1, h, w).
        photo: (1, 3, H, W) in [-1, 1].
    """
    size = photo.shape[-2:]
    if not len(fields):
        return photo.new_zeros(0, 1, *size)
    scale = min(1.0, SIDE / max(size))
    smaller = photo if scale == 1 else F.interpolate(photo, scale_factor=scale, mode="bilinear", antialias=True)
    found = guided(F.interpolate(fields, smaller.shape[-2:], mode="bilinear")[:, 0], smaller[0])
    found = found.clamp(min=0)
    usual = found.pow(3).sum((1, 2), keepdim=True) / found.square().sum((1, 2), keepdim=True).clamp(min=1e-12)
    share = found / usual.clamp(min=1e-12)
    low, high = OUTLINE
    alpha = ((share - low) / (high - low)).clamp(0, 1) * (share >= share.amax(0))
    for k, each in enumerate(alpha.cpu().numpy()):
        parts, _ = label(each > 0)
        sizes = np.bincount(parts[parts > 0], minlength=1)
        whole = np.isin(parts, np.flatnonzero(sizes > SCRAP * sizes.max()))
        alpha[k] *= torch.from_numpy(whole).to(alpha)
        solid = torch.from_numpy(binary_fill_holes(whole & (each > 0.5))).to(alpha)  # with its highlights
        alpha[k] = torch.maximum(alpha[k], solid)
    return F.interpolate(alpha[:, None], size, mode="bilinear")


def cast_shadow(photo: Tensor, without: Tensor) -> Tensor:
    """The share of the light that an object takes away at each pixel, (1, 1, H, W), from photos with and without it."""
    light = [(picture.mean(1, keepdim=True) + 1).clamp(min=1e-3) for picture in (photo, without)]
    return (1 - light[0] / light[1]).clamp(0, 1)


def move_picture(picture: Tensor, *, step: tuple[float, float], centre: tuple[float, float], scale: float) -> Tensor:
    """A picture that is enlarged about a point, moved, and filled up with zeros; all in widths and heights of it."""
    size = torch.tensor([picture.shape[3], picture.shape[2]])
    fixed, moved = 2 * torch.tensor(centre) - 1, 2 * (torch.tensor(step) * size).round() / size  # by whole pixels
    # From a point of the result to one of the picture, both in [-1, 1].
    back = torch.cat([torch.eye(2) / scale, (fixed - (fixed + moved) / scale)[:, None]], dim=1)
    grid = F.affine_grid(back[None].to(picture), list(picture.shape), align_corners=False)
    return F.grid_sample(picture, grid, align_corners=False)


def blend(photo: Tensor, old: Tensor, new: Tensor, region: Tensor, kept: Tensor) -> Tensor:
    """A photo with what was repainted, (1, 3, H, W) in [-1, 1] as all images here.

    Inside the region a pixel is repainted as far as the model draws it in another way than before: what it leaves alone
    keeps its detail. What differs around it, such as the exposure, is continued into it.

    Args:
        photo: of any size.
        old, new: what the model makes of the sample before and after, (1, 3, h, w).
        region: 1 where the sample was repainted, (1, 1, h, w).
        kept: how much of each pixel stays, (1, 1, H, W).
    """
    size, side = photo.shape[-2:], new.shape[-2:]
    reach = max(1, side[0] // 32)
    change = F.max_pool2d((new - old).abs().amax(1, keepdim=True) / 2 * region, 2 * reach + 1, 1, reach)
    amount = ((change - UNSEEN) / UNSEEN).clamp(0, 1)
    amount = torch.minimum(*(F.interpolate(amount, size, mode=how) for how in ("bilinear", "nearest")))
    amount = amount * F.interpolate(region, size) * (1 - kept)
    painted = F.interpolate(new.to(photo), size, mode="bicubic", antialias=True)
    painted = painted + continue_values(photo - painted, ((amount == 0) & (kept == 0)).to(photo))
    return (photo + amount * (painted - photo)).clamp(-1, 1)


def continue_values(known: Tensor, where: Tensor) -> Tensor:
    """Values (1, C, H, W) where `where` (1, 1, H, W) is 1, continued smoothly elsewhere (pull-push; Gortler et al.)."""
    if bool(where.all()) or max(where.shape[-2:]) == 1:
        return known * where
    share = F.avg_pool2d(where, 2, ceil_mode=True)
    mean = F.avg_pool2d(known * where, 2, ceil_mode=True) / share.clamp(min=1e-6)
    coarse = continue_values(mean, (share > 0).to(share))
    return torch.where(where > 0, known, F.interpolate(coarse, known.shape[-2:], mode="bilinear"))
