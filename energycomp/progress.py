"""One display of progress: a bar over items, a bar that is advanced by hand, and a clock.

Nothing else in energycomp and its plugins imports tqdm, so that another display is another version of this file. Bars
are shown in a terminal for what takes over half a second, with a clock that runs while one item takes long. A log file
gets a drawing every 10 s, and no clock.
"""

from __future__ import annotations

import inspect
import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from functools import partial
from threading import Event, Thread
from typing import Any, TypeAlias, TypeVar

import attrs

from energycomp.errors import InputError

DELAY = 0.5  # seconds until a bar is shown
EVERY = 0.5  # seconds between two drawings of a bar in a terminal, while nothing advances it
EXPECTED = 5.0  # seconds after which a line says how long it takes on
EVERY_LINE = 10.0  # seconds between two drawings in a log file

T = TypeVar("T")

Watch: TypeAlias = Callable[[str, int, int | None], object]
"""`watch(what, done, total)`: what is done with the items, how many are done, and of how many, where that is known."""

_watch: ContextVar[Watch | None] = ContextVar("who is told of progress", default=None)
_options: ContextVar[Mapping[str, Any]] = ContextVar("options of the bars", default={})  # noqa: B039 - never changed


@attrs.define
class Bar:
    """A progress bar, as a loop sees it."""

    _drawn: Any
    _what: str
    _counted: int  # also where nothing is shown

    @property
    def done(self) -> int:
        """How many items are done; 0 where nothing is shown."""
        return int(self._drawn.n)

    def advance(self, n: int = 1) -> None:
        """Counts n more items as done."""
        self._drawn.update(n)
        self._counted += n
        if (watch := _watch.get()) is not None:
            watch(self._what, self._counted, self._drawn.total)

    def note(self, text: str) -> None:
        """Writes a text at the end of the bar, the next time it is drawn."""
        self._drawn.set_postfix_str(text, refresh=False)


def progress(items: Iterable[T], what: str, *, unit: str = "it", show: bool = True, leave: bool = False) -> Iterator[T]:
    """The items, behind a progress bar.

    Args:
        what: is done with the items, for example "reading".
        unit: one item.
        show: False for no bar.
        leave: shows the bar from the first item on, and leaves it on the screen.

    >>> list(progress(range(3), "counting", show=False))
    [0, 1, 2]
    """
    length = getattr(items, "__len__", None)
    with counting(what, None if length is None else length(), unit=unit, show=show, leave=leave) as bar:
        for item in items:
            yield item
            bar.advance()


@contextmanager
def counting(
    what: str, total: int | None, *, done: int = 0, unit: str = "it", show: bool = True, leave: bool = False
) -> Iterator[Bar]:
    """A progress bar for what is no loop over items: it is advanced by hand.

    Args:
        total: number of items; None where nobody knows.
        done: how many are done before.
        what, unit, show, leave: as of `progress`.
    """
    more = {"delay": 0} if leave else {}
    drawn = _bar(desc=what, total=total, initial=done, unit=unit, leave=leave, disable=not show, **more)
    is_clock = sys.stderr.isatty() and not drawn.disable  # which runs while one item takes long
    with drawn, _repeat(max(EVERY, drawn.delay), partial(_redraw, drawn)) if is_clock else nullcontext():
        yield Bar(drawn, what, done)


@contextmanager
def working(what: str) -> Iterator[None]:
    """Shows in a terminal what is being done, with a clock, until it is done; nothing in a log file."""
    hidden = not sys.stderr.isatty()
    drawn = _bar(bar_format="{desc} {elapsed}", desc=what, delay=0, disable=hidden)
    with drawn, nullcontext() if drawn.disable else _repeat(EVERY, partial(_redraw, drawn)):
        yield


@contextmanager
def following(what: str, count: Callable[[], int], *, unit: str) -> Iterator[None]:
    """Shows a number that grows in the block, such as the network evaluations of a search, from the first second on.

    After `EXPECTED` seconds a line says how long the block takes on, as far as a bar inside it has a total. Bars inside
    it are not drawn.

    Args:
        what: is done in the block.
        count: returns the number; called by another thread.
        unit: of the number.
    """
    seen = _Seen(_watch.get())
    started = time.monotonic()
    due = {"drawing": 0.0 if _in_terminal() else EVERY_LINE, "line": EXPECTED}  # seconds from the start
    with _bar(desc=what, unit=unit) as drawn:

        def show() -> None:
            seconds = time.monotonic() - started
            drawn.n = count()
            if seconds >= due["drawing"]:
                due["drawing"] = 0.0 if _in_terminal() else seconds + EVERY_LINE
                _redraw(drawn)
            if seconds >= due["line"]:
                due["line"] = math.inf
                drawn.write(f"energycomp: {what}: {drawn.n:,} {unit}s so far; {seen.left()}", file=sys.stderr)

        with nullcontext() if drawn.disable else _repeat(EVERY, show), watched(seen), display(show=False):
            yield


def _in_terminal() -> bool:
    return sys.stderr.isatty() or "ipykernel" in sys.modules


def _bar(**options: Any) -> Any:
    """A bar of tqdm with our defaults, these options, and those of `display`."""
    from tqdm import tqdm

    every = 0.1 if _in_terminal() else EVERY_LINE
    ours = {"leave": False, "delay": DELAY, "mininterval": every, "dynamic_ncols": True, **options, **_options.get()}
    return tqdm(**{**ours, "disable": bool(options.get("disable") or ours.get("disable"))})


def _redraw(drawn: Any) -> None:
    drawn.delay = 0  # tqdm clears at the end what it believes to have shown
    drawn.refresh()


@contextmanager
def _repeat(seconds: float, do: Callable[[], object]) -> Iterator[None]:
    """Calls a function every so many seconds, in another thread, while the block runs."""
    ended = Event()

    def run() -> None:
        while not ended.wait(seconds):
            do()

    thread = Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@attrs.define
class _Seen:
    """What the first bar with a total said last, which tells how long a block takes on."""

    outer: Watch | None
    what: str = ""
    done: int = 0
    total: int = 0
    since: float = 0.0

    def __call__(self, what: str, done: int, total: int | None) -> None:
        if self.outer is not None:
            self.outer(what, done, total)
        if total is None:
            return
        if not self.what or self.done >= self.total:  # the first bar, or one after it
            self.what, self.since = what, time.monotonic()
        if what == self.what:
            self.done, self.total = done, total

    def left(self) -> str:
        """How long it takes on, in words."""
        if not 0 < self.done < self.total:
            return "how many it needs is not known; Ctrl-C ends it"
        seconds = (time.monotonic() - self.since) * (self.total - self.done) / self.done
        return f"{self.what} takes about {max(seconds, 1):.0f} s more at most"


@contextmanager
def display(*, show: bool = True, **options: Any) -> Iterator[None]:
    """Shows the bars and clocks in the block with these options of tqdm; none where `show` is false.

    >>> with display(show=False):
    ...     list(progress([1, 2], "silent"))
    [1, 2]
    """
    outer = _options.get()
    hidden = {"disable": True} if outer.get("disable") or not show else {}
    token = _options.set({**outer, **options, **hidden})
    try:
        yield
    finally:
        _options.reset(token)


@contextmanager
def watched(watch: Watch) -> Iterator[None]:
    """Tells of each advance of a bar in the block, shown or not. A page shows progress so.

    Args:
        watch: called after each advance; what it raises ends the loop.

    >>> with watched(lambda what, done, total: print(f"{what}: {done} of {total}")):
    ...     list(progress(["a", "b"], "reading", show=False))
    reading: 1 of 2
    reading: 2 of 2
    ['a', 'b']
    """
    token = _watch.set(watch)
    try:
        yield
    finally:
        _watch.reset(token)


def check_options(options: Mapping[str, Any]) -> None:
    """Raises `InputError` for a name that tqdm does not have."""
    from tqdm import tqdm

    known = inspect.signature(tqdm.__init__).parameters.keys() - {"self", "iterable", "total", "initial", "kwargs"}
    if unknown := sorted(options.keys() - known):
        raise InputError(
            f"got {', '.join(unknown)} for a progress bar; expected options of tqdm: {', '.join(sorted(known))}; "
            "such as set_progress_bar_config(disable=True)"
        )


@contextmanager
def over_bar() -> Iterator[None]:
    """What is printed in the block does not run into a progress bar in a terminal.

    >>> with over_bar():
    ...     print("read")
    read
    """
    if not sys.stderr.isatty():
        yield
        return
    from tqdm import tqdm

    with tqdm.external_write_mode(file=sys.stdout):
        yield
