"""Factories that import what they call at the first call, so that a look-up imports nothing heavy."""

from __future__ import annotations

import difflib
import importlib
import operator
import re
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, get_args

import attrs

from energycomp.errors import PluginError

Factory = Callable[..., Any]
Kind = Literal[
    "models", "networks", "conditioners", "encoders", "codecs", "processors", "decomposers", "solvers", "samplers",
    "guidances", "datasets", "recipes", "loaders", "writers", "engines",
    "commands",
]  # fmt: skip
KINDS: tuple[Kind, ...] = get_args(Kind)


@attrs.frozen(repr=False)
class Imported:
    """The callable "package.module:attribute", imported when it is called."""

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
            package = (getattr(error, "name", None) or "").partition(".")[0].replace("_", "-")
            do = f"report it to the authors of {module.partition('.')[0]}, or install what it needs"
            if package.startswith("energycomp-"):
                do = f"pip install {package}"
            raise PluginError(
                f"Got {type(error).__name__} from {self.target!r}: {error}. Expected a module that imports and holds "
                f"{path!r}; {do}."
            ) from error
        return factory

    def __repr__(self) -> str:
        return self.target


class Registrar:
    """Puts factories into a table by kind and name. A method for each kind is in `hooks`."""

    def __init__(self, factories: dict[Kind, dict[str, Factory]]) -> None:
        self._factories = factories

    def put(self, kind: Kind, name: Any, factory: Factory | str) -> None:
        """Keeps a factory. Raises PluginError if it is neither a callable nor names one."""
        if not (isinstance(name, str) and name):
            raise PluginError(f"Got the name {name!r} for one of the {kind}. Expected a text that is not empty.")
        if isinstance(factory, str) and re.fullmatch(r"[^\W\d][\w.]*:[^\W\d][\w.]*", factory):
            factory = Imported(factory)
        if not callable(factory):
            raise PluginError(f"Got {name!r}: {factory!r}. Expected a callable, or 'package.module:attribute'.")
        # A command is the function itself, so its factory gives it back.
        made = partial(_itself, factory) if kind == "commands" else factory
        self._factories.setdefault(kind, {})[name] = made

    if not TYPE_CHECKING:  # so that a type checker refuses it, too

        def __getattr__(self, name: str) -> Any:
            if name.startswith("_"):
                raise AttributeError(name)
            kinds = [one for one in dir(type(self)) if not one.startswith("_") and one != "put"]
            close = difflib.get_close_matches(name, kinds, n=1) or kinds
            raise PluginError(f"Got add.{name}, which is no kind. Expected {' or '.join(f'add.{k}' for k in close)}.")


def _itself(function: Factory) -> Factory:
    return function.__wrapped__ if isinstance(function, Imported) else function
