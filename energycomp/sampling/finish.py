"""Decoded samples are finished by their network, which is told what each of them shows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import Tensor

from energycomp.components import AnyWeight, Condition
from energycomp.components.algebra import Composition
from energycomp.denoisers.denoiser import Conditional
from energycomp.sampling.drawn import shown_by


def finishing(composition: Composition, decode: Callable[[Tensor], Tensor] | None) -> Callable[[Tensor], Tensor] | None:
    """What decodes samples, and has their network finish them, see `energycomp.denoisers.Network`.

    It is `decode` itself where nobody knows what a sample shows: of alternatives, of components on parts of it, and of
    those that are no components of one such network.

    >>> from energycomp.components import Gaussian
    >>> finishing(Composition.of(Gaussian()), None) is None
    True
    """
    leaves = dict(composition.terms)
    network: Any = next((leaf.denoiser.network for leaf in leaves if isinstance(leaf, Conditional)), None)
    known = all(isinstance(leaf, Conditional) and leaf.denoiser.network is network for leaf in leaves)
    if decode is None or not known or not hasattr(network, "finish"):
        return decode
    return partial(_finished, decode, network, leaves)


def _finished(
    decode: Callable[[Tensor], Tensor], network: Any, leaves: Mapping[Any, AnyWeight], samples: Tensor
) -> Tensor:
    # Each sample's own rows of the components that it shows
    shown: list[list[Condition]] = [[] for _ in samples]
    for leaf, weight in leaves.items():
        rows = leaf.condition.expand(len(samples))
        for number in shown_by(weight, len(samples)).nonzero()[:, 0].tolist():
            shown[number].append(rows[number : number + 1])
    nothing = Condition.unconditional(*rows.shape, device=rows.rows.device)
    return network.finish(decode(samples), [Condition.cat([nothing, *one]) for one in shown])
