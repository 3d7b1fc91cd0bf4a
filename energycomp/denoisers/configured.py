"""Networks that know the arguments they were made with, so that a `config.json` builds them again."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from typing import Any, TypeVar

from torch import nn

M = TypeVar("M", bound=nn.Module)


def configured(cls: type[M]) -> type[M]:
    """A class decorator of networks and encoders: `config` holds the arguments of each instance, defaults included.

    It is there already while `__init__` runs. Sequences are lists in it, as JSON has them. A class that is derived from
    a decorated one is decorated itself if it takes other arguments.

    >>> @configured
    ... class Blur(nn.Module):
    ...     def __init__(self, sizes: tuple[int, ...] = (3, 5), *, width: int = 8, **options):
    ...         super().__init__()
    >>> Blur(width=4, kind="box").config
    {'sizes': [3, 5], 'width': 4, 'kind': 'box'}
    """
    made = cls.__init__
    signature = inspect.signature(made)
    kinds = {name: one.kind for name, one in signature.parameters.items()}

    @functools.wraps(made)
    def init(self: M, *args: Any, **kwargs: Any) -> None:
        if "config" not in vars(self):  # otherwise a derived class has written its own
            bound = signature.bind(self, *args, **kwargs)
            bound.apply_defaults()
            _, *given = bound.arguments.items()  # without `self`
            config: dict[str, Any] = {}
            for name, value in given:
                if kinds[name] is inspect.Parameter.VAR_KEYWORD:
                    config |= value
                elif kinds[name] is not inspect.Parameter.VAR_POSITIONAL:  # whose values have no names
                    config[name] = value
            vars(self)["config"] = _as_json(config)
        made(self, *args, **kwargs)

    cls.__init__ = init  # type: ignore[method-assign, assignment]
    return cls


def _as_json(value: Any) -> Any:
    """Tuples as lists, inside of lists and of mappings, too."""
    if isinstance(value, list | tuple):
        return [_as_json(one) for one in value]
    if isinstance(value, Mapping):
        return {key: _as_json(one) for key, one in value.items()}
    return value
