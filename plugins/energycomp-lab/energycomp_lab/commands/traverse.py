"""`energycomp traverse`: what a dimension of a part's latent encodes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from energycomp.errors import InputError
from energycomp.progress import working
from energycomp_cli import ModelName, Png, Run, check_png, loading, read_image

if TYPE_CHECKING:
    from energycomp_lab.evaluation import Traversal

CELL = 96  # px, the least height of an image in a row of values


def traverse(
    run: Run,
    model: ModelName,
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="Image file to decompose.")],
    part: Annotated[int, typer.Option(min=0, help="Number of the part that changes, from 0.")],
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
) -> None:
    """Show what a dimension of a part's latent encodes: images with several values of it.

    ```sh
    energycomp traverse decomp scene.png --part 2 --dim 5 -o traverse.png
    energycomp traverse decomp scene.png --part 2 --dim 5 --from -1 --to 1 --steps 5
    energycomp traverse decomp scene.png --part 2 -o most.png
    ```

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

        from energycomp.decomposition import decomposer_of
        from energycomp.images import grid, save_image
        from energycomp_lab.evaluation import strongest_dimensions, traverse_dimension

        opened = read_image(image)
        loaded = run.load(model)
        decomposer = decomposer_of(loaded)
    batch = loaded.processor(opened)
    values = [start + (stop - start) * k / (steps - 1) for k in range(steps)]
    with working("energycomp: changing one dimension after another ..."):
        latents = decomposer.encode(batch)
        dims = strongest_dimensions(decomposer, latents, part, (start, stop), seed=run.seed) if dim is None else [dim]
        found = [traverse_dimension(decomposer, latents, part, place, values, seed=run.seed) for place in dims]
    cells = torch.cat([part for row in found for part in (batch.to(row.parts.whole), row.parts.whole)])
    heads = ["image", *(f"{value:.3g}" for value in values)]
    names = [f"dim {row.dim}" for row in found]
    save_image(grid(cells, columns=steps + 1, side=CELL, heads=heads, names=names), out, cells=len(cells))
    changes = [{"dim": row.dim, "changed": row.changed, "outside": row.outside} for row in found]
    shown: dict[str, Any] = {"dims": changes} if dim is None else changes[0]
    report = {"path": str(out), "part": part, **shown, "values": values}
    run.show(report, [*(_change(part, row) for row in found), str(out)])


def _change(part: int, found: Traversal) -> str:
    inside = found.changed
    outside = found.outside
    where = {"in the image": inside} if outside is None else {"in the part": inside, "outside of it": outside}
    shares = [f"{100 * share:.3g} % {place}" for place, share in where.items() if share is not None]
    return f"part {part}, dim {found.dim}: brightness changes by {', '.join(shares)}"
