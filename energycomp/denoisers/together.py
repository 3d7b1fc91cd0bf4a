"""Network calls of several computations in one batch: threads that wait for the network are served together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from contextvars import ContextVar, copy_context
from threading import Condition as Signal, Thread
from typing import TypeVar

import attrs
import torch
from torch import Tensor

T = TypeVar("T")

Batched = Callable[[Sequence[tuple[object, ...]]], Sequence[Tensor | tuple[Tensor, ...]]]
"""Runs the arguments of several calls as one, without gradients, and returns the result of each."""

_gathering: ContextVar[Gathering | None] = ContextVar("gathering", default=None)


def current() -> Gathering | None:
    """The gathering that this thread belongs to, if any."""
    return _gathering.get()


@attrs.define(eq=False)
class _Call:
    """A call that waits for the others."""

    key: tuple[object, ...]
    batched: Batched
    arguments: tuple[object, ...]
    result: Tensor | tuple[Tensor, ...] | None = None
    error: BaseException | None = None


class Gathering:
    """Threads whose calls run as one batch, once each thread that is left waits for one.

    Args:
        members: number of threads.
    """

    def __init__(self, members: int) -> None:
        self._left = members
        self._waiting: list[_Call] = []
        self._served = Signal()

    def call(self, key: tuple[object, ...], batched: Batched, *arguments: object) -> Tensor | tuple[Tensor, ...]:
        """The result of a call, which runs in one batch with the calls of the same key that others wait for."""
        mine = _Call(key, batched, arguments)
        with self._served:
            self._waiting.append(mine)
            self._serve_if_complete()
            self._served.wait_for(lambda: mine.result is not None or mine.error is not None)
        if mine.error is not None:
            raise mine.error
        assert mine.result is not None  # noqa: S101 - for the type checker
        return mine.result

    def leave(self) -> None:
        """A thread has ended; the others no longer wait for it."""
        with self._served:
            self._left -= 1
            self._serve_if_complete()

    def _serve_if_complete(self) -> None:
        if len(self._waiting) < self._left or not self._waiting:
            return
        calls, self._waiting = self._waiting, []
        groups: dict[tuple[object, ...], list[_Call]] = defaultdict(list)
        for call in calls:
            groups[call.key].append(call)
        for group in groups.values():
            try:
                with torch.no_grad():  # of this thread, which may not be one that called
                    results = group[0].batched([call.arguments for call in group])
                for call, result in zip(group, results, strict=True):
                    call.result = result
            except BaseException as error:
                for call in group:
                    call.error = error
        self._served.notify_all()


def run_together(tasks: Sequence[Callable[[], T]]) -> list[T]:
    """The results of tasks that run side by side, in their order; their network calls without gradients are merged.

    Costs as many rows as one task after another, in fewer and larger calls.

    Raises:
        Exception: that of the first task, in their order, that raised one.

    >>> run_together([lambda: 1, lambda: 2])
    [1, 2]
    """
    gathering = Gathering(len(tasks))
    results: list[T | None] = [None] * len(tasks)
    errors: dict[int, BaseException] = {}

    def run(number: int) -> None:
        _gathering.set(gathering)
        try:
            results[number] = tasks[number]()
        except BaseException as error:
            errors[number] = error
        finally:
            gathering.leave()

    threads = [Thread(target=copy_context().run, args=(run, k), daemon=True) for k in range(len(tasks))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[min(errors)]
    return results  # type: ignore[return-value]  # each task has set its own
