"""`energycomp traverse`: what the numbers of a part's latent mean, seen in pictures as one of them changes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from energycomp.cli.decompose import check_out, open_pictures, print_report, save_png
from energycomp.cli.options import AsJson, Device, ModelName, Seed, make_folder
from energycomp.errors import InputError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from energycomp.decomposition import Decomposer, Parts

__all__ = ["traverse"]

MOST = 6  # numbers that are shown where none is named
CHUNK = 32  # pictures at a time


def traverse(
    model: ModelName,
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="The picture to take apart.")],
    part: Annotated[int, typer.Option("--part", "--slot", min=0, help="Which part changes, counted from 0.")],
    dim: Annotated[
        int | None, typer.Option(min=0, help="Which number of its latent, from 0; those that change the picture most.")
    ] = None,
    start: Annotated[float, typer.Option("--from", help="The first value that it is set to.")] = -2.0,
    stop: Annotated[float, typer.Option("--to", help="The last one.")] = 2.0,
    steps: Annotated[int, typer.Option(min=2, max=64, help="How many values, evenly spaced.")] = 7,
    out: Annotated[Path, typer.Option("-o", "--out", help="The PNG to write.")] = Path("traverse.png"),
    seed: Seed = 0,
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """Set one number of one part's latent to several values, and see what it means.

    energycomp traverse decomp scene.png --part 2 --dim 5 -o traverse.png

    energycomp traverse decomp scene.png --part 2 --dim 5 --from -1 --to 1 --steps 5

    Parts have the numbers, from 0, in which `energycomp decompose` shows them. The strip is the picture, then what all
    parts make together at each value. The report says how much brightness changes from the first value to the last, as
    a share of its range, in the pixels of the part and outside of them: a number of one part leaves the others alone.

    energycomp traverse decomp scene.png --part 2 -o most.png

    Without --dim every number is tried at both ends, and the strip has a row for each of the six that change most.
    """
    import torch

    from energycomp.viz import traversal

    check_out(out)
    if not (math.isfinite(start) and math.isfinite(stop)) or start == stop:
        raise InputError(f"got --from {start:g} and --to {stop:g}; expected two finite numbers that differ")
    pictures, loaded, decomposer = open_pictures([image], model, device)
    picture = loaded.processor(pictures)
    latents = decomposer.encode(picture)
    _check(latents, part, dim)
    values = [start + (stop - start) * k / (steps - 1) for k in range(steps)]
    dims = _strongest(decomposer, latents, part, (start, stop), seed) if dim is None else [dim]
    found = [_shown(decomposer, latents, part, place, values, seed) for place in dims]
    make_folder(out.parent, "-o")
    save_png(traversal(picture, torch.stack([parts.whole for parts in found])), out)
    changes = [{"dim": place, **_change(parts, part)} for place, parts in zip(dims, found, strict=True)]
    shown: dict[str, Any] = {"dims": changes} if dim is None else changes[0]
    report = {"path": str(out), "part": part, **shown, "values": values, "seed": seed}
    print_report(report, [*(_line(part, change) for change in changes), str(out)], as_json)


def _check(latents: Tensor, part: int, dim: int | None) -> None:
    count, width = latents.shape[1:]
    if part >= count:
        raise InputError(f"got --part {part} of a picture of {count} parts; expected 0 to {count - 1}")
    if dim is not None and dim >= width:
        raise InputError(f"got --dim {dim} of latents of {width} numbers; expected 0 to {width - 1}")


def _strongest(decomposer: Decomposer, latents: Tensor, part: int, ends: tuple[float, float], seed: int) -> list[int]:
    """The numbers of a part between whose ends the picture changes most, most first."""
    import torch

    from energycomp.decomposition import traverse as change

    width = latents.shape[2]
    both = torch.cat([end for place in range(width) for end in change(latents, part, place, ends)])
    chunks = both.split(CHUNK)
    made = torch.cat([decomposer.decode(some, generator=_noise(seed, len(some))).cpu() for some in chunks])
    moved = (made[1::2] - made[::2]).abs().flatten(1).mean(1)
    strongest: list[int] = moved.topk(min(MOST, width)).indices.tolist()
    return strongest


def _shown(decomposer: Decomposer, latents: Tensor, part: int, dim: int, values: list[float], seed: int) -> Parts:
    """What latents show at each of the values, as one batch."""
    import torch

    from energycomp.decomposition import traverse as change

    return decomposer.parts(torch.cat(change(latents, part, dim, values)), generator=_noise(seed, len(values)))


def _noise(seed: int, count: int) -> list[torch.Generator]:
    """One noise for all pictures, so that they differ in their latents alone."""
    import torch

    return [torch.Generator().manual_seed(seed) for _ in range(count)]


def _change(parts: Parts, part: int) -> dict[str, float | None]:
    """Mean absolute change from the first picture to the last, of 2: where the part is in any picture, and elsewhere.

    Without masks it is everywhere.
    """
    import torch

    change = (parts.whole[-1] - parts.whole[0]).abs().mean(0) / 2  # (H, W)
    own = torch.ones_like(change, dtype=torch.bool) if parts.masks is None else parts.masks[:, part].any(0)
    return {
        name: float(change[where].mean()) if bool(where.any()) else None
        for name, where in (("changed", own), ("outside", ~own))
    }


def _line(part: int, change: dict[str, Any]) -> str:
    inside, outside = change["changed"], change["outside"]
    where = {"in the picture": inside} if outside is None else {"in the part": inside, "outside of it": outside}
    shares = [f"{100 * share:.3g} % {place}" for place, share in where.items() if share is not None]
    return f"part {part}, dim {change['dim']}: brightness changes by {', '.join(shares)}"
