"""Many images: the command `batch`, a reader for the `map` of a data engine, and a pool of processes."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from energycomp.imports import first_use
from energycomp.plugins import hookimpl, lazy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from energycomp_batch.cluster import (
        Address as Address,
        Cluster as Cluster,
        Concurrency as Concurrency,
        Engine as Engine,
        cluster_of as cluster_of,
    )
    from energycomp_batch.pool import LostError as LostError, Pool as Pool, default_processes as default_processes
    from energycomp_batch.reader import Reader as Reader
    from energycomp_batch.shards import (
        Shard as Shard,
        ShardOption as ShardOption,
        local_device as local_device,
        shard_of as shard_of,
    )

__getattr__, __all__ = first_use(__name__, __file__)


@hookimpl
def energycomp_register_commands() -> Mapping[str, Callable[[], Any]]:
    """The command `batch`, imported when it is run or shown by `--help`."""
    return {"batch": lambda: import_module("energycomp_batch.command").batch}


@hookimpl
def energycomp_register_writers() -> Mapping[str, Callable[..., Any]]:
    """Answers as tables, with a row for each image."""
    return {
        "csv": lazy("energycomp_batch.parts:csv_writer"),
        "parquet": lazy("energycomp_batch.parts:parquet_writer"),
    }
