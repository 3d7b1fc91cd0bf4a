"""Exact answers for K yes/no attributes: network evaluations per draw, seconds of network and arithmetic.

python benchmarks/inference/many_attributes.py [--model faces] [--draws 32] [--seed 0] [-o runs/benchmarks]

3, 6 and 12 attributes of a drawn face; 16, 18 and 20 attributes of a closed-form model. Up to `--brute` attributes,
each answer is also evaluated on its own, on the same draws.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import attrs
import torch
from matplotlib.figure import Figure
from torch import Tensor

from benchmarks.common import measure
from benchmarks.common.answers import Looped, answers_of
from energycomp import Model, load
from energycomp.denoisers import count_rows
from energycomp.inference import make_problem
from energycomp.plugins import find
from energycomp.testing import attributes_model, planted
from energycomp_solvers.shared import all_errors, dictionary, marginals

TRAINED, CLOSED = (3, 6, 12), (16, 18, 20)
COMMAND = "python benchmarks/inference/many_attributes.py"


@attrs.frozen
class Case:
    """One number of attributes: rows, seconds, and how far from the errors of answers that are run one by one."""

    model: str
    attributes: int
    rows: int
    network: float
    arithmetic: float
    gap: float | None = None


@torch.no_grad()
def measured(name: str, model: Model, picture: Tensor, count: int, *, brute: int, draws: int, seed: int) -> Case:
    """Reads the first `count` attributes of a picture."""
    values = torch.cat(list(model.conditioner.groups[:count]))
    problem = make_problem(picture, model, candidates=values)
    atoms, slots = dictionary(problem)
    bank = problem.draw(draws, torch.Generator().manual_seed(seed))
    with count_rows() as spent:
        started = time.perf_counter()
        form = problem.quadratic(atoms, bank)
        mean = form.mean()
        network = time.perf_counter() - started
    started = time.perf_counter()
    errors = all_errors(mean, slots, problem.weighting(count))
    errors.topk(2, largest=False)
    marginals(errors, list(map(len, slots)), 1.0)
    arithmetic = time.perf_counter() - started
    gap = None
    if count <= brute:
        alone = Looped(model)(problem, answers_of(problem), bank).mean(1)
        gap = float((alone - errors).abs().max() / errors.abs().max())
    return Case(name, count, spent.rows // draws, network, arithmetic, gap)


def picture_of(cases: list[Case]) -> Figure:
    """Rows a draw and seconds of the arithmetic over the number of attributes."""
    figure = Figure(figsize=(8, 3.2), layout="constrained", facecolor="white")
    left, right = figure.subplots(1, 2)
    counts = [case.attributes for case in cases]
    left.plot(counts, [case.attributes * 2**case.attributes for case in cases], "o-", color=measure.COLOURS["looped"])
    left.plot(counts, [case.rows for case in cases], "o-", color=measure.COLOURS["energycomp"])
    left.set_yscale("log")
    left.set_ylabel("rows a draw")
    left.legend(["answers one by one", "quadratic form"], frameon=False, fontsize=8)
    right.plot(counts, [case.arithmetic for case in cases], "o-", color=measure.COLOURS["energycomp"])
    right.set_yscale("log")
    right.set_ylabel("seconds of arithmetic, all answers")
    for axes in (left, right):
        axes.set_xlabel("yes/no attributes")
        axes.set_xticks(counts)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def main() -> None:
    """Writes many_attributes.md and .png."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="faces", help="registered name or folder of a two-stage model of faces")
    parser.add_argument("--brute", type=int, default=6, help="most attributes whose answers are run one by one, too")
    parser.add_argument("--draws", type=int, default=32)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--out", type=Path, default=Path("runs/benchmarks"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    settings: dict[str, Any] = {"brute": options.brute, "draws": options.draws, "seed": options.seed}
    faces = load(options.model)
    face = faces.encode(find("datasets", "faces")().examples("synthetic", count=1, seed=options.seed)[0].image)
    cases = [measured(options.model, faces, face, count, **settings) for count in TRAINED]
    for count in CLOSED:
        model = attributes_model(count)
        answer = torch.stack([group[k % 2] for k, group in enumerate(model.conditioner.groups)])
        cases.append(measured("closed form", model, planted(model, answer), count, **settings))
    rows = [
        [
            case.model, str(case.attributes), f"{2**case.attributes:,}", str(case.rows),
            f"{case.attributes * 2**case.attributes + 1:,}", f"{case.network:.2g}", f"{case.arithmetic:.2g}",
            "" if case.gap is None else f"{case.gap:.0e}",
        ]
        for case in cases
    ]  # fmt: skip
    header = ("model", "attributes", "answers", "rows a draw", "one by one", "seconds, network", "seconds, arithmetic",
              "difference")  # fmt: skip
    note = (
        f"`{COMMAND}`: one picture, {options.draws} draws, seed {options.seed}, threads: {options.threads}. "
        "Arithmetic: the errors of all answers, the best two, and the posterior of every value. "
        "Difference: the greatest between these errors and those of answers that are run one by one on the "
        "same draws, of the greatest error."
    )
    measure.write(options.out / "many_attributes", measure.table(header, rows, note), picture_of(cases))


if __name__ == "__main__":
    main()
