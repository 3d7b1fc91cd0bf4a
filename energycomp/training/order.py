"""What decides a training run: its recipe, and the rows and random numbers of each step, from (seed, step) alone."""

import hashlib
import math
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import attrs
import torch
from attrs.validators import ge, gt, in_, instance_of, le, lt
from torch.utils.data import DataLoader, Dataset

from energycomp.errors import InputError

__all__ = ["COUNT", "FitConfig", "Order", "batches", "derived_seed", "interrupt_flag", "step_generator"]

COUNT = [instance_of(int), ge(1)]


@attrs.frozen
class FitConfig:
    """What decides the trajectory: a checkpoint resumes under an equal recipe only. `samples` is the size of the data.

    Raises:
        ValueError, TypeError: a value out of range.

    >>> FitConfig(steps=3, batch_size=4, learning_rate=1e-3, weight_decay=0, schedule="one_cycle", warmup_fraction=0,
    ...        max_grad_norm=1, ema_decay=0.9, mixed_precision="no", micro_batches=2, seed=0, samples=7).learning_rate
    0.001
    """

    steps: int = attrs.field(validator=COUNT)
    batch_size: int = attrs.field(validator=COUNT)
    learning_rate: float = attrs.field(converter=float, validator=[gt(0.0), lt(math.inf)])
    weight_decay: float = attrs.field(converter=float, validator=[ge(0.0), lt(math.inf)])
    schedule: str = attrs.field(validator=in_(("one_cycle", "constant")))
    warmup_fraction: float = attrs.field(converter=float, validator=[ge(0.0), lt(1.0)])
    max_grad_norm: float = attrs.field(converter=float, validator=gt(0.0))
    ema_decay: float = attrs.field(converter=float, validator=[ge(0.0), le(1.0)])
    mixed_precision: str = attrs.field(validator=in_(("no", "bf16")))
    micro_batches: int = attrs.field(validator=COUNT)
    seed: int = attrs.field(validator=instance_of(int))
    samples: int

    def check_batches(self, processes: int) -> None:
        """Raises InputError where the batches cannot be filled from the data or shared by the processes."""
        if self.batch_size > self.samples:
            raise InputError(
                f"Got data with {self.samples} samples, expected at least batch_size={self.batch_size}. "
                "Pass a map-style dataset with __len__, or lower batch_size."
            )
        if self.batch_size % self.micro_batches or self.micro_batches % processes:
            raise InputError(
                f"Got batch_size={self.batch_size} and micro_batches={self.micro_batches} on {processes} processes, "
                "expected micro_batches to divide batch_size and to be a multiple of the processes. Change one of them."
            )


@attrs.frozen
class Order:
    """The rows of the micro batches `parts` (of `micro_batches` in a batch) for the steps from `start` to `steps`.

    Each epoch has its own permutation of all `samples`, from (seed, epoch); its incomplete last batch is dropped.

    >>> whole = Order(samples=7, batch_size=4, micro_batches=2, parts=range(2), start=0, steps=3, seed=0)
    >>> second = Order(samples=7, batch_size=4, micro_batches=2, parts=range(1, 2), start=1, steps=3, seed=0)
    >>> [len(rows) for rows in whole], list(second) == list(whole)[3::2]
    ([2, 2, 2, 2, 2, 2], True)
    """

    samples: int
    batch_size: int
    micro_batches: int
    parts: range
    start: int
    steps: int
    seed: int

    def __iter__(self) -> Iterator[list[int]]:
        size = self.batch_size // self.micro_batches
        permuted, order = -1, torch.empty(0)
        for step in range(self.start, self.steps):
            epoch, position = divmod(step, self.samples // self.batch_size)
            if epoch != permuted:
                generator = torch.Generator().manual_seed(derived_seed(self.seed, "epoch", epoch))
                permuted, order = epoch, torch.randperm(self.samples, generator=generator)
            for part in self.parts:
                first = position * self.batch_size + part * size
                yield order[first : first + size].tolist()


def batches(
    recipe: FitConfig,
    data: Dataset[Any],
    *,
    parts: range,
    start: int,
    collate_fn: Callable[[list[Any]], Any] | None,
    num_workers: int,
) -> Iterator[Any]:
    """The micro batches `parts` of all the steps from `start`, collated and on the CPU."""
    loader = DataLoader(
        data,
        batch_sampler=Order(
            samples=recipe.samples,
            batch_size=recipe.batch_size,
            micro_batches=recipe.micro_batches,
            parts=parts,
            start=start,
            steps=recipe.steps,
            seed=recipe.seed,
        ),
        collate_fn=collate_fn,
        num_workers=num_workers,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=_ignore_interrupt,
        generator=torch.Generator(),  # otherwise torch's own one is moved on
    )
    return iter(loader)


def derived_seed(*parts: object) -> int:
    """A seed in [0, 2^63) that follows from the parts, on every machine.

    >>> derived_seed(0, "epoch", 1) == derived_seed(0, "epoch", 1) != derived_seed(0, "epoch", 2)
    True
    """
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()) >> 1


@contextmanager
def step_generator(seed: int, step: int, part: int, device: torch.device) -> Iterator[torch.Generator]:
    """The CPU generator of one micro batch. Dropout takes no generator: until the block ends it finds torch's own
    seeded too, which are then put back.

    >>> with step_generator(0, 3, 0, torch.device("cpu")) as generator:
    ...     generator.device
    device(type='cpu')
    """
    own = derived_seed(seed, "step", step, part)
    cuda = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if cuda else []):
        torch.default_generator.manual_seed(derived_seed(own))
        if cuda:
            torch.cuda.manual_seed(derived_seed(own))
        yield torch.Generator().manual_seed(own)


@contextmanager
def interrupt_flag() -> Iterator[list[bool]]:
    """A list that the first Ctrl-C fills, so that the step at hand is completed; the second one acts as usual."""
    flag: list[bool] = []
    if threading.current_thread() is not threading.main_thread():
        yield flag
        return

    def handler(_signal: int, _frame: FrameType | None) -> None:
        flag.append(True)
        signal.signal(signal.SIGINT, previous)

    previous = signal.signal(signal.SIGINT, handler)
    try:
        yield flag
    finally:
        signal.signal(signal.SIGINT, previous)


def _ignore_interrupt(_worker: int) -> None:
    """Ctrl-C reaches the workers too, whose batches the last step still needs."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
