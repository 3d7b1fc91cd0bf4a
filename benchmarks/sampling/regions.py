"""Sample two prompts, each in its half of the image, and read every half with the same model.

python benchmarks/sampling/regions.py [-n 32] [--scale 3] [--weights number region] [--way ddpm@50] [-o regions.png]

The prompts are pairs of concepts A and B of the model `text`. Weights are numbers, `s A & s B`, or halves,
`s [left half] A & s [right half] B`. A half shows the concept whose noise prediction has the least squared error over
the pixels of the half, among all nine concepts, over 16 draws (timestep, noise). `in_its_half` is the share of prompts
that are read in their half, `in_either_half` the share that is read in any half. Results in `--records` are taken up
again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from benchmarks.common.ways import SHOWN, Way, folder_of, mean_interval, recorded, write_rows
from energycomp import Composition, Model, load, region
from energycomp.components import predict_leaves
from energycomp.inference import draw_bank
from energycomp_datasets.solids.solids import CONCEPTS

WEIGHTS = ("number", "region")
DRAWS = 16  # that read a sample


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints one JSON line for each kind of weights."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="text", help="registered name or folder")
    parser.add_argument("-n", type=int, default=32, help="pairs of concepts")
    parser.add_argument("--scale", type=float, default=None, help="weight of every prompt; the model's own")
    parser.add_argument("--weights", nargs="+", default=list(WEIGHTS), choices=WEIGHTS)
    parser.add_argument("--way", type=Way.parsed, default=None, help="of drawing; the model's own scheduler and steps")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--records", type=Path, default=Path("runs/regions"), help="folder of single results")
    parser.add_argument("-o", type=Path, default=None, help=f"a picture of the first {SHOWN} samples of each line")
    options = parser.parse_args(arguments)
    model = load(options.model)
    scale, way = options.scale or model.defaults.guidance_scale, options.way or Way.of(model)
    shown: list[Path] = []
    for kind in options.weights:
        folder = folder_of(options.records / f"{kind}-{scale:g}", options.model, model, 2, way, options.seed)
        rows = [
            recorded(
                folder / str(k), way, model, made(model, kind, scale, pair), options.seed + k, partial(read, model)
            )
            for k, pair in enumerate(tqdm(pairs(options.n, options.seed), desc=kind))
        ]
        line: dict[str, Any] = {"weights": kind, "scale": scale, "way": str(way), "samples": options.n}
        for name, count in (("in_its_half", right_half), ("in_either_half", either_half)):
            scores = [count(row["read"], pair) for row, pair in zip(rows, pairs(options.n, options.seed), strict=True)]
            line[name], line[f"{name}_interval"] = mean_interval(torch.tensor(scores))
        spent = round(sum(row["rows"] for row in rows) / options.n, 1)
        print(json.dumps({**line, "seed": options.seed, "rows_per_sample": spent}), flush=True)
        shown += [folder / f"{k}.png" for k in range(min(SHOWN, options.n))]
    if options.o:
        write_rows(options.o, [Image.open(path) for path in shown], columns=min(SHOWN, options.n), side=128)


def pairs(n: int, seed: int) -> list[tuple[str, str]]:
    """n ordered pairs of different concepts, for the left and the right half."""
    rng = np.random.default_rng(seed)
    chosen = [rng.choice(len(CONCEPTS), 2, replace=False) for _ in range(n)]
    return [(CONCEPTS[int(a)], CONCEPTS[int(b)]) for a, b in chosen]


def made(model: Model, kind: str, scale: float, pair: tuple[str, str]) -> Composition:
    """The composition of the two prompts."""
    a, b = (scale * model.leaf(model.conditioner.parse(concept=concept)) for concept in pair)
    return a & b if kind == "number" else region("left half") * a & region("right half") * b


@torch.no_grad()
def read(model: Model, image: Tensor) -> list[str]:
    """The concepts of the left and of the right half."""
    observation = model.encode(model.given(image[None]))
    denoiser, defaults = model.denoiser, model.defaults
    bank = draw_bank(
        DRAWS,
        denoiser.sample_shape,
        denoiser.alphas_cumprod,
        timesteps=defaults.timesteps,
        gamma=defaults.gamma,
        generator=0,
    )
    leaves = [model.leaf(model.conditioner.parse(concept=concept)) for concept in CONCEPTS]
    samples = bank.noised(observation, denoiser.alphas_cumprod)
    eps = predict_leaves(Composition([(leaf, 1.0) for leaf in leaves]), samples, bank.timestep)  # (K, S, C, H, W)
    squares = (eps - bank.noise).square() * bank.weight[:, None, None, None]
    return [CONCEPTS[int(half.sum(dim=(1, 2, 3, 4)).argmin())] for half in squares.chunk(2, dim=-1)]


def right_half(found: list[str], pair: tuple[str, str]) -> float:
    """The share of prompts that their half shows."""
    return sum(one == other for one, other in zip(found, pair, strict=True)) / 2


def either_half(found: list[str], pair: tuple[str, str]) -> float:
    """The share of prompts that a half shows."""
    return len(set(found) & set(pair)) / 2


if __name__ == "__main__":
    main()
