"""Many images: a reader for the `map` of a data engine, and processes that read images side by side."""

from energycomp.batch.pool import Lost, Pool, default_processes
from energycomp.batch.reader import Reader

__all__ = ["Lost", "Pool", "Reader", "default_processes"]
