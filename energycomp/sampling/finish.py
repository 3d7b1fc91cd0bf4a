"""Decoded samples are finished by their network, which is told what each of them shows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from energycomp.components import Condition
from energycomp.components.algebra import Composition
from energycomp.denoisers.denoiser import Conditional
from energycomp.denoisers.protocols import Finishes
from energycomp.sampling.drawn import shown_by


def finishing(composition: Composition, decode: Callable[[Tensor], Tensor] | None) -> Callable[[Tensor], Tensor] | None:
    """What decodes samples, and has their network finish them, see `energycomp.denoisers.Finishes`.

    It is `decode` itself where nobody knows what a sample shows: of alternatives, of components on parts of it, and of
    those that are no components of one such network.

    >>> from energycomp.components import Gaussian
    >>> finishing(Composition.of(Gaussian()), None) is None
    True
    """
    leaves = list(composition.terms.items())
    network: Any = next((leaf.denoiser.network for leaf, _ in leaves if isinstance(leaf, Conditional)), None)
    known = all(isinstance(leaf, Conditional) and leaf.denoiser.network is network for leaf, _ in leaves)
    if decode is None or not known or not isinstance(network, Finishes):
        return decode
    made, finishes = decode, network  # not None

    def finished(samples: Tensor) -> Tensor:
        # Each sample's own rows of the components that it shows
        conditions: list[list[Condition]] = [[] for _ in samples]
        for leaf, weight in leaves:
            rows = leaf.condition.expand(len(samples))
            for number in shown_by(weight, len(samples)).nonzero()[:, 0].tolist():
                conditions[number].append(rows[number : number + 1])
        return finishes.finish(made(samples), [Condition.cat(one) for one in conditions])

    return finished
