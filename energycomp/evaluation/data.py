"""What `energycomp data` writes and `energycomp evaluate` reads: pictures with the values that made them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, overload

import attrs
from torch import Tensor
from torchmetrics import MetricCollection

from energycomp.errors import InputError

__all__ = ["DataSource", "Example", "Generated", "parse_range"]


@attrs.frozen(eq=False)
class Example:
    """A picture, as `ImageProcessor` takes it, and its true values (K, *V)."""

    image: Any
    values: Tensor
    name: str


@attrs.frozen
class Generated(Sequence[Example]):
    """Examples that are each made when they are asked for.

    Args:
        number: how many.
        make: the example of an index; the same at every call.

    >>> import torch
    >>> blank = Generated(3, lambda k: Example(None, torch.zeros(0), f"scene {k}"))
    >>> len(blank), blank[-1].name, [example.name for example in blank[:2]]
    (3, 'scene 2', ['scene 0', 'scene 1'])
    """

    number: int
    make: Callable[[int], Example]

    def __len__(self) -> int:
        return self.number

    @overload
    def __getitem__(self, index: int) -> Example: ...

    @overload
    def __getitem__(self, index: slice) -> list[Example]: ...

    def __getitem__(self, index: int | slice) -> Example | list[Example]:
        if isinstance(index, slice):
            return [self.make(k) for k in range(*index.indices(self.number))]
        return self.make(range(self.number)[index])


class DataSource(Protocol):
    """A plugin's data: examples to evaluate on, and files to train on elsewhere.

    One whose values mean something else to another model may have `adapted(conditioner) -> DataSource`, too: the same
    data with values as that conditioner numbers them.

    One of pictures for a model that takes words has `concepts(spec) -> Sequence[str]`, the words that the pictures of a
    spec are of, among which a reader chooses.

    One that can tell whether scenes that a model makes of its own are right may have `scene_scores(decomposer, *,
    count, seed) -> Mapping[str, float]`: what is measured of `count` pictures of `decomposer.sample`.
    """

    def examples(self, spec: str, *, count: int, seed: int) -> Sequence[Example]:
        """At most `count` examples of "synthetic...", rendered, or of a folder; raises `InputError`."""
        ...

    def write(self, folder: Path, *, count: int, seed: int, options: str, progress: Callable[[int], None]) -> None:
        """Writes `count` examples in the layout that `examples` reads; `options` are the source's own."""
        ...

    def metrics(self) -> MetricCollection:
        """Metrics whose `update` takes lists of values (K, *V): found ones first, true ones second.

        Where values are the factors (1, F) of a picture, what is found are latents (K, D).

        One that names a third argument, `probability`, gets the posterior (K,) of each found value, or None.
        """
        ...


def parse_range(text: str, *, least: int = 0, greatest: int = 64) -> tuple[int, int]:
    """A range of counts that a person writes, "3-5" or "4", as (3, 5) or (4, 4).

    >>> parse_range("3-5"), parse_range("4")
    ((3, 5), (4, 4))
    """
    found = re.fullmatch(r"([0-9]{1,4})(?:-([0-9]{1,4}))?", text)
    low, high = (int(found[1]), int(found[2] or found[1])) if found else (-1, -1)
    if found is None or not least <= low <= high <= greatest:
        raise InputError(f"got the range {text!r}; expected two counts from {least} to {greatest}, such as 3-5, or one")
    return low, high
