"""Output of the commands: JSON and tables, and rankings as either."""

from __future__ import annotations

import json
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import typer

from energycomp.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from energycomp.inference import Ranking
    from energycomp.models import Model

TABLES = (".csv", ".npy", ".parquet")  # files of samples that are numbers


def check_table(model: Model, path: Path) -> None:
    """Raises `InputError` where a file is not for the samples of a model, which are images or numbers."""
    from energycomp.images import is_picture

    if (path.suffix.lower() in TABLES) == is_picture(model.processor.sample_shape):
        expected = "a .png file" if path.suffix.lower() in TABLES else "one of numbers, such as samples.csv"
        raise InputError(f"got -o {path} for samples of {model.name}; expected {expected}; change -o")
    if path.suffix.lower() == ".parquet" and not (find_spec("pandas") and find_spec("pyarrow")):
        raise InputError(f"got -o {path} without pandas and pyarrow; install them, or write a .csv or .npy file")


def save_numbers(numbers: Any, path: Path) -> None:
    """Samples (n, *shape) as a file, whole or not at all: .npy as they are, the others with a row for each."""
    import numpy as np

    from energycomp.files import atomic_file

    names = ["x" + "_".join(map(str, place)) for place in np.ndindex(numbers.shape[1:])]
    rows, kind = numbers.reshape(len(numbers), -1), path.suffix.lower()
    with atomic_file(path) as temporary, temporary.open("wb") as file:
        if kind == ".npy":
            np.save(file, numbers)
        elif kind == ".csv":
            np.savetxt(file, rows, fmt="%.9g", delimiter=",", header=",".join(names), comments="")
        else:
            import_module("pandas").DataFrame(rows, columns=names).to_parquet(file)


def print_json(report: Any) -> None:
    """Prints indented JSON."""
    typer.echo(json.dumps(report, indent=2))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Prints rows of text under a header; no columns, no header. What is not text already is printed as it is."""
    from rich.console import Console

    from energycomp.images import rich_table

    Console().print(rich_table(columns, rows))


def ranking_record(ranking: Ranking, index: int) -> dict[str, Any]:
    """What one image of a ranking shows, as JSON."""
    columns = zip(
        ranking.components, ranking.negated, ranking.lift[index].tolist(), ranking.stderr[index].tolist(),
        ranking.p_value[index].tolist(), ranking.shown[index].tolist(), strict=True,
    )  # fmt: skip
    keys = ("component", "negated", "lift", "stderr", "p_value", "shown")
    return {
        "complete": bool(ranking.complete[index]),
        "lifts": [dict(zip(keys, column, strict=True)) for column in columns],
        "missing": list(ranking.missing[index]),
        "unwanted": list(ranking.unwanted[index]),
    }


def wrong_components(ranking: Ranking, index: int) -> str:
    """What is wrong with an image of a ranking: components that it lacks, and negated ones that it shows."""
    lacks = [f"without {name}" for name in ranking.missing[index]]
    return ", ".join(lacks + [f"with {name}" for name in ranking.unwanted[index]])
