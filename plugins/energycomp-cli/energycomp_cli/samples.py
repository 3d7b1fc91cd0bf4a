"""What `energycomp sample` draws, and what it says of it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import attrs
import typer

from energycomp.errors import InputError
from energycomp_cli.options import import_samplers
from energycomp_cli.output import ranking_record, wrong_components

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from PIL import Image

    from energycomp.models import Model
    from energycomp.sampling import Composer, SamplingReport
    from energycomp_samplers import BestSamples

ATTRIBUTES = "attributes"  # the guidance that changes components, and not their composition
CELL = 128  # px, the least shorter side of an image in a grid


def forecast_samples(composers: list[Composer], seed: int) -> tuple[dict[str, Any], list[str]]:
    """What to expect of the samples of compositions, as JSON and as lines."""
    forecast = import_samplers().forecast
    records = []
    lines = []
    for composer in composers:
        composition = repr(composer.composition)
        expected = forecast(composer.composition, generator=seed)
        records.append({"composition": composition, **attrs.asdict(expected)})
        lines.append(f"{composition}: {expected}")
    return {"forecasts": records}, lines


def _scale(name: str, scale: float | None, model: Model) -> float:
    """The scale of a guidance, that of the model where none is given; refuses one that changes nothing."""
    from energycomp.components import mixed_of

    if scale is None:
        scale = model.defaults.attribute_guidance if name == ATTRIBUTES else model.defaults.guidance_scale
    if mixed_of(model.conditioner) is None if name == ATTRIBUTES else scale == 1.0:
        raise InputError(
            f"got --guidance {name} with {model.name} at the scale {scale:g}, which changes nothing; expected a "
            f"scale such as {name}=2.0, and for {ATTRIBUTES} a model whose components have some"
        )
    return scale


def draw_samples(
    composers: list[Composer], n: int, best_of: int, model: Model, options: dict[str, Any]
) -> tuple[list[Any], dict[str, Any], list[str]]:
    """Samples, or the best of several, and what is reported of them as JSON and as lines."""
    from energycomp.components import per_sample
    from energycomp.sampling import Composer

    runs: list[SamplingReport] = []
    lines = [repr(composer.composition) for composer in composers]
    report: dict[str, Any] = {"composition": lines[0]} if len(lines) == 1 else {"compositions": [*lines]}
    if (name := options.get("guidance")) is not None:
        options["guidance_scale"] = _scale(name, options.get("guidance_scale"), model)
        report |= {"guidance": name, "guidance_scale": options["guidance_scale"]}
        lines.append(f"guidance {name}, scale {options['guidance_scale']:g}")
    composer = composers[0] if len(composers) == 1 else Composer(per_sample(composers))
    best: BestSamples | None = None
    if best_of == 1:
        images = composer.sample(n, report=runs.append, **options)
    else:
        best = import_samplers().sample_best(
            composer, n, best_of=best_of, until_complete=True, model=model, report=runs.append, **options
        )
        images = best.images
    for warning in dict.fromkeys(warning for run in runs for warning in run.warnings):
        typer.echo(f"energycomp: warning: {warning}", err=True)
    records = [attrs.asdict(run) | {"warnings": run.warnings} for run in runs]
    if best is None:
        return images, {**report, "report": records[0]}, [*lines, _cost(runs[0])]
    report["best_of"] = {
        "best_of": best_of,
        "complete": best.complete,
        "kept": [ranking_record(best.ranking, i) for i in best.kept],
        "dropped": [ranking_record(best.ranking, i) for i in best.dropped],
        "rows_per_sample": best.rows_per_sample,
        "reports": records,
    }
    return images, report, [*lines, *_best_lines(best)]


def _cost(run: SamplingReport) -> str:
    """What a sampler reports, in a line: what it cost, its least effective sample size, and how many it rejected."""
    parts = [f"{run.evaluations:,} network evaluations"]
    if run.ess:
        parts.append(f"effective sample size at least {min(run.ess):.0%} of the particles")
    if run.drawn is not None:
        parts.append(f"kept {run.kept} of {run.drawn} samples")
    return ", ".join(parts)


def _best_lines(best: BestSamples) -> list[str]:
    """Which samples were kept, in lines, and a warning on stderr where some of them lack a component."""

    def reasons(indices: Sequence[int]) -> str:
        counts = Counter(wrong_components(best.ranking, i) or "complete, of smaller least lift" for i in indices)
        return "; ".join(f"{count} {reason}" for reason, count in counts.most_common())

    n = len(best.kept)
    if best.complete < n:
        lacks = reasons(best.kept[best.complete :])
        typer.echo(f"energycomp: warning: {n - best.complete} of {n} kept samples: {lacks}; raise --best-of", err=True)
    complete = int(best.ranking.complete.sum())
    drawn = len(best.ranking.lift)
    return [
        f"kept {n} of {drawn} samples; {complete} show every component",
        *([f"dropped {len(best.dropped)}: {reasons(best.dropped)}"] if best.dropped else []),
        f"{best.rows_per_sample:,.0f} network evaluations per kept sample",
    ]


def save_samples(images: Sequence[Image.Image], files: list[Path], formula: dict[str, Any] | None) -> None:
    """Writes a file for each image, or one of all in a grid."""
    from energycomp.images import grid, save_image

    if len(files) < len(images):
        save_image(grid(images, side=CELL), files[0], cells=len(images), formula=formula)
        return
    for number, (image, file) in enumerate(zip(images, files, strict=True), start=1):
        of_several = {"number": number} if len(files) > 1 else {}
        save_image(image, file, formula=None if formula is None else {**formula, **of_several})
