"""Objects of videos kept apart through occlusions, by tracking and by reading each frame anew.

python benchmarks/inference/tracking.py [--videos 50] [--frames 20] [--objects 4-6] [--seed 0] [--model clevr]
    [--anew 0] [--records runs/tracking.jsonl]

Videos are those of `energycomp data clevr-videos`: in each of them an object passes behind another one and is hidden
fully; with `--objects moving:4-6` the camera moves, too. Paths are as long in fewer frames, so that objects are
faster. An object counts where at least `VISIBLE` of its pixels are seen; one that is seen less is neither asked for
nor wrong. A found object is the true one that is nearest and closer than `NEAR`. Identity is the share of these
objects, of all frames, that are found under the identity under which they were found first. IDF1 is that of
motmetrics, and HOTA that of Luiten et al. (2021) with the similarity 1 - distance / `FAR`. With --anew N the first N
videos are also read frame by frame with `infer`: an object takes the identity of one of earlier frames by the least
sum of the distance and of `WORD` for each word that differs, if that is below `MOST`.

Prints one JSON line, with 95 % bootstrap intervals over videos. Needs motmetrics. A run that was stopped goes on.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from tqdm import tqdm

from benchmarks.common.options import parser
from energycomp import infer, load
from energycomp.inference import OutOfDistributionWarning
from energycomp_cli import append_line, read_lines
from energycomp_datasets.clevr.videos import parse_videos, video_of
from energycomp_scenes.tracking import track_frame

VISIBLE, NEAR, FAR = 0.2, 0.05, 0.1  # share of pixels; shares of the image
WORD, MOST, MEMORY = 0.05, 0.2, 12  # of the matching of readings; frames after which an identity is given up
WORDS = ("size", "color", "material", "shape")
RESAMPLES = 2000
Frame = dict[str, list[list[float]]]  # "true": [identity, x, y, visible], "found": [identity, x, y]


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints one JSON line."""
    options = parser(
        __doc__, videos=(50, "videos"), frames=(20, "of each video"),
        objects=("4-6", "as of energycomp data; moving:4-6 for a camera that moves"),
        seed=(0, "of videos and draws"), model="clevr", anew=(0, "videos that are also read frame by frame"),
        records=(Path("runs/tracking.jsonl"), "readings, a line a video, which a run with the same options takes up"),
    ).parse_args(arguments)  # fmt: skip
    wanted, model = parse_videos(f"{options.objects}:{options.frames}f"), load(options.model)
    warnings.simplefilter("ignore", OutOfDistributionWarning)
    asked_for = {name: getattr(options, name) for name in ("model", "objects", "frames", "seed")}
    records = [record for record in read_lines(options.records) if asked_for.items() <= record.items()]
    known = {(record["way"], record["video"]): record for record in records}
    ways: dict[str, tuple[int, Callable[..., Any]]] = {"track": (options.videos, tracked), "anew": (options.anew, anew)}
    line: dict[str, Any] = asked_for | {"visible": VISIBLE}
    for way, (number, read) in ways.items():
        for k in tqdm(range(number), desc=way):
            if (way, k) not in known:
                video = video_of(options.seed, k, wanted)
                images = [video.frame(index, wanted.size) for index in range(options.frames)]
                found, rows = read(images, model, options.seed + k)
                true = [
                    [[one["identity"], one["x"], one["y"], one["visible"]] for one in video.objects(index)]
                    for index in range(options.frames)
                ]
                pairs = [{"true": a, "found": b} for a, b in zip(true, found, strict=True)]
                known[way, k] = {"way": way, "video": k, "pairs": pairs, "rows": rows} | asked_for
                append_line(options.records, known[way, k])
        if number:
            line[way] = summary([known[way, k] for k in range(number)])
    print(json.dumps(line))


def tracked(images: Sequence[Any], model: Any, seed: int) -> tuple[list[list[Any]], list[int]]:
    """Visible objects [identity, x, y] of each frame, and NFE, by tracking."""
    found, rows, before = [], [], None
    for image in images:
        before = track_frame(image, model, before, seed=seed)
        found.append([[row["identity"], row["x"], row["y"]] for row in before.objects if row["visible"]])
        rows.append(before.rows)
    return found, rows


def anew(images: Sequence[Any], model: Any, seed: int) -> tuple[list[list[Any]], list[int]]:
    """The same by reading each frame with `infer`."""
    found, rows, known = [], [], {}  # known: identity to the last frame and the row of the object
    for index, image in enumerate(images):
        solution = infer(image, model, generator=seed, progress=False)
        alive = {k: row for k, (last, row) in known.items() if index - last <= MEMORY}
        objects, identities = solution.table(), list(alive)
        cost = np.array([[distance(one, alive[k]) for k in identities] for one in objects]).reshape(len(objects), -1)
        pairs = {a: identities[b] for a, b in zip(*linear_sum_assignment(cost), strict=True) if cost[a, b] < MOST}
        for a, one in enumerate(objects):
            known[pairs.setdefault(a, len(known) + 1)] = (index, one)
        found.append([[pairs[a], one["x"], one["y"]] for a, one in enumerate(objects)])
        rows.append(solution.rows)
    return found, rows


def distance(one: dict[str, Any], other: dict[str, Any]) -> float:
    """Of the places of two objects, and `WORD` for each word that differs."""
    differ = sum(one.get(name) != other.get(name) for name in WORDS)
    return float(np.hypot(one["x"] - other["x"], one["y"] - other["y"])) + WORD * differ


def counted(frame: Frame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Identities of true and found objects that count, and their distances; none is that of an object seen less."""
    true, found = np.array(frame["true"]).reshape(-1, 4), np.array(frame["found"]).reshape(-1, 3)
    apart = np.linalg.norm(true[:, None, 1:3] - found[None, :, 1:3], axis=2)
    cost = np.where(apart < NEAR, apart, 10.0) + 1.0 * (true[:, 3:] < VISIBLE)  # those that count come first
    pairs = [(a, b) for a, b in zip(*linear_sum_assignment(cost), strict=True) if cost[a, b] < 10.0]
    ignored = [b for a, b in pairs if true[a, 3] < VISIBLE]
    rows, columns = true[:, 3] >= VISIBLE, ~np.isin(np.arange(len(found)), ignored)
    return true[rows, 0], found[columns, 0], apart[rows][:, columns]


def summary(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Each score with its interval, and NFE a frame after the first."""
    parts = np.array([scores(record["pairs"]) for record in records])  # (videos, 4 + 3 x 19)
    rng = np.random.default_rng(0)
    drawn = [rng.integers(len(parts), size=len(parts)) for _ in range(RESAMPLES)]
    names, whole = ("identity", "idf1", "hota"), np.array(total(parts))
    low, high = np.quantile([total(parts[k]) for k in drawn], [0.025, 0.975], axis=0)
    rows = np.array([row for record in records for row in record["rows"][1:]])
    line: dict[str, Any] = {"videos": len(records), "objects": int(parts[:, 1].sum())}
    for k, name in enumerate(names):
        line |= {name: round(whole[k], 4), f"{name}_interval": [round(low[k], 4), round(high[k], 4)]}
    return line | {"nfe_per_frame": round(float(rows.mean()), 1), "nfe_most": int(rows.max())}


def total(parts: np.ndarray) -> tuple[float, float, float]:
    """Identity, IDF1 and HOTA of videos, from the sums of `scores`."""
    right, objects, idtp, both, *hota = parts.sum(0)
    tp, missed, association = np.array(hota).reshape(3, -1)
    return right / objects, 2 * idtp / both, float(np.sqrt(association / np.maximum(tp + missed, 1)).mean())


def scores(frames: Sequence[Frame]) -> list[float]:
    """Of a video: right identities and objects; IDTP and objects on both sides; for each alpha what HOTA adds up."""
    pairs = [counted(frame) for frame in frames]
    first: dict[float, float] = {}
    right = 0
    for true, found, apart in pairs:
        cost = np.where(apart < NEAR, apart, 10.0)
        for a, b in zip(*linear_sum_assignment(cost), strict=True):
            if cost[a, b] < 10.0:
                right += first.setdefault(true[a], found[b]) == found[b]
    objects, predicted = sum(len(true) for true, _, _ in pairs), sum(len(found) for _, found, _ in pairs)
    return [right, objects, idtp(pairs), objects + predicted, *np.concatenate(hota(pairs))]


def idtp(pairs: Sequence[Any]) -> float:
    """True positives under the best assignment of identities, by motmetrics."""
    try:
        import motmetrics
    except ImportError as error:
        raise SystemExit("needs motmetrics: pip install motmetrics") from error
    accumulator = motmetrics.MOTAccumulator(auto_id=True)
    for true, found, apart in pairs:
        accumulator.update(true.tolist(), found.tolist(), np.where(apart < NEAR, apart, np.nan))
    return float(motmetrics.metrics.create().compute(accumulator, metrics=["idtp"])["idtp"].iloc[0])


def hota(pairs: Sequence[Any]) -> list[np.ndarray]:
    """TP, FN + FP and the sum of the association scores of TP, (19,) each, for alpha from 0.05 to 0.95."""
    every = [sorted({k for pair in pairs for k in pair[side]}) for side in (0, 1)]
    at = [{k: place for place, k in enumerate(names)} for names in every]
    shape = len(every[0]), len(every[1])
    potential, counts = np.zeros(shape), [np.zeros(length) for length in shape]
    steps = []
    for true, found, apart in pairs:
        a, b = (np.array([at[side][k] for k in each], dtype=int) for side, each in enumerate((true, found)))
        alike = np.clip(1 - apart / FAR, 0, 1)
        share = alike.sum(0)[None] + alike.sum(1)[:, None] - alike
        potential[np.ix_(a, b)] += np.divide(alike, share, out=np.zeros_like(alike), where=share > 0)
        counts[0][a] += 1
        counts[1][b] += 1
        steps.append((a, b, alike))
    aligned = potential / np.maximum(counts[0][:, None] + counts[1][None] - potential, 1e-9)
    sums = []
    for alpha in np.arange(0.05, 0.99, 0.05):
        matches = np.zeros(shape)
        for a, b, alike in steps:
            rows, columns = linear_sum_assignment(-aligned[np.ix_(a, b)] * alike)
            good = alike[rows, columns] >= alpha - 1e-9
            matches[a[rows[good]], b[columns[good]]] += 1
        tp = matches.sum()
        association = matches * matches / np.maximum(counts[0][:, None] + counts[1][None] - matches, 1e-9)
        sums.append((tp, counts[0].sum() + counts[1].sum() - 2 * tp, association.sum()))
    return list(np.array(sums).T)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
