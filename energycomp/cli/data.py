"""`energycomp data`: pictures with known components, written to a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from energycomp.cli.options import Seed, make_folder
from energycomp.errors import InputError

__all__ = ["data"]


def data(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A registered dataset.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The folder to make; new, or empty.")],
    n: Annotated[int, typer.Option("-n", min=1, help="How many pictures.")] = 1000,
    objects: Annotated[str, typer.Option(help="Of what kind: clevr 3-5, 4, textured:3-5; faces a, b.")] = "",
    seed: Seed = 0,
) -> None:
    """Write pictures and what is in them, to train and to evaluate on.

    energycomp data clevr -n 1000 --objects 3-5 -o scenes

    energycomp train clevr --data scenes -o runs/mine

    The folder appears when it is complete.
    """
    from tqdm import tqdm

    from energycomp.files import atomic_directory
    from energycomp.plugins import find

    source = find("datasets", name)()
    make_folder(out.parent, "-o")
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise InputError(f"got -o {out}, which is there already; expected a new or empty folder; name another")
    with atomic_directory(out) as temporary, tqdm(total=n, desc="writing", unit="image", delay=1) as bar:

        def progress(done: int) -> None:
            bar.update(done - bar.n)

        source.write(temporary, count=n, seed=seed, options=objects, progress=progress)
    typer.echo(str(out))
