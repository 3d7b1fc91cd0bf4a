"""`energycomp traverse`: images as one dimension of a part's latent changes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from energycomp.cli.decompose import open_images
from energycomp.cli.files import check_png, save_png
from energycomp.cli.options import AsJson, Device, ModelName, Png, Seed, Views, loading
from energycomp.cli.output import print_report
from energycomp.errors import InputError
from energycomp.progress import working

if TYPE_CHECKING:
    from energycomp.decomposition import Traversal


def traverse(
    model: ModelName,
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="Image file to decompose.")],
    part: Annotated[int, typer.Option("--part", "--slot", min=0, help="Number of the part that changes, from 0.")],
    dim: Annotated[
        int | None,
        typer.Option(
            min=0, help="Dimension of the part's latent, from 0.", show_default="the six that change the image most"
        ),
    ] = None,
    start: Annotated[float, typer.Option("--from", help="First value of the dimension.")] = -2.0,
    stop: Annotated[float, typer.Option("--to", help="Last value of the dimension.")] = 2.0,
    steps: Annotated[
        int, typer.Option(min=2, max=64, help="Number of values, evenly spaced from the first to the last.")
    ] = 7,
    out: Png = Path("traverse.png"),
    views: Views = None,
    seed: Seed = 0,
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """Show what a dimension of a part's latent encodes: images with several values of it.

    energycomp traverse decomp scene.png --part 2 --dim 5 -o traverse.png

    energycomp traverse decomp scene.png --part 2 --dim 5 --from -1 --to 1 --steps 5

    energycomp traverse decomp scene.png --part 2 -o most.png

    The PNG has one row per dimension: the image, then the reconstruction at each value. The report gives the mean
    change of brightness from the first value to the last, as a share of its range, inside and outside the part's
    mask. Without --dim, every dimension is tried at both ends, and the six that change the image most are shown.
    Parts are numbered from 0, as `energycomp decompose` shows them.
    """
    check_png(out)
    if not (math.isfinite(start) and math.isfinite(stop)) or start == stop:
        raise InputError(f"got --from {start:g} and --to {stop:g}; expected two finite numbers that differ")
    with loading(model):
        import torch

        from energycomp.decomposition import strongest_dimensions, traverse_dimension
        from energycomp.images import traversal

        opened, loaded, decomposer = open_images([image], model, device, views)
    batch = loaded.processor(opened)
    values = [start + (stop - start) * k / (steps - 1) for k in range(steps)]
    with working("energycomp: changing one dimension after another ..."):
        latents = decomposer.encode(batch)
        dims = strongest_dimensions(decomposer, latents, part, (start, stop), seed=seed) if dim is None else [dim]
        found = [traverse_dimension(decomposer, latents, part, place, values, seed=seed) for place in dims]
    whole = torch.stack([row.parts.whole for row in found])
    figure = traversal(batch, whole, values=values, names=[f"dim {row.dim}" for row in found])
    save_png(figure, out, cells=len(found) * (steps + 1))
    changes = [{"dim": row.dim, "changed": row.changed, "outside": row.outside} for row in found]
    shown: dict[str, Any] = {"dims": changes} if dim is None else changes[0]
    report = {"path": str(out), "part": part, **shown, "values": values, "seed": seed}
    print_report(report, [*(_line(part, row) for row in found), str(out)], as_json)


def _line(part: int, found: Traversal) -> str:
    inside, outside = found.changed, found.outside
    where = {"in the image": inside} if outside is None else {"in the part": inside, "outside of it": outside}
    shares = [f"{100 * share:.3g} % {place}" for place, share in where.items() if share is not None]
    return f"part {part}, dim {found.dim}: brightness changes by {', '.join(shares)}"
