"""Mixtures: `a | b` samples what one component or another would, where a product asks for all at once."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from energycomp.components.component import Composable, Composition, HasEnergy
from energycomp.errors import CompositionError

__all__ = ["Mixture", "mix"]


def _compositions(parts: Iterable[Any]) -> tuple[Composition, ...]:
    return tuple(map(Composition.of, parts))


def _numbers(weights: Iterable[Any]) -> tuple[Any, ...]:
    return tuple(weights)


@attrs.frozen(eq=False, repr=False)
class Mixture(Composable):
    """The leaf `a | b`: the density is the sum of w_k exp(-E_k) over its components. It is compared by identity.

    E = -log sum_k exp(log w_k - E_k), and its gradient is that of each component in the share r_k that it has in the
    density at that sample: eps = sum_k r_k eps_k, r = softmax(log w - E).

    Energies are known up to a constant, and so are the shares: components that are not normalised alike make other
    shares of the samples than their weights, and shares that change with the timestep where the constants do. Where
    the constants do not (Gaussians of one variance), a mixture of noised densities is the noised mixture.

    Args:
        components: at least one; every leaf of each must have an energy.
        log_weights: log w_k up to a constant; 0 each when left out.

    Raises:
        CompositionError: a leaf without an energy, leaves of different spaces, weights that are no finite numbers.

    >>> from energycomp.testing import Gaussian
    >>> a, b, c = (Gaussian(mean, name=name) for mean, name in ((-1.0, "a"), (1.0, "b"), (4.0, "c")))
    >>> a | b | c
    (a | b | c)
    >>> origin, end = torch.zeros(1, 1, 1, 1), torch.tensor([0.0])
    >>> (a | b).eps(origin, end).item()  # halfway both pull alike
    0.0
    >>> Mixture([a, b], [0.0, math.log(3)]).shares(origin, end).flatten()  # the weights 1 : 3
    tensor([0.2500, 0.7500])
    """

    components: tuple[Composition, ...] = attrs.field(converter=_compositions)
    log_weights: tuple[float, ...] = attrs.field(converter=_numbers)
    _leaves: Composition = attrs.field(init=False)

    @log_weights.default
    def _equal(self) -> tuple[float, ...]:
        return (0.0,) * len(self.components)

    @log_weights.validator
    def _check_weights(self, _: Any, value: tuple[Any, ...]) -> None:
        numbers = all(isinstance(weight, int | float) and math.isfinite(weight) for weight in value)
        if len(value) != len(self.components) or not numbers:
            raise CompositionError(
                f"got the log weights {value} for {len(self.components)} components; expected a finite number each; "
                "leave out a component of weight 0"
            )

    @_leaves.default
    def _all(self) -> Composition:
        if not self.components or not all(part.terms for part in self.components):
            raise CompositionError("got a mixture of nothing, or of 0; expected components with at least one leaf each")
        leaves = {leaf: 1.0 for part in self.components for leaf in part.terms}
        for leaf in leaves:
            if not isinstance(leaf, HasEnergy):
                raise CompositionError(
                    f"got {leaf!r}, which has no energy; expected components with `energy(sample, timestep)` for `|`, "
                    "since only energies tell how much of each there is; use `+`, or `&` where a leaf is unconditional"
                )
        return Composition(leaves)  # which raises where two do not live in one space

    def eps(self, sample: Tensor, timestep: Tensor) -> Tensor:
        """Noise prediction (B, C, H, W). Costs the energy and the prediction of every distinct leaf."""
        share = self.shares(sample, timestep)  # (K, B)
        known = {leaf: leaf.eps(sample, timestep) for leaf in self._leaves.terms}
        total = torch.zeros_like(sample)
        for part, r in zip(self.components, share, strict=True):
            for leaf, weight in part.terms.items():
                total = total + weight * r[:, None, None, None].to(sample.dtype) * known[leaf]
        return total

    def energy(self, sample: Tensor, timestep: Tensor) -> Tensor:
        """-log sum_k w_k exp(-E_k), (B,). Costs the energy of every distinct leaf."""
        return -torch.logsumexp(self._logits(sample, timestep), dim=0)

    def shares(self, sample: Tensor, timestep: Tensor) -> Tensor:
        """What each component accounts for at a sample: r (K, B), of sum 1 over the components."""
        return torch.softmax(self._logits(sample, timestep), dim=0)

    def _logits(self, sample: Tensor, timestep: Tensor) -> Tensor:
        """log w_k - E_k, (K, B)."""
        known = {leaf: leaf.energy(sample, timestep) for leaf in self._leaves.terms}
        energies = [sum(weight * known[leaf] for leaf, weight in part.terms.items()) for part in self.components]
        return torch.stack([w - energy for w, energy in zip(self.log_weights, energies, strict=True)])

    @property
    def alphas_cumprod(self) -> Tensor:
        """The noise schedule (T,) that the components share."""
        return self._first.alphas_cumprod

    @property
    def sample_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one sample."""
        return self._first.sample_shape

    @property
    def space(self) -> str:
        """The identity of the codec, or "pixels"."""
        return self._first.space

    @property
    def unconditional(self) -> Any:
        """The unconditional leaf that all components share, so that a mixture can stand in `&`."""
        return self._leaves.unconditional

    @property
    def _first(self) -> Any:
        return next(iter(self._leaves.terms))

    def __repr__(self) -> str:
        return f"({' | '.join(map(repr, self.components))})"


def mix(parts: Sequence[Composition]) -> Mixture:
    """What `|` makes; a mixture among the parts brings its components, so that `|` is associative."""
    components: list[Composition] = []
    log_weights: list[float] = []
    for part in parts:
        leaf = next(iter(part.terms), None)
        inner = leaf if isinstance(leaf, Mixture) and dict(part.terms) == {leaf: 1.0} else Mixture([part])
        components += inner.components
        log_weights += inner.log_weights
    return Mixture(components, log_weights)
