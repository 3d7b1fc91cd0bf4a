"""Nine tasks in the plane: products, mixtures and negations of two components, exact or trained.

python benchmarks/sampling/plane_tasks.py [--networks] [--train] [-n 1000] [--seeds 1] [--ways NAME ...]
    [--tasks NAME ...] [--json] [-o PNG]

The tasks are those of CompLift (`plane_targets`). Components are densities in closed form (`plane_densities`), or
energy networks (`plane_networks`), which `--train` trains first in 9 minutes of one CPU thread; a run that was stopped
goes on. The peers' samplers (`plane_peers`) follow their own schedule, 50 timesteps with beta from 1e-4 to 0.02, which
ends neither in noise (alpha_bar 0.603) nor in clean samples (sigma 0.01). The others follow 50 timesteps at equal
distances of log SNR, from alpha_bar 0.001 to sigma 0.003.

Prints, for each task and sampler, the mean over seeds of:
    accuracy        the share of samples in the support of the target; of empty targets, the share that is rejected
    as_published    the same as CompLift counts it, where that differs
    chamfer         mean distances to the nearest sample of n exact ones, both ways added
    evaluations     per sample that is drawn, of both components: one is a noise prediction or an energy
    lost            chains that are not finite, or end further than 10 from the origin along an axis
    rejected        the share of samples that lift rejects
    sd_x, sd_y      of product_a, where 0.03 is right
    first           the share of the first component in summation_a with the weights 0.2 and 0.8, its standard error if
                    samples are independent (those of one swarm are not), and its standard deviation over seeds
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from benchmarks.sampling.plane_densities import Density
from benchmarks.sampling.plane_networks import Network, is_trained, normalised, train
from benchmarks.sampling.plane_peers import is_lost
from benchmarks.sampling.plane_targets import SHAPES, TASKS, Task, accuracy, chamfer, right_samples, spread
from benchmarks.sampling.plane_ways import SCHEDULES, WAYS, Counted, Problem, Way

WEIGHTS = (0.2, 0.8)
INK, ACCENT = "#1a1a1a", "#d1495b"
Figures = dict[str, dict[str, dict[str, float | None]]]
Samples = dict[str, dict[str, Tensor]]
PICTURED = {
    "product": ["target", "peers: reverse", "peers: HMC", "peers: lift", "scheduler", "energy", "rne + mala"],
    "summation": ["target", "peers: reverse", "peers: HMC", "peers: lift", "scheduler", "energy", "mixture"],
    "negation": ["target", "peers: reverse", "peers: HMC", "peers: lift", "scheduler", "lift"],
}


@attrs.frozen(eq=False)
class Components:
    """The components by name and schedule."""

    of: Mapping[str, Mapping[str, Any]]

    @classmethod
    def exact(cls) -> Components:
        """In closed form."""
        return cls(
            {key: {name: Density(shape, space) for name, shape in SHAPES.items()} for key, space in SCHEDULES.items()}
        )

    @classmethod
    def trained(cls, folder: Path) -> Components:
        """Networks, trained if they are not in the folder; those that are mixed are normalised."""
        stack = train(list(SHAPES.values()), folder)
        mixed = {name for task in TASKS.values() if task.kind == "summation" for name in (task.a, task.b)}
        found: dict[str, dict[str, Any]] = {}
        for key, space in SCHEDULES.items():
            plain = {name: Network(stack, i, space) for i, name in enumerate(SHAPES)}
            found[key] = {name: normalised(part) if name in mixed else part for name, part in plain.items()}
        return cls(found)

    def problem(self, task: Task, way: Way, n: int, seed: int, weights: tuple[float, float] = (0.5, 0.5)) -> Problem:
        """A task of n samples on the schedule of the way, with components that count."""
        a, b = (Counted(self.of[way.schedule][name]) for name in (task.a, task.b))
        return Problem(task.kind, a, b, n, torch.Generator().manual_seed(seed), weights)


def measured(task: Task, x: Tensor, problem: Problem, truth: Tensor) -> dict[str, float]:
    """The figures of samples x, beside exact samples (n, 2); none where the target is empty."""
    lost, n = is_lost(x), problem.n
    found = {
        "accuracy": accuracy(x, task.support) if task.target else 1.0 - len(x) / n,
        "evaluations": (problem.a.rows + problem.b.rows) / n,
        "lost": float(lost.sum()),
        "rejected": 1.0 - len(x) / n,
    }
    if task.loose:
        found["as_published"] = accuracy(x, task.loose)
    x = x[~lost]
    if len(truth) and len(x):
        found["chamfer"] = chamfer(x, truth)
    if task.b == "bar":
        found["sd_x"], found["sd_y"] = spread(x)
    return found


def compare(
    components: Components, tasks: Mapping[str, Task], ways: Mapping[str, Way], *, n: int, seeds: int
) -> tuple[Figures, Samples]:
    """The figures, means over seeds, and the samples of seed 0."""
    found: Figures = {}
    samples: Samples = {}
    for name, task in tasks.items():
        truths = [right_samples(task, n, torch.Generator().manual_seed(1000 + seed)) for seed in range(seeds)]
        found[name], samples[name] = {}, {"target": truths[0]}
        for key, way in ways.items():
            if task.kind in way.kinds:
                runs = []
                for seed, truth in enumerate(truths):
                    problem = components.problem(task, way, n, seed)
                    x = way.draw(problem)
                    samples[name].setdefault(key, x)
                    runs.append(measured(task, x, problem, truth))
                found[name][key] = {figure: mean([run.get(figure) for run in runs]) for figure in runs[0]}
    return found, samples


def shares(
    components: Components, ways: Mapping[str, Way], *, n: int, seeds: int
) -> dict[str, dict[str, float | None]]:
    """The share of the first component where summation_a has other weights, for each of our ways."""
    found: dict[str, dict[str, float | None]] = {}
    task = TASKS["summation_a"]
    error = (WEIGHTS[0] * WEIGHTS[1] / (n * seeds)) ** 0.5
    for key, way in ways.items():
        if way.schedule == "even" and "summation" in way.kinds:
            drawn = [way.draw(components.problem(task, way, n, seed, WEIGHTS)) for seed in range(seeds)]
            first = torch.tensor([float((x[:, 0] < 0).float().mean()) for x in drawn])
            found[key] = {
                "first": round(float(first.mean()), 4),
                "standard_error": round(error, 4),
                "sd_of_seeds": round(float(first.std()), 4) if seeds > 1 else None,
            }
    return found


def mean(values: list[Any]) -> float | None:
    """Of the runs that have the figure."""
    known = [value for value in values if value is not None]
    return round(sum(known) / len(known), 4) if known else None


def table(found: Figures) -> str:
    """A Markdown table for each kind of task: accuracy / Chamfer distance, and lost chains where there are any."""
    lines = []
    for kind in ("product", "summation", "negation"):
        tasks = [name for name in found if name.startswith(kind)]
        if tasks:
            lines += [
                f"| sampler | NFE per sample | {' | '.join(tasks)} |",
                "| --- | ---" + " | ---" * len(tasks) + " |",
            ]
            for way in found[tasks[0]]:
                rows = [found[name][way] for name in tasks]
                lines.append(f"| {way} | {rows[0]['evaluations']:.0f} | {' | '.join(map(cell, rows))} |")
            lines.append("")
    if "weighted" in found:
        lines += ["| sampler | share of the first | standard error | sd over seeds |", "| --- | --- | --- | --- |"]
        for way, row in found["weighted"].items():
            deviation = "" if row["sd_of_seeds"] is None else f"{row['sd_of_seeds']:.3f}"
            lines.append(f"| {way} | {row['first']:.3f} | {row['standard_error']:.3f} | {deviation} |")
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


def picture(path: Path, samples: Samples) -> None:
    """The target of every task and the samples of some ways, a row each."""
    columns = max(map(len, PICTURED.values()))
    figure = Figure(figsize=(1.15 * columns, 1.3 * len(samples)), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(samples), columns, squeeze=False)
    for row, (title, drawn) in zip(grid, samples.items(), strict=True):
        names = [name for name in PICTURED[TASKS[title].kind] if name in drawn]
        for axes, name in zip(row, names, strict=False):
            color = ACCENT if name.startswith("peers") else INK
            axes.scatter(*drawn[name].T.numpy(), s=1, color=color, linewidths=0)
            axes.set(xlim=(-1.7, 1.7), ylim=(-1.7, 1.7), aspect="equal", xticks=[], yticks=[])
            axes.set_title(title if name == "target" else name, fontsize=7, pad=2)
        for axes in row[len(names) :]:
            axes.axis("off")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)


def main() -> None:
    """Prints the tables, or JSON, and draws the samples if a file is named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", action="store_true", help="trained networks instead of exact densities")
    parser.add_argument("--train", action="store_true", help="train the networks that are not in --folder")
    parser.add_argument("--folder", type=Path, default=Path("runs/plane-networks"), help="of the networks")
    parser.add_argument("-n", type=int, default=1000, help="number of samples")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS), metavar="NAME")
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS), metavar="NAME")
    parser.add_argument("--json", action="store_true", help="print {task: {sampler: {accuracy, chamfer, ...}}}")
    parser.add_argument("-o", "--out", type=Path, help="PNG file for a picture of the samples")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.networks and not (options.train or is_trained(options.folder)):
        parser.error(f"got no networks in {options.folder}; expected a finished checkpoint; add --train")
    components = Components.trained(options.folder) if options.networks or options.train else Components.exact()
    ways = {name: WAYS[name] for name in options.ways}
    tasks = {name: TASKS[name] for name in options.tasks}
    found, samples = compare(components, tasks, ways, n=options.n, seeds=options.seeds)
    if "summation_a" in tasks:
        found["weighted"] = shares(components, ways, n=options.n, seeds=options.seeds)
    print(json.dumps(found, indent=2) if options.json else table(found))
    if options.out is not None:
        picture(options.out, samples)


if __name__ == "__main__":
    main()
