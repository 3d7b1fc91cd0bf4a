"""Output of the commands: reports and answers as text or JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from energycomp.inference import Ranking, Solution
    from energycomp.models import Model


def print_report(report: Any, lines: Sequence[str], as_json: bool) -> None:
    """Prints the report as one line of JSON, or its text lines."""
    typer.echo(json.dumps(report) if as_json else "\n".join(lines))


def print_json(report: Any) -> None:
    """Prints indented JSON."""
    typer.echo(json.dumps(report, indent=2))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Prints rows of text under a header; no columns, no header. What is not text already is printed as it is."""
    from rich.console import Console

    from energycomp.images import rich_table

    Console().print(rich_table(columns, rows))


def solution_record(model: Model, solution: Solution) -> dict[str, Any]:
    """A solution as JSON: components as the conditioner describes them, each with its gain and probability."""
    import attrs

    from energycomp.inference import view_of

    if solution.view is None:  # of a function in place of `infer`
        solution = attrs.evolve(solution, view=view_of(model, solution.conditions, runner_up=solution.runner_up))
    return solution.record()


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


def wrong_components(ranking: Ranking, index: int) -> list[str]:
    """What is wrong with an image of a ranking: components that it lacks, and negated ones that it shows."""
    lacks = [f"without {name}" for name in ranking.missing[index]]
    return lacks + [f"with {name}" for name in ranking.unwanted[index]]
