"""Looks at marked photos before anything is learned: at which size, in which crops, with which windows."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import attrs
import torch

from energycomp.errors import InputError
from energycomp_objects.formats import MarkedPhotos

GRID = 16  # pixels; sides of samples are multiples of it, for a patch of 4 and three resolutions
PATCH = 4
WHOLE = 192 * 144  # pixels of a photo that is trained on as a whole, at most
LEAST = 12.0  # pixels across of the smallest tenth of the objects
DETAIL = 36.0  # pixels across of the median object, where its words are told apart by details
ALIKE = 1.5  # ratio of the median sizes of two words, below which details tell them apart
WINDOW = 1.6  # sides of the window in sizes of the largest tenth
CROP = 3.2  # sides of a crop in sizes of the largest tenth
CROPS = (96, 160)  # pixels, the least and the greatest side of a crop
MARGIN = 1.5  # of the greatest count of components, in that of the photos


@attrs.frozen
class Plan:
    """How a model of marked photos is made.

    Args:
        photos, objects: how many.
        kinds: how many objects have each word of the attributes.
        count: greatest number of objects in a photo, and the mean.
        smallest, largest: pixels across of the smallest and of the largest tenth of the objects in the photos.
        size: height and width of the photos as the model sees them.
        scale: of the photos to that size.
        tile: height and width of what it is trained on: the whole, or crops.
        window: of an object, in cells of `PATCH` pixels.
    """

    photos: int
    objects: int
    kinds: dict[str, dict[str, int]]
    count: tuple[int, float]
    smallest: float
    largest: float
    size: tuple[int, int]
    scale: float
    tile: tuple[int, int]
    window: int

    @property
    def counts(self) -> tuple[int, int]:
        """The least and the greatest number of objects that the model looks for."""
        return (0, round(MARGIN * self.count[0]) + 2)

    def report(self) -> str:
        """What was seen and what follows from it, in lines of text."""
        h, w = self.size
        most, mean = self.count
        lines = [f"{self.photos} photos, {self.objects:,} objects, {mean:.1f} a photo, {most} at most"]
        for name, words in self.kinds.items():
            lines.append(f"{name}: {', '.join(f'{word} {n:,}' for word, n in words.items())}")
        small, large = self.smallest * self.scale, self.largest * self.scale
        lines.append(f"seen at {w}x{h} pixels, where the smallest tenth of the objects is {small:.0f} across, and the "
                     f"largest {large:.0f}")  # fmt: skip
        crops = "whole photos" if self.tile == self.size else f"crops of {self.tile[1]}x{self.tile[0]}"
        lines.append(f"trained on {crops}, objects seen in windows of up to {self.window * PATCH} pixels")
        rare = [f"{word} ({n})" for words in self.kinds.values() for word, n in words.items() if n < 10]
        if rare:
            lines.append(f"few examples: {', '.join(rare)}; expect errors, or mark more")
        return "\n".join(lines)


def make_plan(photos: MarkedPhotos, *, pixels: float | None = None, across: float | None = None) -> Plan:
    """A plan for photos.

    Args:
        pixels: across of the smallest tenth of the objects as the model sees them; by default what their words need.
        across: of objects without boxes, in pixels of the photos.

    Raises:
        InputError: no photos, no marks, or points of unknown size.
    """
    sizes = sizes_of(photos, across)
    if len(photos) < 2 or not len(sizes):
        raise InputError(
            f"got {len(photos)} photos with {len(sizes)} objects; expected two photos at least, with marks; mark more"
        )
    side = sizes.prod(1).sqrt()
    smallest, middle, largest = side.quantile(torch.tensor([0.1, 0.5, 0.9])).tolist()
    largest = float(sizes.amax(1).quantile(0.9))
    # The smallest and the largest kind count, too, where they are rare
    for words in _sides_by_word(photos, across).values():
        medians = [float(each.median()) for each in words.values()]
        smallest = min(smallest, *medians)
        largest = max(largest, *medians)
    needed = LEAST / smallest if pixels is None else pixels / smallest
    if pixels is None and _told_by_details(photos, across):
        needed = max(needed, DETAIL / middle)
    scale = min(1.0, needed)
    width, height = (sorted(photo.size[axis] for photo in photos)[len(photos) // 2] for axis in (0, 1))
    size = (_round(height * scale), _round(width * scale))
    tile = size
    if size[0] * size[1] > WHOLE:
        crop = _round(min(max(CROP * largest * scale, CROPS[0]), CROPS[1]))
        tile = (min(crop, size[0]), min(crop, size[1]))
    window = max(8, 2 * round(WINDOW * largest * scale / PATCH / 2))
    counts = [len(photo.marks) for photo in photos]
    kinds = {
        name: {word: Counter(m.attributes.get(name) for p in photos for m in p.marks)[word] for word in words}
        for name, words in photos.attributes.items()
    }
    return Plan(
        photos=len(photos),
        objects=sum(counts),
        kinds=kinds,
        count=(max(counts), sum(counts) / len(counts)),
        smallest=smallest,
        largest=largest,
        size=size,
        scale=scale,
        tile=tile,
        window=min(window, *(side // PATCH for side in tile)),
    )


def sizes_of(photos: MarkedPhotos, across: float | None) -> torch.Tensor:
    """Width and height in pixels of all objects, (R, 2)."""
    sizes = []
    for photo in photos:
        for mark in photo.marks:
            if mark.width is not None and mark.height is not None:
                sizes.append([mark.width * photo.size[0], mark.height * photo.size[1]])
            elif across is not None:
                sizes.append([across, across])
            else:
                raise InputError(f"got points without a size in {photo.path}; expected boxes, or how many pixels an "
                                 "object is across; pass --option across=40")  # fmt: skip
    return torch.tensor(sizes).reshape(-1, 2).clamp(min=1.0)


def _sides_by_word(photos: MarkedPhotos, across: float | None) -> dict[str, dict[str, torch.Tensor]]:
    """The square roots of the areas in pixels of the objects of each word of each attribute."""
    sides = sizes_of(photos, across).prod(1).sqrt()
    marks = [mark for photo in photos for mark in photo.marks]
    found: dict[str, dict[str, torch.Tensor]] = {}
    for name, words in photos.attributes.items():
        by_word = {w: sides[[k for k, mark in enumerate(marks) if mark.attributes.get(name) == w]] for w in words}
        found[name] = {word: each for word, each in by_word.items() if len(each)}
    return found


def _told_by_details(photos: MarkedPhotos, across: float | None) -> bool:
    """Whether two words of an attribute belong to objects of about the same size."""
    for words in _sides_by_word(photos, across).values():
        medians = sorted(float(each.median()) for each in words.values())
        if any(b < ALIKE * a for a, b in pairwise(medians)):
            return True
    return False


def _round(side: float) -> int:
    return max(GRID, round(side / GRID) * GRID)
