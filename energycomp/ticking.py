"""Signs of life: progress bars whose clock runs while a single step takes long."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from tqdm import tqdm

EVERY = 0.5  # seconds between two drawings of a bar
EVERY_LINE = 10.0  # the same in a log file, where each drawing is a line

T = TypeVar("T")


def ticking(items: Iterable[T], **options: Any) -> Iterator[T]:
    """The items, with a progress bar whose clock runs while one of them takes long.

    Args:
        items: what is iterated over.
        options: those of tqdm, such as `desc`, `unit`, `disable`.

    >>> list(ticking(range(3), disable=True))
    [0, 1, 2]
    """
    from tqdm import tqdm

    with tqdm(items, **options) as bar, redrawn(bar):
        yield from bar


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


@contextmanager
def working(what: str) -> Iterator[None]:
    """Shows in a terminal what is being done, with a clock, until it is done; nothing in a log file.

    >>> with working("energycomp: reading scene.png ..."):
    ...     pass
    """
    if not sys.stderr.isatty():
        yield
        return
    from tqdm import tqdm

    with tqdm(bar_format="{desc} {elapsed}", desc=what, leave=False) as bar, redrawn(bar):
        yield


@contextmanager
def redrawn(bar: tqdm[Any]) -> Iterator[None]:
    """Draws a progress bar of tqdm twice a second; not in a log file, where each drawing is a line.

    >>> from tqdm import tqdm
    >>> with tqdm(total=2, disable=True) as bar, redrawn(bar):
    ...     bar.update(2)
    """
    if bar.disable or not sys.stderr.isatty():
        yield
        return
    done = Event()

    def redraw() -> None:
        while not done.wait(EVERY):
            bar.refresh()

    thread = Thread(target=redraw, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
