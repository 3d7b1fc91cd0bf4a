"""Rendered faces with known attributes, through dicebear and resvg.

Avataaars are by Pablo Stanley (free for personal and commercial use), personas by Draftbit (CC BY 4.0).
"""

from __future__ import annotations

import io
import json
from functools import cache, partial
from importlib.resources import files
from typing import Any

import numpy as np
from PIL import Image

ATTRIBUTES = (
    "black_hair", "long_hair", "wavy_hair", "eyeglasses", "smiling", "beard", "pale_skin", "frowning", "closed_eyes",
    "suit", "dark_clothes", "dark_background",
)  # fmt: skip

# Styles of hair by (long, wavy), and of beards: two groups, so that faces of one are unlike those of the other.
HAIR = {
    "a": {
        (False, False): ("shortFlat", "theCaesar"),
        (False, True): ("shortCurly", "dreads01"),
        (True, False): ("straight01", "bob", "longButNotTooLong"),
        (True, True): ("curvy", "curly"),
    },
    "b": {
        (False, False): ("shortRound", "theCaesarAndSidePart"),
        (False, True): ("shortWaved", "frizzle"),
        (True, False): ("straight02", "straightAndStrand", "miaWallace"),
        (True, True): ("dreads", "fro"),
    },
}
BEARDS = {"a": ("beardMedium", "beardLight"), "b": ("beardMajestic",)}
GROUPS = tuple(HAIR)
PERSONA_ATTRIBUTES = (
    "black_hair", "long_hair", "eyeglasses", "smiling", "beard", "pale_skin", "dark_clothes", "dark_background",
)  # fmt: skip

BLACK = ("#2c1b18",)
OTHER_HAIR = ("#a55728", "#b58143", "#d6b370", "#ecdcbf", "#c93305", "#e8e1e1")
PALE = ("#ffdbb4", "#edb98a")
DARKER = ("#ae5d29", "#d08b5b", "#614335")
DARK_CLOTHES, BRIGHT_CLOTHES = (
    ("#262e33", "#25557c", "#3c4f5c"),
    ("#a7ffc4", "#ffafb9", "#ffffb1", "#ffffff", "#65c9ff"),
)
DARK_GROUND = ("#4a5a6a", "#5a4a62", "#48604e")
LIGHT_GROUND = ("#e6e6e6", "#dfe9f5", "#f5e9dc")
FRAMES = ("#262e33", "#25557c", "#3c4f5c")


@cache
def _style(name: str) -> Any:
    from dicebear import Style

    return Style(json.loads(files("dicebear_styles").joinpath(f"{name}.json").read_text(encoding="utf-8")))


def labels_of(rng: np.random.Generator) -> np.ndarray:
    """Attributes of a random face, (12,) of 0 and 1, independent and even."""
    return rng.integers(0, 2, len(ATTRIBUTES))


def avatar(labels: np.ndarray, rng: np.random.Generator, *, group: str = "a", size: int = 64) -> np.ndarray:
    """A face with these labels (12,) of 0 and 1, and styles of a group, "a" or "b": (size, size, 3) uint8."""
    has = dict(zip(ATTRIBUTES, map(bool, labels), strict=True))
    pick = partial(_pick, rng)
    hair = pick(BLACK if has["black_hair"] else OTHER_HAIR)
    return _draw(
        "avataaars",
        {
            "topVariant": pick(HAIR[group][has["long_hair"], has["wavy_hair"]]),
            "hairColor": hair,
            "accessoriesVariant": pick(("prescription01", "prescription02", "round")),
            "accessoriesProbability": 100 * has["eyeglasses"],
            "accessoriesColor": pick(FRAMES),
            "mouthVariant": pick(("smile", "twinkle", "tongue") if has["smiling"] else ("sad", "serious", "concerned")),
            "facialHairVariant": pick(BEARDS[group]),
            "facialHairProbability": 100 * has["beard"],
            "facialHairColor": hair,
            "skinColor": pick(PALE if has["pale_skin"] else DARKER),
            "eyebrowsVariant": pick(("angry", "angryNatural") if has["frowning"] else ("raisedExcited", "default")),
            "eyesVariant": pick(("closed", "happy") if has["closed_eyes"] else ("default", "surprised", "side")),
            "clothesVariant": pick(
                ("blazerAndShirt", "blazerAndSweater") if has["suit"] else ("hoodie", "shirtCrewNeck", "shirtVNeck")
            ),
            "clothesColor": pick(DARK_CLOTHES if has["dark_clothes"] else BRIGHT_CLOTHES),
            "backgroundColor": pick(DARK_GROUND if has["dark_background"] else LIGHT_GROUND),
        },
        rng,
        size,
    )


def persona(labels: np.ndarray, rng: np.random.Generator, *, size: int = 64) -> np.ndarray:
    """A face of another style, (size, size, 3) uint8; of the attributes it has `PERSONA_ATTRIBUTES`."""
    has = dict(zip(ATTRIBUTES, map(bool, labels), strict=True))
    pick = partial(_pick, rng)
    hair = pick(BLACK if has["black_hair"] else OTHER_HAIR)
    return _draw(
        "personas",
        {
            "hairVariant": pick(("extraLong", "long", "bobCut") if has["long_hair"] else ("fade", "shortCombover")),
            "hairColor": hair,
            "eyesVariant": ["glasses" if has["eyeglasses"] else "open"],
            "mouthVariant": pick(("bigSmile", "smile") if has["smiling"] else ("frown", "surprise")),
            "facialHairVariant": ["beardMustache"],
            "facialHairProbability": 100 * has["beard"],
            "facialHairColor": hair,
            "skinColor": pick(PALE if has["pale_skin"] else DARKER),
            "clothingColor": pick(DARK_CLOTHES if has["dark_clothes"] else BRIGHT_CLOTHES),
            "backgroundColor": pick(DARK_GROUND if has["dark_background"] else LIGHT_GROUND),
        },
        rng,
        size,
    )


def _pick(rng: np.random.Generator, options: tuple[str, ...]) -> list[str]:
    return [options[int(rng.integers(len(options)))]]


def _draw(style: str, options: dict[str, Any], rng: np.random.Generator, size: int) -> np.ndarray:
    import resvg_py
    from dicebear import Avatar

    frame = {
        "seed": str(int(rng.integers(2**31))),
        "scale": float(rng.uniform(1.12, 1.25)),
        "translateX": float(rng.uniform(-4, 4)),
        "translateY": float(rng.uniform(2, 6)),
    }
    svg = Avatar(_style(style), {**options, **frame}).to_string()
    png = bytes(resvg_py.svg_to_bytes(svg_string=svg, width=size, height=size))
    with Image.open(io.BytesIO(png)) as picture:
        return np.asarray(picture.convert("RGB"))
