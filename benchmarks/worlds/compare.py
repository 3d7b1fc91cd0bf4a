"""Models of marked photos beside detectors of the same size, by the number of photos that they learn from.

python benchmarks/worlds/compare.py --data PHOTOS --val PHOTOS [--model FOLDER] [--photos 25 50 all] [--turns]

The detector is the trunk of the model with maps of centres, sizes and words (`benchmarks/baselines/detector.py`). Both
see the same photos at the same size, in the same crops, and are trained as long, in CPU seconds. The odds of both are
fitted on one half of the validation photos and measured on the other, each way. `--model` names a model that was
trained on all photos; others are trained here. A run that was stopped goes on, in training and from row to row.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.baselines.detector import Detect, detector_recipe, seconds_of_step, train
from benchmarks.common.measure import table, write
from benchmarks.common.options import parser
from benchmarks.common.training import report
from energycomp import load
from energycomp.errors import InputError
from energycomp.inference import Solver
from energycomp.models import Model
from energycomp_lab.training import Recipe
from energycomp_objects.formats import MarkedPhoto, read_marks
from energycomp_objects.photos import drop_points, split
from energycomp_objects.recipe import objects
from energycomp_objects.score import fit_held_out, read_photos, score
from energycomp_objects.solver import Propose

COLUMNS = {
    "mAP@50": "map_50",
    "mAP@50:95": "map",
    "recall at precision 0.95": "recall_at_precision_95",
    "attributes right": "all_attributes",
    "count exact": "count_exact",
    "count error": "count_error",
    "in 90 %": "count_in_90",
    "calibration error": "calibration_error",
    "CPU s": "seconds",
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Trains what is missing, and writes the table."""
    options = parser(
        __doc__,
        data=(None, "marked photos to train on"),
        val=(None, "marked photos to measure on; by default those that --kept keeps back"),
        kept=(0, "photos of --data that are kept back, as by `energycomp train objects`"),
        model=(None, "folder of a model of all photos, in place of one that is trained here"),
        photos=(["all"], "how many photos both learn from"),
        turns=(False, "the photos may be turned"),
        pixels=(0.0, "pixels across of the smallest tenth of the objects; by default those of the plan"),
        steps=(4200, "of the training of the model"),
        minutes=(0.0, "of one CPU core for the training of the detector; by default as long as the model's takes"),
        n=(0, "validation photos at most; all by default"),
        threads=(1, "of torch"),
        out="runs/benchmarks/worlds",
    ).parse_args(arguments)
    torch.set_num_threads(options.threads)
    marked = drop_points(read_marks(_named(options.data, "--data")))
    kept = split(marked, options.kept)[1]
    known = kept if options.val is None else drop_points(read_marks(options.val, schema=marked.attributes))
    validation = list(known)[: options.n or None]
    if len(validation) < 2:
        raise InputError(f"got {len(validation)} validation photos; expected 2 at least; pass --val or --kept")
    words = next(iter(marked.attributes.values()), ())
    rows = []
    for photos in options.photos:
        for method in ("detector", "energycomp"):
            path = options.out / photos / f"{method}.json"
            if not path.exists():
                report(path, _measure(method, photos, validation, options))
            rows.append([photos, method, *_cells(json.loads(path.read_text()), words)])
    head = ["photos", "method", "steps", *COLUMNS, *(f"{word}: exact, error, in 90 %" for word in words)]
    note = (
        f"{len(validation)} validation photos; odds were fitted on the other half of them. Average precision, and the "
        "recall at a precision of 0.95, are of all proposals. Count error: the mean, in objects. In 90 %: the share of "
        "photos whose true count is in the interval. CPU s: of reading a photo."
    )
    write(options.out / "compare", table(head, rows, note))


def _cells(figures: dict[str, Any], words: Sequence[str]) -> list[str]:
    cells = [f"{figures['steps']:,}" if figures["steps"] else ""]
    cells += [f"{figures[name]:.3f}" if name in figures else "" for name in COLUMNS.values()]
    for word in words:
        cells.append(", ".join(f"{figures[f'count_{name}_{word}']:.2f}" for name in ("exact", "error", "in_90")))
    return cells


def _measure(
    method: str, photos: str, validation: Sequence[MarkedPhoto], options: argparse.Namespace
) -> dict[str, float]:
    """Trains a method on so many photos, or loads what was trained, and scores its answers."""
    folder = options.out / photos
    folder.mkdir(parents=True, exist_ok=True)
    given = options.model if photos == "all" else None
    steps = 0 if given else options.steps
    if method == "energycomp":
        model = load(given) if given else train(_recipe(photos, options), folder / method, steps)
        return {"steps": steps, **_score(model, validation, Propose())}
    recipe = _recipe(photos, options)
    smaller = detector_recipe(recipe, options.turns)
    steps = _steps_of_detector(recipe, smaller, folder / "detector.steps", options)
    return {"steps": steps, **_score(train(smaller, folder / method, steps), validation, Detect())}


def _recipe(photos: str, options: argparse.Namespace) -> Recipe:
    return objects(
        data=_named(options.data, "--data"),
        init=None,
        kept=options.kept,
        turns=options.turns,
        pixels=options.pixels or None,
        photos=None if photos == "all" else photos,
    )


def _steps_of_detector(recipe: Recipe, smaller: Recipe, path: Path, options: argparse.Namespace) -> int:
    """How many steps of the detector take as long as those of the model, measured once for a run."""
    if not path.exists():
        seconds = 60 * options.minutes or options.steps * seconds_of_step(recipe)
        path.write_text(str(max(1, round(seconds / seconds_of_step(smaller)))))
    return int(path.read_text())


def _score(model: Model, validation: Sequence[MarkedPhoto], solver: Solver) -> dict[str, float]:
    """The figures of answers with odds that were fitted on the other half of the photos, and CPU seconds a photo."""
    answers = fit_held_out(model, validation, solver)
    start = time.process_time()
    read_photos(model, validation, solver)
    seconds = (time.process_time() - start) / len(validation)
    return {**score(model, answers), "seconds": seconds}


def _named(path: Path | None, option: str) -> Path:
    if path is None:
        raise InputError(f"got no {option}; expected marked photos; pass {option} FOLDER")
    return path


if __name__ == "__main__":
    main()
