"""Sample two prompts, each in its half of the image, and read every half.

python benchmarks/sampling/regions.py [-n 32] [--scale 3] [--weights number regional] [--way ddpm@50] [-o regions.png]

The prompts are pairs of concepts A and B of the model `text`, and s is the scale. The weights
are those of

number      s A & s B
region      s [left half] A & s [right half] B
regional    regional([("left half", s A), ("right half", s B)])

A half shows the concept whose noise prediction has the least squared error over the pixels of the half, among all
twelve concepts, over 16 draws (timestep, noise). `in_its_half` is the share of prompts that are read in their half,
`in_either_half` the share that is read in any half. `color_in_its_half` uses no network: the share of prompts with at
least 32 px of their colour in their half, and, where the colours differ, 90 % of its pixels. `--weights true`
reads rendered images of the pairs of two colours, whose objects are in their halves. Results in `--records` are taken
up again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks.common.options import parser
from benchmarks.common.ways import PICTURE, Way, all_recorded, first, folder_of, mean_interval, spent, write_rows
from energycomp import Composition, Model, load, region
from energycomp.components import predict_leaves
from energycomp.images import to_output
from energycomp.inference import draw_bank
from energycomp_datasets.solids.solids import CONCEPTS, picture
from energycomp_samplers import regional

WEIGHTS = ("number", "region", "regional")
HALVES = ("left half", "right half")
PAIRS = 5  # that are drawn in a row
TRUE = "true"  # rendered images
SEEN, SHARE = 32, 0.9  # least pixels of a colour in a half, and least share of all of its pixels
HUES = {"red": 0.0, "yellow": 0.16, "green": 0.31, "blue": 0.62}  # of the renderer's colours, in turns
COLORED, HUE_ERROR = 0.3, 0.08  # least saturation of a pixel of an object, and greatest distance of its hue
DRAWS = 16  # that read a sample


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints one JSON line for each kind of weights."""
    parsed = parser(
        __doc__, model="text", n=(32, "pairs of concepts"), scale=(0.0, "weight of every prompt; the model's own"),
        weights=(list(WEIGHTS), "of the prompts", [*WEIGHTS, TRUE]), seed=0, records="runs/regions", o=PICTURE,
    )  # fmt: skip
    parsed.add_argument("--way", type=Way.parsed, help="of drawing; the model's own scheduler and steps")
    options = parsed.parse_args(arguments)
    model = load(options.model)
    scale, way = options.scale or model.defaults.guidance_scale, options.way or Way.of(model)
    shown: list[Path] = []
    for kind in options.weights:
        folder = folder_of(options.records / f"{kind}-{scale:g}", options.model, model, 2, way, options.seed)
        chosen = [pair for pair in pairs(options.n, options.seed) if kind != TRUE or not _is_of_one_color(pair)]
        made = [pair if kind == TRUE else composed(model, kind, scale, pair) for pair in chosen]
        drawing = Rendered("rendered", 0) if kind == TRUE else way
        rows = all_recorded(folder, drawing, model, made, options.seed, lambda _, image: read(model, image), kind)
        line: dict[str, Any] = {"weights": kind, "scale": scale, "way": str(way), "samples": len(rows)}
        for name, count in (("in_its_half", right_half), ("in_either_half", either_half)):
            scores = [count(row["read"], pair) for row, pair in zip(rows, chosen, strict=True)]
            line[name], line[f"{name}_interval"] = mean_interval(torch.tensor(scores))
        images = [Image.open(folder / f"{k}.png") for k in range(len(rows))]
        colors = [color_in_its_half(image, pair) for image, pair in zip(images, chosen, strict=True)]
        line["color_in_its_half"], line["color_in_its_half_interval"] = mean_interval(torch.tensor(colors))
        print(json.dumps({**line, "seed": options.seed, "rows_per_sample": spent(rows)}), flush=True)
        shown += first(folder, len(rows), PAIRS) if kind != TRUE else []
    drawn = [kind for kind in options.weights if kind != TRUE]
    heads = [", ".join(pair) for pair in pairs(min(PAIRS, options.n), options.seed)]
    write_rows(options.o, shown, columns=len(heads), side=160, heads=heads, names=drawn)


def pairs(n: int, seed: int) -> list[tuple[str, str]]:
    """n ordered pairs of different concepts, for the left and the right half."""
    rng = np.random.default_rng(seed)
    chosen = [rng.choice(len(CONCEPTS), 2, replace=False) for _ in range(n)]
    return [(CONCEPTS[int(a)], CONCEPTS[int(b)]) for a, b in chosen]


def composed(model: Model, kind: str, scale: float, pair: tuple[str, str]) -> Composition:
    """The composition of the two prompts."""
    a, b = (scale * model.leaf(model.conditioner.parse(concept=concept)) for concept in pair)
    if kind == "number":
        return a & b
    left, right = HALVES
    return regional([(left, a), (right, b)]) if kind == "regional" else region(left) * a & region(right) * b


class Rendered(Way):
    """Renders an image of the pair with the colour of each object in its half, in place of a sample."""

    def draw(self, _: Model, pair: tuple[str, str], seed: int) -> Tensor:
        """An image (3, 64, 64) in [0, 1]."""
        rng = np.random.default_rng([seed, 1])
        while True:
            image = picture(pair, rng)
            if color_in_its_half(to_output(image[None], "pil")[0], pair) == 1.0:
                return (image + 1) / 2


def read(model: Model, image: Tensor) -> list[str]:
    """The concepts of the left and of the right half."""
    leaves = [model.leaf(model.conditioner.parse(concept=concept)) for concept in CONCEPTS]
    return [CONCEPTS[k] for k in errors_of_halves(model, image[None], leaves).argmin(1).tolist()]


@torch.no_grad()
def errors_of_halves(model: Model, image: Any, leaves: Sequence[Any]) -> Tensor:
    """Denoising errors (2, K) of K components in the left and in the right half of an image."""
    observation = model.encode(model.given(image))
    denoiser, defaults = model.denoiser, model.defaults
    drawn = {"timesteps": defaults.timesteps, "gamma": defaults.gamma, "generator": 0}
    bank = draw_bank(DRAWS, denoiser.sample_shape, denoiser.alphas_cumprod, **drawn)
    samples = bank.noised(observation, denoiser.alphas_cumprod)
    eps = predict_leaves(Composition([(leaf, 1.0) for leaf in leaves]), samples, bank.timestep)  # (K, S, C, H, W)
    squares = (eps - bank.noise).square() * bank.weight[:, None, None, None]
    return torch.stack([half.sum(dim=(1, 2, 3, 4)) for half in squares.chunk(2, dim=-1)])


def right_half(found: list[str], pair: tuple[str, str]) -> float:
    """The share of prompts that their half shows."""
    return sum(one == other for one, other in zip(found, pair, strict=True)) / 2


def either_half(found: list[str], pair: tuple[str, str]) -> float:
    """The share of prompts that a half shows."""
    return len(set(found) & set(pair)) / 2


def color_in_its_half(image: Image.Image, pair: tuple[str, str]) -> float:
    """The share of prompts whose colour is in their half.

    >>> image = Image.new("RGB", (64, 64), "grey")
    >>> image.paste((173, 35, 35), (0, 0, 20, 20))
    >>> color_in_its_half(image, ("red cube", "blue cube")), color_in_its_half(image, ("blue cube", "red cube"))
    (0.5, 0.0)
    """
    hue, saturation, _ = np.asarray(image.convert("HSV"), dtype=float).transpose(2, 0, 1) / 255.0
    found = []
    for half, concept in enumerate(pair):
        away = np.abs((hue - HUES[concept.split()[0]] + 0.5) % 1.0 - 0.5)
        seen = (saturation >= COLORED) & (away < HUE_ERROR)
        inside = np.split(seen, 2, axis=1)[half].sum()
        found.append(inside >= SEEN and (_is_of_one_color(pair) or inside >= SHARE * seen.sum()))
    return float(np.mean(found))


def _is_of_one_color(pair: tuple[str, str]) -> bool:
    return pair[0].split()[0] == pair[1].split()[0]


if __name__ == "__main__":
    main()
