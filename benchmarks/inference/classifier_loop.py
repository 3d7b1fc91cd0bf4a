"""Read images by `enumerate`, and by the loop of the diffusion classifier over all label sets, with the same weights.

python benchmarks/inference/classifier_loop.py [--model faces] [--asked black_hair eyeglasses smiling] [-n 60]
    [--few 20] [-o runs/classifier_loop]

The loop is Algorithm 1 of Li et al. (2023, "Your diffusion model is secretly a zero-shot classifier"): the same draws
for every label set, and for each set one call of the whole network per component and one for u, all draws as a batch.
Its adaptive form is Algorithm 2: after each number of draws some sets of least error are kept. "One stage" is a network
without a shared trunk, of the same weights: each evaluation runs all of it. With `--few 0` only ours run, and not in
one stage, for questions with too many label sets. "One condition for each label set" is the time of a network that
takes whole label sets, and shares its trunk like ours. It is not trained here, so it has no answers. Each image is one
JSON line, so an interrupted run continues. CPU seconds are those of one thread, and the ways take turns image by image.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import attrs
import torch
from torch import Tensor
from torchmetrics.functional.classification import binary_calibration_error
from tqdm import tqdm

from benchmarks.baselines.faces import label_sets
from benchmarks.common import measure
from benchmarks.common.measure import OneStage, looped_row
from benchmarks.common.options import parser
from benchmarks.common.ways import identity
from energycomp import Model, load
from energycomp.inference import NoiseBank, Problem, make_problem, residual_errors
from energycomp.plugins import find
from energycomp_cli import append_line, read_lines
from energycomp_lab.evaluation import dataset_of, true_values
from energycomp_solvers.enumerate import Enumerate
from energycomp_solvers.shared import configurations, dictionary

SAMPLES = (8, 32)  # of Algorithm 1
STAGES = ((4, 4), (8, 1))  # of Algorithm 2: draws, and how many label sets are kept after them
HEAD = ("way", "images", "label sets right", "labels right", "calibration error", "NFE", "CPU s", "times ours")


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes classifier_loop.md."""
    options = parser(
        __doc__, model="faces", data="synthetic", source=("", "a registered dataset; the one of the model's name"),
        asked=([""], "attributes; all, or sets as the model lists them"), n=60,
        few=(20, "images that the loop reads, a fifth of them with 32 draws, too"), seed=0, out="runs/classifier_loop",
    ).parse_args(arguments)  # fmt: skip
    torch.set_num_threads(1)
    model = load(options.model)
    asked = [name for name in options.asked if name]
    parse = model.conditioner.parse
    candidates = torch.cat([parse(**{name: v}) for name in asked for v in (False, True)]) if asked else None
    examples = find("datasets", options.source or dataset_of(model))().examples(
        options.data, count=options.n, seed=options.seed
    )
    kind = "-".join([identity(options.model, model), options.data.replace(":", "_"), *asked, str(options.seed)])
    path = options.out / f"{kind}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    records = read_lines(path)
    for k in tqdm(range(len(records), options.n), desc=options.data):
        observation = model.encode(examples[k].image)
        true = true_values(examples[k], model.conditioner)
        if candidates is not None:
            true = true[torch.isin(true, candidates)]
        ways = ways_of(model, asked, few=options.few, index=k)
        record = {name: run(way, model, observation, candidates, true, k) for name, way in ways.items()}
        append_line(path, record)
        records.append(record)
    told = f" --asked {' '.join(asked)}" if asked else ""
    note = (
        f"`python benchmarks/inference/classifier_loop.py --model {options.model} --data {options.data}{told} "
        f"-n {options.n} --few {options.few} --seed {options.seed}`: 1 thread, CPU seconds per image, of the search "
        "alone: `infer` adds 16 draws of the answer."
    )
    measure.write(options.out / kind, measure.table(HEAD, table_rows(records[: options.n]), note))


# Values (K, *V), None where they mean nothing, their posteriors (K,), and network evaluations.
Read = tuple[Tensor | None, Tensor | None, int]
Way = Callable[[Model, Tensor, Tensor | None, torch.Generator], Read]


def ways_of(model: Model, asked: Sequence[str], *, few: int, index: int) -> dict[str, Way]:
    """The ways that read image `index`, ours first."""
    single = attrs.evolve(model.denoiser, network=OneStage(model.denoiser.network))
    found: dict[str, Way] = {"`Enumerate()`": partial(solved, Enumerate(), None)}
    found["`Enumerate(p_value=None)`"] = partial(solved, Enumerate(p_value=None), None)
    if asked:
        found[f"one condition for each label set, {SAMPLES[0]} draws"] = partial(timed, asked)
    if index < few:
        found["`Enumerate()`, one stage"] = partial(solved, Enumerate(), single)
        for samples in SAMPLES if 5 * index < few else SAMPLES[:1]:
            found[f"diffusion classifier, {samples} draws"] = partial(classified, ((samples, 1),))
        draws = "-".join(str(stage[0]) for stage in STAGES)
        found[f"adaptive diffusion classifier, {draws} draws"] = partial(classified, STAGES)
    return found


def run(
    way: Way, model: Model, observation: Tensor, candidates: Tensor | None, true: Tensor, seed: int
) -> dict[str, Any]:
    """The record of one image."""
    started = measure.now()
    values, probability, rows = way(model, observation, candidates, torch.Generator().manual_seed(seed))
    return {
        "seconds": measure.now() - started,
        "right": [] if values is None else [value in true.tolist() for value in values.tolist()],
        "set": None if values is None else sorted(values.tolist()) == sorted(true.tolist()),
        "probability": None if probability is None else probability.tolist(),
        "rows": rows,
    }


def solved(
    solver: Enumerate, denoiser: Any, model: Model, observation: Tensor, candidates: Tensor | None, generator: Any
) -> Read:
    """Ours, with another denoiser or the model's own."""
    asked = model if denoiser is None else attrs.evolve(model, denoiser=denoiser)
    solution = solver.solve(make_problem(observation, asked, candidates=candidates), generator=generator)
    return solution.conditions, solution.probability, solution.rows


def timed(asked: Sequence[str], model: Model, observation: Tensor, _: Tensor | None, generator: Any) -> Read:
    """The cost of a network of whole label sets: that of ours, which was not trained for such conditions."""
    problem = make_problem(observation, label_sets(model, asked), count=1)
    solver = Enumerate(draws=SAMPLES[0], fresh_draws=1, p_value=None)
    return None, None, solver.solve(problem, generator=generator).rows


@torch.no_grad()
def classified(
    stages: Sequence[tuple[int, int]], model: Model, observation: Tensor, candidates: Tensor | None, generator: Any
) -> Read:
    """The label set of least mean error, of all sets; the sets that are left see the draws of each stage."""
    problem = make_problem(observation, model, candidates=candidates)
    atoms, slots = dictionary(problem)
    counts = range(problem.counts[0], problem.counts[1] + 1)
    left = {chosen: 0.0 for count in counts for chosen in configurations(problem, slots, count)}
    before = rows = 0
    for draws, keep in stages:
        bank = problem.draw(draws - before, generator)
        for chosen in left:
            left[chosen] += float(set_errors(model, observation, problem, atoms[list(chosen)], bank).sum())
            rows += len(bank) * (len(chosen) + 1)
        before = draws
        left = dict(sorted(left.items(), key=lambda item: item[1])[:keep])
    return atoms[list(next(iter(left)))], None, rows


def set_errors(model: Model, observation: Tensor, problem: Problem, values: Tensor, bank: NoiseBank) -> Tensor:
    """The errors (S,) of one label set: u + sum_k (e_k - u), each a call of the whole network."""
    denoiser = model.denoiser
    noised = bank.noised(observation, denoiser.alphas_cumprod)
    total = base = looped_row(denoiser.network, noised, bank.timestep, denoiser.unconditional.condition)
    for value in values:
        one = looped_row(denoiser.network, noised, bank.timestep, model.conditioner(value[None]))
        total = total + problem.weighting(len(values)) * (one - base)
    return residual_errors(denoiser, observation, bank, total[None])[0]


def table_rows(records: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """A row for each way; times are compared on the images that both ways read."""
    rows, ours = [], next(iter(records[0]))
    for name in {name: None for record in records for name in record}:
        mine = [record[name] for record in records if name in record]
        base = sum(record[ours]["seconds"] for record in records if name in record)
        labels = [right for one in mine for right in one["right"]]
        chances = [p for one in mine for p in one["probability"] or ()]
        error = (
            binary_calibration_error(torch.tensor(chances), torch.tensor(labels).int(), n_bins=15) if chances else None
        )
        rows.append([
            name, str(len(mine)), f"{sum(one['set'] for one in mine) / len(mine):.1%}" if labels else "",
            f"{sum(labels) / len(labels):.1%}" if labels else "", "" if error is None else f"{float(error):.3f}",
            f"{sum(one['rows'] for one in mine) / len(mine):,.0f}",
            f"{sum(one['seconds'] for one in mine) / len(mine):.3f}",
            f"{sum(one['seconds'] for one in mine) / base:.2f}",
        ])  # fmt: skip
    return rows


if __name__ == "__main__":
    main()
