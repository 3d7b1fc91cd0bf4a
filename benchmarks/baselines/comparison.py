"""Methods on the same images: their answers as JSON Lines, a table with paired differences, and a bar chart."""

from __future__ import annotations

import argparse
import hashlib
import re
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import attrs
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torchmetrics import Metric
from tqdm import tqdm

from benchmarks.baselines.networks import kept
from benchmarks.baselines.places import MOST, PlaceSet
from benchmarks.common.measure import table, write
from energycomp import Model, infer
from energycomp.components import Conditioner
from energycomp.errors import InputError
from energycomp.images import to_unit
from energycomp.inference import OutOfDistributionWarning, Solver
from energycomp.seeds import derived_seed
from energycomp_cli import append_line, read_lines
from energycomp_lab.evaluation import Example, true_values

Reader = Callable[[Tensor, int, torch.Generator], tuple[Tensor, int]]  # picture, count: places (K, 2), rows


@attrs.frozen
class Method:
    """A row of a table.

    Args:
        key: what records call it; it names every setting that changes an answer.
        label: what the table calls it.
        pictures: how many it reads.
        readers: makers of one reader for each training seed.
    """

    key: str
    label: str
    pictures: int
    readers: tuple[Callable[[], Reader], ...]


def composed(model: Model, solver: Solver, *, known: bool = True) -> Reader:
    """Our own model under a solver, told the number of objects or not."""

    def read(image: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, int]:
        return _infer(image, model, solver, count if known else None, generator)

    return read


def joint(model: Model, solver: Solver) -> Reader:
    """A generative classifier: its one value is the set of as many places as the picture has (thesis alg. 5)."""

    def read(image: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, int]:
        asked = attrs.evolve(model, conditioner=PlaceSet(min(count, MOST)))
        places, rows = _infer(image, asked, solver, 1, generator)
        return places[0], rows

    return read


def regressed(network: nn.Module, *, known: bool = True) -> Reader:
    """A network that puts out padded places; told the number of objects, the outputs farthest from (1, 1) stay."""

    @torch.no_grad()
    def read(image: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, int]:
        return kept(network(image[None], generator)[0], count if known else None), 1

    return read


def _infer(
    image: Tensor, model: Model, solver: Solver, count: int | None, generator: torch.Generator
) -> tuple[Tensor, int]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OutOfDistributionWarning)  # how wrong the answers are is what is measured
        solution = infer(to_unit(image), model, solver=solver, count=count, generator=generator)
    return solution.conditions.detach(), solution.rows


RESAMPLES = 2000


@attrs.frozen(eq=False)
class Answer:
    """Places found in one picture, (K', 2) for each training seed of a method, and the true ones (K, 2)."""

    found: tuple[Tensor, ...]
    true: Tensor


def score(metric: Metric, answers: Sequence[Answer]) -> float:
    """The metric over all pictures and training seeds."""
    return float(_resampled(metric, answers, torch.ones(1, len(answers), dtype=torch.float64)))


def paired_difference(
    metric: Metric, answers: Sequence[Answer], others: Sequence[Answer], *, seed: int = 0, level: float = 0.95
) -> tuple[float, float, float]:
    """metric(answers) - metric(others), and the ends of its percentile bootstrap interval (Efron, 1979).

    Both are resampled by the same pictures, so that what makes a picture hard cancels.

    Args:
        metric: a function of sums over pictures, as those of `energycomp_lab.evaluation.scene_metrics`.
        answers, others: of the same pictures in the same order.
    """
    if len(answers) != len(others) or any(
        not torch.equal(a.true, b.true) for a, b in zip(answers, others, strict=True)
    ):
        raise InputError(f"got answers for {len(answers)} and {len(others)} pictures; expected the same pictures")
    size = len(answers)
    drawn = torch.randint(size, (RESAMPLES, size), generator=torch.Generator().manual_seed(seed))
    weights = torch.zeros(RESAMPLES, size, dtype=torch.float64)
    weights.scatter_add_(1, drawn, torch.ones_like(weights))
    gaps = _resampled(metric, answers, weights) - _resampled(metric, others, weights)
    tails = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=gaps.dtype)
    low, high = torch.nanquantile(gaps, tails).tolist()
    return score(metric, answers) - score(metric, others), low, high


def _resampled(metric: Metric, answers: Sequence[Answer], weights: Tensor) -> Tensor:
    """The metric (W,) under weightings of the pictures (W, N)."""
    parts = []
    for answer in answers:
        one = metric.clone()
        one.reset()
        one.update(list(answer.found), [answer.true] * len(answer.found))
        parts.append(one)
    states, total = [one.metric_state for one in parts], parts[0].clone()
    for name in states[0]:
        setattr(total, name, weights @ torch.stack([cast("Tensor", state[name]).double() for state in states]))
    value: Tensor = total.compute()
    return value


Record = dict[str, Any]  # `found` of each training seed, `true`, `rows` and CPU `seconds` of one picture
COLOURS = ("#d1495b", "#9aa0a6", "#4c78a8", "#72a98f")


@attrs.frozen
class Column:
    """A metric of a table and how its figures look."""

    name: str
    metric: Metric
    form: str = ".3f"


def fingerprint(model: Model) -> str:
    """A digest of the weights of a model's network: stored results of other weights are not reused."""
    digest = hashlib.sha256()
    for tensor in model.denoiser.network.state_dict().values():
        digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]


def compare(
    chosen: Sequence[Method],
    examples_of: Callable[[str], Sequence[Example]],
    columns: Sequence[Column],
    options: argparse.Namespace,
    *,
    conditioner: Conditioner,
    shape: Sequence[int],
    name: str,
    note: Callable[[dict[str, dict[str, list[Record]]]], str],
) -> None:
    """Writes NAME.md and NAME.png of what the methods find in all data of the options; a value has this shape."""
    answers, rows = dict[str, dict[str, list[Record]]](), list[list[str]]()
    for data in options.data:
        path = options.out / f"{re.sub(r'[^0-9A-Za-z.-]+', '_', data)}-{options.seed}.jsonl"
        answers[data] = read_all(
            chosen, examples_of(data), path, conditioner=conditioner, title=data, seed=options.seed
        )
        rows += table_rows(chosen, data, answers[data], columns, shape=shape, seed=options.seed)
    first, *others = [column.name for column in columns]
    head = ["data", "method", "n", first, "minus ours (95 %)", *others, "NFE", "CPU s"]
    write(options.out / name, table(head, rows, note(answers)), bars(chosen, answers, columns[0], shape))


def read_all(
    chosen: Sequence[Method], examples: Sequence[Example], path: Path, conditioner: Conditioner, title: str, seed: int
) -> dict[str, list[Record]]:
    """The records of every method by its key; those in the file are not made again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    known = {(record["method"], record["index"]): record for record in read_lines(path)}
    for method in chosen:
        missing = [k for k in range(min(method.pictures, len(examples))) if (method.key, k) not in known]
        readers = [make() for make in method.readers] if missing else []
        for index in tqdm(missing, desc=f"{title}: {method.label}", file=sys.stderr):
            record = _read_one(readers, examples[index], conditioner, derived_seed(seed, method.key, index))
            known[method.key, index] = {"method": method.key, "index": index, **record}
            append_line(path, known[method.key, index])
    return {method.key: [known[method.key, k] for k in range(min(method.pictures, len(examples)))] for method in chosen}


def _read_one(readers: Sequence[Reader], example: Example, conditioner: Conditioner, seed: int) -> Record:
    """What the readers of one method find in a picture; rows and seconds are means over them."""
    true = true_values(example, conditioner)
    found, rows, started = [], 0, time.process_time()
    for read in readers:
        values, spent = read(example.image, len(true), torch.Generator().manual_seed(seed))
        found.append(values.tolist())
        rows += spent
    seconds = (time.process_time() - started) / len(readers)
    return {"found": found, "true": true.tolist(), "rows": rows / len(readers), "seconds": seconds}


def answered(records: Sequence[Record], shape: Sequence[int], training: slice = slice(None)) -> list[Answer]:
    """Records as answers, of some training seeds; a value has this shape."""

    def values(listed: list[Any]) -> torch.Tensor:
        return torch.tensor(listed, dtype=torch.float32).reshape(-1, *shape)

    return [Answer(tuple(map(values, r["found"][training])), values(r["true"])) for r in records]


def table_rows(
    chosen: Sequence[Method],
    data: str,
    records: dict[str, list[Record]],
    columns: Sequence[Column],
    *,
    shape: Sequence[int],
    seed: int,
) -> list[list[str]]:
    """One row a method; the first method is ours, and the difference to it is over the pictures that both read."""
    first, *others = columns
    rows = []
    for method in chosen:
        own = records[method.key]
        answers, ours = answered(own, shape), answered(records[chosen[0].key][: len(own)], shape)
        rate = f"{score(first.metric, answers):{first.form}}"
        if (runs := len(method.readers)) > 1:
            each = [score(first.metric, answered(own, shape, slice(k, k + 1))) for k in range(runs)]
            rate += f" ({min(each):{first.form}} to {max(each):{first.form}})"
        gap, low, high = paired_difference(first.metric, answers, ours, seed=seed)
        rows.append([
            data, method.label, str(len(own)), rate,
            "" if method is chosen[0] else f"{gap:+{first.form}} ({low:+{first.form}} to {high:+{first.form}})",
            *[f"{score(column.metric, answers):{column.form}}" for column in others],
            f"{_mean(own, 'rows'):,.0f}", f"{_mean(own, 'seconds'):.2g}",
        ])  # fmt: skip
    return rows


def _mean(records: Sequence[Record], name: str) -> float:
    return float(sum(record[name] for record in records)) / len(records)


def bars(
    chosen: Sequence[Method], answers: dict[str, dict[str, list[Record]]], column: Column, shape: Sequence[int]
) -> Figure:
    """A metric of every method, a bar for each data."""
    figure = Figure(figsize=(7.2, 0.7 + 0.45 * len(chosen)), layout="constrained", facecolor="white")
    axes, thick = figure.subplots(), 0.8 / len(answers)
    for row, (data, records) in enumerate(answers.items()):
        rates = [score(column.metric, answered(records[method.key], shape)) for method in chosen]
        places = [k + (row - (len(answers) - 1) / 2) * thick for k in range(len(chosen))]
        drawn = axes.barh(places, rates, thick, color=COLOURS[row % len(COLOURS)], label=data)
        axes.bar_label(drawn, fmt="%.2f", fontsize=7, padding=2)
    axes.set_yticks(range(len(chosen)), [method.label for method in chosen], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.08)
    axes.set_xlabel(column.name)
    figure.legend(frameon=False, fontsize=8, loc="outside upper center", ncols=len(answers))
    axes.spines[["top", "right"]].set_visible(False)
    return figure
