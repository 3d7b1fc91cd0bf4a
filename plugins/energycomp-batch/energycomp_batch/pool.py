"""Processes of one thread each that work side by side: on a busy machine, no thread waits for a slower one."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

import attrs

from energycomp.errors import EnergycompError, InputError

# Read by the OpenMP of torch when it is imported.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
MEMORY = 2**30  # bytes that a process takes: 0.6 GiB with a model of 5 million parameters, and some room
TRIES = 2  # of an item whose process ended
STARTS = 5  # of the last process, if it ends before it is ready: it may have been killed by chance
PATIENCE = 5.0  # seconds in which a process ends by itself

T = TypeVar("T")
R = TypeVar("R")


class LostError(InputError):
    """In place of the answer to an item whose process ended each time, such as one without memory."""


@attrs.define(eq=False)
class _Worker(Generic[T]):
    process: Any
    connection: Connection
    task: tuple[T, int] | None  # an item, and how often it was tried
    ready: bool = False


class Pool(Generic[T, R]):
    """Processes that each answer one item at a time; a process that ends is replaced, and its item tried once more.

    The processes ignore Ctrl-C, which is the business of the caller: they end with the block, and with the caller.

    Args:
        make: called in each process, and can be pickled; returns the function from an item to its answer. What it
            raises is raised here.
        processes: how many.
        report: called with one line for each process that ends before its time.

    >>> from functools import partial
    >>> from operator import methodcaller
    >>> with Pool(partial(methodcaller, "upper"), 2) as pool:
    ...     sorted(pool.run("ab"))
    [('a', 'A'), ('b', 'B')]
    """

    def __init__(
        self, make: Callable[[], Callable[[T], R]], processes: int, report: Callable[[str], object] = lambda _: None
    ) -> None:
        self._make, self._wanted, self._report = make, processes, report
        self._most = processes  # without those that ended before they were ready
        self._unready = 0  # how many of these one after another
        self._workers: list[_Worker[T]] = []
        # One process alone is worth no other that it is a copy of; in an actor of Ray that one would not start.
        self._copies = sys.platform == "linux" and processes > 1
        self._context: Any = multiprocessing.get_context("forkserver" if self._copies else "spawn")

    def __enter__(self) -> Self:
        """Imports torch in a process of which the others are copies, where there is such a process."""
        if self._copies:
            from multiprocessing.forkserver import ensure_running

            self._context.set_forkserver_preload(["energycomp.inference"])  # imports torch
            with _quiet_start():
                ensure_running()
        return self

    def __exit__(self, *error: object) -> None:
        for worker in self._workers:
            worker.connection.close()  # ends one that waits
            if worker.task is not None or error[0] is not None:
                worker.process.terminate()
        for worker in self._workers:
            worker.process.join(PATIENCE)
            worker.process.kill()

    def run(self, items: Iterable[T]) -> Iterator[tuple[T, R | LostError]]:
        """Each item with its answer, as they come; an item is taken when a process is free for it."""
        first_tries, again = ((item, 1) for item in items), deque[tuple[T, int]]()
        while True:
            while sum(worker.task is not None for worker in self._workers) < self._most:
                task = again.popleft() if again else next(first_tries, None)
                if task is None:
                    break
                self._give(task)
            busy: dict[Any, _Worker[T]] = {one.connection: one for one in self._workers if one.task is not None}
            if not busy:
                return
            for worker in map(busy.__getitem__, wait(list(busy))):
                item, tries = worker.task  # type: ignore[misc]
                kind, answer = self._receive(worker)
                if kind == "ready":
                    worker.ready = True
                    self._unready = 0
                elif kind == "answer":
                    worker.task = None
                    yield item, answer
                elif worker.ready and tries == TRIES:
                    why = f"its process ended {TRIES} times ({answer}); expected more memory for each process"
                    yield item, LostError(f"got {item}, at which {why}")
                else:
                    again.append((item, tries + worker.ready))

    def _give(self, task: tuple[T, int]) -> None:
        """Gives an item to a process without one, or starts a process with it."""
        worker = next((worker for worker in self._workers if worker.task is None), None)
        if worker is not None:
            worker.task = task
            with suppress(OSError):  # it has ended, which `run` sees
                worker.connection.send(task[0])
            return
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_work, args=(theirs, self._make, task[0]), daemon=True)
        with _quiet_start():
            process.start()
        theirs.close()
        self._workers.append(_Worker(process, ours, task))

    def _receive(self, worker: _Worker[T]) -> tuple[str, Any]:
        """Receives "ready", an "answer", or "ended" and why; then another process takes its place."""
        try:
            kind, answer = worker.connection.recv()
        except (EOFError, OSError):
            worker.process.join()
            code = worker.process.exitcode
            name = signal.Signals(-code).name if -code in set(signal.Signals) else f"exit code {code}"
            kind = "ended"
            answer = f"{name}, perhaps out of memory" if name == "SIGKILL" else name
        if kind in {"ready", "answer"}:
            return kind, answer
        self._workers.remove(worker)
        if kind == "raised":
            raise answer
        if worker.ready:
            self._report(f"a process ended ({answer}) at {worker.task[0]}")  # type: ignore[index]
            return kind, answer
        self._unready += 1
        if self._most > 1 or self._unready >= STARTS:
            self._most -= 1
        self._report(f"a process ended before it was ready ({answer}); going on with {self._most}")
        if not self._most:
            raise InputError(
                f"got {self._wanted} processes that ended before they were ready ({answer}); expected some that "
                "load the model; free some memory, or read in one process"
            )
        return kind, answer


def default_processes(items: int) -> int:
    """Chooses the number of processes: one per core and GiB of free memory, and two items or more for each.

    The cores of a machine are shared among the processes that a launcher has started there.
    """
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    local = os.environ.get("LOCAL_WORLD_SIZE", "")
    cores //= int(local) if local.isdigit() and int(local) else 1
    memory = _free_memory()
    return max(1, min(cores, items // 2, cores if memory is None else memory // MEMORY))


def _free_memory() -> int | None:
    """Reads how many bytes are free, in a container those that it may still take; None where nothing says it."""
    found = []
    with suppress(OSError, ValueError, KeyError):
        lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        found.append(int(lines["MemAvailable"].split()[0]) << 10)
    with suppress(OSError, ValueError, KeyError):  # "max" where there is no limit
        group = Path("/sys/fs/cgroup")
        limit, taken = (int((group / f"memory.{name}").read_text()) for name in ("max", "current"))
        files = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        found.append(limit - taken + int(files["inactive_file"]))  # these can be dropped
    return min(found, default=None)


@contextmanager
def _quiet_start() -> Iterator[None]:
    """Gives a process that is started in the block one thread, and no Ctrl-C while it starts."""
    earlier = {name: os.environ[name] for name in ONE_THREAD if name in os.environ}
    os.environ.update(ONE_THREAD)
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT}) if sys.platform != "win32" else None
    try:
        yield
    finally:
        for name in ONE_THREAD:
            del os.environ[name]
        os.environ.update(earlier)
        if blocked is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def _work(connection: Connection, make: Callable[[], Callable[[Any], Any]], item: Any) -> None:
    """Answers items until the pipe ends, with its caller or at its wish."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with suppress(EOFError, OSError):
        try:
            answer = make()
            if "torch" in sys.modules:
                sys.modules["torch"].set_num_threads(1)
            connection.send(("ready", None))
            while True:
                connection.send(("answer", answer(item)))
                item = connection.recv()
        except EnergycompError as error:
            connection.send(("raised", error))
        except (EOFError, BrokenPipeError, ConnectionResetError):
            raise
        except Exception:  # not every error can be pickled
            connection.send(("raised", RuntimeError(f"in a process of its own:\n{traceback.format_exc()}")))
