"""Read three attributes of a face (as thesis Table 5.7): exhaustive evaluation or the quadratic form.

python benchmarks/inference/global_factors.py [--model faces] [--data synthetic:shifted] [-n 200] [--slow 40]
    [-o runs/benchmarks]

All methods read the same images with one network and one thread, in turns, image by image. "looped" and "halving" run
complete networks, up to half a minute per image: they read the first `--slow` images, and only the first `--timed` of
these in full; the answers for the others come from the quadratic form on the same draws. Where both ran, the script
checks that they agree.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from benchmarks.common import measure
from benchmarks.common.answers import ATTRIBUTES, Looped, answers_of, candidates_of, fingerprint
from benchmarks.common.measure import Timed
from energycomp import Model, load
from energycomp.evaluation import true_values
from energycomp.inference import NoiseBank, Problem, make_problem
from energycomp.plugins import find
from energycomp_solvers.enumerate import Enumerate
from energycomp_solvers.relaxed import Relaxed
from energycomp_solvers.shared import dictionary

Errors = Callable[[Problem, Tensor, NoiseBank], Tensor]
HALVING = ((50, 5), (500, 1))  # draws so far, and how many answers stay (Li et al., 2023)
LOOPED, HALVED = "looped", "halving"
SOLVERS = {
    "exact": Enumerate(),
    "early": Enumerate(p_value=2e-3),
    "relaxed": Relaxed(inits=1),
    "mixed": Relaxed(mix="predictions", inits=1),
}
WHAT = {
    LOOPED: "every answer, each component a pass of the whole network (thesis alg. 4)",
    HALVED: "the same for 50 draws, the best 5 for 500 (as Diffusion Classifier does)",
    "exact": "every answer by the quadratic form, judged: `Enumerate()`",
    "early": "the same until p < 0.002: `Enumerate(p_value=2e-3)`",
    "relaxed": "soft labels down their gradient (thesis alg. 7): `Relaxed(inits=1)`",
    "mixed": 'soft labels on the quadratic form: `Relaxed(mix="predictions", inits=1)`',
}
COMMAND = "python benchmarks/inference/global_factors.py"


def by_form(problem: Problem, answers: Tensor, bank: NoiseBank) -> Tensor:
    """The same errors (N, S) by the quadratic form."""
    atoms, _ = dictionary(problem)
    return problem.quadratic(atoms, bank).weighted_errors((answers[:, :, None] == atoms).any(1))


def every_answer(problem: Problem, errors: Errors, generator: torch.Generator) -> Tensor:
    """The answer (K,) of the least error over the model's number of draws."""
    answers = answers_of(problem)
    return answers[errors(problem, answers, problem.draw(problem.default_draws, generator)).mean(1).argmin()]


def halving(problem: Problem, errors: Errors, generator: torch.Generator) -> Tensor:
    """The answer (K,) that stays when the worse ones are dropped as draws are added."""
    answers = answers_of(problem)
    total, seen = torch.zeros(len(answers)), 0
    for draws, keep in HALVING:
        total = total + errors(problem, answers, problem.draw(draws - seen, generator)).sum(1)
        best = total.topk(keep, largest=False).indices
        answers, total, seen = answers[best], total[best], draws
    return answers[0]


PLAIN = {LOOPED: every_answer, HALVED: halving}


@torch.no_grad()
def read(way: str, model: Model, network: Timed, picture: Tensor, *, values: Tensor, seed: int) -> dict[str, Any]:
    """What one way finds in one encoded picture, and what that costs."""
    problem = make_problem(picture, model, candidates=values)
    generator = torch.Generator().manual_seed(seed)
    network.reset()
    started, wall = time.process_time(), time.perf_counter()
    if way in SOLVERS:
        found = SOLVERS[way].solve(problem, generator=generator).conditions
    else:
        found = PLAIN[way](problem, Looped(model), generator)
    seconds, waited = time.process_time() - started, time.perf_counter() - wall
    cost = {"seconds": seconds, "wall": waited, "rows": network.rows, "trunks": network.trunks}
    return {"found": found.tolist(), **cost}


@torch.no_grad()
def read_by_form(way: str, model: Model, picture: Tensor, *, values: Tensor, seed: int) -> list[int]:
    """What a looped way finds on the same draws, by the quadratic form."""
    problem = make_problem(picture, model, candidates=values)
    found: list[int] = PLAIN[way](problem, by_form, torch.Generator().manual_seed(seed)).tolist()
    return found


def summary(records: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Shares and means over the pictures of one way."""
    size, timed = len(records), [record for record in records if "seconds" in record]
    means = {key: sum(record[key] for record in timed) / len(timed) for key in ("seconds", "wall", "rows", "trunks")}
    right = sum(sorted(record["found"]) == sorted(record["true"]) for record in records)
    labels = sum(len(set(record["found"]) & set(record["true"])) for record in records)
    known = sum(len(record["true"]) for record in records)
    return {**means, "accuracy": right / size, "per attribute": labels / known, "pictures": size}


def rows_of(first: Mapping[str, dict[str, float]], every: Mapping[str, dict[str, float]]) -> list[list[str]]:
    """A table row for each way: costs and accuracy on the pictures that all read, and accuracy on all its own."""
    slowest = first[LOOPED]["seconds"]
    return [
        [
            WHAT[way], f"{one['seconds']:.3g}", f"{slowest / one['seconds']:.1f}", f"{one['rows']:,.0f}",
            f"{one['trunks']:,.0f}", f"{one['accuracy']:.1%}", f"{one['per attribute']:.1%}",
            f"{every[way]['accuracy']:.1%} ({every[way]['pictures']:.0f})",
        ]
        for way, one in first.items()
    ]  # fmt: skip


def picture_of(first: Mapping[str, dict[str, float]], title: str) -> Figure:
    """Accuracy over seconds a picture."""
    figure = Figure(figsize=(6.4, 3.2), layout="constrained", facecolor="white")
    axes = figure.subplots()
    for way, one in first.items():
        colour = measure.COLOURS[measure.LOOPED if way in (LOOPED, HALVED) else measure.OURS]
        axes.plot(one["seconds"], 100 * one["accuracy"], "o", color=colour)
        below = way in ("mixed", LOOPED)  # beside others
        place = (one["seconds"], 100 * one["accuracy"])
        axes.annotate(way, place, xytext=(5, -14 if below else 5), textcoords="offset points")
    axes.set_xscale("log")
    axes.set_ylim(0, 105)
    axes.set_xlabel("CPU seconds a picture")
    axes.set_ylabel("three labels right, %")
    axes.set_title(title, fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def main() -> None:
    """Writes global_factors.md and .png."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="faces", help="registered name or folder of a two-stage model of faces")
    parser.add_argument("--data", default="synthetic:shifted", help="as the dataset faces takes it")
    parser.add_argument("-n", type=int, default=200, help="pictures")
    parser.add_argument("--slow", type=int, default=40, help="pictures that the looped ways read")
    parser.add_argument("--timed", type=int, default=10, help="pictures of these on which they run in full")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--out", type=Path, default=Path("runs/benchmarks"), help="a folder; a run goes on there")
    options = parser.parse_args()
    torch.set_num_threads(1)
    plain = load(options.model)
    settings = {"data": options.data, "seed": options.seed, "weights": fingerprint(plain)}
    model, network = measure.timed(plain)
    values = candidates_of(model, ATTRIBUTES)
    examples = find("datasets", "faces")().examples(options.data, count=options.n, seed=options.seed)
    cases = [f"{k} {way}" for k in range(options.n) for way in WHAT if way in SOLVERS or k < options.slow]

    def run(case: str) -> dict[str, Any]:
        number, way = case.split()
        example = examples[int(number)]
        every = true_values(example, model.conditioner)
        true = every[torch.isin(every, values)].tolist()
        picture, setting = model.encode(example.image), {"values": values, "seed": options.seed + int(number)}
        known = {"true": true}
        if way in PLAIN:
            known["found"] = read_by_form(way, model, picture, **setting)
            if int(number) >= options.timed:
                return known
        record = {**known, **read(way, model, network, picture, **setting)}
        if record["found"] != known.get("found", record["found"]):
            raise RuntimeError(f"{case}: got {record['found']}, by the quadratic form {known['found']}")
        return record

    out = options.out / "global_factors"
    records: dict[str, list[dict[str, Any]]] = {way: [] for way in WHAT}
    for record in measure.resumed(out.with_suffix(".jsonl"), settings, cases, run):
        records[record["case"].split()[1]].append(record)
    first = {way: summary(found[: options.slow]) for way, found in records.items()}
    every = {way: summary(found) for way, found in records.items()}
    head = ("way", "CPU seconds", "times as fast", "rows", "trunk passes", "all three right", "labels right",
            "all three right (pictures)")  # fmt: skip
    note = (
        f"`{COMMAND}`: {', '.join(ATTRIBUTES)} of faces, data `{options.data}`, model `{options.model}`, seed "
        f"{options.seed}, {plain.defaults.draws} draws where no other number is said, one thread. All but the last "
        f"column are over the first {options.slow} pictures, costs a picture; costs of the first two ways over "
        f"{options.timed}."
    )
    title = f"Three attributes of {options.slow} faces, {options.data}"
    measure.write(out, measure.table(head, rows_of(first, every), note), picture_of(first, title))


if __name__ == "__main__":
    main()
