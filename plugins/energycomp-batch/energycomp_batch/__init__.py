"""Many images: the command `batch`, a reader for the `map` of a data engine, and a pool of processes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from energycomp.imports import first_use
from energycomp.plugins import Add, hookimpl

if TYPE_CHECKING:
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
def energycomp_register(add: Add) -> None:
    """The command `batch`, and answers as tables with a row for each image."""
    add.command("batch", "energycomp_batch.command:batch")
    add.writer("csv", "energycomp_batch.parts:csv_writer")
    add.writer("parquet", "energycomp_batch.parts:parquet_writer")
