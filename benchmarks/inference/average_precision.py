"""Average precision of whole descriptions: the place in 3-D, and size, colour, material and shape.

python benchmarks/inference/average_precision.py [--data synthetic:3-8] [-n 60] [--seed 0] [--true-places | --camera]

Prints one JSON line: the average precision at thresholds of the 3-D distance, in scene units, by the definition of DSPN
(Zhang et al., 2019) and Slot Attention (Locatello et al., 2020). 3-D places are those under the mean camera, as
`energycomp infer --format clevr` writes them. The confidence of an object is the product of its certainties. Intervals
are 95 % bootstrap intervals over images. `median_distance` is that of objects with the right words.

With `--camera`, the camera of each image is inferred beside its objects, by a model that takes a viewpoint.

`--true-places` takes the true places in the image and the true words, all of one confidence, instead of reading them.
It costs no network evaluation. Its line is what a perfect reading would reach: the camera of an image is not known, and
the mean camera moves the 3-D places. Records in `--records` are taken up again.

Notation: variable -> meaning
    right       whether each of P objects that were read is right, the most certain first, (P,)
    owner       the image of each of them, (P,)
    objects     how many objects each of N images shows, (N,)
    weights     how often each image counts in each of R resamples, (R, N)
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.common.options import parser
from benchmarks.common.ways import identity
from energycomp import Model, infer, load
from energycomp.components import mixed_of
from energycomp.errors import InputError
from energycomp.images import to_unit
from energycomp.seeds import derived_seed
from energycomp_clevr.seen import seen_from
from energycomp_cli import append_line, read_lines
from energycomp_datasets.clevr.geometry import CAMERA_POSITION
from energycomp_datasets.clevr.layout import described_record, scene_of
from energycomp_datasets.clevr.requests import parse_request
from energycomp_datasets.synthetic import HELD_OUT, synthetic
from energycomp_lab.evaluation import Example, source_of, true_values

THRESHOLDS = (float("inf"), 1.0, 0.5, 0.25, 0.125)  # scene units
RESAMPLES = 1000


@attrs.frozen(eq=False)
class Located:
    """Objects of an image.

    Args:
        words: (K, A), each a place among the words of its attribute that is read, from 1; 0 is one that is not known.
        points: (K, 3), scene units.
        confidence: (K,).
    """

    words: Tensor
    points: Tensor
    confidence: Tensor


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the line."""
    options = parser(
        __doc__, model="clevr", data="synthetic:3-8", n=60, seed=(0, "of scenes, draws and resamples"),
        true_places=(False, "what a perfect reading would reach"), camera=(False, "is inferred"),
        records="runs/average_precision",
    ).parse_args(arguments)  # fmt: skip
    model = load(options.model)
    mixed = mixed_of(model.conditioner)
    if mixed is None or model.defaults.beta is None:
        raise InputError(f"got the model {options.model}; expected one of whole objects with certainties")
    examples = source_of("clevr", model).examples(options.data, count=options.n, seed=options.seed)
    values = [true_values(example, model.conditioner) for example in examples]
    words = [mixed.support.split(one)[1][:, : len(mixed.support.words)] for one in values]  # without turns
    if not all(bool((one > 0).all()) for one in words):
        raise InputError(f"got {options.data}, where words of objects are not known; expected size, color and so on")
    points = [true_points(options.data, k, example, options.seed) for k, example in enumerate(examples)]
    true = [Located(one, at, torch.ones(len(one))) for one, at in zip(words, points, strict=True)]
    line: dict[str, Any] = {"data": options.data, "images": len(true), "objects": sum(map(len, values))}
    line |= {"seed": options.seed, "places": "true" if options.true_places else "read"}
    if options.true_places:
        found = [located(model, one, torch.ones(len(one))) for one in values]
    else:
        file = options.records / f"{identity(options.model, model)}{'-camera' if options.camera else ''}.jsonl"
        records = read_all(model, examples, file, data=options.data, seed=options.seed, camera=options.camera)
        found = [
            located(model, torch.tensor(one["found"]), torch.tensor(one["confidence"]), one["camera"])
            for one in records
        ]
        line["rows_per_image"] = round(statistics.fmean(one["rows"] for one in records), 1)
    print(json.dumps(line | figures(found, true, seed=options.seed)), flush=True)


def figures(found: Sequence[Located], true: Sequence[Located], *, seed: int) -> dict[str, Any]:
    """The average precision at each threshold, its interval, and the median distance of objects with right words."""
    objects = torch.tensor([len(one.points) for one in true], dtype=torch.float64)
    drawn = torch.randint(len(true), (RESAMPLES, len(true)), generator=torch.Generator().manual_seed(seed))
    ones = torch.ones(drawn.shape, dtype=torch.float64)
    weights = torch.zeros_like(ones).scatter_add_(1, drawn, ones)
    tails = torch.tensor([0.025, 0.975], dtype=torch.float64)
    line: dict[str, Any] = {}
    for threshold in THRESHOLDS:
        right, owner, distances = judged(found, true, threshold)
        if threshold == float("inf"):
            line["median_distance"] = round(float(distances[right].median()), 4) if bool(right.any()) else None
        everything = torch.cat([torch.ones_like(weights[:1]), weights])
        values = average_precision(right, owner, objects, everything)
        ends = torch.quantile(values[1:], tails).tolist()
        line[f"ap_{threshold:g}"] = round(float(values[0]), 4)
        line[f"ap_{threshold:g}_interval"] = [round(end, 4) for end in ends]
    return line


def judged(found: Sequence[Located], true: Sequence[Located], threshold: float) -> tuple[Tensor, Tensor, Tensor]:
    """Which objects are right, `right` and `owner` (P,), and the distance (P,) to the true object; inf without one.

    An object belongs to the nearest true object of its image that has all its words. It is right if that is nearer than
    the threshold, and no more certain object belongs to it already: the rule of `average_precision_clevr` in
    google-research/slot_attention.

    >>> one = Located(torch.ones(1, 4), torch.zeros(1, 3), torch.ones(1))
    >>> two = Located(torch.ones(2, 4), torch.tensor([[0.0, 0, 0.3], [0, 0, 0.1]]), torch.tensor([0.5, 0.9]))
    >>> judged([two], [one], 0.2)[0], judged([two], [one], 1.0)[0]
    (tensor([ True, False]), tensor([ True, False]))
    """
    owner = torch.tensor([k for k, one in enumerate(found) for _ in range(len(one.points))], dtype=torch.long)
    confidence = torch.cat([one.confidence for one in found])
    order = torch.argsort(confidence, descending=True, stable=True)
    places = torch.tensor([i for one in found for i in range(len(one.points))], dtype=torch.long)
    right, distances = torch.zeros(len(order), dtype=torch.bool), torch.full((len(order),), torch.inf)
    taken: set[tuple[int, int]] = set()
    for rank, index in enumerate(order.tolist()):
        image, place = int(owner[index]), int(places[index])
        same = (true[image].words == found[image].words[place]).all(1)
        apart = (true[image].points - found[image].points[place]).norm(dim=1)
        apart = torch.where(same, apart, torch.inf)
        if not bool(same.any()):
            continue
        nearest = int(apart.argmin())
        distances[rank] = apart[nearest]
        if float(apart[nearest]) < threshold and (image, nearest) not in taken:
            taken.add((image, nearest))
            right[rank] = True
    return right, owner[order], distances


def average_precision(right: Tensor, owner: Tensor, objects: Tensor, weights: Tensor) -> Tensor:
    """The area under the interpolated curve of precision over recall, for each resample, (R,), in [0, 1].

    The precision at a recall is the greatest at this recall or a greater one. Objects that no threshold finds have
    precision 0.

    >>> right, owner = torch.tensor([True, False, True]), torch.tensor([0, 0, 1])
    >>> objects = torch.tensor([2.0, 2.0], dtype=torch.float64)
    >>> average_precision(right, owner, objects, torch.tensor([[1.0, 1.0], [1.0, 0.0]], dtype=torch.float64))
    tensor([0.4167, 0.5000], dtype=torch.float64)
    """
    if not len(right):
        return torch.zeros(len(weights), dtype=torch.float64)
    each = weights.double()[:, owner]
    hits, read = (each * right).cumsum(1), each.cumsum(1)
    precision = torch.where(read > 0, hits / read.clamp(min=1e-12), 0.0)
    best = precision.flip(1).cummax(1).values.flip(1)
    recall = hits / (weights.double() @ objects.double()).clamp(min=1.0)[:, None]
    return (best * recall.diff(dim=1, prepend=torch.zeros_like(recall[:, :1]))).sum(1)


def located(model: Model, values: Tensor, confidence: Tensor, camera: Sequence[float] = CAMERA_POSITION) -> Located:
    """Values (K, V) as objects with 3-D places under a camera, the mean one when left out."""
    if not len(values):
        return Located(torch.zeros(0, 0), torch.zeros(0, 3), torch.zeros(0))
    mixed = mixed_of(model.conditioner)
    read = 0 if mixed is None else len(mixed.support.words)  # without turns
    entries = described_record([model.conditioner.describe(value) for value in values], "", camera)["objects"]
    return Located(values[:, 2 : 2 + read], torch.tensor([one["3d_coords"] for one in entries]), confidence)


def read_all(
    model: Model, examples: Sequence[Example], file: Path, *, data: str, seed: int, camera: bool
) -> list[Mapping[str, Any]]:
    """The record of each image, in which objects are as `energycomp evaluate` finds them with this seed."""
    file.parent.mkdir(parents=True, exist_ok=True)
    known = {one["index"]: one for one in read_lines(file) if (one["data"], one["seed"]) == (data, seed)}
    for index, example in enumerate(tqdm(examples, desc="reading")):
        if index not in known:
            generator = torch.Generator().manual_seed(derived_seed(seed, "example", index))
            image = to_unit(example.image) if isinstance(example.image, Tensor) else example.image
            solution = infer(image, model, generator=generator)
            sure = torch.ones(solution.count) if solution.certainty is None else solution.certainty.prod(1)
            known[index] = {"data": data, "seed": seed, "index": index, "name": example.name, "rows": solution.rows}
            known[index] |= {"found": solution.conditions.tolist(), "confidence": sure.tolist()}
            known[index]["camera"] = CAMERA_POSITION
            if camera:
                seen = seen_from(image, model, solution.conditions, generator=generator)
                known[index] |= {"camera": seen.camera.tolist(), "rows": solution.rows + seen.rows}
            append_line(file, known[index])
    return [known[index] for index in range(len(examples))]


def true_points(data: str, index: int, example: Example, seed: int) -> Tensor:
    """The true 3-D places (K, 3) of an example of `ClevrSource`."""
    options = synthetic(data)
    if options is not None:
        wanted = parse_request(options, (64, 64))
        return scene_of(HELD_OUT + seed, index, wanted.objects, wanted.textured, wanted.variety).positions
    return torch.tensor(_points(Path(example.image).parents[2])[example.name]).reshape(-1, 3)


@cache
def _points(folder: Path) -> dict[str, list[list[float]]]:
    """`3d_coords` of the objects of each image of a folder in the CLEVR layout."""
    scenes = [
        scene
        for file in sorted((folder / "scenes").glob("CLEVR_*_scenes.json"))
        for scene in json.loads(file.read_text())["scenes"]
    ]
    return {scene["image_filename"]: [one["3d_coords"] for one in scene["objects"]] for scene in scenes}


if __name__ == "__main__":
    main()
