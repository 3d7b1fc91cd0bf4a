"""Edit one object of rendered scenes, and read the results back.

python benchmarks/sampling/edits.py [-n 60] [--objects 3-5] [--seed 0] [-o edits.png]

Each scene has one object removed, one added and one moved, in three edits. The place of a new object is the one of 8
places of another scene that is farthest from the objects of the scene. An edit is right if exactly the requested
objects are read, each within the threshold of the perception rate. The unedited scenes give the upper bound of the
solver. `colour_change` is the median change of colour at the centre of a moved object, in [0, 255]; the difference
between two objects of a scene gives the scale.

Of a model of whole objects, one word of one object is changed in a fourth edit: size, colour, material and shape by
turns. `set_right` says how often it is read back, and `others_unchanged` which share of the other objects has its place
and words of before.
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
from benchmarks.common.ways import mean_interval
from energycomp import Model, infer, load
from energycomp.components import MixedConditioner, mixed_of
from energycomp.fields import parse_range
from energycomp.files import atomic_file
from energycomp.images import grid, to_unit
from energycomp.inference import Solution
from energycomp_datasets.clevr.layout import render_objects
from energycomp_edit import edit
from energycomp_lab.evaluation import FOUND_WITHIN, match

HELD_OUT = 2_100_000_000  # added to the seed: scenes that neither training nor another benchmark has


def main() -> None:
    """Prints one JSON line."""
    options = parser(
        __doc__, model="clevr-places", n=(60, "scenes"), objects=("3-5", "objects of a scene"),
        seed=0,
        o=(None, "an image: scene, removed, added, moved; of the first 8"),
    ).parse_args()  # fmt: skip
    model = load(options.model)
    height, width = model.processor.size
    seed = HELD_OUT + options.seed
    mixed = mixed_of(model.conditioner)
    images, described = render_objects(options.n, parse_range(options.objects), seed, (width, height))
    _, crowd = render_objects(options.n, (8, 8), seed + 1_000_000)
    places, others = ([one[:, :2] for one in some] for some in (described, crowd))
    right = dict.fromkeys(("scene", "remove", "add", "move"), 0)
    repainted, seconds = 0.0, 0.0
    shown: list[Tensor] = []
    changes, scale, as_asked, unchanged = [], [], [], []
    scenes = zip(images / 127.5 - 1, places, others, strict=True)
    for k, (image, true, spare) in enumerate(tqdm(scenes, total=options.n, desc="editing")):
        place = tuple(spare[torch.cdist(spare, true).amin(1).argmax()].tolist())
        solution = infer(to_unit(image), model)
        right["scene"] += agrees(solution.conditions[:, :2], true)
        if not solution.count:
            continue
        tiles = [image]
        ways: dict[str, Any] = {"remove": [0], "add": [place], "move": {0: place}}
        for name, change in ways.items():
            started = time.perf_counter()
            edited = edit(to_unit(image), model, solution=solution, progress=False, **{name: change})
            seconds += time.perf_counter() - started
            repainted += float(edited.mask.mean())
            right[name] += agrees(infer(edited.image, model).conditions[:, :2], edited.values[:, :2])
            after = model.decode(edited.sample, "pt")[0] * 2 - 1
            if name == "move":
                before = [colour(image, value[:2]) for value in solution.conditions]
                changes.append(colour_distance(colour(after, edited.values[0, :2]), before[0]))
                scale += [colour_distance(a, b) for a, b in combinations(before, 2)]
            tiles.append(after)
        if mixed is not None:
            attribute = list(mixed.attributes)[k % len(mixed.attributes)]
            is_set, others_stay, after = reworded(model, mixed, image, solution, attribute)
            as_asked.append(is_set)
            unchanged += others_stay
            tiles.append(after)
        shown += tiles if len(shown) < 32 else []
    result: dict[str, Any] = {f"{name}_right": round(count / options.n, 4) for name, count in right.items()}
    result |= {
        "colour_change": round(statistics.median(changes), 1),
        "colour_change_between_objects": round(statistics.median(scale), 1),
        "repainted": round(repainted / (3 * options.n), 4),
        "seconds_per_edit": round(seconds / (3 * options.n), 3),
        "scenes": options.n, "objects": options.objects, "seed": options.seed,
    }  # fmt: skip
    if mixed is not None:
        result["set_right"], result["set_right_interval"] = mean_interval(torch.tensor(as_asked))
        result["others_unchanged"], result["others_unchanged_interval"] = mean_interval(torch.tensor(unchanged))
    print(json.dumps(result))
    if options.o:
        with atomic_file(options.o) as temporary:
            grid(torch.stack(shown), columns=8 if mixed is None else 5).save(temporary, format="PNG")


def reworded(
    model: Model, mixed: MixedConditioner, image: Tensor, solution: Solution, attribute: str
) -> tuple[bool, list[bool], Tensor]:
    """Gives the first object another word; whether it is read, whether each other one is as before, and the image."""
    column = mixed.support.length + list(mixed.attributes).index(attribute)
    words = mixed.attributes[attribute]
    word = words[int(solution.conditions[0, column]) % len(words)]  # codes start at 1: the next one
    edited = edit(to_unit(image), model, set={0: {attribute: word}}, solution=solution, progress=False)
    found = infer(edited.image, model).conditions
    same = []
    for number, value in enumerate(edited.values):
        near = [one for one in found if bool(match(one[None, :2], value[None, :2]) <= FOUND_WITHIN)]
        columns = [column] if number == 0 else list(range(mixed.support.length, len(value)))
        same.append(any(bool((one[columns] == value[columns]).all()) for one in near))
    return same[0], same[1:], model.decode(edited.sample, "pt")[0] * 2 - 1


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
