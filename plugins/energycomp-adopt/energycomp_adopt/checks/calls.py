"""What a check costs: the evaluations of a network, which is asked once for equal inputs."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import attrs
from torch import Tensor, nn

from energycomp.components import Condition


@attrs.define
class Calls:
    """The evaluations of a network, in rows, and what it gave for what, once it is known to repeat."""

    evaluations: int = 0
    known: dict[Any, Any] | None = None


@contextmanager
def count_calls(network: nn.Module) -> Iterator[Calls]:
    """Counts a network within it, and evaluates it once for equal inputs: options that read one output share it."""
    own = vars(network).get("forward")
    forward = network.forward
    calls = Calls()

    @functools.wraps(forward)
    def call(*args: Any, **kwargs: Any) -> Any:
        given = [part for one in (*args, *kwargs.values()) for part in _parts(one)]
        # What is no tensor or number, such as a dict of tensors, is not compared
        known = calls.known
        if not all(one is None or isinstance(one, Tensor | int | float | str) for one in given):
            known = None
        key = () if known is None else tuple(_digest(one) if isinstance(one, Tensor) else one for one in given)
        if known is not None and key in known:
            return known[key]
        calls.evaluations += max((len(one) for one in given if isinstance(one, Tensor) and one.ndim), default=1)
        out = forward(*args, **kwargs)
        if known is not None:
            known[key] = out
        return out

    network.forward = call
    try:
        yield calls
    finally:
        del network.forward
        if own is not None:
            network.forward = own


def _parts(given: Any) -> tuple[Any, ...]:
    """The tensors of a condition, or what is given alone."""
    return (given.rows, given.null, given.pooled, given.mask) if isinstance(given, Condition) else (given,)


def _digest(tensor: Tensor) -> bytes:
    return hashlib.sha256(tensor.detach().cpu().double().numpy().tobytes()).digest()
