"""Nine tasks in the plane: products, mixtures and negations of two components, exact or trained, by ten samplers.

python benchmarks/sampling/plane_tasks.py [--networks] [--train] [-n 1000] [--seeds 1] [--ways NAME ...] [--json] [-o PNG]

The tasks are those of CompLift (`plane_targets`). Components are densities in closed form (`plane_densities`), or energy
networks (`plane_networks`), which `--train` trains first: 12 minutes of one CPU thread, and a run that was stopped goes on.
The peers' samplers (`plane_peers`) follow their own schedule, 50 timesteps with beta from 1e-4 to 0.02, which ends neither in
noise (alpha_bar 0.603) nor in clean samples (sigma 0.01). The others follow 50 timesteps at equal distances of log SNR,
from alpha_bar 0.001 to sigma 0.003.

Prints, for each task and sampler, the mean over seeds of:
    accuracy        the share of samples in the support of the target; of empty targets, the share that is rejected
    as_published    the same as CompLift counts it, where that differs
    chamfer         mean distances to the nearest sample of as many exact ones, both ways added
    evaluations     per sample that is drawn, of both components: one is a noise prediction or an energy
    lost            chains that are not finite or ended further than 10 from the origin along an axis
    rejected        the share of samples that lift rejects
    sd_x, sd_y      of product_a, whose modes have 0.03
    first           of summation_a with weights 0.2 and 0.8: the share of the first
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import attrs
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from benchmarks.sampling.plane_densities import Box, Density, even_schedule, linear_schedule, plane
from benchmarks.sampling.plane_networks import Network, normalised, train
from benchmarks.sampling.plane_peers import Chain, WarmOr, is_lost, lift
from benchmarks.sampling.plane_targets import SHAPES, TASKS, Task, accuracy, chamfer, right_samples, spread
from energycomp import Composable, Composer
from energycomp.components import Gaussian, Mixture, NoisedSpace
from energycomp_samplers.mala import MALA
from energycomp_samplers.mixture import MixtureSampler
from energycomp_samplers.smc import SMC, annealed_mala

STEPS = 50
WEIGHTS = (0.2, 0.8)
REFERENCE = 0.5  # variance of the Gaussian around the origin that lift compares with
SCHEDULES = {"peers": plane(linear_schedule(STEPS)), "even": plane(even_schedule(STEPS))}
INK, ACCENT = "#1a1a1a", "#d1495b"


@attrs.define(eq=False)
class Counted(Composable):
    """A component that counts what it is asked for: a noise prediction or an energy of one sample is one evaluation."""

    component: Any
    rows: int = 0

    @property
    def noised_space(self) -> NoisedSpace:
        """Where its samples live."""
        space: NoisedSpace = self.component.noised_space
        return space

    def eps(self, sample: Tensor, timestep: Tensor) -> Tensor:
        """Noise prediction (B, 2, 1, 1)."""
        self.rows += len(sample)
        eps: Tensor = self.component.eps(sample, timestep)
        return eps

    def energy(self, sample: Tensor, timestep: Tensor) -> Tensor:
        """-log p_t, (B,)."""
        self.rows += len(sample)
        energy: Tensor = self.component.energy(sample, timestep)
        return energy


@attrs.frozen(eq=False)
class Problem:
    """The components of one task, n samples to draw, and the random numbers for it."""

    kind: str
    a: Any
    b: Any
    n: int
    generator: torch.Generator
    weights: tuple[float, float] = (0.5, 0.5)

    @property
    def composed(self) -> Any:
        """a + b, a | b or a - b / 2."""
        if self.kind == "summation":
            return Mixture([self.a, self.b], [math.log(weight) for weight in self.weights])
        return self.a + self.b if self.kind == "product" else self.a - 0.5 * self.b

    @property
    def as_published(self) -> Any:
        """The same, with the mixture of CompLift."""
        return WarmOr(self.a, self.b) if self.kind == "summation" else self.composed


def followed(problem: Problem, *, of: str = "composed", **options: Any) -> Tensor:
    """Samples (n, 2) of a composition of the problem by `Composer.sample`."""
    x = Composer(getattr(problem, of)).sample(
        problem.n,
        num_inference_steps=STEPS,
        generator=problem.generator,
        output_type="latent",
        progress=False,
        **options,
    )
    return x.flatten(1)


def chained(problem: Problem, kind: Literal["ULA", "MALA", "U-HMC", "HMC"]) -> Tensor:
    """Samples of a chain of the peers."""
    return Chain(kind).sample(problem.as_published, problem.n, problem.generator)


def lifted(problem: Problem) -> Tensor:
    """CompLift: reverse steps, and rejection by lift against 0.9 of the same prediction."""
    x = followed(problem, of="as_published", scheduler="ddpm")
    a, b = (lift(part, x, lambda _x, _t, eps: 0.9 * eps, problem.generator) for part in (problem.a, problem.b))
    kept = {"product": (a > 0) & (b > 0), "summation": (a > 0) | (b > 0), "negation": (a > 0) & (b <= 0)}
    return x[kept[problem.kind]]


def rejected(problem: Problem, **options: Any) -> Tensor:
    """Rejection by lift against a broad Gaussian: samples of a without b, or of the product that both explain."""
    broad = Gaussian(0.0, REFERENCE, sample_shape=(2, 1, 1), alphas_cumprod=problem.a.noised_space.alphas_cumprod)
    gain = partial(lift, reference=lambda x, t, _: broad.eps(x, t), generator=problem.generator)
    if problem.kind == "negation":
        x = followed(problem, of="a", **options)
        return x[gain(problem.b, x) <= 0]
    x = followed(problem, **options)
    return x[(gain(problem.a, x) > 0) & (gain(problem.b, x) > 0)]


@attrs.frozen
class Way:
    """How samples are drawn, for which kinds of tasks, and on which schedule."""

    draw: Callable[[Problem], Tensor]
    kinds: tuple[str, ...] = ("product", "summation", "negation")
    schedule: str = "even"


PRODUCT, SUMMATION, NEGATION = ("product",), ("summation",), ("negation",)
WAYS: dict[str, Way] = {
    "peers: reverse": Way(partial(followed, of="as_published", scheduler="ddpm"), schedule="peers"),
    **{f"peers: {kind}": Way(partial(chained, kind=kind), schedule="peers") for kind in ("ULA", "U-HMC", "MALA", "HMC")},
    "peers: lift": Way(lifted, schedule="peers"),
    "scheduler": Way(followed),
    "mixture": Way(partial(followed, sampler=MixtureSampler()), SUMMATION),
    "rne": Way(partial(followed, sampler=SMC()), PRODUCT),
    "energy": Way(partial(followed, sampler=SMC(weights="energy")), (*PRODUCT, *SUMMATION)),
    "mala": Way(partial(followed, sampler=annealed_mala(test="energy")), (*PRODUCT, *SUMMATION)),
    "rne + mala": Way(partial(followed, sampler=SMC(moves=MALA(moves=2, test="energy"))), (*PRODUCT, *SUMMATION)),
    "lift": Way(rejected, NEGATION),
    "mala + lift": Way(partial(rejected, sampler=annealed_mala(test="energy")), PRODUCT),
}


@attrs.frozen(eq=False)
class Components:
    """The components by name and schedule."""

    of: Mapping[str, Mapping[str, Any]]

    @classmethod
    def exact(cls) -> Components:
        """In closed form."""
        return cls({key: {name: Density(shape, space) for name, shape in SHAPES.items()} for key, space in SCHEDULES.items()})

    @classmethod
    def trained(cls, folder: Path) -> Components:
        """Networks, trained if they are not in the folder; those that are mixed are normalised."""
        stack = train(list(SHAPES.values()), folder)
        mixed = {name for task in TASKS.values() if task.kind == "summation" for name in (task.a, task.b)}
        found: dict[str, dict[str, Any]] = {}
        for key, space in SCHEDULES.items():
            plain = {name: Network(stack, i, space, torch.zeros(STEPS)) for i, name in enumerate(SHAPES)}
            found[key] = {name: normalised(part) if name in mixed else part for name, part in plain.items()}
        return cls(found)

    def problem(self, task: Task, way: Way, n: int, seed: int, weights: tuple[float, float] = (0.5, 0.5)) -> Problem:
        """A task of n samples on the schedule of the way, with components that count."""
        a, b = (Counted(self.of[way.schedule][name]) for name in (task.a, task.b))
        return Problem(task.kind, a, b, n, torch.Generator().manual_seed(seed), weights)


def measured(task: Task, problem: Problem, way: Way, seed: int) -> dict[str, float]:
    """One run, and its figures."""
    x, n = way.draw(problem), problem.n
    lost = is_lost(x)
    found = {
        "evaluations": (problem.a.rows + problem.b.rows) / n,
        "lost": float(lost.sum()),
        "rejected": 1.0 - len(x) / n,
        "accuracy": accuracy(x, task.support) if task.target else 1.0 - len(x) / n,
    }
    x = x[~lost]
    if task.target and len(x):
        found["chamfer"] = chamfer(x, right_samples(task, n, torch.Generator().manual_seed(1000 + seed)))
    if task.loose:
        found["as_published"] = accuracy(x, task.loose) * len(x) / (len(x) + int(lost.sum()))
    if task.b == "bar":
        found["sd_x"], found["sd_y"] = spread(x)
    return found


def compare(components: Components, ways: Mapping[str, Way], *, n: int, seeds: int) -> dict[str, dict[str, Any]]:
    """{task: {way: {figure: mean over seeds}}}, and the task "weighted", summation_a with other weights."""
    found: dict[str, dict[str, Any]] = {}
    for name, task in TASKS.items():
        fitting = {key: way for key, way in ways.items() if task.kind in way.kinds}
        found[name] = {}
        for key, way in fitting.items():
            runs = [measured(task, components.problem(task, way, n, seed), way, seed) for seed in range(seeds)]
            found[name][key] = {figure: mean([run.get(figure) for run in runs]) for figure in runs[0]}
    task, found["weighted"] = TASKS["summation_a"], {}
    for key, way in ways.items():
        if way.schedule == "even" and "summation" in way.kinds:
            runs = [way.draw(components.problem(task, way, n, seed, WEIGHTS))[:, 0] < 0 for seed in range(seeds)]
            error = (WEIGHTS[0] * WEIGHTS[1] / (n * seeds)) ** 0.5
            found["weighted"][key] = {"first": mean([float(run.float().mean()) for run in runs]), "standard_error": error}
    return found


def mean(values: list[Any]) -> float | None:
    """Of the runs that have the figure."""
    known = [value for value in values if value is not None]
    return round(sum(known) / len(known), 4) if known else None


def table(found: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """A Markdown table for each kind of task: accuracy / Chamfer distance, and lost chains where there are any."""
    lines = []
    for kind in ("product", "summation", "negation"):
        tasks = [name for name in found if name.startswith(kind)]
        lines += [f"| sampler | NFE per sample | {' | '.join(tasks)} |", "| --- | ---" + " | ---" * len(tasks) + " |"]
        for way in found[tasks[0]]:
            rows = [found[name][way] for name in tasks]
            lines.append(f"| {way} | {rows[0]['evaluations']:.0f} | {' | '.join(map(cell, rows))} |")
        lines.append("")
    lines += ["| sampler | share of the first | asked |", "| --- | --- | --- |"]
    for way, row in found["weighted"].items():
        lines.append(f"| {way} | {row['first']:.3f} | {WEIGHTS[0]:.3f} (standard error {row['standard_error']:.3f}) |")
    return "\n".join(lines)


def cell(row: Mapping[str, Any]) -> str:
    """Figures of one task and sampler."""
    parts = [f"{row['accuracy']:.3f}"]
    if "as_published" in row:
        parts.append(f"({row['as_published']:.3f})")
    if row.get("chamfer") is not None:
        parts.append(f"/ {row['chamfer']:.3f}")
    if "sd_x" in row:
        parts.append(f"sd {row['sd_x']:.4f}, {row['sd_y']:.4f}")
    if row["lost"]:
        parts.append(f"lost {row['lost']:.0f}")
    return " ".join(parts)


def picture(path: Path, components: Components, names: list[str], *, n: int) -> None:
    """Samples of every task, a row each, by the target and by some ways."""
    figure = Figure(figsize=(1.25 * (len(names) + 1), 1.25 * len(TASKS)), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(TASKS), len(names) + 1, sharex=True, sharey=True)
    for row, (title, task) in zip(grid, TASKS.items(), strict=True):
        for axes, name in zip(row, ["target", *names], strict=True):
            x = torch.zeros(0, 2)
            if name != "target" and task.kind in WAYS[name].kinds:
                x = WAYS[name].draw(components.problem(task, WAYS[name], n, 0))
            elif name == "target" and task.target:
                x = right_samples(task, n, torch.Generator().manual_seed(0))
            axes.scatter(*x.T.numpy(), s=1, color=ACCENT if name.startswith("peers") else INK, linewidths=0)
            axes.set(xlim=(-1.8, 1.8), ylim=(-1.8, 1.8), aspect="equal", xticks=[], yticks=[])
            if task is TASKS["product_a"]:
                axes.set_title(name, fontsize=8)
            if name == "target":
                axes.set_ylabel(title, fontsize=8)
            elif task.kind not in WAYS[name].kinds:
                axes.axis("off")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)


def main() -> None:
    """Prints the tables, or JSON, and draws the samples if a file is named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", action="store_true", help="trained networks instead of exact densities")
    parser.add_argument("--train", action="store_true", help="train the networks first, if they are not in --folder")
    parser.add_argument("--folder", type=Path, default=Path("runs/plane-networks"), help="of the networks")
    parser.add_argument("-n", type=int, default=1000, help="number of samples")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--json", action="store_true", help="print {task: {sampler: {accuracy, chamfer, ...}}}")
    parser.add_argument("-o", "--out", type=Path, help="PNG file for a picture of the samples")
    options = parser.parse_args()
    torch.set_num_threads(1)
    components = Components.trained(options.folder) if options.networks or options.train else Components.exact()
    found = compare(components, {name: WAYS[name] for name in options.ways}, n=options.n, seeds=options.seeds)
    print(json.dumps(found, indent=2) if options.json else table(found))
    if options.out is not None:
        picture(options.out, components, options.ways, n=options.n)


if __name__ == "__main__":
    main()
