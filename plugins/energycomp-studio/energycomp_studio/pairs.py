"""The parts of two images, as the page shows them, and what is kept of them for a browser tab."""

from __future__ import annotations

from typing import Any

import attrs
from PIL import Image
from torch import Tensor

from energycomp.decomposition import EXPLAINED, decompose, decomposer_of, explained_variance
from energycomp.errors import InputError
from energycomp.images import as_picture, data_url, to_output
from energycomp.models import Model
from energycomp.plugins import find, names
from energycomp_studio.settings import Settings

IMAGES = 2
TILE = 96  # px


@attrs.frozen(eq=False)
class Parts:
    """The parts of one image: the name of the model, its latents (1, K, D), and what is shown of them, as data URLs.

    Args:
        whole: the image, and its reconstruction from all parts.
        note: why not to trust them.
    """

    model: str
    latents: Tensor
    whole: tuple[str, ...]
    parts: tuple[str, ...]
    note: str

    def as_json(self) -> dict[str, Any]:
        return {"whole": list(self.whole), "parts": list(self.parts), "note": self.note}


@attrs.define(eq=False)
class Pair:
    """The images of a browser tab.

    Args:
        said: of each image, what is said of it.
        chosen: the tiles that are chosen, as the page sends them.
        made: the image of the chosen parts, in HTML, and the Python and shell lines that make it.
    """

    parts: list[Parts | None] = attrs.field(factory=lambda: [None] * IMAGES)
    said: list[str] = attrs.field(factory=lambda: [""] * IMAGES)
    chosen: Any = None
    made: tuple[str, str, str] = ("", "", "")

    @property
    def listed(self) -> list[Parts]:
        return [one for one in self.parts if one is not None]

    def put(self, place: int, found: Parts) -> None:
        """An image is now another one. Parts of another model, which do not combine with it, go."""
        for k, one in enumerate(self.parts):
            if one is not None and one.model != found.model:
                self.parts[k] = None
                self.said[k] = self.said[k] if k == place else ""
        self.parts[place] = found

    def told(self) -> str:
        """What is said of all images, as one line."""
        if self.said[0] and len({*self.said}) == 1:
            return self.said[0]
        return "; ".join(f"image {k}: {one}" for k, one in enumerate(self.said, 1) if one)


def parts_of(pictures: list[Image.Image], model: Model, name: str, settings: Settings) -> list[Parts]:
    found = decompose(pictures, decomposer_of(model), generator=settings.seed)
    whole = found.parts.whole.cpu()
    shares = explained_variance(model.processor(pictures), whole)

    def shown(images: Any) -> tuple[str, ...]:
        return tuple(data_url(model.shown(one, side=TILE)) for one in images)

    made = []
    for k, (picture, share) in enumerate(zip(pictures, shares, strict=True)):
        foreign = share is not None and share < EXPLAINED
        said = f"out of distribution: parts of {name} explain {max(share or 0, 0):.0%} of it; do not trust them"
        own = [model.processor.frame(picture), *to_output(whole[k, None], "pil")]
        parts = to_output(found.parts.images[k], "pil")
        made.append(Parts(name, found.latents[k, None], shown(own), shown(parts), said if foreign else ""))
    return made


def draw_examples(name: str, settings: Settings) -> list[Image.Image]:
    """Draws two images of the data set of a model's name; raises `InputError` where there is none."""
    if name not in names("datasets"):
        raise InputError(f"got {name}, for which there is no example; drop an image, or choose another model")
    examples = find("datasets", name)().examples("synthetic", count=IMAGES, seed=settings.seed)
    return [as_picture(example.image) for example in examples]
