"""Edit one object of a scene, and read the results back.

python benchmarks/sampling/edits.py [-n 60] [--objects 3-5] [--seed 0] [--composed] [-o edits.png]

Each scene has one object removed, one added and one moved, in three edits; of a model of whole objects, one word of one
object is changed in a fourth edit: size, colour, material and shape by turns. The place of a new object is the one of 8
places of another scene that is farthest from the objects of the scene. Scenes are rendered, or sampled by the model
from the same descriptions.

`edit` reads its results itself, and samples them again where they are not as asked. The figures are those of another
reading, with another seed. An edit is right if it sees exactly the requested objects: each within the threshold of the
perception rate, and with all its words. `held` is the share of edits that are right, and `said` that of edits of which
`edit` said the same. The unedited scenes give the upper bound of the solver. `colour_change` is the median change of
colour at the centre of a moved object, in [0, 255]; the difference between two objects of a scene gives the scale.
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
from energycomp import Composer, Model, infer, load
from energycomp.components import mixed_of
from energycomp.fields import parse_range
from energycomp.files import atomic_file
from energycomp.images import grid, to_unit
from energycomp.inference import Solution
from energycomp_datasets.clevr.layout import render_objects
from energycomp_edit import edit
from energycomp_edit.checking import find_faults
from energycomp_lab.evaluation import FOUND_WITHIN, match

HELD_OUT = 2_100_000_000  # added to the seed: scenes that neither training nor another benchmark has
OTHER_SEED = 1  # of the reading that decides whether an edit is right


def main() -> None:
    """Prints one JSON line."""
    options = parser(
        __doc__, model="clevr-places", n=(60, "scenes"), objects=("3-5", "objects of a scene"),
        seed=0, composed=(False, "scenes that the model samples, in place of rendered ones"),
        o=(None, "an image: scene, removed, added, moved, changed; of the first 8"),
    ).parse_args()  # fmt: skip
    model = load(options.model)
    height, width = model.processor.size
    seed = HELD_OUT + options.seed
    images, described = render_objects(options.n, parse_range(options.objects), seed, (width, height))
    _, crowd = render_objects(options.n, (8, 8), seed + 1_000_000)
    right: dict[str, list[bool]] = {}
    said: list[bool] = []
    tries: list[int] = []
    repainted, seconds = [], []
    changes, scale = [], []
    shown: list[Tensor] = []
    scenes = zip(images / 127.5 - 1, described, crowd, strict=True)
    for k, (rendered, true, spare) in enumerate(tqdm(scenes, total=options.n, desc="editing")):
        image = sampled(model, true, options.seed + k) if options.composed else rendered
        place = tuple(spare[torch.cdist(spare[:, :2], true[:, :2]).amin(1).argmax(), :2].tolist())
        solution = infer(to_unit(image), model)
        right.setdefault("scene", []).append(agrees(solution.conditions[:, :2], true[:, :2]))
        if not solution.count:
            continue
        tiles = [image]
        for name, change in ways_of(model, solution, place, options.seed + k).items():
            started = time.perf_counter()
            edited = edit(to_unit(image), model, solution=solution, progress=False, **{name: change})
            seconds.append(time.perf_counter() - started)
            repainted.append(float(edited.mask.mean()))
            tries.append(edited.tries)
            faults = find_faults(edited.values, infer(edited.image, model, generator=OTHER_SEED).conditions, model)
            right.setdefault(name, []).append(not faults)
            said.append(bool(faults) == bool(edited.faults))
            if faults or edited.tries > 1:
                read = "; ".join(map(str, faults)) or "as asked"
                tqdm.write(f"scene {k}, {name}, {edited.tries} tries: {read}; edit said {edited}")
            after = model.decode(edited.sample, "pt")[0] * 2 - 1
            if name == "move":
                before = [colour(image, value[:2]) for value in solution.conditions]
                changes.append(colour_distance(colour(after, edited.values[0, :2]), before[0]))
                scale += [colour_distance(a, b) for a, b in combinations(before, 2)]
            tiles.append(after)
        shown += tiles if k < 8 else []
    edits = [one for name, found in right.items() if name != "scene" for one in found]
    result: dict[str, Any] = {f"{name}_right": round(statistics.mean(found), 4) for name, found in right.items()}
    result["held"], result["held_interval"] = mean_interval(torch.tensor(edits))
    result |= {
        "edits": len(edits), "said": round(statistics.mean(said), 4), "tries": round(statistics.mean(tries), 2),
        "colour_change": round(statistics.median(changes), 1),
        "colour_change_between_objects": round(statistics.median(scale), 1),
        "repainted": round(statistics.mean(repainted), 4),
        "seconds_per_edit": round(statistics.mean(seconds), 3),
        "scenes": options.n, "objects": options.objects, "composed": options.composed, "seed": options.seed,
    }  # fmt: skip
    print(json.dumps(result))
    if options.o:
        with atomic_file(options.o) as temporary:
            grid(torch.stack(shown), columns=len(right)).save(temporary, format="PNG")


def sampled(model: Model, values: Tensor, seed: int) -> Tensor:
    """A picture (3, H, W) in [-1, 1] that the model samples of objects (K, *V), or of their places."""
    known = values if mixed_of(model.conditioner) is not None else values[:, :2]
    return Composer(model.compose(known)).sample(generator=seed, output_type="pt", progress=False)[0] * 2 - 1


def ways_of(model: Model, solution: Solution, place: tuple[float, ...], number: int) -> dict[str, Any]:
    """The edits of a scene, by the argument of `edit`."""
    ways: dict[str, Any] = {"remove": [0], "add": [place], "move": {0: place}}
    mixed = mixed_of(model.conditioner)
    if mixed is not None:
        # The first object gets the next word of one attribute; codes start at 1
        attribute = list(mixed.attributes)[number % len(mixed.attributes)]
        column = mixed.support.length + list(mixed.attributes).index(attribute)
        words = mixed.attributes[attribute]
        ways["set"] = {0: {attribute: words[int(solution.conditions[0, column]) % len(words)]}}
    return ways


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
