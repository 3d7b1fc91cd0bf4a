"""Crops of marked photos, as a model is trained on: zoomed, mirrored, turned, in other light."""

from __future__ import annotations

import attrs
import torch
from torch import Tensor
from torch.nn import functional as F

from energycomp.images import from_bytes
from energycomp_lab.training.recipe import exposed


@attrs.frozen
class CropOptions:
    """How crops differ from their photos.

    Args:
        zoom: least and greatest factor of the scale.
        around: share of the crops that are around an object, where a crop is a part of the photo.
        visible: least share of an object's box in a crop, below which it is none of the crop's.
        mirror: whether left and right may change places.
        turns: whether the photo is seen from above, so that it may be turned by quarters and mirrored.
        exposure, tint: as of `energycomp_lab.training.augment`.
    """

    zoom: tuple[float, float] = (0.87, 1.2)
    around: float = 0.85
    visible: float = 0.3
    mirror: bool = True
    turns: bool = False
    exposure: float = 0.06
    tint: float = 0.02


def crop_all(
    images: Tensor, values: Tensor, owner: Tensor, tile: tuple[int, int], box: bool, options: CropOptions,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """A random crop of each of B photos.

    Args:
        images: (B, 3, H, W), uint8.
        values, owner: (R, V) and (R,), of `Objects`, in shares of the photos.
        tile: height and width of a crop.
        box: whether values have a width and a height.

    Returns:
        Images (B, 3, h, w) in [-1, 1], and values and owner of the objects that are in a crop, in shares of it.
    """
    cropped = []
    kept = []
    for index, image in enumerate(images):
        picture, inside = _crop(image, values[owner == index], tile, box, options, generator)
        picture, inside = _turn(picture, inside, box, options, generator)
        cropped.append(picture)
        kept.append(inside)
    counts = torch.tensor([len(inside) for inside in kept])
    light = exposed(torch.stack(cropped), generator, options.exposure, options.tint).clamp(-1, 1)
    owners = torch.repeat_interleave(torch.arange(len(kept)), counts)
    return light.contiguous(memory_format=torch.channels_last), torch.cat(kept), owners


def _crop(
    image: Tensor, values: Tensor, tile: tuple[int, int], box: bool, options: CropOptions, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """A part of a photo (3, H, W), scaled to the tile, and the objects in it."""

    def random() -> float:
        return float(torch.rand((), generator=generator))

    size = torch.tensor(image.shape[1:])  # H, W
    low, high = options.zoom
    zoom = low * (high / low) ** random()
    region = torch.minimum((torch.tensor(tile) / zoom).round().long(), size)
    # Around an object, or anywhere
    middle = torch.rand(2, generator=generator) * size
    if len(values) and random() < options.around:
        one = values[int(random() * len(values))]
        middle = one[[1, 0]] * size + (torch.rand(2, generator=generator) - 0.5) * region * 0.8
    top, left = (middle - region / 2).round().long().clamp(min=0).minimum(size - region).tolist()
    height, width = region.tolist()
    part = from_bytes(image[None, :, top : top + height, left : left + width])
    if (height, width) != tuple(tile):
        part = F.interpolate(part, size=tile, mode="bilinear", antialias=True, align_corners=False)
    # Objects in shares of the crop
    scale = (size / region)[[1, 0]].to(values)
    corner = (torch.tensor([left, top]) / region[[1, 0]]).to(values)
    inside = values.clone()
    inside[:, :2] = values[:, :2] * scale - corner
    if box:
        inside[:, 2:4] = values[:, 2:4] * scale
    return part[0], clip(inside, box, options.visible)


def clip(values: Tensor, box: bool, visible: float) -> Tensor:
    """The values whose boxes show at least a share in the unit square, with the part of the boxes that does.

    >>> clip(torch.tensor([[0.0, 0.5, 0.2, 0.2], [1.5, 0.5, 0.2, 0.2]]), True, 0.3)
    tensor([[0.0500, 0.5000, 0.1000, 0.2000]])
    """
    if not box:
        return values[((values[:, :2] >= 0) & (values[:, :2] <= 1)).all(1)]
    low = (values[:, :2] - values[:, 2:4] / 2).clamp(0, 1)
    high = (values[:, :2] + values[:, 2:4] / 2).clamp(0, 1)
    share = ((high - low) / values[:, 2:4]).prod(1)
    clipped = torch.cat([(low + high) / 2, high - low, values[:, 4:]], dim=1)
    return clipped[share >= visible]


def _turn(
    image: Tensor, values: Tensor, box: bool, options: CropOptions, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Mirrored, and seen from above turned, at random; a quarter turn needs a square."""
    chance = torch.rand(3, generator=generator) < 0.5
    values = values.clone()
    if chance[0] and (options.mirror or options.turns):
        image = image.flip(2)
        values[:, 0] = 1 - values[:, 0]
    if chance[1] and options.turns:
        image = image.flip(1)
        values[:, 1] = 1 - values[:, 1]
    if chance[2] and options.turns and image.shape[1] == image.shape[2]:
        image = image.transpose(1, 2)
        values[:, :2] = values[:, [1, 0]]
        if box:
            values[:, 2:4] = values[:, [3, 2]]
    return image, values
