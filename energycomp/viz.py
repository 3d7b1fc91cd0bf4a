"""Figures of results, as Pillow images: grids of samples, places on an image, parts of images, traversals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from energycomp.errors import InputError

if TYPE_CHECKING:
    from PIL import Image, ImageDraw
    from torch import Tensor

__all__ = ["grid", "overlay", "strip", "traversal"]

SIDE = 480  # px, the shorter side of an overlay
FOUND, TRUE, EDGE = (255, 214, 0), (0, 229, 255), (0, 0, 0)


def grid(
    images: Tensor | Sequence[Image.Image], columns: int | None = None, *, padding: int = 2, side: int = 1
) -> Image.Image:
    """Images in rows from left to right, on white.

    Args:
        images: (B, 3, H, W), or grey (B, 1, H, W), in [-1, 1], or Pillow images of one size.
        columns: number of columns; by default the grid is about square.
        padding: px around each image.
        side: px; smaller images are enlarged to it by whole factors.

    >>> import torch
    >>> grid(torch.zeros(4, 3, 8, 8), columns=2).size
    (22, 22)
    """
    import torch
    from torchvision.transforms.functional import pil_to_tensor, to_pil_image
    from torchvision.utils import make_grid

    if isinstance(images, torch.Tensor):
        batch = images.detach().float().cpu().add(1).div(2).clamp(0, 1)
        if batch.ndim != 4 or batch.shape[1] not in (1, 3):
            raise InputError(
                f"got images of shape {tuple(images.shape)}; expected (B, 3, H, W) or (B, 1, H, W) in [-1, 1]"
            )
    else:
        sizes = sorted({image.size for image in images})
        if len(sizes) > 1:
            raise InputError(f"got images of sizes {sizes}; expected one size for a grid; resize them")
        batch = (
            torch.stack([pil_to_tensor(image.convert("RGB")) for image in images]) / 255 if images else torch.empty(0)
        )
    if not len(batch) or (columns is not None and columns < 1):
        raise InputError(f"got {len(batch)} images in {columns} columns; expected at least one of each")
    picture: Image.Image = to_pil_image(
        make_grid(
            _enlarged(batch, side), nrow=columns or math.ceil(math.sqrt(len(batch))), padding=padding, pad_value=1.0
        )
    )
    return picture


def overlay(
    image: Image.Image,
    places: Any,
    labels: Sequence[str] | None = None,
    *,
    truth: Any = None,
    side: int = SIDE,
) -> Image.Image:
    """An enlarged image with a numbered ring at each place and a cross at each true place.

    Args:
        image: the image that was read.
        places: (K, 2), x to the right and y down in [0, 1].
        labels: K texts; by default 1 to K.
        truth: true places (K', 2), where they are known.
        side: least length in px of the shorter side of the result.

    >>> from PIL import Image
    >>> overlay(Image.new("RGB", (64, 64)), [[0.5, 0.5]], side=128).size
    (128, 128)
    """
    from PIL import Image, ImageDraw, ImageFont

    found, true = _places(places), _places([] if truth is None else truth)
    if labels is not None and len(labels) != len(found):
        raise InputError(f"got {len(labels)} labels for {len(found)} places; expected one each")
    factor = max(1.0, side / min(image.size))
    size = (round(image.width * factor), round(image.height * factor))
    picture = image.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    draw, unit = ImageDraw.Draw(picture), min(size) / 480
    font = ImageFont.load_default(size=max(10.0, 20 * unit))
    for x, y in true:
        _cross(draw, x * size[0], y * size[1], unit)
    for (x, y), label in zip(found, labels or [str(k + 1) for k in range(len(found))], strict=True):
        _ring(draw, x * size[0], y * size[1], unit)
        # Beside the ring, on the side where the image has room.
        right, low = x < 0.9, y < 0.9
        draw.text(
            (x * size[0] + (12 if right else -12) * unit, y * size[1] + (10 if low else -10) * unit),
            label,
            fill=FOUND,
            font=font,
            anchor=("l" if right else "r") + ("t" if low else "b"),
            stroke_width=max(1, round(2 * unit)),
            stroke_fill=EDGE,
        )
    return picture


def strip(
    pictures: Tensor, whole: Tensor, parts: Tensor, masks: Tensor | None = None, *, side: int = 96
) -> Image.Image:
    """Decomposed images, one row per image: the image, its reconstruction from all parts, and each part alone.

    With masks there is a second row per image: the image with each mask in its own colour, then the masks.

    Args:
        pictures: the images, (B, 3, H, W) in [-1, 1].
        whole: their reconstructions, of the same shape.
        parts: the parts alone, (B, K, 3, H, W).
        masks: the pixels of each part, (B, K, H, W), bool.
        side: least height in px of an image in the result; images are enlarged by whole factors.

    >>> import torch
    >>> some = torch.zeros(1, 3, 8, 8)
    >>> strip(some, some, torch.zeros(1, 4, 3, 8, 8), torch.zeros(1, 4, 8, 8), side=16).size
    (110, 38)
    """
    import torch
    from torchvision.utils import draw_segmentation_masks

    fits = parts.ndim == 5 and parts[:, 0].shape == pictures.shape == whole.shape and parts.shape[1] > 0
    if not fits or (masks is not None and masks.shape != (*parts.shape[:2], *parts.shape[3:])):
        shapes = [tuple(t.shape) for t in (pictures, whole, parts, *([] if masks is None else [masks]))]
        raise InputError(f"got pictures, whole, parts and masks of shapes {shapes}; expected those of `decompose`")
    pictures, whole, parts = (t.detach().float().cpu() for t in (pictures, whole, parts))
    count = parts.shape[1]
    lines = [torch.cat([pictures[:, None], whole[:, None], parts], dim=1)]
    if masks is not None:
        masks = masks.detach().cpu().bool()
        levels = pictures.add(1).mul(127.5).clamp(0, 255).round().byte()
        marked = [
            draw_segmentation_masks(image, some, alpha=0.6, colors=_hues(count))
            for image, some in zip(levels, masks, strict=True)
        ]
        shown = masks[:, :, None].expand(-1, -1, 3, -1, -1).float() * 2 - 1
        lines.append(torch.cat([torch.stack(marked)[:, None] / 127.5 - 1, torch.ones_like(whole)[:, None], shown], 1))
    return grid(_enlarged(torch.stack(lines, dim=1).flatten(0, 2), side), columns=count + 2)


def traversal(picture: Tensor, rows: Tensor, *, side: int = 96) -> Image.Image:
    """An image as dimensions of its latents change: one row per dimension, with the image at the left.

    Args:
        picture: the image, (1, 3, H, W) in [-1, 1].
        rows: images for N values of each of R dimensions, (R, N, 3, H, W).
        side: as of `strip`.

    >>> import torch
    >>> traversal(torch.zeros(1, 3, 8, 8), torch.zeros(2, 4, 3, 8, 8), side=16).size
    (92, 38)
    """
    import torch

    if rows.ndim != 5 or 0 in rows.shape[:2] or picture.shape != (1, *rows.shape[2:]):
        shapes = tuple(picture.shape), tuple(rows.shape)
        raise InputError(f"got a picture and rows of shapes {shapes}; expected (1, 3, H, W) and (R, N, 3, H, W)")
    picture, rows = (t.detach().float().cpu() for t in (picture, rows))
    cells = torch.cat([picture.expand(len(rows), 1, -1, -1, -1), rows], dim=1).flatten(0, 1)
    return grid(_enlarged(cells, side), columns=rows.shape[1] + 1)


def _enlarged(cells: Tensor, side: int) -> Tensor:
    """Images (B, 3, H, W) enlarged by the least whole factor that makes them `side` high."""
    factor = max(1, math.ceil(side / cells.shape[2]))
    return cells.repeat_interleave(factor, 2).repeat_interleave(factor, 3)


def _hues(count: int) -> list[str | tuple[int, int, int]]:
    """Bright colours (red, green, blue) in 0 to 255, evenly around the circle of hues."""
    from colorsys import hsv_to_rgb

    bright = [hsv_to_rgb(k / count, 0.9, 1.0) for k in range(count)]
    return [(round(255 * r), round(255 * g), round(255 * b)) for r, g, b in bright]


def _places(places: Any) -> list[tuple[float, float]]:
    """Pairs of numbers from a tensor, an array or a list; none from an empty one of any shape."""
    rows = places.tolist() if hasattr(places, "tolist") else [list(place) for place in places]
    if not all(isinstance(row, list) and len(row) == 2 and all(map(math.isfinite, row)) for row in rows):
        raise InputError(f"got places {rows}; expected finite (x, y) pairs, (K, 2)")
    return [(float(x), float(y)) for x, y in rows]


def _ring(draw: ImageDraw.ImageDraw, x: float, y: float, unit: float) -> None:
    for radius, width, color in ((10, 6, EDGE), (8.5, 3, FOUND)):
        box = (x - radius * unit, y - radius * unit, x + radius * unit, y + radius * unit)
        draw.ellipse(box, outline=color, width=max(1, round(width * unit)))


def _cross(draw: ImageDraw.ImageDraw, x: float, y: float, unit: float) -> None:
    for arm, width, color in ((8, 5, EDGE), (7, 2, TRUE)):
        for turn in (1, -1):
            ends = (x - arm * unit, y - arm * turn * unit, x + arm * unit, y + arm * turn * unit)
            draw.line(ends, fill=color, width=max(1, round(width * unit)))
