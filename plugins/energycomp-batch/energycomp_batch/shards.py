"""Shards: the part of the images that one of several processes reads, as an option or a launcher says."""

from __future__ import annotations

import os
import re
from typing import Annotated

import attrs
import typer

from energycomp.errors import InputError

# What a launcher sets: rank and number of processes. torchrun, and accelerate launch; srun, not the script of a batch.
LAUNCHERS = (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"))
LOCAL = ("LOCAL_RANK", "SLURM_LOCALID")  # rank on this machine

ShardOption = Annotated[
    str | None,
    typer.Option(
        metavar="I/N",
        help="Read part I of N of the images, such as 1/4.",
        show_default="all, or the part that torchrun or Slurm names",
    ),
]


@attrs.frozen
class Shard:
    """Part `index` of `total`, counted from 1: each `total`-th item.

    Args:
        launched: whether a launcher says so, which ends all processes once one of them has failed.

    >>> str(Shard(2, 3)), Shard(2, 3).of(7), Shard(2, 3).file("results.jsonl")
    ('2/3', range(1, 7, 3), 'results-2-of-3.jsonl')
    """

    index: int = 1
    total: int = 1
    launched: bool = False

    def of(self, items: int) -> range:
        """The indices of this part among so many items."""
        return range(self.index - 1, items, self.total)

    def file(self, name: str) -> str:
        """The name of this part's own file; that of everything is the name itself."""
        stem, _, suffix = name.rpartition(".")
        return name if self.total == 1 else f"{stem}-{self.index}-of-{self.total}.{suffix}"

    def __str__(self) -> str:
        return f"{self.index}/{self.total}"


def shard_of(text: str | None) -> Shard:
    """Reads --shard; where it is left out, the shard is that of the launcher, and everything without one.

    >>> shard_of("2/3")
    Shard(index=2, total=3, launched=False)
    """
    if text is not None:
        found = re.fullmatch(r"(\d{1,5})/(\d{1,5})", text)
        index, total = map(int, found.groups()) if found else (0, 0)
        if not 1 <= index <= total:
            raise InputError(f"got --shard {text!r}; expected I/N with I from 1 to N, such as 1/4")
        return Shard(index, total)
    for names in LAUNCHERS:
        rank, processes = map(_number, names)
        if 0 <= rank < processes > 1:
            return Shard(rank + 1, processes, launched=True)
    return Shard()


def local_device(device: str) -> str:
    """The device of a process: `cuda` is one GPU of this machine for each process that a launcher has started there."""
    rank = next((number for number in map(_number, LOCAL) if number >= 0), -1)
    if device != "cuda" or rank < 0:
        return device
    import torch

    return f"cuda:{rank % max(1, torch.cuda.device_count())}"


def _number(name: str) -> int:
    """Reads the number in a variable of the environment; -1 without one."""
    text = os.environ.get(name, "")
    return int(text) if text.isdigit() else -1
