"""One task at a time, in a thread that can be stopped between any two layers of a network."""

from __future__ import annotations

import queue
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeAlias, TypeVar

import attrs
import torch

from energycomp.errors import EnergycompError

T = TypeVar("T")
Report: TypeAlias = Callable[[Any], None]

TICK = 0.5  # s between two signs of life


class StoppedError(Exception):
    """A task that was asked to stop."""


@attrs.frozen
class Running:
    """A task that goes on: what it reported, or None for a sign of life; and the seconds since it began."""

    reported: Any
    seconds: float


@attrs.frozen(eq=False)
class Done(Generic[T]):
    """A task that ended."""

    result: T
    seconds: float


@attrs.frozen
class Failed:
    """A task that was stopped or raised an error, as one message."""

    message: str


@attrs.define
class Worker:
    """Runs tasks one after another, whoever asks for them.

    >>> events = list(Worker().run("tab", lambda report: report("half") or 7))
    >>> events[0].reported, events[-1].result
    ('half', 7)
    """

    _turn: threading.Lock = attrs.field(factory=threading.Lock)
    _now: tuple[str, str] = ("", "")  # the session and the name of the task that runs
    _stops: dict[str, list[threading.Event]] = attrs.field(factory=dict)

    def run(
        self, session: str, task: Callable[[Report], T], what: str = "another task"
    ) -> Iterator[Running | Done[T] | Failed]:
        """What a task reports while it runs, and its result. The task is stopped when the iterator is closed.

        While it waits for its turn, it reports for what.

        Args:
            session: whose task it is; `stop` takes the same name.
            task: called with a function that reports, or stops it where it is given `StoppedError`.
            what: its name, for those that wait.
        """
        stop, start, waits = threading.Event(), time.monotonic(), True
        self._stops.setdefault(session, []).append(stop)
        try:
            while waits := not self._turn.acquire(timeout=TICK):
                if stop.is_set():
                    yield Failed("stopped")
                    return
                whose, now = self._now
                where = "this page" if whose == session else "another page"
                yield Running(f"waiting for {where}: {now}", time.monotonic() - start)
            self._now = session, what
            yield from _followed(task, stop)
        finally:
            if not waits:
                self._turn.release()
            self._stops[session].remove(stop)
            if not self._stops[session]:
                del self._stops[session]

    def stop(self, session: str) -> None:
        """Stops the tasks of a session, those that wait for their turn included."""
        for stop in list(self._stops.get(session, ())):
            stop.set()


def _followed(task: Callable[[Report], T], stop: threading.Event) -> Iterator[Running | Done[T] | Failed]:
    events: queue.Queue[Running | Done[T] | Failed] = queue.Queue()
    start = time.monotonic()

    def report(what: Any) -> None:
        if stop.is_set() or what is StoppedError:
            raise StoppedError
        events.put(Running(what, time.monotonic() - start))

    def work() -> None:
        try:
            with _stoppable(stop):
                events.put(Done(task(report), time.monotonic() - start))
        except StoppedError:
            events.put(Failed("stopped"))
        except EnergycompError as error:
            events.put(Failed(str(error)))
        except Exception as error:
            traceback.print_exc(file=sys.stderr)
            events.put(Failed(f"unexpected {type(error).__name__}: {error}"))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while True:
            try:
                event = events.get(timeout=TICK)
            except queue.Empty:
                event = Running(None, time.monotonic() - start)
            yield event
            if not isinstance(event, Running):
                return
    finally:
        stop.set()
        thread.join()


@contextmanager
def _stoppable(stop: threading.Event) -> Iterator[None]:
    """Raises `StoppedError` in this thread, at the next layer of any network, once the event is set."""
    own = threading.get_ident()

    def check(*_: Any) -> None:
        if stop.is_set() and threading.get_ident() == own:
            raise StoppedError

    if stop.is_set():
        raise StoppedError
    handle = torch.nn.modules.module.register_module_forward_pre_hook(check)
    try:
        yield
    finally:
        handle.remove()
