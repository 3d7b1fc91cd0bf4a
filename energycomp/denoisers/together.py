"""Several computations side by side: their network calls in one batch, or each in threads of its own."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextvars import ContextVar, copy_context
from threading import Lock
from typing import Any, TypeVar

import torch

T = TypeVar("T")

Batched = Callable[[Sequence[tuple[Any, ...]]], Sequence[T]]
"""Runs the arguments of several calls as one, and returns the result of each."""

_gathering: ContextVar[Gathering | None] = ContextVar("gathering", default=None)


class Gathering:
    """Threads, in a number of members, whose calls run as one batch, once each thread that is left waits for one."""

    def __init__(self, members: int) -> None:
        self._left = members
        self._stopped = False
        self._lock = Lock()
        self._waiting: list[tuple[object, Batched[Any], tuple[Any, ...], Future[Any]]] = []

    def call(self, key: object, batched: Batched[T], *arguments: Any) -> T:
        """The result of a call, which runs in one batch with the calls of the same key that others wait for."""
        result = Future[T]()
        with self._lock:
            if self._stopped:
                raise KeyboardInterrupt
            self._waiting.append((key, batched, arguments, result))
            self._serve_if_complete()
        return result.result()

    def leave(self) -> None:
        """A thread has ended; the others no longer wait for it."""
        with self._lock:
            self._left -= 1
            self._serve_if_complete()

    def stop(self) -> None:
        """Ends every thread at its next call."""
        self._stopped = True

    def _serve_if_complete(self) -> None:
        if len(self._waiting) < self._left:
            return
        groups = defaultdict(list)
        for key, batched, arguments, result in self._waiting:
            groups[key].append((batched, arguments, result))
        self._waiting = []
        for calls in groups.values():
            try:
                with torch.no_grad():  # of this thread, which may not be one that called
                    found = calls[0][0]([arguments for _, arguments, _ in calls])
            except BaseException as error:
                for _, _, result in calls:
                    result.set_exception(error)
            else:
                for (_, _, result), one in zip(calls, found, strict=True):
                    result.set_result(one)


def run_batched(key: object, batched: Batched[T], *arguments: Any) -> T:
    """The result of a call: in one batch with those of other threads inside `run_together`; with gradients, alone."""
    gathering = _gathering.get()
    if gathering is None or torch.is_grad_enabled():
        return batched([arguments])[0]
    return gathering.call(key, batched, *arguments)


def run_together(tasks: Sequence[Callable[[], T]], *, merged: bool = True) -> list[T]:
    """The results of tasks that run side by side, in their order; their network calls without gradients are merged.

    Costs as many rows as one task after another, in fewer and larger calls.

    Args:
        merged: False for CPUs, where larger calls gain little: the tasks share the threads of torch, a few or one each.

    Raises:
        Exception: that of the first task, in their order, that raised one.
    """
    count, threads = max(1, len(tasks)), torch.get_num_threads()
    workers = count if merged else min(count, threads)
    if not merged and workers == 1:
        return [task() for task in tasks]
    gatherings = [Gathering(count)] * count if merged else [Gathering(1) for _ in tasks]
    each = threads if merged else threads // workers

    def run(task: Callable[[], T], gathering: Gathering) -> T:
        _gathering.set(gathering)
        try:
            return task()
        finally:
            gathering.leave()

    try:
        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(each,)) as pool:
            pairs = zip(tasks, gatherings, strict=False)
            results = [pool.submit(copy_context().run, run, task, gathering) for task, gathering in pairs]
            try:
                wait(results)
            except BaseException:  # Ctrl-C
                for gathering in gatherings:
                    gathering.stop()
                raise
    finally:
        torch.set_num_threads(threads)
    return [result.result() for result in results]
