"""Random generators from what a caller gives, and seeds that follow from other seeds and names."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, TypeAlias, overload

import torch

from energycomp.errors import InputError
from energycomp.fields import is_whole

Generator: TypeAlias = int | torch.Generator | Sequence[int | torch.Generator] | None
"""One generator or seed, or one for each sample of a batch; None for neither."""


def derived_seed(*parts: object) -> int:
    """A seed in [0, 2^63) that depends on the parts only, and is the same on every machine.

    >>> derived_seed(0, "epoch", 1) == derived_seed(0, "epoch", 1) != derived_seed(0, "epoch", 2)
    True
    """
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()) >> 1


def as_seed(given: Any) -> int:
    """A seed, a whole number in [0, 2^64); raises `InputError` for anything else."""
    if not is_whole(given) or not 0 <= given < 2**64:
        raise InputError(
            f"got {given!r}; expected a seed, a whole number from 0 to 2^64 - 1, or a torch.Generator; such as "
            "generator=0"
        )
    return int(given)


@overload
def as_generator(given: int | torch.Generator) -> torch.Generator: ...


@overload
def as_generator(given: int | torch.Generator | None) -> torch.Generator | None: ...


def as_generator(given: int | torch.Generator | None) -> torch.Generator | None:
    """A generator as it is, a new one on the CPU for a seed, and None for None.

    Call it once, at the start of a function that draws more than once: two generators of one seed draw the same.

    Raises:
        InputError: neither a generator nor a seed.

    >>> as_generator(3).initial_seed(), as_generator(None)
    (3, None)
    """
    if given is None or isinstance(given, torch.Generator):
        return given
    return torch.Generator().manual_seed(as_seed(given))


def as_generators(given: Generator) -> torch.Generator | list[torch.Generator] | None:
    """As `as_generator`, or a list of generators for a list of generators and seeds.

    >>> [one.initial_seed() for one in as_generators([0, torch.Generator().manual_seed(5)])]
    [0, 5]
    """
    if isinstance(given, Sequence):
        return [one if isinstance(one, torch.Generator) else as_generator(as_seed(one)) for one in given]
    return as_generator(given)
