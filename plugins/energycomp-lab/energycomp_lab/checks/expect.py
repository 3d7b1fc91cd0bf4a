"""What all checks use: the error that they raise, and comparisons that raise it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from energycomp.errors import EnergycompError, InputError


class ConformanceError(EnergycompError, AssertionError):
    """An object does not do what its protocol promises.

    >>> expect(2 > 3, "2 images", "more than 3", "write more")
    Traceback (most recent call last):
    energycomp_lab.checks.expect.ConformanceError: got 2 images; expected more than 3; write more
    """


class NotCheckedError(Exception):
    """A check needs something that is not known, such as the arguments of a network."""


def expect(condition: bool, got: str, expected: str, hint: str) -> None:
    """Raises ConformanceError unless the condition holds."""
    if not condition:
        raise ConformanceError(f"got {got}; expected {expected}; {hint}")


def expect_tensor(tensor: Tensor, shape: tuple[int, ...], what: str, hint: str) -> None:
    """Raises ConformanceError unless the tensor has the shape, and finite numbers."""
    expect(tuple(tensor.shape) == shape, f"{what} of shape {tuple(tensor.shape)}", f"{shape}", hint)
    finite = bool(torch.isfinite(tensor).all())
    expect(finite, f"{what} with NaN or infinity", "finite numbers", "check both ends of t, and what is divided")


def expect_latents(latents: Any, count: int, what: str) -> None:
    """Raises ConformanceError unless they are latents (count, K, D), finite."""
    shaped = isinstance(latents, Tensor) and latents.ndim == 3 and len(latents) == count and latents.numel() > 0
    shape = tuple(latents.shape) if isinstance(latents, Tensor) else ()
    expect(shaped, f"latents {shape} of {count} {what}", f"({count}, K, D)", "one row per part")
    expect(bool(torch.isfinite(latents).all()), "latents with NaN or infinity", "finite numbers", "check the layers")


def expect_same_weights(module: nn.Module, other: nn.Module, made: str) -> None:
    """Raises ConformanceError unless both modules have weights of the same names and shapes."""
    shapes, others = ({name: w.shape for name, w in net.state_dict().items()} for net in (module, other))
    expect(shapes == others, f"other weights in {made}", "the same names and shapes", "complete its config")


def expect_close(got: Tensor, expected: Tensor, tolerance: float, what: str, other: str) -> None:
    """Raises ConformanceError unless both tensors agree, relative to the largest expected value."""
    scale = float(expected.detach().abs().max()) + 1e-12
    off = float((got - expected).detach().abs().max()) / scale
    expect(off <= tolerance, f"{what}, off by {off:.2g} of its size", f"{other}, to {tolerance:g}", "compare both")


def expect_same_state(state: Tensor, what: str = "") -> None:
    """Raises ConformanceError if the global random state is no longer `state`."""
    same = torch.equal(state, torch.get_rng_state())
    expect(same, f"a change of the global random state{what}", "none", "draw from the generator, or draw nothing")


def expect_refusal(what: str, function: Any, *args: Any, **kwargs: Any) -> None:
    """Raises ConformanceError unless the call raises InputError."""
    try:
        result = function(*args, **kwargs)
    except InputError:
        return
    except Exception as error:
        raise ConformanceError(f"got {type(error).__name__} from {what}; expected InputError; check first") from error
    raise ConformanceError(f"got {result!r} from {what}; expected InputError; refuse input that has no meaning")
