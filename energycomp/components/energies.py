"""Energies from functions that users write: N numbers, or an error of one line that names the function."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from energycomp.errors import EnergycompError, InputError, first_line


def function_name(f: Callable[..., Any]) -> str:
    """What an error calls a function of a user: its name, or how an object looks that is called."""
    has_name = inspect.isroutine(f) or inspect.isclass(f)
    named: str = f.__qualname__ if has_name else " ".join(repr(f).split())[:60]
    return named.rpartition("<locals>.")[2]


def evaluate_energies(what: str, f: Callable[..., Any], n: int, *arguments: Any) -> Tensor:
    """The energies (N,) that a function of a user returns for its arguments; infinity rules something out.

    Raises:
        InputError: naming the function, where it fails or returns anything else.

    >>> evaluate_energies("prior", lambda places: places.sum(1), 2, torch.ones(2, 3))
    tensor([3., 3.])
    """
    name = f"{what} {function_name(f)}"
    instead = f"expected energies ({n},), one finite number or +inf each; correct it"
    try:
        found = f(*arguments)
    except EnergycompError:
        raise
    except Exception as error:
        raise InputError(f"got {type(error).__name__} of the {name}: {first_line(error)}; {instead}") from error
    if not isinstance(found, Tensor) or found.shape != (n,) or found.is_complex():
        shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise InputError(f"got {shape} of the {name}; {instead}")
    if bool((found.isnan() | (found == -torch.inf)).any()):
        raise InputError(f"got an energy of NaN or -inf of the {name}; {instead}")
    return found
