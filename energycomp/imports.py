"""Imports of diffusers at half the cost: without torch's compiler, which it imports for one decorator."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["without_compiler"]

COMPILER = "torch._dynamo"


@contextmanager
def without_compiler() -> Iterator[None]:
    """Keeps `torch._dynamo` from being imported in the block, for the first import of diffusers.

    diffusers imports it for the decorator `maybe_allow_in_graph` of its attention blocks, and has a fallback for a
    torch without it. Importing it takes a second of CPU time, most of which sympy and torch.distributed take. It can be
    imported after the block, so that `torch.compile` works. Where it is imported already, the block changes nothing.

    >>> with without_compiler():
    ...     from diffusers.schedulers import DDIMScheduler
    """
    if COMPILER in sys.modules:
        yield
        return
    sys.modules[COMPILER] = None  # type: ignore[assignment]  # Python's way to say that a module cannot be imported
    try:
        yield
    finally:
        if sys.modules.get(COMPILER) is None:
            sys.modules.pop(COMPILER, None)
