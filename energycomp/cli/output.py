"""Output of the commands: reports and answers as text or JSON."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import attrs
import typer

from energycomp.cli.results import redrawn_file
from energycomp.errors import InputError
from energycomp.progress import over_bar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from energycomp.inference import BestSamples, Ranking, Solution
    from energycomp.models import Model
    from energycomp.sampling import SamplingReport


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
    from energycomp.inference import view_of

    if solution.view is None:  # of a function in place of `infer`
        solution = attrs.evolve(solution, view=view_of(model, solution.conditions, runner_up=solution.runner_up))
    return solution.record()


def print_warnings(runs: Sequence[SamplingReport]) -> None:
    """Prints the warnings of samplers on stderr, each once."""
    for warning in dict.fromkeys(warning for run in runs for warning in run.warnings):
        typer.echo(f"energycomp: warning: {warning}", err=True)


def run_record(run: SamplingReport) -> dict[str, Any]:
    """What a sampler reports, as JSON."""
    return attrs.asdict(run) | {"warnings": run.warnings}


def run_line(run: SamplingReport) -> str:
    """What a sampler reports, in a line: what it cost, its least effective sample size, and how many it rejected."""
    said = [f"{run.evaluations:,} network evaluations"]
    said += [f"effective sample size at least {min(run.ess):.0%} of the particles"] if run.ess else []
    said += [f"kept {run.kept} of {run.drawn} samples"] if run.drawn is not None else []
    return ", ".join(said)


def best_record(best: BestSamples) -> dict[str, Any]:
    """Which samples were kept, and what each shows, as JSON."""
    return {
        "complete": best.complete,
        "kept": [ranking_record(best.ranking, i) for i in best.kept],
        "dropped": [ranking_record(best.ranking, i) for i in best.dropped],
        "rows_per_sample": best.rows_per_sample,
    }


def best_lines(best: BestSamples) -> list[str]:
    """Which samples were kept, in lines, and a warning on stderr where some of them lack a component."""
    n = len(best.kept)
    if best.complete < n:
        lacks = _reasons(best.ranking, best.kept[best.complete :])
        typer.echo(f"energycomp: warning: {n - best.complete} of {n} kept samples: {lacks}; raise --best-of", err=True)
    complete, drawn = int(best.ranking.complete.sum()), len(best.ranking.lift)
    kept = f"kept {n} of {drawn} samples; {complete} show every component"
    dropped = [f"dropped {len(best.dropped)}: {_reasons(best.ranking, best.dropped)}"] if best.dropped else []
    return [kept, *dropped, f"{best.rows_per_sample:,.0f} network evaluations per kept sample"]


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


def _reasons(ranking: Ranking, indices: Sequence[int]) -> str:
    """How many of some images lack or wrongly show which components, or are complete and of a smaller least lift."""
    counts = Counter(", ".join(wrong_components(ranking, i)) or "complete, of smaller least lift" for i in indices)
    return "; ".join(f"{count} {reason}" for reason, count in counts.most_common())


@attrs.frozen
class Printer:
    """Prints the record of an image: a table, JSON or a scene record; its warnings, and its files.

    Args:
        folder: of the files; None for none.
        redraw: whether there is a file of samples.
        scene_record: what writes the objects of an image in the layout of a dataset.
        as_json: prints JSON.
    """

    folder: Path | None
    redraw: bool
    scene_record: Callable[[list[dict[str, Any]], str], Any] | None
    as_json: bool

    @classmethod
    def of(cls, folder: Path | None, *, redraw: bool, records: str | None, as_json: bool) -> Printer:
        """The printer of the options --redraw, --format and --json; raises `InputError` where they do not fit."""
        if redraw and folder is None:
            raise InputError("got --redraw without a folder; expected one for the images, such as -o out")
        if records is not None and as_json:
            raise InputError("got --format and --json; expected one of them, since both print a line of JSON per image")
        return cls(folder, redraw, None if records is None else _scene_record(records), as_json)

    def __call__(self, image: str, name: str, record: dict[str, Any]) -> None:
        """Prints the record of an image, or why it could not be read."""
        with over_bar():
            if "failed" in record:
                typer.echo(f"energycomp: {record['failed']}", err=True)
                if self.as_json:
                    typer.echo(json.dumps(record))
                return
            for warning in record.get("warnings", ()):  # a line of an earlier version has none
                typer.echo(f"energycomp: warning: {image}: {warning}", err=True)
            if self.scene_record is not None:
                typer.echo(json.dumps(self.scene_record(record["objects"], name)))
            elif self.as_json:
                typer.echo(json.dumps(record))
            else:
                self._print(image, record)

    def _print(self, image: str, record: dict[str, Any]) -> None:
        from energycomp.inference import answer_cells, answer_line

        typer.echo(image)
        if record["objects"]:
            print_table(*answer_cells(record["objects"]))
        typer.echo(answer_line(record))
        if self.folder is not None and record["picture"]:
            typer.echo(str(self.folder / record["picture"]))
        if self.folder is not None and self.redraw:
            typer.echo(str(redrawn_file(self.folder, record)))


def _scene_record(name: str) -> Callable[[list[dict[str, Any]], str], Any]:
    from energycomp.inference import HasSceneRecords
    from energycomp.plugins import find

    source = find("datasets", name)()
    if not isinstance(source, HasSceneRecords):
        raise InputError(f"got --format {name}, a dataset without scene records; expected one with them, such as clevr")
    return source.scene_record
