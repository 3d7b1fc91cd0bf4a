"""The samples of `energycomp sample`, the best of several where that is asked for, and what is reported of them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import attrs
import typer

from energycomp.cli.output import ranking_record, wrong_components

if TYPE_CHECKING:
    from collections.abc import Sequence

    from energycomp.inference import Ranking
    from energycomp.models import Model
    from energycomp.sampling import Composer, SamplingReport


def sampled(
    composers: list[Composer], n: int, best: tuple[int, bool], model: Model, options: dict[str, Any], with_report: bool
) -> tuple[list[Any], dict[str, Any], list[str]]:
    """Samples, the best of several where that is asked for; what is reported of them as JSON and as lines."""
    from energycomp.components import per_sample
    from energycomp.inference import sample_best
    from energycomp.sampling import Composer

    best_of, until_complete = best
    notes = [repr(composer.composition) for composer in composers]
    report: dict[str, Any] = {"composition": notes[0]} if len(notes) == 1 else {"compositions": [*notes]}
    composer = composers[0] if len(composers) == 1 else Composer(per_sample(composers))

    def noted(run: SamplingReport) -> None:
        for warning in run.warnings:
            typer.echo(f"energycomp: warning: {warning}", err=True)
        if with_report:
            report["report"] = attrs.asdict(run) | {"warnings": run.warnings}
            notes.append(json.dumps(report["report"]))

    if best_of == 1:
        return composer.sample(n, report=noted, **options), report, notes
    chosen = sample_best(
        composer, n, best_of=best_of, until_complete=until_complete, model=model, report=noted, **options
    )
    report["best_of"] = {
        "best_of": best_of,
        "complete": chosen.complete,
        "kept": [ranking_record(chosen.ranking, i) for i in chosen.kept],
        "dropped": [ranking_record(chosen.ranking, i) for i in chosen.dropped],
        "rows_per_sample": chosen.rows_per_sample,
    }
    if chosen.complete < n:
        lacks = _reasons(chosen.ranking, chosen.kept[chosen.complete :])
        typer.echo(
            f"energycomp: warning: {n - chosen.complete} of {n} kept samples: {lacks}; raise --best-of", err=True
        )
    complete, drawn = int(chosen.ranking.complete.sum()), len(chosen.ranking.lift)
    kept = f"kept {n} of {drawn} samples; {complete} show every component"
    dropped = [f"dropped {len(chosen.dropped)}: {_reasons(chosen.ranking, chosen.dropped)}"] if chosen.dropped else []
    cost = f"{chosen.rows_per_sample:,.0f} network evaluations per kept sample"
    return chosen.images, report, [*notes, kept, *dropped, cost]


def _reasons(ranking: Ranking, indices: Sequence[int]) -> str:
    """How many of some images lack or wrongly show which components, or are complete and of a smaller least lift."""
    from collections import Counter

    counts = Counter(", ".join(wrong_components(ranking, i)) or "complete, of smaller least lift" for i in indices)
    return "; ".join(f"{count} {reason}" for reason, count in counts.most_common())
