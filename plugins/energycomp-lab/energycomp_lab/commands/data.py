"""`energycomp data`: images with known components, written to a folder."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from energycomp.errors import InputError
from energycomp.progress import counting
from energycomp_batch import Address, Concurrency, Engine, cluster_of
from energycomp_cli import Seed, check_folder, loading, make_folder

if TYPE_CHECKING:
    from energycomp.progress import Bar
    from energycomp_batch import Cluster


def data(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of a registered dataset, such as clevr or faces.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder to create. It must be new or empty.")],
    n: Annotated[int, typer.Option("-n", min=1, help="Number of images.")] = 1000,
    objects: Annotated[
        str,
        typer.Option(
            help="Content of the images, as the dataset defines it. For clevr: 3-5 is the range of counts; "
            "wide:0-5:128x128 is the kind of scenes (plain, wide, crowded or textured), the range, and the size in px."
        ),
    ] = "",
    renderer: Annotated[
        Literal["own", "blender"],
        typer.Option(help="own: the renderer of the dataset; blender: of clevr, with the official meshes in --assets."),
    ] = "own",
    assets: Annotated[
        Path | None,
        typer.Option(help="Folder image_generation/data of clevr-dataset-gen, for blender.", show_default=False),
    ] = None,
    seed: Seed = 0,
    engine: Engine = "local",
    address: Address = None,
    concurrency: Concurrency = None,
) -> None:
    """Write images and their annotations, for training and evaluation.

    ```sh
    energycomp data clevr -n 1000 --objects 3-5 -o scenes
    energycomp train clevr --data scenes -o runs/mine
    energycomp data clevr -n 4000 --objects wide:0-5:128x128 --renderer blender --assets DIR -o rendered
    ```

    The folder is created once all images are written. Blender takes 1.6 s for 128x128 pixels on a core, and an
    interrupted run of it goes on when the same command is started again. With --engine ray, the machines of a cluster
    render; each has Blender, and the paths of --out and --assets.
    """
    from energycomp.files import atomic_directory
    from energycomp.plugins import find

    cluster = cluster_of(engine, address, concurrency)
    check_folder(out.parent, "-o", path=out)
    if cluster is not None and renderer == "own":
        raise InputError("got --engine ray with --renderer own, which takes 0.02 s for an image; leave it out")
    if renderer == "blender":
        _render(name, out, cluster, count=n, seed=seed, options=objects, assets=assets)
        return
    if assets is not None:
        raise InputError(f"got --assets {assets} without --renderer blender, which needs it; leave it out")
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise InputError(f"got -o {out}, which is there already; expected a new or empty folder; name another")
    if out.exists() and out.samefile("."):  # it cannot be replaced
        raise InputError(f"got -o {out}, the folder you are in; expected a new folder, or another empty one; name one")
    with loading(name):
        source = find("datasets", name)()
    make_folder(out.parent, "-o")
    with atomic_directory(out) as temporary, counting("writing", n, unit="image") as bar:
        report = partial(_advance_to, bar)
        source.write(temporary, count=n, seed=seed, options=objects, progress=report)
    typer.echo(str(out))


def _render(name: str, out: Path, cluster: Cluster | None, *, count: int, **settings: Any) -> None:
    from energycomp.plugins import find
    from energycomp_lab.evaluation import source_ability

    render = source_ability(find("datasets", name)(), "render")
    if render is None:
        raise InputError(f"got --renderer blender with {name}; expected clevr, which it renders; leave it out")
    with counting("rendering", count, unit="image") as bar:
        spread = None if cluster is None else cluster.map
        render(out, count=count, **settings, progress=partial(_advance_to, bar), spread=spread)
    typer.echo(str(out))


def _advance_to(bar: Bar, done: int) -> None:
    bar.advance(done - bar.done)
