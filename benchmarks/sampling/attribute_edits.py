"""Change one attribute of one object of rendered scenes, and read the results back.

python benchmarks/sampling/attribute_edits.py [-n 24] [--objects 3-5] [--seed 0] [-o attribute_edits.png]

The object and its new word are drawn at random; scenes take size, colour, material and shape by turns. An edit is what
`energycomp edit --set` does. Prints one JSON line:

as_asked                the object is read at its place, with the new word
whole_as_asked          and with its other words as they were read before
others_unchanged        share of the other objects of a scene that are read at their places, with the words of before
outside_identical       every pixel outside of the repainted region is the same

A place is the same within the threshold of the perception rate. Intervals are half the width of a 95 % interval of the
mean over scenes. Results in `--records` are taken up again.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from benchmarks.common.ways import SHOWN, identity, mean_interval, write_rows
from energycomp import Model, edit, infer, load
from energycomp.components import MixedConditioner, mixed_of
from energycomp.errors import InputError
from energycomp.evaluation import near_pairs, parse_range
from energycomp.files import atomic_file
from energycomp.images import as_picture, from_bytes
from energycomp_datasets.clevr.layout import render_objects

HELD_OUT = 2_300_000_000  # added to the seed: scenes that neither training nor another benchmark has


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="clevr", help="registered name or folder")
    parser.add_argument("-n", type=int, default=24, help="scenes")
    parser.add_argument("--objects", default="3-5", help="objects of a scene")
    parser.add_argument("--steps", type=int, default=None, help="of the scheduler; the model's own")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--records", type=Path, default=Path("runs/attribute_edits"), help="folder of single results")
    parser.add_argument("-o", type=Path, default=None, help="a picture: scenes before and after, of the first 16")
    options = parser.parse_args(arguments)
    model = load(options.model)
    if (mixed := mixed_of(model.conditioner)) is None:
        raise InputError(f"got the model {options.model}; expected one of whole objects, such as clevr")
    steps = options.steps or model.defaults.num_inference_steps
    name = f"{identity(options.model, model)}-{options.objects}-{steps}-{options.seed}"
    folder = options.records / name
    folder.mkdir(parents=True, exist_ok=True)
    objects, names = parse_range(options.objects), list(mixed.attributes)
    rows = []
    for k in tqdm(range(options.n), desc="editing"):
        file = folder / f"{k}.json"
        if not file.exists():
            images, _ = render_objects(1, objects=objects, seed=HELD_OUT + options.seed, start=k)
            record = changed(model, mixed, images[0], k % len(names), folder / str(k), steps, options.seed + k)
            with atomic_file(file) as temporary:
                temporary.write_text(json.dumps(record))
        rows.append(json.loads(file.read_text()))
    marks = [marked(row, mixed) for row in rows]
    line: dict[str, Any] = {"scenes": options.n, "objects": options.objects, "steps": steps, "seed": options.seed}
    for key in ("as_asked", "whole_as_asked", "others_unchanged", "outside_identical"):
        line[key], line[f"{key}_interval"] = mean_interval(torch.tensor([mark[key] for mark in marks]))
    for k, attribute in enumerate(names):
        chosen = [mark["as_asked"] for mark in marks[k :: len(names)]]
        line[f"{attribute}_as_asked"] = round(statistics.fmean(chosen), 4) if chosen else None
    line["repainted"] = round(statistics.fmean(row["repainted"] for row in rows), 4)
    line["rows_per_edit"] = round(statistics.fmean(row["rows"] for row in rows), 1)
    print(json.dumps(line), flush=True)
    if options.o:
        shown = [folder / f"{k}-{when}.png" for k in range(min(2 * SHOWN, options.n)) for when in ("before", "after")]
        write_rows(options.o, [Image.open(path) for path in shown], columns=min(SHOWN, len(shown)), side=128)


def changed(
    model: Model, mixed: MixedConditioner, image: Tensor, attribute: int, path: Path, steps: int, seed: int
) -> dict[str, Any]:
    """Edits an image (3, H, W) uint8; what was read before, what was asked, and what is read then.

    The images are written to PATH-before.png and PATH-after.png. "number" is the row of the object, None if none was
    read.
    """
    before = as_picture(from_bytes(image))
    solution = infer(before, model, generator=seed)
    _save(before, path, "before")
    record: dict[str, Any] = {"attribute": attribute, "before": solution.conditions.tolist(), "number": None}
    if not solution.count:
        _save(before, path, "after")
        return record | {"asked": [], "read": [], "outside_identical": True, "repainted": 0.0, "rows": 0}
    generator = torch.Generator().manual_seed(seed)
    number = int(torch.randint(solution.count, (), generator=generator))
    value = solution.conditions[number].clone()
    column, words = mixed.support.length + attribute, mixed.support.words[attribute]
    value[column] = 1 + (value[column] - 1 + torch.randint(1, words, (), generator=generator)) % words
    edited = edit(
        before,
        model,
        move={number: value},
        solution=solution,
        num_inference_steps=steps,
        generator=generator,
        progress=False,
    )
    _save(edited.image, path, "after")
    asked = solution.conditions.clone()
    asked[number] = value
    kept = edited.mask[0, 0].numpy() == 0
    same = np.asarray(before)[kept] == np.asarray(edited.image)[kept]
    return record | {
        "number": number,
        "asked": asked.tolist(),
        "read": infer(edited.image, model, generator=seed).conditions.tolist(),
        "outside_identical": bool(same.all()),
        "repainted": float(edited.mask.mean()),
        "rows": edited.rows,
    }


def marked(row: dict[str, Any], mixed: MixedConditioner) -> dict[str, float]:
    """Shares of what is as asked in one record of `changed`; an image in which nothing was read counts as wrong.

    >>> from energycomp.testing import TintedSquare
    >>> row = {"attribute": 0, "number": 1, "outside_identical": True}
    >>> row["asked"] = [[0.2, 0.2, 1.0, 1.0], [0.8, 0.8, 2.0, 1.0]]
    >>> row["read"] = [[0.8, 0.81, 2.0, 2.0], [0.2, 0.2, 1.0, 1.0], [0.5, 0.5, 1.0, 1.0]]
    >>> list(marked(row, TintedSquare()).values())
    [1.0, 0.0, 1.0, 1.0]
    """
    width, number = mixed.support.length + len(mixed.attributes), row["number"]
    asked, read = (torch.tensor(row[key]).reshape(-1, width) for key in ("asked", "read"))
    right = words_right(asked, read, mixed.support.length)
    others = [k for k in range(len(asked)) if k != number]
    return {
        "as_asked": 0.0 if number is None else float(right[number, row["attribute"]]),
        "whole_as_asked": 0.0 if number is None else float(right[number].all()),
        "others_unchanged": float(right[others].all(1).double().mean()) if others else float(number is not None),
        "outside_identical": float(row["outside_identical"]),
    }


def words_right(asked: Tensor, read: Tensor, numbers: int) -> Tensor:
    """Which words of each asked object (K, A) are read at its place; none where no object is read there."""
    rows, columns = near_pairs(asked[:, :numbers], read[:, :numbers])
    right = torch.zeros(len(asked), asked.shape[1] - numbers, dtype=torch.bool)
    right[rows] = asked[rows, numbers:] == read[columns, numbers:]
    return right


def _save(image: Image.Image, path: Path, when: str) -> None:
    with atomic_file(path.with_name(f"{path.name}-{when}.png")) as temporary:
        image.save(temporary, format="PNG")


if __name__ == "__main__":
    main()
