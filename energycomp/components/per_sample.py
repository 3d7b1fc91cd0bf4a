"""Compositions of one batch, one for each sample: weights that vary over the samples."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import attrs
import torch
from torch import Tensor

from energycomp.components.algebra import Composition
from energycomp.components.component import EnergyComponent
from energycomp.components.space import by_sample
from energycomp.components.weights import AnyWeight, Weight, varies
from energycomp.errors import CompositionError, InputError

SHOWN = 4  # numbers in a formula


@attrs.frozen(repr=False)
class _Numbers:
    """One number for each of n samples; sample i of a batch has number i mod n."""

    numbers: tuple[float, ...]
    edges = ()

    @property
    def samples(self) -> int:
        return len(self.numbers)

    def at(self, share: Tensor, shape: tuple[int, ...], /) -> Tensor:
        batch = len(share)
        count = len(self.numbers)
        if batch % count:
            got = f"got a batch of {batch} samples for {count} compositions, one for each sample"
            raise InputError(f"{got}; expected a multiple of {count}; sample n={count} of them")
        return by_sample(torch.tensor(self.numbers, dtype=torch.float64).repeat(batch // count), 1 + len(shape))

    def __repr__(self) -> str:
        shown = [f"{number:g}" for number in self.numbers[:SHOWN]] + ["..."] * (len(self.numbers) > SHOWN)
        return f"[{', '.join(shown)} by sample]"


def per_sample(compositions: Sequence[EnergyComponent]) -> Composition:
    """One composition for each sample of a batch: sample i follows composition i modulo n, of n compositions.

    It is one composition, whose weights vary over the samples: it can be scaled, combined and guided as any other. A
    sample costs the leaves of its own composition, and all of them are evaluated in one batch. The samples are those of
    sampling one composition after another with the same generators.

    Raises:
        CompositionError: no list, an empty one, components of different spaces, or some that `per_sample` made.

    >>> from energycomp.components import Gaussian
    >>> a, b, c = (Gaussian(mean, name=name) for mean, name in ((0.5, "a"), (1.0, "b"), (2.0, "c")))
    >>> per_sample([a + b, 2 * b, c])
    [1, 0, 0 by sample] a + [1, 2, 0 by sample] b + [0, 0, 1 by sample] c
    >>> per_sample([a, b]).eps(torch.zeros(2, 1, 1, 1), torch.zeros(2)).shape
    torch.Size([2, 1, 1, 1])
    """
    if not isinstance(compositions, Iterable):
        raise CompositionError(f"got {compositions!r}; expected a list of compositions, one a sample; give `[a, b]`")
    parts = [Composition.of(composition) for composition in compositions]
    if not parts:
        raise CompositionError("got no compositions; expected one for each sample; give at least one")
    for part in parts:
        if any(varies(weight) and weight.samples is not None for weight in part.terms.values()):
            got = f"got {part!r}, whose weights vary over samples, for one sample"
            raise CompositionError(
                f"{got}; expected one of one sample; give one list of all compositions to `per_sample`"
            )
    leaves = {id(leaf): leaf for part in parts for leaf in part.terms}
    weights = [[part.terms.get(leaf, 0.0) for part in parts] for leaf in leaves.values()]
    equal = [all(weight == each[0] for weight in each) for each in weights]
    if all(equal) and len(parts) > 1:
        equal[0] = False  # of equal compositions, a weight that is kept for each sample tells how many there are
    return Composition(
        [
            (leaf, each[0] if one else _weight(each))
            for leaf, each, one in zip(leaves.values(), weights, equal, strict=True)
        ]
    )


def _weight(weights: list[AnyWeight]) -> AnyWeight:
    """The weight of a leaf, from its weight in the composition of each sample."""
    total: AnyWeight = 0.0
    numbers = tuple(0.0 if varies(weight) else weight for weight in weights)
    if any(numbers):
        total = Weight([((_Numbers(numbers),), 1.0)])
    for varying in dict.fromkeys(weight for weight in weights if varies(weight)):
        where = tuple(float(weight == varying) for weight in weights)
        total = total + Weight([((_Numbers(where),), 1.0)]) * varying
    return total
