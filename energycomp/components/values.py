"""Values of a conditioner: read from the text that a person writes, or drawn at random from the support."""

from __future__ import annotations

import json
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.distributions import transform_to

from energycomp.components.conditioning import Conditioner, FiniteConditioner
from energycomp.errors import InputError

__all__ = ["ReadsText", "random_values", "read_value"]


@runtime_checkable
class ReadsText(Protocol):
    """A conditioner that reads the text of a component itself, instead of numbers and NAME=VALUE pairs."""

    def read(self, text: str) -> Tensor:
        """The text of one component as a value (1, *V); raises `InputError`."""
        ...


def read_value(conditioner: Conditioner, text: str) -> Tensor:
    """The text of one component, as typed on a command line, as a value (1, *V).

    A conditioner with a method `read` reads the text itself. For all others the text is a list of arguments of `parse`,
    separated by commas: each is a number, a word, or NAME=VALUE with VALUE in JSON or a word.

    Raises:
        InputError: the conditioner has no such value, or the text is empty.

    >>> from energycomp.components import Latents
    >>> read_value(Latents(3), "0.5, 1, -2")
    tensor([[ 0.5000,  1.0000, -2.0000]])
    """
    if isinstance(conditioner, ReadsText):
        return conditioner.read(text)
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for part in text.split(","):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if equals and name.isidentifier() and name not in kwargs:
            kwargs[name] = _literal(value)
        elif part.strip() and not equals:
            args.append(_literal(part.strip()))
        else:
            raise InputError(
                f"got {text!r}; expected arguments with commas between them, such as 0.3,0.5 or name=value"
            )
    return conditioner.parse(*args, **kwargs)


def _literal(text: str) -> Any:
    """A number, a JSON value, or else the text itself."""
    for convert in (json.loads, float):
        try:
            return convert(text)
        except (ValueError, RecursionError):
            continue
    return text


def random_values(conditioner: Conditioner, count: int, *, generator: torch.Generator | None = None) -> Tensor:
    """Legal values (count, *V) at random: uniform where they can be listed, else a normal sample mapped to the support.

    >>> from energycomp.components import Latents
    >>> random_values(Latents(3), 2).shape
    torch.Size([2, 3])
    """
    if isinstance(conditioner, FiniteConditioner):
        legal = conditioner.enumerate_support()
        return legal[torch.randint(len(legal), (count,), generator=generator)]
    free = torch.randn(count, *conditioner.value_shape, generator=generator)
    values: Tensor = transform_to(conditioner.support)(free)
    return values
