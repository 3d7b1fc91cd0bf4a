"""Values of a conditioner: from the arguments of a call, lists, arrays and text, or at random from the support."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributions import constraints, transform_to

from energycomp.components.conditioning import Conditioner, ability, mixed_of
from energycomp.components.support import MixedSupport
from energycomp.components.weights import scalar
from energycomp.errors import InputError
from energycomp.seeds import as_generator


def parse_value(conditioner: Conditioner, *args: Any, **kwargs: Any) -> Tensor:
    """The arguments that a model is called with as one value (1, *V).

    They are the arguments of the conditioner's `parse`, or a value itself: a tensor or an array of shape V or (1, *V),
    such as a row of `Solution.conditions`, or its elements one after another.

    Raises:
        InputError: the conditioner has no such value.

    >>> from energycomp.testing import UnitSquare
    >>> row = torch.tensor([0.25, 0.5])
    >>> parse_value(UnitSquare(), 0.25, 0.5).equal(parse_value(UnitSquare(), *row)), parse_value(UnitSquare(), row)
    (True, tensor([[0.2500, 0.5000]]))
    """
    shape = tuple(conditioner.value_shape)
    if args and not kwargs and all(isinstance(arg, Tensor | np.ndarray | np.generic) for arg in args):
        # A value as one array, or its elements one after another
        parts = [part for part in map(_numbers, args) if part is not None]
        whole = None
        if len(parts) == len(args) and len({part.shape for part in parts}) == 1:
            whole = parts[0] if len(args) == 1 else torch.stack(parts)
        if whole is not None and tuple(whole.shape) in (shape, (1, *shape)):
            if not _are_legal(conditioner, whole.reshape(1, *shape)).all():
                raise InputError(f"got the value {whole.tolist()}; expected a legal value of shape {shape}")
            return _as_type(conditioner, whole).reshape(1, *shape)
    return conditioner.parse(*map(scalar, args), **{name: scalar(arg) for name, arg in kwargs.items()})


def value_of(conditioner: Conditioner, given: Any) -> Tensor:
    """One value (1, *V) from what a model is called with: a mapping or a list of arguments, or one argument.

    Raises:
        InputError: the conditioner has no such value.
    """
    try:
        if isinstance(given, Mapping):
            return parse_value(conditioner, **given)
        return parse_value(conditioner, *given) if isinstance(given, list | tuple) else parse_value(conditioner, given)
    except TypeError as error:  # of a `parse` with other arguments
        got = f"got {given!r}, which {type(conditioner).__name__} does not take ({error})"
        raise InputError(f"{got}; expected what the model is called with, such as (0.4, 0.6)") from error


def values_of(conditioner: Conditioner, given: Any, *, name: str = "values") -> Tensor:
    """Several values (M, *V): a tensor, an array or nested lists of numbers, or a list of what `value_of` takes.

    Raises:
        InputError: not all of them, which the error calls by that name, are values of the conditioner.

    >>> from energycomp.testing import Labels, UnitSquare
    >>> values_of(Labels(4), [3, 1]), values_of(UnitSquare(), [(0.25, 0.5), (0, 1)]).shape
    (tensor([3, 1]), torch.Size([2, 2]))
    """
    shape = tuple(conditioner.value_shape)
    values = _numbers(given)
    mixed = mixed_of(conditioner)
    if isinstance(given, Sequence) and not isinstance(given, str) and len(given):
        short = values is not None and mixed is not None and tuple(values.shape[1:]) != shape
        if values is None or short:  # numbers alone leave the attributes open
            values = torch.cat([value_of(conditioner, one) for one in given])
    if mixed is not None and values is not None and values.ndim == 2:
        numbers = mixed.support.length
        if values.shape[1] == numbers + len(mixed.support.words):  # what is not read stays open, such as a turn
            values = mixed.support.joined(values[:, :numbers], values[:, numbers:])
    if values is not None and values.shape == (0,):
        values = values.reshape(0, *shape)
    fits = values is not None and values.ndim == 1 + len(shape) and tuple(values.shape[1:]) == shape
    legal = _are_legal(conditioner, values) if values is not None and fits else None
    if values is None or legal is None or not legal.all():
        got = f"{name} {given!r}" if values is None else f"{name} of shape {tuple(values.shape)}"
        if values is not None and legal is not None:
            got += f", such as {values[~legal][0].tolist()}"
        expected = f"legal values of {type(conditioner).__name__} of shape ({', '.join(map(str, ('M', *shape)))})"
        raise InputError(f"got {got}; expected {expected}; give a list of values, and check their range")
    return _as_type(conditioner, values)


def _numbers(given: Any) -> Tensor | None:
    """A tensor as it is, a copy of an array or of nested lists of numbers; None for anything else."""
    if isinstance(given, Sequence) and any(isinstance(one, Tensor) for one in given):
        return None
    try:
        found = given if isinstance(given, Tensor) else torch.from_numpy(np.array(given))
    except (TypeError, ValueError, RuntimeError):
        return None
    if found.dtype == torch.bool or found.is_complex():
        return None
    return found.float() if found.dtype == torch.float64 and found is not given else found


def _are_legal(conditioner: Conditioner, values: Tensor) -> Tensor:
    """Which of values (M, *V) the conditioner takes, (M,)."""
    count = len(values)
    if not values.numel():  # torch's constraints refuse it
        return torch.ones(count, dtype=torch.bool)
    finite = torch.isfinite(values).reshape(count, -1).all(1)
    return finite & conditioner.support.check(values).reshape(count, -1).all(1)


def _as_type(conditioner: Conditioner, values: Tensor) -> Tensor:
    if conditioner.support.is_discrete:
        return values.long()
    return values if values.is_floating_point() else values.float()


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
    if (read := ability(conditioner, "read")) is not None:
        read_by_itself: Tensor = read(text)
        return read_by_itself
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for part in text.split(","):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if equals and name.isidentifier() and name not in kwargs:
            kwargs[name] = _literal(value)
        elif part.strip() and not equals:
            args.append(_literal(part.strip()))
        else:
            expected = "expected arguments with commas between them, such as 0.3,0.5 or name=value"
            raise InputError(f"got {text!r}; {expected}")
    return conditioner.parse(*args, **kwargs)


def _literal(text: str) -> Any:
    """A number, a JSON value, or else the text itself."""
    for convert in (json.loads, float):
        try:
            return convert(text)
        except (ValueError, RecursionError):
            continue
    return text


def random_values(conditioner: Conditioner, count: int, *, generator: int | torch.Generator | None = None) -> Tensor:
    """Legal values (count, *V) at random: uniform where they can be listed, else a normal sample mapped to the support.

    Each attribute of a `MixedConditioner` is one of its words, or open.

    >>> from energycomp.components import Latents
    >>> random_values(Latents(3), 2).shape
    torch.Size([2, 3])
    """
    generator = as_generator(generator)
    if (enumerate_support := ability(conditioner, "enumerate_support")) is not None:
        legal: Tensor = enumerate_support()
        return legal[torch.randint(len(legal), (count,), generator=generator)]
    support = conditioner.support
    if not isinstance(support, MixedSupport):
        return _random_numbers(support, (count, *conditioner.value_shape), generator)
    numbers = _random_numbers(support.continuous, (count, support.length), generator)
    codes = [torch.randint(n + 1, (count, 1), generator=generator) for n in support.words]
    return support.joined(numbers, torch.cat(codes, dim=1))


def _random_numbers(
    support: constraints.Constraint, shape: tuple[int, ...], generator: torch.Generator | None
) -> Tensor:
    numbers: Tensor = transform_to(support)(torch.randn(*shape, generator=generator))
    return numbers
