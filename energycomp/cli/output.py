"""Output of the commands: JSON and tables, and rankings as either."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from energycomp.inference import Ranking


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
