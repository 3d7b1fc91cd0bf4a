"""Pursuit beside the staged pruning of diffusion classifiers: one object among the points of a lattice.

python benchmarks/inference/pruning.py [--model clevr-places] [--data synthetic:1] [-n 100] [--seed 0]

Algorithm 2 of Li et al. (2023), "Your Diffusion Model is Secretly a Zero-Shot Classifier": all candidates are compared
on the same few draws of noise, those of the least mean error stay, and the next stage adds draws for them alone, until
one is left. The candidates are the 256 points of the lattice of `pursuit`, and the count, one, is given to both. An
answer is right if the point of the lattice that is nearest to it is the nearest one to the object. Since an object may
lie between two points, the table also counts answers within 1/16 of the object, the distance of two points.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from scipy.stats import binomtest
from torch import Tensor

from benchmarks.common.measure import reading_arguments, table, write
from energycomp import load
from energycomp.evaluation import true_values
from energycomp.inference import Problem, make_problem
from energycomp.plugins import find
from energycomp.seeds import derived_seed
from energycomp_solvers.pursuit import Pursuit
from energycomp_solvers.shared.lattice import lattice

COMMAND = "python benchmarks/inference/pruning.py"
SIDE = 16
# Candidates that are compared in each stage, and the draws on which they are compared by its end.
STAGED = {
    "2 stages": ((256, 1), (16, 16)),
    "3 stages": ((256, 1), (32, 4), (4, 32)),
    "4 stages": ((256, 1), (64, 4), (16, 16), (4, 64)),
}
Answer = Callable[[Problem, Tensor, torch.Generator], Tensor]


def pruned(stages: tuple[tuple[int, int], ...], *, low: bool) -> Answer:
    """Algorithm 2: KeepList and TrialList are the columns of `stages`.

    Args:
        low: draws of the lowest third of the timesteps, as pursuit takes them, in the place of all.
    """

    def answer(problem: Problem, points: Tensor, generator: torch.Generator) -> Tensor:
        most = stages[-1][1]
        bank = problem.draw(3 * most, generator)[:most] if low else problem.draw(most, generator)
        bank = bank[torch.randperm(most, generator=generator)]  # they are stratified in their order
        left, sums, done = torch.arange(len(points)), torch.zeros(len(points)), 0
        for keep, draws in stages:
            left = left[sums[left].argsort()[:keep]]
            with torch.no_grad():
                errors = problem.errors(points[left][:, None], bank[done:draws])  # (N, S)
            sums[left] += errors.sum(1).cpu()
            done = draws
        return points[left[sums[left].argmin()]]

    return answer


def pursued(problem: Problem, points: Tensor, generator: torch.Generator) -> Tensor:
    """Pursuit, with its comparison of the answer with the runner-up."""
    del points
    return Pursuit(side=SIDE).solve(problem, generator=generator).conditions[0].cpu()


def main() -> None:
    """Writes pruning.md."""
    parser = reading_arguments(__doc__, n=100, model="a model of places")
    parser.add_argument("--data", default="synthetic:1", help="images of one object")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = load(options.model)
    ways: dict[str, Answer] = {"pursuit": pursued}
    for name, stages in STAGED.items():
        ways[f"pruning, {name}"] = pruned(stages, low=False)
        ways[f"pruning, {name}, low timesteps"] = pruned(stages, low=True)
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in ways}
    examples = find("datasets", model.name)().examples(options.data, count=options.n, seed=options.seed)
    for index, example in enumerate(examples):
        true = true_values(example, model.conditioner)[0]
        for name, way in ways.items():
            problem = make_problem(model.encode(example.image), model, count=1)
            points = lattice(problem.slots[0].support, SIDE, problem.value_shape)
            generator = torch.Generator().manual_seed(derived_seed(options.seed, "example", index))
            answer = way(problem, points, generator)
            right = (points - answer).norm(dim=1).argmin() == (points - true).norm(dim=1).argmin()
            found[name].append((float(right), float((answer - true).norm()), float(problem.rows)))
    head = ("method", "NFE", "right", "95 % interval", "within 1/16", "95 % interval", "median distance")
    text = table(
        head,
        [_line(*one) for one in found.items()],
        f"`{COMMAND} --model {options.model} --data {options.data} -n {options.n} --seed {options.seed}`: Wilson "
        f"intervals over images; distance in image widths, threads: {options.threads}. The NFE of pursuit include "
        "those of its comparison of the answer with the runner-up.",
    )
    write(options.out / "pruning", text)


def _line(name: str, rows: list[tuple[float, float, float]]) -> list[str]:
    right, distance, spent = torch.tensor(rows).double().unbind(1)
    shares = [share for hits in (right, (distance <= 1 / SIDE).double()) for share in _share(hits)]
    return [name, f"{spent.mean():,.0f}", *shares, f"{distance.median():.4f}"]


def _share(hits: Tensor) -> list[str]:
    low, high = binomtest(int(hits.sum()), len(hits)).proportion_ci(method="wilson")
    return [f"{hits.mean():.2f}", f"{low:.2f} to {high:.2f}"]


if __name__ == "__main__":
    main()
