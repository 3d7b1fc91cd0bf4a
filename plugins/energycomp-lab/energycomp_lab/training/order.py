"""The samples and random numbers of each training step, which follow from (seed, step) alone."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Protocol, cast

import attrs
import torch
from torch.utils.data import DataLoader, Dataset

from energycomp.seeds import derived_seed
from energycomp_lab.training.config import FitConfig


class MapStyle(Protocol):
    """Items by index, such as a list or a tensor.

    >>> items: MapStyle = [torch.zeros(3), torch.ones(3)]
    >>> len(items), items[1].mean()
    (2, tensor(1.))
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


TrainingData = Dataset[Any] | MapStyle  # torch declares no `__len__` for a Dataset; `fit` asks for one


@attrs.frozen
class Order:
    """The indices of the micro batches `parts` of each batch, for the steps from `start` on.

    Each epoch has its own permutation of all `samples`, from (seed, epoch); its incomplete last batch is dropped.
    """

    config: FitConfig
    samples: int
    parts: range
    start: int

    def __iter__(self) -> Iterator[list[int]]:
        batch = self.config.batch_size
        size = batch // (self.config.micro_batches or 1)
        permuted = -1
        order = torch.empty(0)
        for step in range(self.start, self.config.steps):
            epoch, position = divmod(step, self.samples // batch)
            if epoch != permuted:
                generator = torch.Generator().manual_seed(derived_seed(self.config.seed, "epoch", epoch))
                permuted = epoch
                order = torch.randperm(self.samples, generator=generator)
            for part in self.parts:
                first = position * batch + part * size
                yield order[first : first + size].tolist()


def batches(data: TrainingData, order: Order, collate_fn: Callable[[list[Any]], Any] | None) -> Iterator[Any]:
    """The micro batches of an order, collated and on the CPU."""
    loader = DataLoader(
        cast("Dataset[Any]", data),
        batch_sampler=order,
        collate_fn=collate_fn,
        num_workers=order.config.num_workers,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=_ignore_interrupt,
        generator=torch.Generator(),  # otherwise torch's own one is moved on
    )
    return iter(loader)


@contextmanager
def step_generator(seed: int, step: int, part: int, device: torch.device) -> Iterator[torch.Generator]:
    """The CPU generator of one micro batch. Dropout takes no generator: until the block ends it finds torch's own
    seeded too, which are then put back.
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
