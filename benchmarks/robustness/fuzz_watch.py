"""What all cases of the fuzz test share: the allowed outcomes of an action, a watch over it, and counts of verdicts."""

from __future__ import annotations

import gc
import os
import pickle
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import attrs
import torch
from huggingface_hub.constants import HF_HOME

from benchmarks.common.memory import reset_peak, resident
from energycomp.errors import EnergycompError

STARTED = ("os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "socket.connect", "code.__new__")
REPOSITORY = Path(__file__).parents[2]


class WrongError(AssertionError):
    """A case that was accepted wrongly, or refused without an error of this library."""


def expect(condition: bool, what: str) -> None:
    """Raises `WrongError`, which unlike `assert` also works under `python -O`."""
    if not condition:
        raise WrongError(what)


@attrs.define
class Watched:
    """What happened in a block: paths that Python opened, and events that must never happen."""

    opened: list[str] = attrs.field(factory=list)
    forbidden: list[str] = attrs.field(factory=list)


_watched: list[Watched] = []


def _hook(event: str, args: tuple[Any, ...]) -> None:
    if not _watched:
        return
    if event == "open" and isinstance(args[0], str | bytes):
        _watched[-1].opened.append(os.path.realpath(os.fsdecode(args[0])))
    elif event == "pickle.find_class" or event in STARTED:
        _watched[-1].forbidden.append(f"{event} {args!r:.200}")


sys.addaudithook(_hook)


@contextmanager
def watched(inside: Path) -> Iterator[Watched]:
    """Watches a block for unpickling, new processes, imports of further packages, and files outside `inside`.

    The files of the interpreter and of its packages may be read, as a traceback does, and the hub's cache.

    Raises:
        WrongError: at the end of the block, with what happened.
    """
    own = [os.path.realpath(f) for f in (inside, HF_HOME, sys.prefix, sys.base_prefix, REPOSITORY, *sys.path[1:])]
    before, seen = {name.partition(".")[0] for name in sys.modules}, Watched()

    def unpickle(*args: Any, **_: Any) -> Any:
        seen.forbidden.append(f"unpickling of {args!r:.200}")
        raise WrongError(seen.forbidden[-1])

    with (
        mock.patch.multiple(pickle, load=unpickle, loads=unpickle, Unpickler=unpickle),
        mock.patch.object(torch, "load", unpickle),
    ):
        _watched.append(seen)
        try:
            yield seen
        finally:
            _watched.pop()
    outside = [path for path in seen.opened if not any(Path(path).is_relative_to(folder) for folder in own)]
    outside = [path for path in outside if not path.startswith(("/proc/", "/sys/", "/dev/null"))]
    new = {name.partition(".")[0] for name in sys.modules} - before
    expect(not seen.forbidden, f"happened: {seen.forbidden[:3]}")
    expect(not outside, f"opened outside {inside}: {outside[:3]}")
    expect(not new, f"imported: {sorted(new)[:3]}")


def outcome(action: Callable[[], Any], *, may_warn: bool = False) -> tuple[Any, EnergycompError | None]:
    """What an action returns, or the error of this library that it raises.

    Raises:
        WrongError: for any other exception, a warning, or a file that stays open.
    """
    files = _open_files()
    with warnings.catch_warnings(record=True) as leaked:
        warnings.simplefilter("always")
        try:
            result, error = action(), None
        except EnergycompError as refusal:
            result, error = None, refusal.with_traceback(None)
            error.__cause__ = error.__context__ = None
        except Exception as other:
            raise WrongError(f"{type(other).__name__}: {other!s:.300}") from other
    expect(may_warn or not leaked, f"warning {leaked[0].message!s:.200}" if leaked else "")
    if result is None and _open_files() > files:
        gc.collect()
        expect(_open_files() <= files, f"{_open_files() - files} files left open after {error!s:.200}")
    return result, error


def _open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").is_dir() else 0


@attrs.define
class Tally:
    """Verdicts by kind, descriptions of wrong cases, the slowest case in seconds, and the memory of a case in bytes.

    Args:
        baseline: resident memory that a case is compared with; by default that at the start of the case.
        limit: bytes that a case may take.
    """

    baseline: int | None = None
    limit: float = float("inf")
    verdicts: dict[str, dict[str, int]] = attrs.field(factory=dict)
    wrong: list[str] = attrs.field(factory=list)
    slowest: float = 0.0
    memory: dict[str, int] = attrs.field(factory=dict)

    def add(self, kind: str, judge: Callable[[], str]) -> None:
        """Runs one case; `judge` returns its verdict or raises `WrongError`."""
        reset_peak()
        before, started = self.baseline or resident(), time.perf_counter()
        try:
            verdict = judge()
        except WrongError as error:
            verdict = "wrong"
            self.wrong.append(f"{kind}: {error}")
        self.slowest = max(self.slowest, time.perf_counter() - started)
        taken = resident(peak=True) - before
        self.memory[kind] = max(self.memory.get(kind, 0), taken)
        if taken >= self.limit:
            verdict = "wrong"
            self.wrong.append(f"{kind}: takes {taken / 1e6:.0f} MB")
        counts = self.verdicts.setdefault(kind, {})
        counts[verdict] = counts.get(verdict, 0) + 1
