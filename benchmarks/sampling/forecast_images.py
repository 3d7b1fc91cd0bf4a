"""Whether `forecast` says which composed images fail: random compositions are forecast, drawn, and read again.

python benchmarks/sampling/forecast_images.py [--models text text-composed faces clevr] [-n 50] [--seed 0] [-o FILE]

Of prompts two or three concepts, of faces two to six labels, of `clevr` two to five objects, wherever they are. An
image fails where what was asked is not all read in it: prompts and labels by the model itself, objects by the reader of
renders that judges skills, words and places. Prints for each model how many fail, and the area under the ROC curve of
the disagreement that is forecast, beside the least distance of two conditions and their number, which need no forecast.
With -o a line of JSON is kept for each image, and the command goes on where it stopped.
"""

from __future__ import annotations

import json
import operator
from collections.abc import Callable, Mapping, Sequence
from functools import partial, reduce
from pathlib import Path
from typing import Any

import attrs
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from tqdm import tqdm

from benchmarks.common.options import parser
from benchmarks.sampling.forecast import area
from energycomp import Composer, Model, infer, load
from energycomp.images import ImageProcessor
from energycomp_cli import append_line, read_lines
from energycomp_datasets.clevr.reader import SIZE, load_reader
from energycomp_datasets.solids.solids import CONCEPTS
from energycomp_samplers import forecast

MODELS = ("text", "text-composed", "faces", "clevr")
NEAR = 0.05  # image widths, within which an object is where it was asked for
DRAWS = 200  # of images, for the interval of an AUC


@attrs.frozen(eq=False)
class Asked:
    """A composition: the values of its leaves, and whether an image shows them."""

    leaves: Sequence[Any]
    shown: Callable[[Tensor], bool]


def of_prompts(model: Model, random: torch.Generator) -> Asked:
    """Two or three different concepts."""
    names = [CONCEPTS[k] for k in torch.randperm(len(CONCEPTS), generator=random)[: _between(2, 3, random)]]

    def shown(image: Tensor) -> bool:
        found = infer(image, model, count=len(names), progress=False).conditions
        return {model.conditioner.describe(value)["concept"] for value in found} == set(names)

    return Asked([model.leaf(model.conditioner.parse(concept=name)) for name in names], shown)


def of_labels(model: Model, random: torch.Generator) -> Asked:
    """Two to six labels of different attributes."""
    attributes = model.conditioner.attributes  # type: ignore[attr-defined]
    chosen = torch.randperm(len(attributes), generator=random)[: _between(2, 6, random)]
    labels = {[*attributes][int(k)]: bool(_between(0, 1, random)) for k in chosen}
    leaves = [model(**{name: value}) for name, value in labels.items()]

    def shown(image: Tensor) -> bool:
        read = {one["attribute"]: one["value"] for one in infer(image, model, progress=False).record()["objects"]}
        return all(read[name] == ("yes" if value else "no") for name, value in labels.items())

    return Asked(leaves, shown)


def of_objects(model: Model, random: torch.Generator) -> Asked:
    """Two to five objects with all four words, near or apart."""
    words = model.conditioner.attributes  # type: ignore[attr-defined]
    objects = []
    for _ in range(_between(2, 5, random)):
        said = " ".join(values[_between(0, len(values) - 1, random)] for values in words.values())
        x, y = (0.2 + 0.6 * torch.rand(2, generator=random)).tolist()
        objects.append(f"{said} at {x:.3f},{y:.3f}")
    values = torch.stack([model.conditioner.read(text) for text in objects]).reshape(len(objects), -1)
    reader = load_reader()

    def shown(image: Tensor) -> bool:
        (found,) = reader.read(ImageProcessor(size=(SIZE, SIZE), resize="squash")(image * 2 - 1))
        if len(found) != len(values):
            return False
        apart = torch.cdist(values[:, :2], found[:, :2])
        same = (values[:, None, 2:6] == found[None, :, 2:6]).all(2)
        pairs = zip(*linear_sum_assignment((apart + (~same).float()).numpy()), strict=True)
        return all(bool(same[i, j]) and float(apart[i, j]) < NEAR for i, j in pairs)

    return Asked([model(text) for text in objects], shown)


KINDS = {"text": of_prompts, "text-composed": of_prompts, "faces": of_labels, "clevr": of_objects}


def _between(low: int, high: int, random: torch.Generator) -> int:
    return int(torch.randint(low, high + 1, (), generator=random))


def measured(model: Model, kind: Callable[[Model, torch.Generator], Asked], seed: int) -> dict[str, Any]:
    """What is forecast of one composition, and whether its image fails."""
    asked = kind(model, torch.Generator().manual_seed(seed))
    composition = reduce(operator.and_, asked.leaves)
    said = forecast(composition, generator=seed)
    image = Composer(composition).sample(generator=seed, output_type="pt", progress=False)[0]
    tokens = torch.stack([leaf.condition.rows.flatten() for leaf in asked.leaves]).double()
    near = float(torch.nn.functional.pdist(tokens).min())
    return {
        "leaves": len(asked.leaves), "disagreement": said.disagreement, "works": said.verdict == "works", "near": near,
        "evaluations": said.evaluations, "wrong": not asked.shown(image),
    }  # fmt: skip


def summary(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The table of one model."""
    is_wrong = torch.tensor([one["wrong"] for one in found])
    line: dict[str, Any] = {"images": len(found), "wrong": int(is_wrong.sum())}
    if line["wrong"] in (0, len(found)):  # there is no curve
        return line
    for name, sign in (("disagreement", 1), ("near", -1), ("leaves", 1)):
        score = torch.tensor([sign * float(one[name]) for one in found])
        line[name] = round(area(score, is_wrong), 3)
        again = torch.randint(len(found), (DRAWS, len(found)), generator=torch.Generator().manual_seed(0))
        areas = torch.tensor([area(score[rows], is_wrong[rows]) for rows in again])
        low, high = areas[areas.isfinite()].quantile(torch.tensor([0.025, 0.975])).tolist()
        line[f"{name}_interval"] = [round(low, 3), round(high, 3)]
    return line


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints a line of JSON for each model."""
    made = parser(__doc__, models=([*MODELS], "some of them", MODELS), n=(50, "images of each"), seed=0)
    made.add_argument("-o", "--out", type=Path, help="file that keeps a line for each image")
    options = made.parse_args(arguments)
    kept = [] if options.out is None else read_lines(options.out)
    for name in options.models:
        model = load(name)
        found = [one for one in kept if one["model"] == name]
        measure = partial(measured, model, KINDS[name])
        for seed in tqdm(range(options.seed + len(found), options.seed + options.n), desc=name):
            found.append({"model": name, **measure(seed)})
            if options.out is not None:
                append_line(options.out, found[-1])
        print(json.dumps({"model": name, **summary(found)}), flush=True)


if __name__ == "__main__":
    main()
