"""Scenes of described objects that are wider than the images of a model, read back window by window.

python benchmarks/parts/wide_scenes.py [-n 8] [--objects 20] [--size 256x64] [--steps 60] [-o wide.png]

Objects stand in two rows of columns, at jittered places, with random words. The model reads each window of its own size
by itself; an object is found if its nearest reading, in the window in whose middle it is most, is within a tenth of the
window. Prints one JSON line: shares of objects found, and of all objects found with all words right; the mean
horizontal gradient at the edges of windows over that elsewhere, the same in the middle between two edges, where two
windows are averaged, both with standard errors over scenes, since objects have gradients, too; evaluations per scene.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from benchmarks.common.options import parser
from energycomp import Composer, Model, infer, load
from energycomp.components import random_values
from energycomp.images import grid, save_image, to_output
from energycomp_clevr.codes import ATTRIBUTES
from energycomp_clevr.wide import canvas_of, wide

NEAR = 0.1  # of a window


def described(model: Model, count: int, generator: torch.Generator) -> Tensor:
    """Objects (K, *V) of all words at jittered places in two rows."""
    values = random_values(model.conditioner, count, generator=generator)
    for code, words in enumerate(ATTRIBUTES.values()):
        values[:, 2 + code] = torch.randint(len(words), (count,), generator=generator).float() + 1
    column, row = torch.arange(count) // 2, torch.arange(count) % 2
    jitter = torch.rand(count, 2, generator=generator) - 0.5
    columns = (count + 1) // 2
    values[:, 0] = ((column + 0.25 + 0.5 * row + 0.4 * jitter[:, 0]) / columns).clamp(0.03, 0.97)
    values[:, 1] = 0.45 + 0.27 * row + 0.1 * jitter[:, 1]
    return values


def read_back(model: Model, image: Tensor, values: Tensor) -> tuple[int, int]:
    """How many objects of an image (3, H, W) in [0, 1] are found, and how many with all words right."""
    _, height, width = image.shape
    canvas, found, right = canvas_of(model, (height, width)), 0, 0
    read = {part: infer(part.seen(image[None])[0], model, generator=0).conditions for part in canvas.parts}
    for value in values:
        places = {}
        for part in canvas.parts:
            (_, rows), (_, columns) = part.axes
            x = (value[0] * width - columns[0]) / len(columns)
            places[part] = torch.stack([x, (value[1] * height - rows[0]) / len(rows)])
        best = min(canvas.parts, key=lambda part: float((places[part] - 0.5).abs().max()))
        if not len(read[best]):
            continue
        away = (read[best][:, :2] - places[best]).norm(dim=1)
        if float(away.min()) < NEAR:
            found += 1
            right += int(bool((read[best][away.argmin(), 2:] == value[2:]).all()))
    return found, right


def seams(image: Tensor, edges: Sequence[int]) -> float:
    """The mean horizontal gradient before some columns, such as those where windows begin or end, over all others."""
    gradient = image.diff(dim=-1).abs().mean(dim=(0, 1))
    at = torch.zeros(len(gradient), dtype=torch.bool)
    at[[edge - 1 for edge in edges]] = True
    return float(gradient[at].mean() / gradient[~at].mean())


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the line."""
    given = {"n": (8, "scenes"), "objects": 20, "size": "256x64", "steps": 60, "model": "clevr-small"}
    options = parser(__doc__, **given, o=(None, "image of all scenes")).parse_args(arguments)
    model, (width, height) = load(options.model), map(int, options.size.split("x"))
    total, spent, images = torch.zeros(2), [], []
    parts = canvas_of(model, (height, width)).parts
    edges = sorted(set().union(*(_ends(part.axes[-1][1], width) for part in parts)))
    middles = [(left + right) // 2 for left, right in pairwise([0, *edges, width])]
    for seed in range(options.n):
        values = described(model, options.objects, torch.Generator().manual_seed(seed))
        composer = Composer(wide(model, values, [1.0] * len(values), (height, width)))
        image = composer.sample(
            1, generator=seed, num_inference_steps=options.steps, output_type="pt", progress=False,
            report=lambda report: spent.append(report.evaluations),
        )[0]  # fmt: skip
        total += torch.tensor(read_back(model, image, values))
        images.append(image)
    share = total / (options.n * options.objects)
    line = {"objects": options.objects, "size": options.size, "scenes": options.n, "found": round(float(share[0]), 3)}
    line["all_words"] = round(float(share[1]), 3)
    for name, columns in (("seams", edges), ("between", middles)):
        ratios = torch.tensor([seams(image, columns) for image in images])
        line[name] = [round(float(ratios.mean()), 3), round(float(ratios.std()) / len(images) ** 0.5, 3)]
    print(json.dumps(line | {"evaluations": sum(spent) // len(spent)}), flush=True)
    if options.o is not None:
        save_image(
            grid(to_output(torch.stack(images) * 2 - 1, "pil"), columns=1, side=256), options.o, cells=len(images)
        )


def _ends(columns: range, width: int) -> set[int]:
    return {columns.start, columns.stop} - {0, width}


if __name__ == "__main__":
    main()
