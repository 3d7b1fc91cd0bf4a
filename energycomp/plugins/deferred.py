"""Callables that import what they call, so that a look-up imports nothing heavy."""

from __future__ import annotations

import importlib
import operator
import re
from typing import Any

import attrs

from energycomp.errors import PluginError
from energycomp.plugins.hookspecs import Factory


@attrs.frozen(repr=False)
class _Lazy:
    target: str

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.__wrapped__(*args, **kwargs)

    @property
    def __wrapped__(self) -> Factory:
        """The target, imported; `inspect.signature` shows its signature."""
        module, _, path = self.target.partition(":")
        try:
            factory: Factory = operator.attrgetter(path)(importlib.import_module(module))
        except (Exception, SystemExit) as error:
            missing = error.name if isinstance(error, ModuleNotFoundError) and error.name else ""
            if missing.startswith("energycomp_"):
                needed = missing.partition(".")[0].replace("_", "-")
                raise PluginError(
                    f"Got {self.target!r}, which needs {needed}. Expected it to be installed: pip install {needed}."
                ) from error
            raise PluginError(
                f"Got {type(error).__name__} from {self.target!r}: {error}. Expected a module that imports and holds "
                f"{path!r}. Report it to the authors of {module.partition('.')[0]}, or install what it needs."
            ) from error
        return factory

    def __repr__(self) -> str:
        return f"lazy({self.target!r})"


def lazy(target: str) -> Factory:
    """A callable that imports `"package.module:attribute"` when it is called and passes its arguments on.

    Hooks return these, so that a look-up imports nothing heavy. Calling one raises PluginError if the module does not
    import or has no such attribute.

    >>> fraction = lazy("fractions:Fraction")
    >>> fraction
    lazy('fractions:Fraction')
    >>> fraction(1, 3)
    Fraction(1, 3)
    """
    if not re.fullmatch(r"[^\W\d][\w.]*:[^\W\d][\w.]*", target):
        raise PluginError(f"Got {target!r} for lazy(). Expected 'package.module:attribute'.")
    return _Lazy(target)
