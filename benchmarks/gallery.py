"""Draw the pictures of the start page, and the card that other sites show for a link.

python benchmarks/gallery.py [--only start growing attributes] [--seed 0] [-o docs/images]

Writes `start.png` and, cut to 1200x630, `../assets/card.png`; `growing.png` and `attributes.png`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from energycomp import Composer, decompose, infer, load
from energycomp.components import combine
from energycomp.files import atomic_file
from energycomp.viz import grid
from energycomp_datasets.shapes.source import draw

SIDE = 384  # px of an image of the start page
SCENE = (
    "large red metal cube at 0.3,0.42",
    "small blue metal sphere at 0.52,0.66",
    "large yellow metal sphere at 0.74,0.5",
    "small green rubber cylinder at 0.24,0.72",
    "small purple metal sphere at 0.55,0.35",
    "small cyan rubber cube at 0.8,0.75",
)
FACE = ("eyeglasses", "smiling", "beard", "suit")
HELD_OUT = 2_000_000_000


def main() -> None:
    """Writes the pictures."""
    drawings: dict[str, Callable[[int], Image.Image]] = {
        "start": start, "growing": growing, "attributes": attributes,
    }  # fmt: skip
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(drawings), default=list(drawings))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", type=Path, default=Path("docs/images"), help="folder")
    options = parser.parse_args()
    for name in options.only:
        drawn = drawings[name](options.seed)
        save(drawn, options.o / f"{name}.png")
        if name == "start":
            save(card(drawn), options.o / ".." / "assets" / "card.png")


def start(seed: int) -> Image.Image:
    """Compose, read and decompose: a scene, the same scene with what was found in it, and an image beside its parts."""
    clevr, decomp = load("clevr"), load("decomp")
    scene = described(SCENE[:4], seed)
    solution = infer(scene, clevr, generator=seed)
    made = decompose(draw(3, HELD_OUT + seed, counts=(3, 3)).image[None], decomp, generator=seed).parts
    objects = made.images[0][made.images[0].flatten(1).std(1).argsort(descending=True)[:3]]  # not the empty parts
    parts = grid(torch.cat([made.whole, objects]), columns=2, side=(SIDE - 6) // 2)
    seen = [large(scene), solution.picture(side=SIDE), parts.resize((SIDE, SIDE))]
    return grid(seen, columns=3, padding=8, heads=["compose", "read", "decompose"])


def growing(seed: int) -> Image.Image:
    """One more object at a time, from the same noise."""
    scenes = [described(SCENE[:number], seed) for number in range(1, 1 + len(SCENE))]
    return grid(
        [large(scene, 192) for scene in scenes], columns=3, captions=[words.split(" at ")[0] for words in SCENE]
    )


def attributes(seed: int) -> Image.Image:
    """One more attribute of a face at a time, from the same noise."""
    faces = load("faces")
    sets = [FACE[:number] for number in range(1, 1 + len(FACE))]
    drawn = [sample(combine([faces(**{name: True}) for name in names], "product"), faces, seed) for names in sets]
    return grid([large(face, 192) for face in drawn], columns=4, captions=[f"+ {names[-1]}" for names in sets])


def described(words: Sequence[str], seed: int) -> Image.Image:
    """A scene of described objects."""
    clevr = load("clevr")
    values = torch.cat([clevr.conditioner.read(text) for text in words])  # type: ignore[attr-defined]
    return sample(clevr.compose(values, guidance=clevr.defaults.attribute_guidance), clevr, seed)


def sample(composition: Any, model: Any, seed: int) -> Image.Image:
    """A sample as `energycomp sample` draws it."""
    defaults = model.defaults
    return Composer(composition).sample(
        generator=seed, scheduler=defaults.scheduler, num_inference_steps=defaults.num_inference_steps
    )[0]


def large(image: Image.Image, side: int = SIDE) -> Image.Image:
    """An image of a model, enlarged by a smooth filter."""
    return image.resize((side, side), Image.Resampling.LANCZOS)


def card(picture: Image.Image) -> Image.Image:
    """The picture in the middle of 1200x630 px, on white."""
    whole = Image.new("RGB", (1200, 630), "white")
    height = round(1200 * picture.height / picture.width)
    whole.paste(picture.resize((1200, height), Image.Resampling.LANCZOS), (0, (630 - height) // 2))
    return whole


def save(picture: Image.Image, path: Path) -> None:
    """Writes a picture in full colour."""
    with atomic_file(path) as temporary:
        picture.save(temporary, format="PNG")


if __name__ == "__main__":
    main()
