"""Whether shapes are drawn as asked, by the outlines of objects: a judge that is no network and knows no model.

python benchmarks/sampling/outlines.py [--model clevr] [-n 48] [--shapes cube] [--data renders] [-o sheet.png]

Draws scenes of 3 to 5 objects until n large and n small ones of each shape were whole in the image, and prints one JSON
line for each shape and size:

    nearest      share whose outline is nearest to that of the shape, with its 95 % interval (Wilson)
    as_rendered  share that is nearest, and as near as 19 of 20 renders are: a lump may be nearest to a cube
    overlap      mean overlap (IoU) with the outline of the shape
    turn_error   median of how many degrees cubes are turned from what was asked, where the model takes turns

Lines of renders of the same descriptions, at the size of the model's images, follow, and of these as the model's codec
gives them back. `--data` names a folder of renders in CLEVR's layout, such as those of Blender; by default they are
those of our own renderer. `--only-renders` draws nothing, to calibrate the judge, which is
`energycomp_datasets.clevr.outlines`.

`-o` writes a sheet of 24 cubes, half of them drawn and half rendered, and beside it, as JSON, which are which.
Results in `--records` are taken up again.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, median
from typing import Any, NamedTuple

import torch
from PIL import Image
from scipy.stats import binomtest
from torch import Tensor
from tqdm import tqdm

from benchmarks.common import ways
from benchmarks.common.options import parser
from energycomp.files import atomic_file
from energycomp.images import ImageProcessor, grid
from energycomp.models import Model
from energycomp_clevr.codes import ATTRIBUTES, CUBE, QUARTER, SHAPE, TURN
from energycomp_clevr.latents_recipe import turned_values_of
from energycomp_datasets.clevr.geometry import SHAPES
from energycomp_datasets.clevr.layout import read, write
from energycomp_datasets.clevr.outlines import in_view, judge
from energycomp_datasets.clevr.records import SceneRecord

RARE = 0.05  # share of renders whose outline is less clear
SCENES = 5  # that are rendered for each of n
SIZES = ATTRIBUTES["size"]
WHOLE, CUT = (192, 128), 64  # px: of an image of the sheet, and of the square around a cube
CELLS, SHOWN = 24, 192  # of the sheet, and the px of their sides
Kind = tuple[str, str]  # shape, size


class Asked(NamedTuple):
    """A scene: its number, its render, its objects (K, 7), and which of them are judged."""

    number: int
    record: SceneRecord
    values: Tensor
    chosen: tuple[int, ...]

    def kind(self, index: int) -> Kind:
        """The shape and the size of an object."""
        return SHAPES[int(self.values[index, SHAPE]) - 1], SIZES[int(self.values[index, 2]) - 1]


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the lines."""
    options = parser(
        __doc__, model="clevr", n=(48, "large and as many small objects of each shape"), seed=0,
        shapes=(list(SHAPES), "those that are judged"), counts=("3,4,5", "numbers of objects"),
        data=(None, "folder of renders in CLEVR's layout"), only_renders=(False, "no samples"),
        guidance=ways.GUIDANCE, records="runs/outlines", o=(None, "an image of 24 cubes, drawn and rendered"),
    ).parse_args(arguments)  # fmt: skip
    model = ways.guided(options.model, options.guidance)
    data = options.data or rendered(options.records / f"renders-{options.n}-{options.seed}", options.n, options.seed)
    counts = [int(count) for count in options.counts.split(",")]
    scenes = wanted(read(data), counts, options.n, options.shapes)
    files = {"renders": [scene.record.path for scene in scenes]}
    if not options.only_renders:
        folder = (
            options.records / f"{data.name}-{ways.identity(options.model, model)}-{ways.Way.of(model)}-{options.seed}"
        )
        files = {Path(options.model).name: drawn(scenes, folder, model, options.seed), **files}
    images = {name: [opened(path, model) for path in paths] for name, paths in files.items()}
    if model.denoiser.codec is not None:
        images["renders, by the codec"] = [given_back(image, model) for image in images["renders"]]
    found = {
        name: [judge(image, scene.values) for image, scene in zip(those, scenes, strict=True)]
        for name, those in images.items()
    }
    levels = least(scenes, found["renders"])
    for name, looks in found.items():
        turned = name not in files or name == "renders" or model.conditioner.value_shape[0] > TURN
        for line in lines(scenes, looks, levels, turned):
            print(json.dumps({"images": name, **line, "seed": options.seed}), flush=True)
    if options.o is not None and len(files) == 2:
        write_sheet(options.o, scenes, list(files.values()), model.processor.size, options.seed)


def rendered(folder: Path, n: int, seed: int) -> Path:
    """A folder of scenes of our own renderer, made once."""
    if not (folder / "scenes").is_dir() or not any((folder / "scenes").iterdir()):
        write(folder, SCENES * n, objects=(3, 5), seed=ways.HELD_OUT + seed, size=WHOLE)
    return folder


def drawn(scenes: Sequence[Asked], folder: Path, model: Model, seed: int) -> list[Path]:
    """A sample of each scene, as a file; cubes are turned as they are in the renders."""
    way, width = ways.Way.of(model), model.conditioner.value_shape[0]
    return [
        ways.drawn(
            folder / scene.record.path.stem, way, model, model.compose(scene.values[:, :width]), seed + scene.number
        )
        for scene in tqdm(scenes, desc="drawing")
    ]


def wanted(records: Sequence[SceneRecord], counts: Sequence[int], n: int, shapes: Sequence[str]) -> list[Asked]:
    """The first scenes that have n whole objects of each shape and size, or all where they have not as many."""
    scenes, have = [], Counter[Kind]()
    for number, record in enumerate(records):
        if record.count not in counts:
            continue
        scene, chosen = Asked(number, record, turned_values_of(record), ()), []
        for index in in_view(scene.values).nonzero()[:, 0].tolist():
            kind = scene.kind(index)
            if kind[0] in shapes and have[kind] < n:
                have[kind] += 1
                chosen.append(index)
        if chosen:
            scenes.append(scene._replace(chosen=tuple(chosen)))
    return scenes


def opened(path: Path, model: Model) -> Tensor:
    """An image file as (3, H, W), at the size of the model's images."""
    return ImageProcessor(size=model.processor.size, resize="squash")(path)[0]


@torch.no_grad()
def given_back(image: Tensor, model: Model) -> Tensor:
    """An image (3, H, W) encoded and decoded: the best that a model on these latents can draw."""
    codec: Any = model.denoiser.codec
    decoded: Tensor = codec.decode(codec.encode(image[None]))[0]
    return decoded


def by_kind(scenes: Sequence[Asked], found: Sequence[Sequence[Any]]) -> dict[Kind, list[tuple[Any, float]]]:
    """The judged objects of each shape and size, and how cubes should be turned."""
    of: dict[Kind, list[tuple[Any, float]]] = {}
    for scene, looks in zip(scenes, found, strict=True):
        for index in scene.chosen:
            of.setdefault(scene.kind(index), []).append((looks[index], float(scene.values[index, TURN]) - 1))
    return of


def least(scenes: Sequence[Asked], renders: Sequence[Sequence[Any]]) -> dict[Kind, float]:
    """The overlap with its own shape that 19 of 20 renders have, of each shape and size."""
    return {
        kind: float(torch.tensor([look.overlaps[kind[0]] for look, _ in objects]).quantile(RARE))
        for kind, objects in by_kind(scenes, renders).items()
    }


def lines(
    scenes: Sequence[Asked], found: Sequence[Sequence[Any]], levels: dict[Kind, float], turned: bool
) -> list[dict[str, Any]]:
    """What is printed of the objects of each shape and size."""
    made = []
    for (shape, size), objects in sorted(by_kind(scenes, found).items(), reverse=True):
        right = [look for look in objects if look[0].shape == shape]
        ends = binomtest(len(right), len(objects)).proportion_ci(method="wilson")
        line = {"shape": shape, "size": size, "objects": len(objects), "nearest": round(len(right) / len(objects), 4)}
        line["nearest_interval"] = [round(float(end), 4) for end in (ends.low, ends.high)]
        clear = sum(look.overlaps[shape] >= levels[shape, size] for look, _ in right)
        line["as_rendered"] = round(clear / len(objects), 4)
        line["overlap"] = round(mean(look.overlaps[shape] for look, _ in objects), 4)
        line["others"] = dict(Counter(look.shape for look, _ in objects if look.shape != shape))
        if SHAPES.index(shape) + 1 == CUBE and turned and right:
            apart = [abs((look.turn - asked + QUARTER / 2) % QUARTER - QUARTER / 2) for look, asked in right]
            line["turn_error"] = round(median(apart), 2)
        made.append(line)
    return made


def write_sheet(
    path: Path, scenes: Sequence[Asked], files: Sequence[Sequence[Path]], pixels: tuple[int, int], seed: int
) -> None:
    """Cubes in a random order, drawn in every second scene and rendered in the others; PATH.json has the key."""
    cells: dict[tuple[str, str], list[tuple[Image.Image, dict[str, Any]]]] = {}
    for number, scene in enumerate(scenes):
        source, file = ("drawn", "rendered")[number % 2], files[number % 2][number]
        # Renders have the size of the samples first.
        image = Image.open(file).convert("RGB").resize(pixels[::-1], Image.Resampling.LANCZOS)
        image = image.resize(WHOLE, Image.Resampling.LANCZOS)
        for index in scene.chosen:
            shape, size = scene.kind(index)
            if shape != SHAPES[CUBE - 1]:
                continue
            x, y = (scene.values[index, :2] * torch.tensor(WHOLE)).tolist()
            left, top = (round(min(max(at - CUT / 2, 0), side - CUT)) for at, side in zip((x, y), WHOLE, strict=True))
            key = {"from": source, "file": file.name, "object": index + 1, "size": size}
            cells.setdefault((source, size), []).append((image.crop((left, top, left + CUT, top + CUT)), key))
    shown = [cell for kind in sorted(cells) for cell in cells[kind][: CELLS // 4]]
    random.Random(seed).shuffle(shown)  # noqa: S311 - an order, not a secret
    captions = [str(number) for number in range(1, len(shown) + 1)]
    with atomic_file(path) as temporary:
        grid([image for image, _ in shown], columns=6, side=SHOWN, captions=captions).save(temporary, format="PNG")
    with atomic_file(path.with_suffix(".json")) as temporary:
        temporary.write_text(json.dumps(dict(zip(captions, (key for _, key in shown), strict=True)), indent=1))


if __name__ == "__main__":
    main()
