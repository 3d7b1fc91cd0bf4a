"""Which scenes a text asks for: "3-5", "textured:3-5", "wide:0-5:128x128"."""

from __future__ import annotations

import attrs

from energycomp.errors import InputError
from energycomp.fields import parse_range
from energycomp_datasets.clevr.scenes import CLEVR, Variety

KINDS = {
    "plain": CLEVR,
    "wide": Variety(camera=0.6, sizes=0.03),
    "crowded": Variety(side=2.6, gap=0.05, direction_gap=0.05),
    "textured": CLEVR,
}
SIDES = (16, 4096)  # px, least and greatest


@attrs.frozen
class SceneRequest:
    """The scenes that are asked for: their kind, the range of counts, and (width, height) in px of their images."""

    kind: str
    objects: tuple[int, int]
    size: tuple[int, int]

    @property
    def variety(self) -> Variety:
        return KINDS[self.kind]

    @property
    def textured(self) -> bool:
        """Whether objects and ground have patterns."""
        return self.kind == "textured"


def parse_request(text: str, size: tuple[int, int]) -> SceneRequest:
    """What a text asks for: a kind of scenes, a range of counts and a size, each of which may be left out.

    >>> parse_request("wide:0-5:128x128", (64, 64))
    SceneRequest(kind='wide', objects=(0, 5), size=(128, 128))
    """
    kind = "plain"
    objects = (3, 5)
    parts = [part for part in text.split(":") if part]
    if parts and parts[0] in KINDS:
        kind = parts.pop(0)
    if parts and "x" in parts[-1]:
        size = _size(parts.pop(), text)
    if len(parts) > 1:
        raise InputError(
            f"got {text}; expected {', '.join(KINDS)} or none of these, two counts from 0 to 10, and a size, such as "
            "wide:0-5:128x128"
        )
    if parts:
        objects = parse_range(parts[0], greatest=10)
    return SceneRequest(kind, objects, size)


def _size(part: str, text: str) -> tuple[int, int]:
    width, _, height = part.partition("x")
    if not (width.isdecimal() and height.isdecimal() and SIDES[0] <= int(width) <= SIDES[1] >= int(height) >= SIDES[0]):
        raise InputError(f"got {text}; expected a width and a height from {SIDES[0]} to {SIDES[1]}, such as 128x128")
    return int(width), int(height)
