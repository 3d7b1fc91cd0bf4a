"""The progress bar of a sampling run, with the options of the composer that runs."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

from tqdm import tqdm

from energycomp.errors import InputError

T = TypeVar("T")

OPTIONS = frozenset(inspect.signature(tqdm.__init__).parameters) - {"self", "iterable", "total", "kwargs"}
_chosen: ContextVar[Mapping[str, Any]] = ContextVar("options of the progress bar")


def progress_bar(steps: Iterable[T], progress: bool) -> Iterable[T]:
    """The steps of a sampler behind a progress bar, for runs that take over half a second; none without `progress`.

    A sampler uses it for its loop, so that `Composer.set_progress_bar_config` applies to it.

    >>> list(progress_bar([999, 499], progress=False))
    [999, 499]
    """
    options = {"desc": "sampling", "leave": False, "delay": 0.5, **_chosen.get({})}
    if not progress:
        options["disable"] = True
    return tqdm(steps, **options)


@contextmanager
def bar_options(options: Mapping[str, Any]) -> Iterator[None]:
    """Shows the progress bars inside with these options of tqdm."""
    token = _chosen.set(options)
    try:
        yield
    finally:
        _chosen.reset(token)


def check_bar_options(options: Mapping[str, Any]) -> None:
    """Raises `InputError` for a name that tqdm does not have.

    >>> check_bar_options({"desc": "images", "leave": True})
    """
    if unknown := sorted(options.keys() - OPTIONS):
        raise InputError(
            f"got {', '.join(unknown)} for a progress bar; expected options of tqdm: {', '.join(sorted(OPTIONS))}; "
            "such as set_progress_bar_config(disable=True)"
        )
