"""Shards: the part of the images that one of several processes reads, and the answers of all of them."""

from __future__ import annotations

import os
import re
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Annotated, Any

import attrs
import typer

from energycomp.cli import RESULTS, Kept, cut_line, make_folder, result_files
from energycomp.errors import CheckpointError, InputError
from energycomp.files import atomic_file, remove_stale

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# What a launcher sets: rank and number of processes. torchrun, and accelerate launch; srun, not the script of a batch.
LAUNCHERS = (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"))
LOCAL = ("LOCAL_RANK", "SLURM_LOCALID")  # rank on this machine

ShardOption = Annotated[
    str | None,
    typer.Option(
        metavar="I/N",
        help="Read part I of N of the images, for example 1/4.",
        show_default="the rank under torchrun, accelerate launch or srun",
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
    """The shard of --shard; where it is left out, that of the launcher, and everything without one.

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
    """The number in a variable of the environment, or -1."""
    text = os.environ.get(name, "")
    return int(text) if text.isdigit() else -1


@contextmanager
def claimed(path: Path) -> Iterator[None]:
    """In the block this process alone writes a file, without its incomplete last line.

    The lock ends with the process, however it ends. A file system without locks has none.

    Raises:
        InputError: another process writes the file.
        CheckpointError: it cannot be written.
    """
    with ExitStack() as stack:
        try:
            stream = stack.enter_context(path.open("ab"))
        except OSError as error:
            raise CheckpointError(
                f"Cannot write {path}: {error}. Check its permissions, or name another folder."
            ) from error
        try:
            import fcntl

            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"got {path.parent}, where another process writes {path.name}; expected one process per file; wait for "
                "it, give each process its --shard, or name another folder"
            ) from error
        except (ImportError, OSError):  # Windows, and file systems without locks
            pass
        cut_line(path)
        yield


@contextmanager
def results_in(lines: Path, settings: dict[str, Any], shard: Shard) -> Iterator[Kept]:
    """The answers in files of JSON lines: one line per image and settings. In the block nobody else writes the own one.

    An image is identified by its path and content, the settings by the options of the command and the model's weights.
    Each shard appends to a file of its own, and takes the answers in all files as known. A process that reads
    everything takes the files of shards that have ended into its own.

    Args:
        lines: the file of a process that reads everything; its folder is made where it is missing.
        settings: what the answers depend on, as JSON.
        shard: the part of the images that this process reads.

    Raises:
        InputError: another process writes the same file, or it holds answers under other settings.
    """
    folder = make_folder(lines.parent, "-o")
    file = lines.with_name(shard.file(lines.name))
    if file == lines:
        _take_over(lines, settings)
    with claimed(file):
        if file.name == RESULTS and len(result_files(lines)) == 1:  # nobody else writes here
            remove_stale(folder)
        yield Kept(file, settings, result_files(lines))


def _take_over(lines: Path, settings: dict[str, Any]) -> None:
    """Makes one file of this and those of shards that nobody writes any more."""
    with claimed(lines), ExitStack() as claims:
        ended = []
        for file in result_files(lines)[1:]:
            with suppress(InputError):
                claims.enter_context(claimed(file))
                ended.append(file)
        if ended:
            with atomic_file(lines) as temporary, temporary.open("wb") as merged:
                merged.writelines(Kept(lines, settings, [lines, *ended]))
        for file in ended:
            file.unlink()
