"""Random generators from what a caller gives, the noise that they draw, and seeds that follow from other seeds."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias, overload

import torch
from torch import Tensor

from energycomp.errors import InputError
from energycomp.fields import is_whole

Generator: TypeAlias = int | torch.Generator | Sequence[int | torch.Generator] | None
"""One generator or seed, or one for each sample of a batch; None for neither."""


def derived_seed(*parts: object) -> int:
    """A seed in [0, 2^63) that depends on the parts only, and is the same on every machine."""
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
    """
    if given is None or isinstance(given, torch.Generator):
        return given
    return torch.Generator().manual_seed(as_seed(given))


def as_generators(given: Generator) -> torch.Generator | list[torch.Generator] | None:
    """As `as_generator`, or a list of generators for a list of generators and seeds."""
    if isinstance(given, Sequence):
        return [one if isinstance(one, torch.Generator) else as_generator(as_seed(one)) for one in given]
    return as_generator(given)


@overload
def seeded(given: int | torch.Generator | None, batch: int | None = None) -> torch.Generator: ...


@overload
def seeded(given: Generator, batch: int | None = None) -> torch.Generator | list[torch.Generator]: ...


def seeded(given: Generator, batch: int | None = None) -> torch.Generator | list[torch.Generator]:
    """As `as_generators`, with a generator of a fresh seed for None, which leaves the global one alone.

    Args:
        batch: the number of samples, as many as a list must have generators; None for any.

    Raises:
        InputError: a list of another length.
    """
    generator = as_generators(given)
    if generator is None:
        generator = torch.Generator()
        generator.seed()
    if batch is not None and isinstance(generator, list) and len(generator) != batch:
        raise InputError(
            f"generator: got a list of {len(generator)}, expected one generator or {batch}, one per sample"
        )
    return generator


def draw_noise(
    shape: Sequence[int],
    *,
    generator: Generator = None,
    device: torch.device | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Standard normal noise (B, ...).

    Args:
        generator: one, or a seed; or one for each of the B samples, which makes a sample independent of its batch; None
            draws a fresh seed and leaves the global one alone. `InputError` for another number of them.
    """
    random = seeded(generator, shape[0])
    if isinstance(random, list):
        return torch.cat([draw_noise((1, *shape[1:]), generator=one, device=device, dtype=dtype) for one in random])
    # On the device of the generator, so that a seed means the same everywhere
    return torch.randn(*shape, generator=random, device=random.device, dtype=dtype).to(device)


@contextmanager
def torch_seed(seed: int) -> Iterator[None]:
    """The global generator of torch, which new layers draw from, starts at a seed, and is restored after the block.

    >>> with torch_seed(0):
    ...     layer = torch.nn.Linear(1, 1)
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
