"""Teach the reader of CLEVR scenes the solids of prompts, so that samples of prompts are judged by what is no model.

python benchmarks/sampling/prompt_reader.py [--steps 500] [-n 2500] [--held-out 200] [--seed 0] [-o runs/prompt_reader]

The reader that energycomp-datasets ships goes on to learn from rendered images of one to four solids, which are
mirrored, blurred and made noisy, since samples are soft. Prints one JSON line for two and three solids of held-out
renders, as they are and blurred: the share of concepts that are found, and of images in which exactly the true ones
are. A run that was stopped continues. `composed_prompts.py --judge FOLDER` judges samples by it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.common.options import parser
from benchmarks.common.training import trained
from benchmarks.common.ways import mean_interval
from benchmarks.sampling.scene_reader import loss
from energycomp.files import atomic_file, read_tensors, write_tensors
from energycomp.images import to_bytes
from energycomp.progress import progress
from energycomp_datasets.clevr.geometry import SHAPES
from energycomp_datasets.clevr.reader import SIZE, SceneReader, load_reader
from energycomp_datasets.clevr.scenes import ATTRIBUTES, COLORS
from energycomp_datasets.shipped import save_network
from energycomp_datasets.solids.solids import CONCEPTS, picture_and_places
from energycomp_datasets.solids.source import draw
from energycomp_datasets.synthetic import HELD_OUT
from energycomp_lab.training import collate

MOST = 4  # solids of a picture
SOFT = 1.5  # px, the deviation of the widest blur


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the lines."""
    made = parser(
        __doc__, steps=500, n=(2500, "images to learn from"), held_out=(200, "others, of each number of solids"),
        seed=0, out="runs/prompt_reader",
    )  # fmt: skip
    options = made.parse_args(arguments)
    reader = trained(
        lambda: load_reader().requires_grad_(requires_grad=True).to(memory_format=torch.channels_last), loss,
        learned(options.out / f"learned-{options.n}.safetensors", options.n, options.seed), options.out / "run",
        collate_fn=collate, steps=options.steps, batch_size=16, learning_rate=1e-3, ema_decay=0.99,
        mixed_precision="bf16", seed=options.seed,
    )  # fmt: skip
    save_network(reader, options.out / "reader")
    reader = load_reader(options.out / "reader")
    for kind, count in (("synthetic", 2), ("synthetic:3", 3)):
        held = [draw(k, HELD_OUT + options.seed, kind) for k in range(options.held_out)]
        for soft in (0.0, SOFT / 2):
            found = [concepts_in(reader, blurred(image, soft)) for _, image in held]
            line = {"solids": count, "images": len(held), "blur": soft, **scores(found, [names for names, _ in held])}
            print(json.dumps(line), flush=True)


def learned(path: Path, n: int, seed: int) -> list[dict[str, Tensor]]:
    """Enlarged images (3, 128, 128), uint8, and their solids (K, 6): x, y, and the place of each word, 0 if open."""
    if not path.is_file():
        rng = np.random.default_rng(seed)
        images, values, counts = [], [], []
        for k in progress(range(n), "rendering"):
            names = [CONCEPTS[one] for one in rng.integers(len(CONCEPTS), size=1 + k % MOST)]
            image, ids = picture_and_places(names, rng)
            images.append(to_bytes(enlarged(blurred(image, SOFT * float(rng.random())))))
            values += [_value(name, ids == number) for number, name in enumerate(names)]
            counts.append(len(names))
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as temporary:
            made = {"images": torch.stack(images), "values": torch.stack(values), "counts": torch.tensor(counts)}
            write_tensors(temporary, made)
    found = read_tensors(path)
    each = found["values"].split(found["counts"].tolist())
    return [{"image": image, "values": value} for image, value in zip(found["images"], each, strict=True)]


def _value(name: str, pixels: Tensor) -> Tensor:
    """A solid (6,), at the middle of its pixels; its size is open, and its material always the same."""
    tint, shape = name.split()
    y, x = (pixels.nonzero().float().mean(0) + 0.5) / pixels.shape[0]
    return torch.tensor([x, y, 0, list(COLORS).index(tint) + 1, 0, SHAPES.index(shape) + 1])


def enlarged(image: Tensor) -> Tensor:
    """An image (3, H, W) in [-1, 1] at the size of the reader."""
    return F.interpolate(image[None], (SIZE, SIZE), mode="bicubic", antialias=True).clamp(-1, 1)[0]


def blurred(image: Tensor, deviation: float) -> Tensor:
    """An image (3, H, W) under a Gaussian of some px.

    >>> blurred(torch.ones(3, 8, 8), 1.0).round(decimals=4).unique()
    tensor([1.])
    """
    line = torch.exp(-torch.arange(-4.0, 5.0).square() / (2 * max(deviation, 0.1) ** 2))
    kernel = torch.outer(line, line) / line.sum() ** 2
    padded = F.pad(image[None], (4, 4, 4, 4), mode="replicate")
    return F.conv2d(padded, kernel.expand(len(image), 1, -1, -1), groups=len(image))[0]


@cache
def load_judge(folder: Path) -> SceneReader:
    """The reader that `main` has trained."""
    return load_reader(folder / "reader")


def concepts_in(reader: SceneReader, image: Tensor) -> list[str]:
    """The concepts of an image (3, H, W) in [-1, 1], one for each solid, sorted."""
    (solids,) = reader.read(enlarged(image)[None])
    colors, shapes = (list(ATTRIBUTES[name]) for name in ("color", "shape"))
    return sorted(f"{colors[int(one[3]) - 1]} {shapes[int(one[5]) - 1]}" for one in solids)


def scores(found: Sequence[Sequence[str]], true: Sequence[Sequence[str]]) -> dict[str, tuple[float, float]]:
    """The mean share of the true concepts that are found, and of images where nothing else is, with ± of each."""
    shares = [len({*f} & {*t}) / len(t) for f, t in zip(found, true, strict=True)]
    exact = [float(sorted(f) == sorted(t)) for f, t in zip(found, true, strict=True)]
    return {"found": mean_interval(torch.tensor(shares)), "exact": mean_interval(torch.tensor(exact))}


if __name__ == "__main__":
    main()
