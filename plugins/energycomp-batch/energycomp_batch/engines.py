"""Where many images are read, rendered or evaluated: the options of a command, and the cluster they name."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from energycomp.errors import InputError

if TYPE_CHECKING:
    from energycomp_batch.cluster import Cluster

Engine = Annotated[Literal["local", "ray"], typer.Option(help="Processes of this machine, or actors of a Ray cluster.")]
Address = Annotated[
    str | None,
    typer.Option(help="Of a Ray cluster, or auto for the one that runs here.", show_default="Ray is started"),
]
Concurrency = Annotated[
    int | None,
    typer.Option(min=1, help="Number of Ray's actors.", show_default="one per core, or GPU, of the cluster"),
]


def cluster_of(
    engine: str,
    address: str | None,
    concurrency: int | None,
    *,
    part: int | None = None,
    device: str = "cpu",
    quiet: bool = False,
    **local: Any,
) -> Cluster | None:
    """The cluster of --engine ray; None for the local engine.

    Args:
        part: images in a part, if the command has that option.
        device: of the network; what is no CPU is a GPU for each actor.
        quiet: whether Ray shows no progress; in a terminal it does otherwise.
        local: options that only the local engine has; None, False or "" where they are not given.

    Raises:
        InputError: an option of the other engine is given.
    """
    on_ray = engine == "ray"
    other = local if on_ray else {"address": address, "concurrency": concurrency, "part": part}
    for name, value in other.items():
        if value:
            raise InputError(f"got --{name} {'with' if on_ray else 'without'} --engine ray; leave it out")
    if not on_ray:
        return None
    from energycomp_batch.cluster import Cluster

    return Cluster(address, concurrency, part, gpu=device != "cpu", bars=sys.stderr.isatty() and not quiet)
