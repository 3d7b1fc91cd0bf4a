"""Find objects by `pursuit`, and by the diffusion classifier in a greedy loop over a lattice, with the same weights.

python benchmarks/inference/greedy_loop.py [--model clevr-places] [--data synthetic:3-5] [-n 20] [--given]
    [--keep 32 8 1] [--draws 1 4 16] [--seed 0] [-o runs/greedy_loop]

The loop adds one place at a time. Each time it classifies: the prompts are the places so far, alone and with each point
of the lattice of `pursuit`. `Classifier.best` does what the function `eval_prob_adaptive` does in the code of Li et al.
(2023, "Your diffusion model is secretly a zero-shot classifier"), and `Classifier.errors` what `eval_error` does: in
stages, more draws for fewer prompts, of which the best are kept. The loop ends when the prompt without another place is
the best one. What was chosen before is predicted once, so a prompt costs one network evaluation per draw, and not one
for each of its places. Draws are those of low timesteps, as `pursuit` takes them.

Each way runs twice: with a trunk that all predictions of a draw share, and with a network in one stage, of the same
weights, of which each prediction runs all. With `--given` the number of objects is known. Each image is one JSON line,
so an interrupted run continues. CPU seconds are those of one thread, of the search alone, and the ways take turns image
by image.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import attrs
import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.baselines.comparison import answered, paired_difference, score
from benchmarks.common import measure
from benchmarks.common.measure import OneStage
from benchmarks.common.options import parser
from benchmarks.common.ways import identity
from energycomp import Model, load
from energycomp.denoisers import count_rows, rows, trunk
from energycomp.inference import NoiseBank, Problem, make_problem, residual_errors
from energycomp_cli import append_line, read_lines
from energycomp_lab.evaluation import CountAccuracy, PerceptionRate, Precision, source_of, true_values
from energycomp_solvers.pursuit import Pursuit
from energycomp_solvers.search.lattice import lattice

Stages = Sequence[tuple[int, int]]  # draws, and how many prompts are kept after them
Way = Callable[[Model, Problem, torch.Generator], Tensor]
HEAD = (
    "way", "images", "perception rate", "minus ours (95 %)", "precision", "count accuracy", "NFE", "trunk passes",
    "CPU s", "times ours",
)  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes greedy_loop.md."""
    options = parser(
        __doc__, model="clevr-places", data="synthetic:3-5", n=20, given=(False, "the number of objects is known"),
        draws=([1, 4, 16], "of the stages of the classifier"), keep=([32, 8, 1], "prompts that stay after each stage"),
        seed=0, out="runs/greedy_loop",
    ).parse_args(arguments)  # fmt: skip
    torch.set_num_threads(1)
    model = load(options.model)
    stages = list(zip(options.draws, options.keep, strict=True))
    examples = source_of("clevr", model).examples(options.data, count=options.n, seed=options.seed)
    kind = [identity(options.model, model), *options.data.split(":"), *map(str, options.draws + options.keep)]
    path = options.out / "-".join([*kind, *["given"] * options.given, f"{options.seed}.jsonl"]).replace("/", "_")
    path.parent.mkdir(parents=True, exist_ok=True)
    records = read_lines(path)
    for k in tqdm(range(len(records), len(examples)), desc=options.data):
        true = true_values(examples[k], model.conditioner)
        count = len(true) if options.given else None
        observation = model.encode(examples[k].image)
        record = {
            name: {"true": true.tolist(), **run(way, whole, observation, count, k)}
            for name, (way, whole) in ways_of(model, stages).items()
        }
        append_line(path, record)
        records.append(record)
    settings = " ".join(f"--{name} {' '.join(map(str, getattr(options, name)))}" for name in ("draws", "keep"))
    note = (
        f"`python benchmarks/inference/greedy_loop.py --model {options.model} --data {options.data} -n {options.n} "
        f"{'--given ' * options.given}{settings} --seed {options.seed}`: 1 thread, CPU seconds per image."
    )
    measure.write(path.with_suffix(""), measure.table(HEAD, table_rows(records[: options.n], options.seed), note))


def ways_of(model: Model, stages: Stages) -> dict[str, tuple[Way, Model]]:
    """The ways, ours first, and the model that each of them reads with."""
    single = attrs.evolve(model.denoiser, network=OneStage(model.denoiser.network))
    whole = attrs.evolve(model, denoiser=single)
    loop = partial(looped, stages)
    return {
        "`pursuit`": (pursued, model),
        "`pursuit`, trunk not shared": (pursued, whole),
        "greedy loop of the diffusion classifier": (loop, whole),
        "the loop with a shared trunk": (loop, model),
    }


def run(way: Way, model: Model, observation: Tensor, count: int | None, seed: int) -> dict[str, Any]:
    """What a way finds in one image, and what it costs."""
    started = measure.now()
    with count_rows() as spent:
        values = way(model, make_problem(observation, model, count=count), torch.Generator().manual_seed(seed))
    seconds = measure.now() - started
    return {"found": [values.tolist()], "seconds": seconds, "rows": spent.rows, "trunks": spent.trunks}


def pursued(model: Model, problem: Problem, generator: torch.Generator) -> Tensor:
    """Ours."""
    del model
    return Pursuit().solve(problem, generator=generator).conditions


@torch.no_grad()
def looped(stages: Stages, model: Model, problem: Problem, generator: torch.Generator) -> Tensor:
    """Places (K, 2), added one after another as long as the classifier prefers another one to none."""
    most = stages[-1][0]
    points = lattice(problem.slots[0].support, Pursuit().side, problem.value_shape)
    classifier = Classifier.of(model, problem, problem.draw(3 * most, generator)[:most])
    low, high = problem.counts
    chosen: list[int] = []
    while len(chosen) < high:
        prompts = torch.cat([points, torch.full((int(len(chosen) >= low), points.shape[1]), torch.nan)])
        best = classifier.best(prompts, stages)
        if best == len(points):
            break
        chosen.append(best)
        classifier = classifier.given(points[best])
    return points[chosen]


@attrs.frozen(eq=False)
class Classifier:
    """The diffusion classifier of prompts: the places so far, with one more place, or without (NaN).

    Args:
        model: whose network predicts.
        observation: the image, encoded.
        bank: the draws of all stages.
        trunk: of these; of a network in one stage its inputs.
        null: the unconditional predictions (S, C, H, W).
        composed: the predictions of the places so far.
    """

    model: Model
    observation: Tensor
    bank: NoiseBank
    trunk: Any
    null: Tensor
    composed: Tensor

    @classmethod
    def of(cls, model: Model, problem: Problem, bank: NoiseBank) -> Classifier:
        """Without any place so far. Costs u on all draws."""
        denoiser = model.denoiser
        shared = trunk(denoiser, bank.noised(problem.observation, denoiser.alphas_cumprod), bank.timestep)
        condition = denoiser.unconditional.condition.expand(len(bank))
        null = rows(denoiser, shared, condition, torch.arange(len(bank)))
        return cls(model, problem.observation, bank, shared, null, null)

    def given(self, place: Tensor) -> Classifier:
        """The same, once a place is chosen."""
        return attrs.evolve(self, composed=self.with_place(place[None], torch.arange(len(self.bank)))[0])

    def best(self, prompts: Tensor, stages: Stages) -> int:
        """The prompt of least mean error; those that are left see the draws of each stage (`eval_prob_adaptive`)."""
        most = len(self.bank)
        left = torch.arange(len(prompts))
        errors = torch.zeros(len(prompts), 0)
        seen: list[int] = []
        for draws, keep in stages:
            # Evenly over the draws, which are in the order of their timesteps
            step = most // draws
            new = [draw for draw in range(step // 2, most, step)[:draws] if draw not in seen]
            seen += new
            errors = torch.cat([errors, self.errors(prompts[left], torch.tensor(new))], dim=1)
            kept = errors.mean(1).topk(min(keep, len(left)), largest=False).indices
            left = left[kept]
            errors = errors[kept]
        return int(left[0])

    def errors(self, prompts: Tensor, draws: Tensor) -> Tensor:
        """The errors (N, S) of prompts (N, 2) on some draws (`eval_error`). A row for each place and draw."""
        placed = ~prompts.isnan().any(1)
        predictions = self.composed[draws].expand(len(prompts), *self.null[draws].shape).clone()
        predictions[placed] = self.with_place(prompts[placed], draws)
        return residual_errors(self.model.denoiser, self.observation, self.bank[draws], predictions)

    def with_place(self, places: Tensor, draws: Tensor) -> Tensor:
        """The predictions (N, S, C, H, W) of the places so far with each of N others."""
        condition = self.model.conditioner(places)
        index = torch.arange(len(places)).repeat_interleave(len(draws))
        own = rows(self.model.denoiser, self.trunk, condition[index], draws.repeat(len(places)))
        return own.view(len(places), len(draws), *own.shape[1:]) + (self.composed - self.null)[draws]


def table_rows(records: Sequence[Mapping[str, Any]], seed: int) -> list[list[str]]:
    """A row for each way, beside ours, the first one. A network in one stage runs its trunk in each evaluation."""
    ours = next(iter(records[0]))
    table = []
    for name in records[0]:
        mine = [record[name] for record in records]
        answers, others = (answered([record[way] for record in records], (2,)) for way in (name, ours))
        gap, low, high = paired_difference(PerceptionRate(), answers, others, seed=seed)
        mean = {key: sum(one[key] for one in mine) / len(mine) for key in ("rows", "trunks", "seconds")}
        base = sum(record[ours]["seconds"] for record in records) / len(records)
        table.append([
            name, str(len(mine)), f"{score(PerceptionRate(), answers):.3f}",
            "" if name == ours else f"{gap:+.3f} ({low:+.3f} to {high:+.3f})",
            *[f"{score(metric, answers):.3f}" for metric in (Precision(), CountAccuracy())],
            f"{mean['rows']:,.0f}", f"{mean['trunks'] or mean['rows']:,.0f}", f"{mean['seconds']:.2f}",
            f"{mean['seconds'] / base:.2f}",
        ])  # fmt: skip
    return table


if __name__ == "__main__":
    main()
