"""`energycomp separate`: an image that is the sum of several in, its sources beside each other out."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from energycomp.errors import EnergycompWarning, InputError
from energycomp_cli import ModelName, Png, Run, check_png, loading, parse_count, read_image, read_text

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from energycomp.models import Model
    from energycomp_samplers.separated import Separation

LEVEL = 0.9  # of intervals
SIDE = 192  # px, the least height of an image in the figure


def separate(
    run: Run,
    model: ModelName,
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="Image file, the sum of several images.")],
    components: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="COMPONENT",
            help="Component of each source: 0.3,0.5 or smiling. Without any: all that the model draws.",
        ),
    ] = None,
    noise: Annotated[
        float, typer.Option(help="Standard deviation of the noise of a pixel, above 0; brightness is in [0, 1].")
    ] = 0.02,
    brightness: Annotated[
        float, typer.Option(help="Factor of the brightness of each source: 0.5 for the mean of two images.")
    ] = 1.0,
    count: Annotated[
        str | None,
        typer.Option(
            help="Number of sources, 2, or the range in which it is searched, 1-3. Each is any of the components.",
            show_default="each component once",
        ),
    ] = None,
    n: Annotated[int, typer.Option("-n", min=2, max=10_000, help="Number of draws of the posterior.")] = 20,
    variance: Annotated[
        float | None,
        typer.Option(
            help="Variance of the pixels of a source, whose values are in [-1, 1]: above 0.",
            show_default="measured by 16 network evaluations",
        ),
    ] = None,
    out: Png = Path("sources.png"),
    steps: Annotated[int, typer.Option(min=1, help="Number of noise levels (num_inference_steps).")] = 50,
) -> None:
    """Take an image apart that is the sum of several, such as a double exposure or overlapping galaxies.

    ```sh
    energycomp separate clevr-places both.png "0.3,0.5" "0.7,0.6" --brightness 0.5 -o sources.png
    energycomp separate my-galaxies blend.png --count 1-6 --noise 0.05 -n 100 --json
    ```

    Objects that hide each other do not add up: `energycomp infer` finds these. The model must be one of pixels, such as
    clevr-places, or one that you trained.

    The PNG has three rows: the mean of each source, one draw, and the width of the 90 % interval of each pixel. Black
    is 0, and white the largest width, which stands beside the row. Fewer than 19 draws give a narrower interval, from
    the least to the greatest. The first column shows the image, the sum of the means, and what is not explained. Costs
    one network evaluation for each draw, source and step; a range of counts is a run for each.
    """
    # Read what was asked for, and load the model.
    check_png(out)
    with loading(model):
        import torch

        from energycomp.images import save_image, to_unit
        from energycomp_samplers.separated import most_level
        from energycomp_samplers.separation import separate as separated

        counts = parse_count(count)
        picture = read_image(image)
        loaded = run.load(model, reads={"COMPONENT": components or []})
    # One component, or all images, for each kind of source.
    values = [read_text(loaded, text, "COMPONENT") for text in components or []]
    sources: list[Any] = [loaded.compose(value) for value in values] or [loaded.unconditional]
    if counts is None and len(sources) == 1:
        raise InputError("got one source and no --count; expected two components, or --count 2 or --count 1-3")
    # Separate the image at the size of the model.
    y = to_unit(loaded.processor([picture]))[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EnergycompWarning)  # printed with the file's name instead
        found = separated(
            y,
            sources,
            noise=noise,
            count=counts,
            operators=brightness,
            covariances=variance,
            n=n,
            num_inference_steps=steps,
            generator=torch.Generator().manual_seed(run.seed),
        )
    for warning in found.warnings:
        typer.echo(f"energycomp: warning: {image}: {warning}", err=True)
    # Draw and print the sources, with intervals as wide as so many draws can tell.
    level = min(LEVEL, most_level(n))
    figure, cells = _figure(found, y, level, loaded)
    save_image(figure, out, cells=cells)
    _show(run, found, level, out)


def _figure(found: Separation, y: Tensor, level: float, model: Model) -> tuple[Image.Image, int]:
    """The image and its sources, and the number of its cells."""
    import torch

    from energycomp.images import from_unit, grid, to_output

    # The last row is scaled, since its numbers are small: the largest width is white.
    low, high = found.interval(level)
    widths = high - low
    residual = found.residual.cpu()
    largest = max(float(widths.max()), 1e-6)
    # Three rows: of the image in the first column, and of each source in the others.
    first = torch.stack([y, y - residual, residual.abs() / largest])
    each = torch.stack([found.mean, found.samples[0], widths / largest]).cpu()
    cells = torch.cat([first[:, None], each], dim=1).flatten(0, 1).clamp(0.0, 1.0)
    heads = ["image", *(name[:24] for name in found.names)]
    rows = ["mean", "draw", f"interval, 0 to {largest:.2g}"]
    framed = [model.shown(one, side=SIDE) for one in to_output(from_unit(cells), "pil")]
    return grid(framed, columns=1 + found.count, heads=heads, names=rows), len(cells)


def _show(run: Run, found: Separation, level: float, out: Path) -> None:
    """Prints the brightness of each source, and the posterior of the count."""
    # The brightness of a source is the mean of its pixels, in each draw
    low, high = found.interval(level, lambda z: z.flatten(1).mean(1))
    brightnesses = found.mean.flatten(1).mean(1).tolist()
    counts = ", ".join(f"{k} ({p:.3g})" for k, p in found.counts.items())
    lines = [f"{found.count} sources; probabilities of counts: {counts}"]
    listed = []
    for name, mean, below, above in zip(found.names, brightnesses, low.tolist(), high.tolist(), strict=True):
        listed.append({"source": name, "brightness": mean, "interval": [below, above]})
        lines.append(f"{name}: mean brightness {mean:.3g}, {100 * level:.0f} % interval {below:.3g} to {above:.3g}")
    report = {
        "path": str(out),
        "count": found.count,
        "counts": {str(k): p for k, p in found.counts.items()},
        "sources": listed,
        "level": round(level, 3),
        "residual": float(found.residual.square().mean().sqrt()),
        "warnings": list(found.warnings),
        "rows": found.report.evaluations,
    }
    run.show(report, [*lines, str(out)])
