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
from energycomp.progress import Watch, watched

T = TypeVar("T")
Report: TypeAlias = Callable[[Any], None]

TICK = 0.5  # s between two signs of life
EVERY = 0.1  # s between two reports of a loop, at least


class StoppedError(Exception):
    """A task that was asked to stop."""


@attrs.frozen
class Step:
    """How far a loop of a task is."""

    what: str
    done: int
    total: int

    def __str__(self) -> str:
        return f"{self.what}, step {self.done} of {self.total}"

    @property
    def share(self) -> float:
        return self.done / max(self.total, 1)


@attrs.frozen
class Running:
    """A task that goes on.

    Args:
        reported: by the task; a `Step` of a loop with a progress bar; or None for a sign of life.
        seconds: since it began.
    """

    reported: Any
    seconds: float

    def told(self, what: str) -> str:
        """Says what goes on: what was reported, where that is words or a step, or else `what`."""
        said = self.reported if isinstance(self.reported, str | Step) else what
        return f"{said}, {self.seconds:.0f} s"

    @property
    def share(self) -> float | None:
        """How much of the loop is done, in [0, 1]; None where nobody knows."""
        return self.reported.share if isinstance(self.reported, Step) else None


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
            task: called with a function that reports. It may raise `StoppedError` to end itself.
            what: its name, for those that wait.
        """
        stop = threading.Event()
        start = time.monotonic()
        waits = True
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
            yield from _follow(task, stop)
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


def _follow(task: Callable[[Report], T], stop: threading.Event) -> Iterator[Running | Done[T] | Failed]:
    events: queue.Queue[Running | Done[T] | Failed] = queue.Queue()
    start = time.monotonic()

    def report(what: Any) -> None:
        if stop.is_set():
            raise StoppedError
        events.put(Running(what, time.monotonic() - start))

    def work() -> None:
        try:
            with _stoppable(stop), watched(_steps(report)):
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


def _steps(report: Report) -> Watch:
    """Reports the steps of loops, ten times a second at most."""
    last = time.monotonic()

    def watch(what: str, done: int, total: int | None) -> None:
        nonlocal last
        if total is not None and time.monotonic() - last >= EVERY:
            last = time.monotonic()
            report(Step(what, done, total))

    return watch


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
