"""Figures of results, as Pillow images: grids of samples, places on an image, and parts of images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from colorsys import hsv_to_rgb
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from energycomp.errors import InputError
from energycomp.images.output import to_output
from energycomp.images.save import framed

NO_PART = 0.1  # the grey of what is no pixel of a part, in [-1, 1]
SIDE = 480  # px, the shorter side of an overlay
Colour = tuple[int, int, int]
# All colours of overlays: a change here changes pictures, files and the page of the studio.
FOUND: Colour = (255, 214, 0)  # rings around what was found
TRUE: Colour = (0, 229, 255)  # crosses at true places
EDGE: Colour = (0, 0, 0)  # around both, and of letters
HEAT: tuple[Colour, ...] = ((20, 24, 82), (38, 110, 160), (90, 190, 140), (253, 231, 60))  # from least to greatest
LETTERS = 13  # px, the size of letters beside small images
ACROSS = 56  # sizes of letters in the width of a figure at most, so that they can be read where a page shrinks it
LEAST = 9  # px, the least size, for texts that are too wide
MARGIN = 12  # the greatest width of names at the left, in sizes of letters


def part_colour(k: int, count: int) -> tuple[float, float, float]:
    """The colour of the mask of part k of several, in [0, 1]: hues at equal distances."""
    return hsv_to_rgb(k / count, 0.9, 1.0)


def overlay_css() -> str:
    """The colours of `overlay` as variables of a style sheet, for a page that draws what it draws.

    >>> overlay_css()
    ':root { --overlay-found: rgb(255 214 0); --overlay-true: rgb(0 229 255); --overlay-edge: rgb(0 0 0); }'
    """
    colours = {"found": FOUND, "true": TRUE, "edge": EDGE}
    named = [f"--overlay-{name}: rgb({red} {green} {blue});" for name, (red, green, blue) in colours.items()]
    return f":root {{ {' '.join(named)} }}"


def grid(
    images: Tensor | Sequence[Image.Image],
    columns: int | None = None,
    *,
    padding: int = 2,
    side: int = 1,
    heads: Sequence[str] | None = None,
    names: Sequence[str] | None = None,
    captions: Sequence[str] | None = None,
) -> Image.Image:
    """Images in rows from left to right, on white.

    Args:
        images: (B, 3, H, W), or grey (B, 1, H, W), in [-1, 1], or Pillow images of one size.
        columns: number of columns; by default the grid is about square.
        padding: px around each image; a single image has none.
        side: px; images of a smaller height are enlarged to it by a smooth filter (Lanczos).
        heads: texts above the columns.
        names: texts at the left of the rows.
        captions: texts below the images.

    >>> grid(torch.zeros(4, 3, 8, 8), columns=2).size
    (22, 22)
    >>> grid(torch.zeros(4, 3, 8, 8), columns=2, side=64, heads=["before", "after"]).size
    (134, 154)
    """
    cells = _cells(images, side)
    if not cells or (columns is not None and columns < 1):
        raise InputError(f"got {len(cells)} images in {columns} columns; expected at least one of each")
    columns = min(columns or math.ceil(math.sqrt(len(cells))), len(cells))
    rows = math.ceil(len(cells) / columns)
    for what, given, number in (("heads", heads, columns), ("names", names, rows), ("captions", captions, len(cells))):
        _check_number(what, given, number)
    # The size of letters, and the room that texts and edges take
    width, height = cells[0].size
    size = max(LETTERS, height // 24, columns * width // ACROSS)
    line = round(1.5 * size)
    below = 0 if captions is None else line
    edge = padding if len(cells) > 1 else 0
    left = edge + (0 if names is None else _width(names, size))
    top = edge + (0 if heads is None else line)
    right, down = width + edge, height + below + edge  # from one image to the next
    # The images, and the texts of columns and rows
    canvas = Image.new("RGB", (left + columns * right, top + rows * down), "white")
    for place, cell in enumerate(cells):
        x = left + place % columns * right
        y = top + place // columns * down
        canvas.paste(cell, (x, y))
        if captions is not None:
            _write(canvas, captions[place], (x + width // 2, y + height + line // 2), width, size)
    for column, text in enumerate(heads or ()):
        _write(canvas, text, (left + column * right + width // 2, line // 2), width, size)
    for row, text in enumerate(names or ()):
        _write(canvas, text, ((left - edge) // 2, top + row * down + (height + below) // 2), left - edge, size)
    return canvas


def _check_number(what: str, given: Sequence[str] | None, number: int) -> None:
    if given is not None and len(given) != number:
        raise InputError(f"got {len(given)} {what}; expected {number}, one each; change their number")


def _cells(images: Tensor | Sequence[Image.Image], side: int) -> list[Image.Image]:
    """A batch of images as colour images of one size, of at least that height."""
    if isinstance(images, Tensor):
        if images.ndim != 4 or images.shape[1] not in (1, 3):
            raise InputError(
                f"got images of shape {tuple(images.shape)}; expected (B, 3, H, W) or (B, 1, H, W) in [-1, 1]"
            )
        images = to_output(images.float(), "pil")
    sizes = sorted({image.size for image in images})
    if len(sizes) > 1:
        raise InputError(f"got images of sizes {sizes}; expected one size for a grid; resize them")
    cells = [image.convert("RGB") for image in images]
    if not cells or cells[0].height >= side:
        return cells
    size = round(cells[0].width * side / cells[0].height), side
    return [cell.resize(size, Image.Resampling.LANCZOS) for cell in cells]


def _width(texts: Sequence[str], size: int) -> int:
    """The width of a margin that the texts fit into, px; longer ones are written smaller."""
    font = ImageFont.load_default(size=size)
    return min(MARGIN * size, math.ceil(max((font.getlength(_one_line(text)) for text in texts), default=0)) + size)


def _write(canvas: Image.Image, text: str, place: tuple[int, int], width: int, size: int) -> None:
    """A line of text about a point, in black; a text that is too wide is written smaller, and then cut."""
    draw = ImageDraw.Draw(canvas)
    text = _one_line(text)
    fonts = [ImageFont.load_default(size=smaller) for smaller in range(size, LEAST - 1, -1)]
    font = next((font for font in fonts if draw.textlength(text, font) <= width), fonts[-1])
    while len(text) > 1 and draw.textlength(text, font) > width:
        text = text[:-1]
    draw.text(place, text, fill=EDGE, font=font, anchor="mm")


def _one_line(text: str) -> str:
    return " ".join(str(text).split())


def overlay(
    image: Image.Image,
    places: Any,
    labels: Sequence[str] | None = None,
    *,
    truth: Any = (),
    sizes: Any = (),
    side: int = SIDE,
) -> Image.Image:
    """An enlarged image with a numbered ring at each place, or a box of its size, and a cross at each true one.

    Args:
        image: the image that was read.
        places: (K, 2), x to the right and y down in [0, 1].
        labels: K texts; by default 1 to K.
        truth: true places, as `places`, where they are known.
        sizes: (K, 2), width and height in [0, 1], where they are known.
        side: least length in px of the shorter side of the result.

    >>> overlay(Image.new("RGB", (64, 64)), [[0.5, 0.5]], side=128).size
    (128, 128)
    """
    found = _places(places)
    _check_number("labels", labels, len(found))
    canvas = framed(image.convert("RGB"), side=side)
    width, height = canvas.size
    draw = ImageDraw.Draw(canvas)
    unit = min(width, height) / 480
    font = ImageFont.load_default(size=max(10.0, 20 * unit))

    def line(part: float) -> int:
        return max(1, round(part * unit))

    # A cross at each true place, and a ring with its label at each that was found
    for x, y in ((x * width, y * height) for x, y in _places(truth)):
        for arm, color in ((8 * unit, EDGE), (7 * unit, TRUE)):
            for turn in (arm, -arm):
                draw.line((x - arm, y - turn, x + arm, y + turn), fill=color, width=line(5 if color == EDGE else 2))
    boxes: list[tuple[float, float] | None] = [*_places(sizes)] or [None] * len(found)
    numbers = labels or [str(k + 1) for k in range(len(found))]
    for place, box_size, label in zip(found, boxes, numbers, strict=True):
        x, y = place[0] * width, place[1] * height
        if box_size is not None:
            half = box_size[0] * width / 2, box_size[1] * height / 2
            corners = (x - half[0], y - half[1], x + half[0], y + half[1])
            for color, across in ((EDGE, 4), (FOUND, 2)):
                draw.rectangle(corners, outline=color, width=line(across))
            corner = max(corners[0], 0) + 4 * unit, max(corners[1], 0) + 2 * unit
            draw.text(corner, label, fill=FOUND, font=font, anchor="lt", stroke_width=line(2), stroke_fill=EDGE)
            continue
        for radius, color in ((10 * unit, EDGE), (8.5 * unit, FOUND)):
            box = (x - radius, y - radius, x + radius, y + radius)
            draw.ellipse(box, outline=color, width=line(6 if color == EDGE else 3))
        right, low = (share < 0.9 for share in place)  # the side of the ring on which the image has room for the label
        draw.text(
            (x + (12 if right else -12) * unit, y + (10 if low else -10) * unit), label, fill=FOUND, font=font,
            anchor=("l" if right else "r") + ("t" if low else "b"), stroke_width=line(2), stroke_fill=EDGE,
        )  # fmt: skip
    return canvas


def _places(places: Any) -> list[tuple[float, float]]:
    """Pairs of numbers from a tensor, an array or a list; none from an empty one of any shape."""
    rows = places.tolist() if isinstance(places, Tensor | np.ndarray) else [list(place) for place in places]
    if not all(isinstance(row, list) and len(row) == 2 and all(map(math.isfinite, row)) for row in rows):
        raise InputError(f"got places {rows}; expected finite (x, y) pairs, (K, 2)")
    return [(float(x), float(y)) for x, y in rows]


def heat(numbers: Tensor, size: tuple[int, int] = (128, 128)) -> Image.Image:
    """Numbers (H, W) as an image of a size (width, height), from dark blue (least) to yellow (greatest).

    >>> heat(torch.eye(2), (4, 4)).size
    (4, 4)
    """
    low, high = float(numbers.min()), float(numbers.max())
    level = ((numbers.float() - low) / max(high - low, 1e-12)).cpu()
    stops = torch.tensor(HEAT, dtype=torch.float32)
    place = level * (len(stops) - 1)
    left = place.floor().long().clamp(0, len(stops) - 2)
    colour = torch.lerp(stops[left], stops[left + 1], (place - left)[..., None])
    return Image.fromarray(colour.round().byte().numpy()).resize(size, Image.Resampling.BICUBIC)


def strip(
    pictures: Tensor,
    whole: Tensor,
    parts: Tensor,
    masks: Tensor | None = None,
    *,
    side: int = 96,
    names: Sequence[str] | None = None,
) -> Image.Image:
    """Decomposed images, one row per image: the image, its reconstruction from all parts, and each part alone.

    With masks there is a second row per image: the image and its reconstruction with each mask in its own colour, then
    what the reconstruction shows in each mask.

    Args:
        pictures: the images, (B, 3, H, W) in [-1, 1].
        whole: their reconstructions, of the same shape.
        parts: the parts alone, (B, K, 3, H, W).
        masks: the pixels of each part, (B, K, H, W), bool.
        side: least height in px of an image in the result; smaller ones are enlarged by a smooth filter.
        names: B texts, one at the left of each image.

    >>> some = torch.zeros(1, 3, 8, 8)
    >>> strip(some, some, torch.zeros(1, 4, 3, 8, 8), torch.zeros(1, 4, 8, 8), side=16).size
    (110, 58)
    """
    fits = parts.ndim == 5 and parts[:, 0].shape == pictures.shape == whole.shape and parts.shape[1] > 0
    if not fits or (masks is not None and masks.shape != (*parts.shape[:2], *parts.shape[3:])):
        shapes = [tuple(t.shape) for t in (pictures, whole, parts, *([] if masks is None else [masks]))]
        raise InputError(f"got pictures, whole, parts and masks of shapes {shapes}; expected those of `decompose`")
    _check_number("names", names, len(pictures))
    pictures, whole, parts = (t.detach().float().cpu() for t in (pictures, whole, parts))
    count = parts.shape[1]
    lines = [torch.cat([pictures[:, None], whole[:, None], parts], dim=1)]
    if masks is not None:
        masks = masks.detach().cpu().bool()
        both = torch.stack([pictures, whole], dim=1)
        marked = both
        for k in range(count):
            hue = torch.tensor(part_colour(k, count))[:, None, None] * 2 - 1
            marked = torch.where(masks[:, k, None, None], 0.4 * both + 0.6 * hue, marked)
        shown = torch.where(masks[:, :, None], whole[:, None], torch.tensor(NO_PART))
        lines.append(torch.cat([marked, shown], 1))
    heads = ["image", "reconstruction", *(f"part {k}" for k in range(count))]
    rows = None if names is None else [text for name in names for text in (name, "masks")[: len(lines)]]
    cells = torch.stack(lines, dim=1).flatten(0, 2)
    return grid(cells, columns=count + 2, side=side, heads=heads, names=rows)
