"""Run methods on the same images: answers as JSON Lines, a table row per method, and a bar chart."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import torch
from matplotlib.figure import Figure
from torchmetrics import Metric
from tqdm import tqdm

from benchmarks.baselines.readers import Method, Reader
from benchmarks.baselines.scores import Answer, paired_difference, score
from energycomp.cli import append_line, read_lines
from energycomp.components import Conditioner
from energycomp.seeds import derived_seed
from energycomp_lab.evaluation import Example, true_values

__all__ = ["Column", "Record", "answered", "bars", "head", "read_all", "table_rows"]

Record = dict[str, Any]  # `found` of each training seed, `true`, `rows` and CPU `seconds` of one picture
COLOURS = ("#d1495b", "#9aa0a6", "#4c78a8", "#72a98f")


@attrs.frozen
class Column:
    """A metric of a table and how its figures look."""

    name: str
    metric: Metric
    form: str = ".3f"


def read_all(
    chosen: Sequence[Method],
    examples: Sequence[Example],
    path: Path,
    *,
    conditioner: Conditioner,
    title: str,
    seed: int,
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


def head(columns: Sequence[Column]) -> list[str]:
    """Names of what `table_rows` gives."""
    first, *others = [column.name for column in columns]
    return ["data", "method", "n", first, "minus ours (95 %)", *others, "NFE", "CPU s"]


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
