"""Edit one object of rendered scenes, and read the results back.

python benchmarks/sampling/edits.py [-n 60] [--objects 3-5] [--strength 0.2] [--seed 0] [-o edits.png]

Each scene has one object removed, one added and one moved, in three edits. The place of a new object is the one of 8
places of another scene that is farthest from the objects of the scene. An edit is right if exactly the requested
objects are read, each within the threshold of the perception rate. The unedited scenes give the upper bound of the
solver. `colour_change` is the median change of colour at the centre of a moved object, in [0, 255]; the difference
between two objects of a scene gives the scale.
"""

from __future__ import annotations

import json
import statistics
import time
from itertools import combinations
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.common.options import parser
from energycomp import infer, load
from energycomp.fields import parse_range
from energycomp.files import atomic_file
from energycomp.images import grid, to_unit
from energycomp_datasets.clevr.layout import render_arrays
from energycomp_edit import edit
from energycomp_lab.evaluation import FOUND_WITHIN, match

HELD_OUT = 2_100_000_000  # added to the seed: scenes that neither training nor another benchmark has


def main() -> None:
    """Prints one JSON line."""
    options = parser(
        __doc__, model="clevr-places", n=(60, "scenes"), objects=("3-5", "objects of a scene"),
        strength=(0.2, "how freely what moves is painted anew"), seed=0,
        o=(None, "an image: scene, removed, added, moved; of the first 8"),
    ).parse_args()  # fmt: skip
    model = load(options.model)
    images, places = render_arrays(options.n, objects=parse_range(options.objects), seed=HELD_OUT + options.seed)
    _, others = render_arrays(options.n, objects=(8, 8), seed=HELD_OUT + 1_000_000 + options.seed)
    right = dict.fromkeys(("scene", "remove", "add", "move"), 0)
    repainted, seconds, shown = 0.0, 0.0, []
    changes, scale = [], []
    scenes = zip(images / 127.5 - 1, places, others, strict=True)
    for image, true, spare in tqdm(scenes, total=options.n, desc="editing"):
        place = tuple(spare[torch.cdist(spare, true).amin(1).argmax()].tolist())
        solution = infer(to_unit(image), model)
        right["scene"] += agrees(solution.conditions, true)
        if not solution.count:
            continue
        tiles = [image]
        for name, change in {"remove": {"remove": [0]}, "add": {"add": [place]}, "move": {"move": {0: place}}}.items():
            started = time.perf_counter()
            edited = edit(to_unit(image), model, solution=solution, strength=options.strength, progress=False, **change)
            seconds += time.perf_counter() - started
            repainted += float(edited.mask.mean())
            right[name] += agrees(infer(edited.image, model).conditions, edited.values)
            if name == "move":
                before = [colour(image, value) for value in solution.conditions]
                changes.append(colour_distance(colour(edited.sample[0], edited.values[0]), before[0]))
                scale += [colour_distance(a, b) for a, b in combinations(before, 2)]
            tiles.append(edited.sample[0])
        shown += tiles if len(shown) < 32 else []
    result: dict[str, Any] = {f"{name}_right": round(count / options.n, 4) for name, count in right.items()}
    result |= {"colour_change": round(statistics.median(changes), 1)}
    result |= {"colour_change_between_objects": round(statistics.median(scale), 1)}
    result |= {
        "repainted": round(repainted / (3 * options.n), 4),
        "seconds_per_edit": round(seconds / (3 * options.n), 3),
    }
    result |= {"scenes": options.n, "objects": options.objects, "strength": options.strength, "seed": options.seed}
    print(json.dumps(result))
    if options.o:
        with atomic_file(options.o) as temporary:
            grid(torch.stack(shown), columns=8).save(temporary, format="PNG")


def colour(image: Tensor, place: Tensor) -> Tensor:
    """The mean colour (3,) of 3x3 pixels of a picture (3, H, W) around a place."""
    x, y = (place * torch.tensor(image.shape[:0:-1])).long().clamp(min=1).tolist()
    return image[:, y - 1 : y + 2, x - 1 : x + 2].mean((1, 2))


def colour_distance(one: Tensor, other: Tensor) -> float:
    """Root mean square over the channels, in [0, 255]."""
    return 127.5 * float((one - other).square().mean().sqrt())


def agrees(found: Tensor, asked: Tensor) -> bool:
    """As many values, and each near its own."""
    return len(found) == len(asked) and bool((match(found, asked) <= FOUND_WITHIN).all())


if __name__ == "__main__":
    main()
