"""Imports: names at first use, and diffusers without what it imports or looks up for others."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

COMPILER = "torch._dynamo"


def first_use(
    package: str, file: str, *, homes_of: Callable[[str], Sequence[str]] | None = None
) -> tuple[Callable[[str], Any], list[str]]:
    """The `__getattr__` and the `__all__` of a package whose names are imported when they are first used.

    The names are those that `if TYPE_CHECKING:` in the file imports for type checkers, so that they are written once;
    those of the standard library, such as `Callable`, are none of the package's. No module has the name of what is
    resolved: Python binds a module that it imports to its package, and `__getattr__` would not be called.

    Args:
        package, file: `__name__` and `__file__` of the package.
        homes_of: the other packages that have a name, which the AttributeError then names.
    """
    body = ast.parse(Path(file).read_text(encoding="utf-8")).body
    block = next(node for node in body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    imported = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    own = [node for node in imported if str(node.module).partition(".")[0] not in sys.stdlib_module_names]
    modules = {alias.asname or alias.name: str(node.module) for node in own for alias in node.names}

    def resolve(name: str) -> Any:
        if name not in modules:
            message = f"module {package!r} has no attribute {name!r}"
            # Python asks for a module by this function before it imports it, and for names of its own
            is_own = name.startswith("_") or find_spec(f"{package}.{name}") is not None
            homes = () if homes_of is None or is_own else homes_of(name)
            if homes:
                message += f"; use {' or '.join(f'{home}.{name}' for home in homes)}"
            raise AttributeError(message, name=name, obj=sys.modules[package])
        value = getattr(import_module(modules[name]), name)
        setattr(sys.modules[package], name, value)  # the next look-up does not come here
        return value

    return resolve, sorted(modules)


@contextmanager
def without_compiler() -> Iterator[None]:
    """Keeps `torch._dynamo` from being imported in the block: by diffusers, and by operations on the device "meta".

    diffusers imports it for the decorator `maybe_allow_in_graph` of its attention blocks, and has a fallback for a
    torch without it; torch itself imports it to leave operations on "meta" uncompiled, which they are anyway. Importing
    it takes a second of CPU time, most of which sympy and torch.distributed take. It can be imported after the block,
    so that `torch.compile` works. Where it is imported already, the block changes nothing.
    """
    if COMPILER in sys.modules:
        yield
        return
    stand_in = ModuleType(COMPILER)
    stand_in.disable = lambda function, *_, **__: function  # type: ignore[attr-defined]
    sys.modules[COMPILER] = stand_in
    try:
        yield
    finally:
        if sys.modules.get(COMPILER) is stand_in:
            sys.modules.pop(COMPILER)


@contextmanager
def light_diffusers() -> Iterator[None]:
    """Keeps the first import of diffusers, inside the block, from work that its schedulers do not need.

    It is without the compiler, see `without_compiler`, and without a list of all files of all installed packages, a
    quarter of a second, in which diffusers looks up the packages optimum, flashinfer and modelopt where they are there.
    The list is made once diffusers looks into it.
    """
    from importlib import metadata  # which `import energycomp` does not need

    list_packages = metadata.packages_distributions
    metadata.packages_distributions = lambda: _Later(list_packages)
    try:
        with without_compiler():
            yield
    finally:
        metadata.packages_distributions = list_packages


class _Later(Mapping[str, list[str]]):
    """A mapping that a function makes at the first look into it."""

    def __init__(self, make: Callable[[], Mapping[str, list[str]]]) -> None:
        self._make = make

    @cached_property
    def _made(self) -> Mapping[str, list[str]]:
        return self._make()

    def __getitem__(self, key: str) -> list[str]:
        return self._made[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._made)

    def __len__(self) -> int:
        return len(self._made)
