"""The target of a sampler: a composition at any noise level, all of its leaves in one batch."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import attrs
import torch
from torch import Tensor

from energycomp.components.algebra import Composition, Mixture, combine
from energycomp.components.component import EnergyComponent, HasEnergy, LeafGroup
from energycomp.components.predict import active_samples, grouped, native_type, predict, predict_all, predict_leaves
from energycomp.components.prediction import PredictionType, convert
from energycomp.components.space import NoisedSpace, log_snr, trailing_timesteps
from energycomp.components.terms import weights_at
from energycomp.components.weights import constant_weights, noise_share
from energycomp.errors import CompositionError, InputError, NonFiniteError
from energycomp.sampling.guidance import Guide


def _composition(component: EnergyComponent) -> Composition:
    return Composition.of(component)  # mypy knows converters that are functions only


def inner_leaves(composition: Composition) -> list[Any]:
    """The leaves of a composition, with those inside a mixture in its place."""
    inner = [leaf.leaves if isinstance(leaf, Mixture) else Composition.of(leaf) for leaf in composition.terms]
    return [leaf for part in inner for leaf in part.terms]


@attrs.define(eq=False)
class Target:
    """What a sampler sees of a composition: sum_i b_i E_i at any noise level. K leaves, B samples (B, C, H, W).

    Args:
        composition: the weighted sum of leaves.
        mixed_precision: "bf16" runs networks in bfloat16.
        guide: what `compose` makes of the prediction of the composition and that of its unconditional leaf; None to
            leave it as it is.
        evaluations: component evaluations so far: one is the prediction, or the energy, of one leaf for one sample.

    >>> from energycomp.components import Gaussian
    >>> target = Target(2 * Gaussian(0.5) - Gaussian(0.0))
    >>> target.weights, target.has_energies
    ((2.0, -1.0), True)
    >>> target.predict(torch.zeros(3, 1, 1, 1), torch.full((3,), 500.0)).shape, target.evaluations
    (torch.Size([2, 3, 1, 1, 1]), 6)
    """

    composition: Composition = attrs.field(converter=_composition)
    mixed_precision: Literal["no", "bf16"] = "no"
    guide: Guide | None = None
    evaluations: int = attrs.field(default=0, init=False)

    @property
    def weights(self) -> tuple[float, ...]:
        """The weight b_i of each leaf, (K,).

        Raises:
            InputError: a weight that varies over samples, pixels or the noise level; `compose` takes it.
        """
        instead = "leave the sampler out (sampler= or --sampler): the loop of a scheduler follows weights of any kind"
        return tuple(constant_weights(self.composition.terms, "this sampler", instead).values())

    @property
    def noised_space(self) -> NoisedSpace:
        """Where samples live: their shape, value range and noise schedule."""
        return self.composition.noised_space

    @property
    def groups(self) -> list[LeafGroup]:
        """What predicts the leaves, those inside a mixture included."""
        return [group for group, _ in grouped(inner_leaves(self.composition))]

    @property
    def prediction_type(self) -> PredictionType:
        """The type in which the leaves are summed, and guided, without a conversion."""
        return native_type(self.composition) if self.guide is None else self._guided_type(self.guide)

    @property
    def has_energies(self) -> bool:
        """Whether every leaf has an energy."""
        return all(isinstance(leaf, HasEnergy) for leaf in self.composition.terms)

    @property
    def device(self) -> torch.device:
        """Where samples must be.

        Raises:
            CompositionError: the leaves are on several devices.
        """
        devices = {str(group.device): group.device for group in self.groups if group.device is not None}
        if len(devices) > 1:
            raise CompositionError(
                f"got components on the devices {sorted(devices)}; expected one; move the models with `.to(device)` "
                "first"
            )
        return next(iter(devices.values()), self.noised_space.alphas_cumprod.device)

    def compose(self, sample: Tensor, timestep: Tensor, *, prediction_type: PredictionType = "epsilon") -> Tensor:
        """The composed, and guided, prediction (B, C, H, W) at timesteps (B,), see `energycomp.components.predict`."""
        if self.guide is None:
            self._count_active([self.composition], sample, timestep)
            with self._precision():
                return predict(self.composition, sample, timestep, prediction_type=prediction_type)
        both = [self._whole, Composition.of(self.composition.unconditional)]
        kind = self._guided_type(self.guide)
        self._count_active(both, sample, timestep)
        with self._precision():
            cond, uncond = predict_all(both, sample, timestep, prediction_type=kind)
        space = self.noised_space
        guided = self.guide.combine(cond, uncond, noise_share(timestep, len(space.alphas_cumprod)))
        levels = space.levels(timestep, guided.dtype)
        return convert(guided, sample, *levels, source=kind, target=prediction_type)

    def predict(self, sample: Tensor, timestep: Tensor, *, prediction_type: PredictionType = "epsilon") -> Tensor:
        """The prediction of every leaf, (K, B, C, H, W), in one batch per group; timesteps (B,).

        Raises:
            NonFiniteError: naming the component whose prediction is not finite.
        """
        self._count(sample, len(self.composition.terms))
        with self._precision():
            return predict_leaves(self.composition, sample, timestep, prediction_type=prediction_type)

    def energies(self, sample: Tensor, timestep: Tensor) -> Tensor:
        """The energy of every leaf, (K, B), each up to a constant that may depend on the timestep.

        Raises:
            CompositionError: a leaf without an energy.
            NonFiniteError: naming the component whose energy is not finite.
        """
        if not self.has_energies:
            raise CompositionError(
                f"got {self.composition!r} with leaves that have no energy; expected `energy(sample, timestep)`; "
                "choose a sampler that needs noise predictions only"
            )
        self._count(sample, len(self.composition.terms))
        energies = torch.stack([leaf.energy(sample, timestep) for leaf in self.composition.terms])
        for leaf, energy in zip(self.composition.terms, energies, strict=True):
            if not bool(torch.isfinite(energy).all()):
                raise NonFiniteError(
                    f"got an energy of {leaf!r} that is not finite at timesteps {timestep.tolist()[:4]}; expected "
                    "numbers; check the weights, the input and the precision"
                )
        return energies

    def log_snr(self, timestep: Tensor) -> Tensor:
        """log(alpha_bar / (1 - alpha_bar)) at real timesteps in [0, T], in float64."""
        return log_snr(self.noised_space.alphas_cumprod, timestep)

    def timesteps(self, num_inference_steps: int) -> Tensor:
        """N timesteps from T - 1 downwards, T / N apart ("trailing" in diffusers), (N,).

        >>> from energycomp.components import Gaussian
        >>> Target(Gaussian()).timesteps(4)
        tensor([999., 749., 499., 249.])
        """
        T = len(self.noised_space.alphas_cumprod)
        if not 1 <= num_inference_steps <= T:
            raise InputError(f"got num_inference_steps={num_inference_steps}; expected 1 to {T}; change it")
        return trailing_timesteps(T, num_inference_steps).to(self.device, torch.float32)

    @property
    def _whole(self) -> Composition:
        """The composition at mass 1: c = u + R(C)."""
        return combine([self.composition], "product")

    def _guided_type(self, guide: Guide) -> PredictionType:
        return guide.prediction_type or native_type(self._whole)

    def _count_active(self, compositions: Sequence[Composition], sample: Tensor, timestep: Tensor) -> None:
        size = (sample.shape[-2], sample.shape[-1])
        active = active_samples((weights_at(c.terms, timestep, size) for c in compositions), len(sample))
        self.evaluations += sum(len(sample) if where is None else len(where) for _, where in active)

    def _count(self, sample: Tensor, leaves: int) -> None:
        self.evaluations += leaves * len(sample)

    def _precision(self) -> AbstractContextManager[object]:
        return torch.autocast(self.device.type, torch.bfloat16) if self.mixed_precision == "bf16" else nullcontext()
