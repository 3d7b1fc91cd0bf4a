"""`energycomp evaluate`: how well a model reads pictures whose components are known."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any

import typer

from energycomp.cli.options import (
    AsJson,
    Concepts,
    Device,
    Dtype,
    ModelName,
    Seed,
    Source,
    Template,
    from_source,
    load_model,
    over,
    parse_count,
    takes_words,
)
from energycomp.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from energycomp.decomposition import Decomposer
    from energycomp.evaluation import Report
    from energycomp.models import Model

__all__ = ["evaluate"]


def evaluate(
    model: ModelName,
    data: Annotated[
        str, typer.Option(help="What the dataset draws, such as synthetic:3-5, or a folder, or DIR:3-8.")
    ] = "synthetic",
    n: Annotated[int, typer.Option("-n", min=1, help="How many pictures at most.")] = 300,
    solver: Annotated[str | None, typer.Option(help="A registered solver; the model's own.")] = None,
    count: Annotated[
        str | None, typer.Option(help="Number of components: 4, 3-8, or true for that of each picture; unknown.")
    ] = None,
    dataset: Annotated[
        str | None, typer.Option("--source", help="A registered dataset; the one of the model's name.")
    ] = None,
    source: Source = None,
    dtype: Dtype = None,
    concepts: Concepts = None,
    template: Template = None,
    samples: Annotated[
        int, typer.Option(min=0, help="How many scenes of the model's own are judged, where it makes any; 0 for none.")
    ] = 500,
    seed: Seed = 0,
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """Measure how well a model reads pictures or takes them apart, with 95 % intervals over pictures.

    energycomp evaluate clevr --data synthetic:3-5 -n 300

    energycomp evaluate clevr --data CLEVR_v1.0:3-8 --count true --json

    energycomp evaluate faces --data synthetic:shifted -n 300

    energycomp evaluate decomp -n 200 --json

    energycomp evaluate text --data PHOTOS --model FOLDER --count true

    Where a model makes scenes of its own and the dataset can judge them, they are part of the report.
    """
    from energycomp.decomposition import takes_apart
    from energycomp.evaluation import evaluate as run
    from energycomp.evaluation import evaluate_parts
    from energycomp.plugins import find

    known = parse_count(count, true=True)
    chosen = None if solver is None else find("solvers", solver)()
    loaded = load_model(model, device, **from_source(source, dtype))
    examples = find("datasets", dataset or loaded.name)()
    if takes_words(loaded) and hasattr(examples, "concepts"):
        loaded = over(loaded, concepts or ",".join(examples.concepts(data)), template)
        _check_known(loaded, examples.concepts(data))
    else:
        loaded = over(loaded, concepts, template)
    if hasattr(examples, "adapted"):
        examples = examples.adapted(loaded.conditioner)
    shown, metrics = examples.examples(data, count=n, seed=seed), examples.metrics()
    if not takes_apart(loaded):
        report = run(loaded, shown, metrics, solver=chosen, count=known, seed=seed, data=data)
    elif chosen is not None or known is not None:
        raise InputError(f"got --solver or --count with {model}, which takes pictures apart; leave them out")
    else:
        scenes = _scene_scores(loaded, examples, count=samples, seed=seed)
        report = evaluate_parts(loaded, shown, metrics, seed=seed, data=data, scenes=scenes)
    if as_json:
        import json

        typer.echo(json.dumps(report.as_dict(), indent=2))
    else:
        _print_table(report)


def _check_known(model: Model, shown: Sequence[str]) -> None:
    """What pictures show must be among the concepts, or it could never be found."""
    known: Any = model.conditioner
    if missing := [name for name in shown if name not in known.concepts]:
        raise InputError(
            f"got pictures of {missing[0]}, which is not among the concepts {', '.join(known.concepts)}; expected all "
            "that the pictures show; add it to --concepts, or leave --concepts out"
        )


def _scene_scores(
    model: Model, source: Any, *, count: int, seed: int
) -> Callable[[Decomposer], Mapping[str, float]] | None:
    """What measures scenes of the model's own; None where it makes none, or the dataset cannot judge them."""
    from energycomp.decomposition import sampler_of

    score = getattr(source, "scene_scores", None)
    if score is None or not count or sampler_of(model) is None:
        return None
    return lambda decomposer: score(decomposer, count=count, seed=seed)


def _print_table(report: Report) -> None:
    from rich.console import Console
    from rich.table import Table

    def shown(value: float) -> str:
        return "" if math.isnan(value) else f"{value:.4g}"

    table = Table("", "value", "95 % interval")
    for name, value in report.values.items():
        ends = report.intervals.get(name)
        interval = f"{shown(ends[0])} to {shown(ends[1])}" if ends and not math.isnan(ends[0]) else ""
        table.add_row(name.replace("_", " "), shown(value), interval)
    if report.rows_per_image:
        table.add_row("rows per image", f"{report.rows_per_image:,.0f}")
    table.add_row("seconds per image", f"{report.seconds_per_image:.2f}")
    typer.echo(f"{report.model} on {report.data}, {report.images} images, solver {report.solver}, seed {report.seed}")
    Console().print(table)
