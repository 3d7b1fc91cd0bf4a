"""The exceptions and the warning of energycomp. Every message says what was got, what was expected and what to do."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class EnergycompError(Exception):
    """Base of all errors that energycomp raises on purpose; the CLI prints its message without a traceback.

    >>> from energycomp import load
    >>> try:
    ...     load("clever")
    ... except EnergycompError as error:
    ...     print(type(error).__name__)
    NotFoundError
    """


class InputError(EnergycompError, ValueError):
    """A value, shape, file or picture from the caller is not what the function takes.

    >>> from energycomp.seeds import as_generator
    >>> as_generator("one")
    Traceback (most recent call last):
    energycomp.errors.InputError: got ...
    """


class OutOfDistributionError(InputError):
    """An image of a kind that a model does not know, which is refused; the CLI ends with the exit code 3."""


class CompositionError(EnergycompError, TypeError):
    """Components that cannot be composed: other space, schedule or shape, or no trained unconditional row.

    >>> from energycomp.components import Gaussian
    >>> Gaussian(name="a", sample_shape=(2,)) + Gaussian(name="b", sample_shape=(3,))
    Traceback (most recent call last):
    energycomp.errors.CompositionError: got a with sample_shape (2,) and b with sample_shape (3,); expected one ...
    """


class NotFoundError(EnergycompError, LookupError):
    """A name that no plugin registers, or a path or hub id that holds no model.

    >>> from energycomp.plugins import find
    >>> find("solvers", "beem")
    Traceback (most recent call last):
    energycomp.errors.NotFoundError: No solver is named 'beem'. Did you mean 'beam'? Known solvers: ...
    """


class PluginError(EnergycompError):
    """A plugin that breaks the contract of its hook, or two plugins that claim one name.

    >>> from energycomp.plugins import Imported
    >>> Imported("energycomp.plugins:nothing")()
    Traceback (most recent call last):
    energycomp.errors.PluginError: Got AttributeError from 'energycomp.plugins:nothing': ...
    """


class CheckpointError(EnergycompError):
    """Files on disk that are incomplete, altered, or do not fit the network they are loaded into."""


class HubError(EnergycompError, ConnectionError):
    """The hub refused a token or an upload, or the connection to it broke off."""


class NonFiniteError(EnergycompError, ArithmeticError):
    """A network predicted NaN or infinity; the message names the component and the step.

    >>> import torch
    >>> from energycomp.components import Gaussian
    >>> (2 * Gaussian(name="a")).eps(torch.full((1, 1, 1, 1), torch.nan), torch.zeros(1))
    Traceback (most recent call last):
    energycomp.errors.NonFiniteError: got a prediction of a that is not finite at timesteps [0.0]; expected ...
    """


class EnergycompWarning(UserWarning):
    """Base of all warnings of energycomp about samples and answers; the CLI prints them as it prints errors."""


@contextmanager
def plain_warnings() -> Iterator[None]:
    """Prints the warnings of energycomp in the block as one line each on stderr; others as Python prints them.

    >>> from contextlib import redirect_stderr
    >>> with plain_warnings(), redirect_stderr(sys.stdout):
    ...     warnings.simplefilter("always")
    ...     warnings.warn("few particles are left", EnergycompWarning)
    energycomp: warning: few particles are left
    """
    with warnings.catch_warnings():
        usual = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
            if issubclass(category, EnergycompWarning):
                print(f"energycomp: warning: {message}", file=sys.stderr)  # noqa: T201
            else:
                usual(message, category, *where, **more)

        warnings.showwarning = show
        yield


def first_line(error: Exception) -> str:
    r"""What an error of a library says first, for a message of one line.

    >>> first_line(ValueError("no such file\nand how to get help")), first_line(KeyError())
    ('no such file', 'KeyError')
    """
    return (str(error).splitlines() or [type(error).__name__])[0]
