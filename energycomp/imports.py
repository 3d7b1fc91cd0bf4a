"""Imports that cost less: names at first use, and diffusers without torch's compiler."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any

COMPILER = "torch._dynamo"


def first_use(package: str, names: Mapping[str, Sequence[str]]) -> Callable[[str], Any]:
    """The `__getattr__` of a package that imports a name when it is first used.

    Args:
        package: `__name__` of the package.
        names: the names of each module of the package. No module has the name of what is resolved: Python binds a
            module that it imports to its package, and this function would not be called.

    >>> resolve = first_use("energycomp", {"errors": ["InputError"]})
    >>> resolve("InputError")
    <class 'energycomp.errors.InputError'>
    """
    modules = {name: module for module, own in names.items() for name in own}

    def resolve(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(f"{package}.{modules[name]}"), name)
        setattr(sys.modules[package], name, value)  # the next look-up does not come here
        return value

    return resolve


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
