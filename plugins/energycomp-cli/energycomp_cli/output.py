"""Output of the commands: JSON and tables, and rankings as either."""

from __future__ import annotations

import json
import math
import re
import warnings
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import typer

from energycomp.errors import InputError, first_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from torch import Tensor

    from energycomp.models import Model
    from energycomp_samplers import Ranking

TABLES = (".csv", ".npy", ".parquet")  # files of samples that are numbers


def check_table(model: Model, path: Path, option: str = "-o ") -> None:
    """Raises `InputError` where a file is not for the samples of a model, which are images or numbers."""
    from energycomp.images import is_picture

    if (path.suffix.lower() in TABLES) == is_picture(model.processor.sample_shape):
        expected = "a .png file" if path.suffix.lower() in TABLES else "one of numbers, such as samples.csv"
        raise InputError(f"got {option}{path} for samples of {model.name}; expected {expected}; name another")
    if path.suffix.lower() == ".parquet" and not (find_spec("pandas") and find_spec("pyarrow")):
        raise InputError(f"got {option}{path} without pandas and pyarrow; install them, or use a .csv or .npy file")


def save_numbers(numbers: Any, path: Path) -> None:
    """Samples (n, *shape) as a file, whole or not at all: .npy as they are, the others with a row for each."""
    import numpy as np

    from energycomp.files import atomic_file

    names = ["x" + "_".join(map(str, place)) for place in np.ndindex(numbers.shape[1:])]
    rows = numbers.reshape(len(numbers), -1)
    kind = path.suffix.lower()
    with atomic_file(path) as temporary, temporary.open("wb") as file:
        if kind == ".npy":
            np.save(file, numbers)
        elif kind == ".csv":
            np.savetxt(file, rows, fmt="%.9g", delimiter=",", header=",".join(names), comments="")
        else:
            import_module("pandas").DataFrame(rows, columns=names).to_parquet(file)


def read_numbers(path: Path, model: Model) -> Tensor:
    """The samples (n, *shape) of a file as `save_numbers` writes it. Names above the columns may be missing."""
    import numpy as np

    shape = model.processor.sample_shape
    kind = path.suffix.lower()
    check_table(model, path, "")
    try:
        with warnings.catch_warnings(action="error"):  # of an empty file
            if kind == ".csv":
                lines = path.read_text(encoding="utf-8-sig").splitlines()
                named = lines and not re.search(r'(?i)(^|,)["\s]*([-+.\d]|nan|inf)', lines[0])
                numbers = np.loadtxt(lines[bool(named) :], delimiter=",", comments=None, quotechar='"', ndmin=2)
            else:
                numbers = np.load(path) if kind == ".npy" else import_module("pandas").read_parquet(path).to_numpy()
        rows = numbers.astype(np.float32).reshape(len(numbers), *shape)
        if broken := [number for number, row in enumerate(rows, start=1) if not np.isfinite(row).all()]:
            raise InputError(f"row {broken[0]} has numbers that are not finite")  # noqa: TRY301 - said as the others
        return model.processor(rows)
    except Exception as error:  # NumPy and pandas raise nearly anything
        expected = f"{math.prod(shape)} finite numbers in each row; correct it"
        raise InputError(f"got {path}, which cannot be read ({first_line(error)}); expected {expected}") from error


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
