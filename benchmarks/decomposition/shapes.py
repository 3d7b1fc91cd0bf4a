"""Are the shapes of a decomposition right? Reconstructions, and each part alone, are read by the counting network.

python benchmarks/decomposition/shapes.py [--models decomp decomp-b] [-n 500] [--views 1] [--seed 0]
    [-o runs/benchmarks]

The counting network in energycomp-datasets was trained on drawn images; the row "the images themselves" is its ceiling.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import attrs
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from tqdm import tqdm

from benchmarks.common import measure
from energycomp import load
from energycomp.decomposition import DiffusionDecomposer
from energycomp.files import atomic_file
from energycomp_datasets.shapes.features import LABELS, SHAPES, counts_of, shape_features
from energycomp_datasets.shapes.shapes import WORLDS, Scene, render
from energycomp_datasets.shapes.source import draw
from energycomp_datasets.synthetic import HELD_OUT

COMMAND = "python benchmarks/decomposition/shapes.py"
COLUMNS = ("model", "image", "shapes of the image correct", "shape of a part correct", "most frequent error")
CHUNK = 50  # images a batch
FOUND = 0.5  # intersection over union


def counted(images: Tensor, scenes: Sequence[Scene], world: str) -> str:
    """The share of images whose numbers of each shape are as drawn."""
    true = torch.stack([counts_of(scene.factors, world) for scene in scenes])
    right = (shape_features().counts(images).round() == true)[:, : len(SHAPES)].all(1)
    return f"{100 * float(right.float().mean()):.1f} %"


def named(images: Tensor, world: str) -> list[str]:
    """The shape that the counting network sees most of, in each of some images (N, 3, H, W) of one object."""
    names = WORLDS[world].shapes
    start = LABELS.index(names[0])
    seen = shape_features().counts(images)[:, start : start + len(names)].argmax(1)
    return [names[int(index)] for index in seen]


def pairs_of(masks: Tensor, scene: Scene) -> list[tuple[int, int]]:
    """Parts and objects that belong together, of those whose masks agree."""
    shared = torch.einsum("khw,nhw->kn", masks.float(), scene.masks.float())
    union = masks.flatten(1).sum(1)[:, None] + scene.masks.flatten(1).sum(1) - shared
    iou = (shared / union.clamp(min=1)).numpy()
    return [
        (int(k), int(n)) for k, n in zip(*linear_sum_assignment(iou, maximize=True), strict=True) if iou[k, n] >= FOUND
    ]


@torch.no_grad()
def rows(name: str, count: int, seed: int, views: int | None = None) -> list[list[str]]:
    """What is drawn, and what the model makes of it."""
    decomposer = DiffusionDecomposer(load(name))
    if views is not None:
        decomposer = attrs.evolve(decomposer, views=views)
    world = "b" if decomposer.model.name.endswith("-b") else "a"
    scenes = [draw(index, HELD_OUT + seed, world=world) for index in range(count)]
    images = torch.stack([scene.image for scene in scenes])
    generator = torch.Generator().manual_seed(seed)
    whole: list[Tensor] = []
    alone: list[Tensor] = []
    true: list[tuple[Scene, int]] = []
    for chunk, some in zip(
        tqdm(images.split(CHUNK), desc=name, leave=False),
        (scenes[k : k + CHUNK] for k in range(0, count, CHUNK)),
        strict=True,
    ):
        parts = decomposer.parts(decomposer.encode(chunk), generator=generator)
        whole.append(parts.whole)
        for image, masks, scene in zip(parts.images, parts.masks, some, strict=True):
            for k, n in pairs_of(masks, scene):
                alone.append(image[k])
                true.append((scene, n))
    drawn = torch.cat([render(scene.factors[None, n : n + 1], world=world)[0] for scene, n in true])
    wanted = [WORLDS[world].shapes[int(scene.factors[n, 0])] for scene, n in true]
    return [
        [name, kind, counted(shown, scenes, world), *_judged(named(single, world), wanted)]
        for kind, shown, single in (
            ("the images themselves", images, drawn),
            ("reconstructed", torch.cat(whole), torch.stack(alone)),
        )
    ]


def _judged(seen: Sequence[str], wanted: Sequence[str]) -> list[str]:
    wrong = Counter((one, other) for one, other in zip(wanted, seen, strict=True) if one != other)
    share = 1 - wrong.total() / len(wanted)
    often = [f"{one} as {other}, {100 * count / len(wanted):.1f} %" for (one, other), count in wrong.most_common(1)]
    return [f"{100 * share:.1f} %", *(often or [""])]


def main() -> None:
    """Writes a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["decomp", "decomp-b"], help="names or folders")
    parser.add_argument("-n", type=int, default=500, help="images")
    parser.add_argument("--views", type=int, help="of an image, among which latents are searched; those of the model")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("-o", "--out", type=Path, default=Path("runs/benchmarks"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    lines = [line for name in options.models for line in rows(name, options.n, options.seed, options.views)]
    views = "" if options.views is None else f" --views {options.views}"
    note = (
        f"`{COMMAND} --models {' '.join(options.models)} -n {options.n}{views} --seed {options.seed}`: {options.n} "
        "held-out images of the model's world, read by the counting network of energycomp-datasets. A part counts if "
        f"its mask covers an object at an intersection over union of {FOUND}."
    )
    text = measure.table(COLUMNS, lines, note)
    options.out.mkdir(parents=True, exist_ok=True)
    with atomic_file(options.out / "shapes.md") as temporary:
        Path(temporary).write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
