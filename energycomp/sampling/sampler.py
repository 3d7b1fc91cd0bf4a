"""What a sampler is, what it sees of a composition, and what it returns: samples, and a report of the run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

import attrs
import torch
from torch import Tensor

from energycomp.components import EnergyComponent, LeafGroup, PredictionType, convert
from energycomp.components.algebra import Composition, Mixture, with_energies
from energycomp.components.ledger import count_component
from energycomp.components.parts import decoder
from energycomp.components.predict import grouped, native_type, predict, predict_all, predict_leaves
from energycomp.components.space import NoisedSpace, log_snr, trailing_timesteps
from energycomp.components.weights import constant_weights, level_weights, noise_share, number_at
from energycomp.denoisers.denoiser import Denoiser
from energycomp.errors import CompositionError, InputError, NonFiniteError
from energycomp.sampling.guidance import Guide, conditional
from energycomp.seeds import Generator

LOOP = "leave the sampler out (sampler= or --sampler): the loop of a scheduler follows weights of any kind"
STUCK = 0.1  # share of proposals that are accepted

StepCallback: TypeAlias = Callable[[int, Any, dict[str, Tensor]], Mapping[str, Any] | None]
"""`callback(step, timestep, {"sample": x_t})`; a mapping that it returns replaces the sample."""


def _composition(component: EnergyComponent) -> Composition:
    return Composition.of(component)  # mypy knows converters that are functions only


def inner_leaves(composition: Composition) -> list[Any]:
    """The leaves of a composition, with those inside a mixture in its place."""
    inner = [leaf.leaves if isinstance(leaf, Mixture) else Composition.of(leaf) for leaf in composition.terms]
    return [leaf for part in inner for leaf in part.terms]


@attrs.frozen(eq=False)
class Target:
    """What a sampler sees of a composition: sum_i b_i E_i at any noise level. K leaves, B samples (B, C, H, W).

    Args:
        composition: the weighted sum of leaves.
        mixed_precision: "bf16" runs networks in bfloat16.
        guide: what `compose` makes of the prediction of the composition; None to leave it as it is.

    >>> from energycomp.components import Gaussian
    >>> target = Target(2 * Gaussian(0.5) - Gaussian(0.0))
    >>> target.weights
    (2.0, -1.0)
    >>> target.predict(torch.zeros(3, 1, 1, 1), torch.full((3,), 500.0)).shape
    torch.Size([2, 3, 1, 1, 1])
    """

    composition: Composition = attrs.field(converter=_composition)
    mixed_precision: Literal["no", "bf16"] = "no"
    guide: Guide | None = None

    def __attrs_post_init__(self) -> None:
        networks = [group.network for group in self.groups if isinstance(group, Denoiser)]
        if self.mixed_precision == "bf16" and any(w.dtype == torch.float16 for n in networks for w in n.parameters()):
            got = f"got mixed_precision='bf16' for {self.composition!r}, whose network is in float16"
            raise InputError(f"{got}; expected float32 or bfloat16; leave mixed_precision out")

    @property
    def weights(self) -> tuple[float, ...]:
        """The weight b_i of each leaf, (K,).

        Raises:
            InputError: a weight that varies over samples, pixels or the noise level; see `weights_at`.
        """
        return tuple(constant_weights(self.composition.terms, "this sampler", LOOP).values())

    def weights_at(self, timestep: float) -> tuple[float, ...]:
        """The weight b_i of each leaf at a timestep, (K,): of guidance, such as `interval`, it varies over these.

        Raises:
            InputError: a weight that varies over samples or pixels; `compose` takes it.

        >>> from energycomp.components import Gaussian, during
        >>> target = Target(during(until=0.4) * Gaussian(0.5) + Gaussian(0.0))
        >>> target.weights_at(999.0), target.weights_at(99.0)
        ((1.0, 1.0), (0.0, 1.0))
        """
        space = self.noised_space
        terms = level_weights(self.composition.terms, space.sample_shape, "this sampler", LOOP)
        share = float(noise_share(torch.tensor([timestep]), len(space.alphas_cumprod)))
        return tuple(number_at(weight, share, space.sample_shape) for weight in terms.values())

    @property
    def noised_space(self) -> NoisedSpace:
        """Where samples live: their shape, value range and noise schedule."""
        return self.composition.noised_space

    @property
    def groups(self) -> list[LeafGroup]:
        """What predicts the leaves, those inside a mixture included."""
        return [group for group, _ in grouped(inner_leaves(self.composition))]

    @property
    def decode(self) -> Callable[[Tensor], Tensor] | None:
        """Samples (B, ...) to the data: images of latents, or numbers; None where samples are the data."""
        return decoder(inner_leaves(self.composition))

    @property
    def prediction_type(self) -> PredictionType:
        """The type in which the leaves are summed, and guided, without a conversion."""
        if self.guide is None:
            return native_type(self.composition)
        return self.guide.prediction_type or native_type(conditional(self.composition))

    @property
    def device(self) -> torch.device:
        """Where samples must be.

        Raises:
            CompositionError: the leaves are on several devices.
        """
        devices = {str(group.device): group.device for group in self.groups if group.device is not None}
        if len(devices) > 1:
            got = f"got components on the devices {sorted(devices)}"
            raise CompositionError(f"{got}; expected one; move the models with `.to(device)` first")
        return next(iter(devices.values()), self.noised_space.alphas_cumprod.device)

    def compose(self, sample: Tensor, timestep: Tensor, *, prediction_type: PredictionType = "epsilon") -> Tensor:
        """The composed, and guided, prediction (B, C, H, W) at timesteps (B,), see `energycomp.components.predict`."""
        guide, kind, space = self.guide, self.prediction_type, self.noised_space
        with self._precision():
            if guide is None:
                return predict(self.composition, sample, timestep, prediction_type=prediction_type)
            needed = [need(self.composition) for need in guide.needs]
            predictions = predict_all(needed, sample, timestep, prediction_type=kind)
        guided = guide.combine(*predictions, noise_share(timestep, len(space.alphas_cumprod)))
        levels = space.levels(timestep, guided.dtype)
        return convert(guided, sample, *levels, source=kind, target=prediction_type)

    def predict(self, sample: Tensor, timestep: Tensor, *, prediction_type: PredictionType = "epsilon") -> Tensor:
        """The prediction of every leaf, (K, B, C, H, W), in one batch per group; timesteps (B,).

        Raises:
            NonFiniteError: naming the component whose prediction is not finite.
        """
        with self._precision():
            return predict_leaves(self.composition, sample, timestep, prediction_type=prediction_type)

    def energies(self, sample: Tensor, timestep: Tensor) -> Tensor:
        """The energy of every leaf, (K, B), each up to a constant that may depend on the timestep.

        Raises:
            CompositionError: a leaf without an energy.
            NonFiniteError: naming the component whose energy is not finite.
        """
        energies = []
        for leaf in with_energies(self.composition.terms, "; choose a sampler that needs noise predictions only"):
            with count_component(len(sample)):
                energies.append(leaf.energy(sample, timestep))
            if not bool(torch.isfinite(energies[-1]).all()):
                got = f"got an energy of {leaf!r} that is not finite at timesteps {timestep.tolist()[:4]}"
                raise NonFiniteError(f"{got}; expected numbers; check the weights, the input and the precision")
        return torch.stack(energies)

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

    def _precision(self) -> AbstractContextManager[object]:
        return torch.autocast(self.device.type, torch.bfloat16) if self.mixed_precision == "bf16" else nullcontext()


@attrs.frozen
class SamplingReport:
    """What a run of a sampler cost, and whether it worked.

    Args:
        evaluations: as `count_rows` counts them; `Composer.sample` fills it in.
        ess: by weighted step, the effective sample size (sum w)^2 / sum w^2 as a share of the particles, in (0, 1];
            the mean over groups of particles. Empty without weights.
        resampled: steps (from 0) after which particles were resampled.
        ancestors: how many of the first particles the samples descend from, by their shares, 1 / sum share^2; the mean
            over groups of particles. None without weights.
        acceptance: share of the accepted proposals by timestep; empty without a Metropolis test.
        log_weights: of the particles before they were resampled for the last time, one tuple for each group.
        notes: what else the sampler warns of.
        drawn: samples that were drawn, by a sampler that rejects some of them; None for others.
        kept: samples of the result that were not rejected; None for other samplers.
        constraint_calls: samples of which a constraint was evaluated.

    >>> SamplingReport(acceptance={500.0: 0.04}).warnings[0]
    'the chains did not move at 1 of 1 timesteps: less than 10% of the proposals were accepted; use smaller steps'
    """

    evaluations: int = 0
    ess: tuple[float, ...] = ()
    resampled: tuple[int, ...] = ()
    ancestors: float | None = None
    acceptance: Mapping[float, float] = attrs.field(factory=dict)
    log_weights: tuple[tuple[float, ...], ...] = ()
    notes: tuple[str, ...] = ()
    drawn: int | None = None
    kept: int | None = None
    constraint_calls: int = 0

    @property
    def warnings(self) -> tuple[str, ...]:
        """Reasons not to trust the samples, one sentence each; none does not mean that they are right."""
        found = list(self.notes)
        if still := [t for t, rate in self.acceptance.items() if rate < STUCK]:
            where, why = f"at {len(still)} of {len(self.acceptance)} timesteps", f"less than {STUCK:.0%}"
            found.append(f"the chains did not move {where}: {why} of the proposals were accepted; use smaller steps")
        return tuple(found)


@attrs.frozen(eq=False)
class Sampled:
    """Samples (n, C, H, W) and the report of the run."""

    samples: Tensor
    report: SamplingReport = attrs.field(factory=SamplingReport)


@runtime_checkable
class Sampler(Protocol):
    """An algorithm that draws samples of a composition.

    Its options are the arguments of its constructor, all with default values. `energycomp_lab.checks.check_sampler`
    compares it with Gaussians and their products; `exact=True` also with a product that the sum of the scores does not
    sample.
    """

    def sample(
        self,
        target: Target,
        n: int,
        *,
        num_inference_steps: int,
        generator: Generator = None,
        callback_on_step_end: StepCallback | None = None,
        progress: bool = True,
    ) -> Sampled:
        """n samples of the target. Gradients are off where it is called.

        Args:
            target: the composition at any noise level.
            n: at least 1.
            num_inference_steps: noise levels on the way.
            generator: one, or a seed; or one per sample, which the sampler may refuse; None draws a fresh seed.
            callback_on_step_end: called after every step.
            progress: whether to show a bar, by `energycomp.progress.progress`.
        """
