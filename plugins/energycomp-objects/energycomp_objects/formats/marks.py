"""Photos on which people marked objects: places, sizes and attributes, whatever file they were read from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, overload

import attrs
from PIL import Image

from energycomp.errors import InputError
from energycomp.images import open_image


@attrs.frozen
class Mark:
    """An object that a person marked, in shares of the upright picture, x to the right and y down.

    Args:
        x, y: the centre.
        width, height: of the box; both None where only a point is marked.
        attributes: such as {"category": "RBC"}; what is not said is left out.

    Raises:
        InputError: numbers that are not finite, a size that is not positive, or one of width and height alone.

    >>> Mark(0.5, 0.5, width=0.2)
    Traceback (most recent call last):
    energycomp.errors.InputError: got a mark with width 0.2 and height None; expected both, or neither for a point
    """

    x: float
    y: float
    width: float | None = None
    height: float | None = None
    attributes: dict[str, str] = attrs.field(factory=dict)

    def __attrs_post_init__(self) -> None:
        if (self.width is None) != (self.height is None):
            raise InputError(
                f"got a mark with width {self.width} and height {self.height}; expected both, or neither for a point"
            )
        size = () if self.width is None or self.height is None else (self.width, self.height)
        if not all(map(math.isfinite, (self.x, self.y, *size))) or any(side <= 0 for side in size):
            raise InputError(
                f"got a mark at {self.x}, {self.y} of size {size}; expected finite numbers and sizes over 0; correct it"
            )

    def as_dict(self) -> dict[str, Any]:
        """x, y, width and height unless only a point is marked, and the attributes beside them."""
        size = {} if self.width is None else {"width": self.width, "height": self.height}
        return {"x": self.x, "y": self.y, **size, **self.attributes}


@attrs.frozen
class MarkedPhoto:
    """A picture file with its marks.

    Args:
        size: width and height in pixels of the upright picture, that is with its EXIF orientation applied.
    """

    path: Path
    size: tuple[int, int]
    marks: tuple[Mark, ...] = ()

    def image(self) -> Image.Image:
        """The upright picture in RGB; raises `InputError` as `energycomp.images.open_image` does."""
        return open_image(self.path)


@attrs.frozen
class MarkedPhotos(Sequence[MarkedPhoto]):
    """Photos, and the attributes of their marks: each name with its values, in order.

    A slice has the attributes of the whole.

    >>> marks = (Mark(0.5, 0.5, attributes={"category": "RBC"}),)
    >>> photos = MarkedPhotos((MarkedPhoto(Path("a.png"), (640, 480), marks),), {"category": ("RBC", "WBC")})
    >>> len(photos), photos[0].marks[0].attributes, photos[1:].attributes
    (1, {'category': 'RBC'}, {'category': ('RBC', 'WBC')})
    """

    photos: tuple[MarkedPhoto, ...]
    attributes: dict[str, tuple[str, ...]]

    @overload
    def __getitem__(self, index: int) -> MarkedPhoto: ...

    @overload
    def __getitem__(self, index: slice) -> MarkedPhotos: ...

    def __getitem__(self, index: int | slice) -> MarkedPhoto | MarkedPhotos:
        if isinstance(index, slice):
            return attrs.evolve(self, photos=self.photos[index])
        return self.photos[index]

    def __len__(self) -> int:
        return len(self.photos)
