"""What a sampler sees: the composition at any noise level, and the noise levels of a run."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import attrs
import torch
from torch import Tensor

from energycomp.components import AnyWeight, EnergyComponent, LeafGroup, PredictionType, Weight, convert
from energycomp.components.algebra import Composition, with_energies
from energycomp.components.component import compositions_in
from energycomp.components.groups import group_leaves, group_of
from energycomp.components.ledger import count_component
from energycomp.components.parts import decoder
from energycomp.components.precision import home
from energycomp.components.predict import native_type, predict, predict_all, predict_leaves
from energycomp.components.space import NoisedSpace, log_snr, trailing_timesteps
from energycomp.components.weight_values import constant_weights, level_weights, noise_share, number_at
from energycomp.denoisers.denoiser import Denoiser
from energycomp.errors import CompositionError, InputError, NonFiniteError
from energycomp.sampling.guidance import Guide, conditional

SHARES = 20  # of the trajectory, at which weights are looked at
LOOP = "leave the sampler out (sampler= or --sampler): the loop of a scheduler follows weights of any kind"


@attrs.frozen
class Level:
    """One step, from timestep t to the next one, s < t; the last step ends at clean samples, where alpha_bar is 1.

    Notation: variable -> symbol
        alpha, next_alpha   alpha_bar_t, alpha_bar_s
        beta                1 - alpha_bar_t / alpha_bar_s, of the forward kernel q(x | y) = N(sqrt(1 - beta) y, beta I)
        mean                mu, the mean of the reverse kernel m(y | x) = N(mu, beta I) for the prediction x0

        mu = sqrt(alpha_bar_s) beta / (1 - alpha_bar_t) x0 + sqrt(1 - beta) (1 - alpha_bar_s) / (1 - alpha_bar_t) x

    This is (x + beta score(x)) / sqrt(1 - beta) (Ho et al., 2020, eqs 7 and 11), without a division by
    sqrt(alpha_bar_t).

    Args:
        step: its number, from 0.
        timestep: t.
        alpha, next_alpha: of both ends.

    >>> step = Level(step=0, timestep=999.0, alpha=0.2, next_alpha=0.5)
    >>> step.beta, step.is_last
    (0.6, False)
    """

    step: int
    timestep: float
    alpha: float
    next_alpha: float

    @property
    def beta(self) -> float:
        """Variance of the forward kernel from s to t."""
        return 1.0 - self.alpha / self.next_alpha

    @property
    def is_last(self) -> bool:
        """Whether the step ends at clean samples."""
        return self.next_alpha == 1.0

    def rows(self, sample: Tensor) -> Tensor:
        """The timestep of every row of a batch, (B,)."""
        return torch.full((len(sample),), self.timestep, device=sample.device)

    def mean(self, x: Tensor, x0: Tensor) -> Tensor:
        """mu of the reverse kernel for a sample x and a prediction x0; both broadcast."""
        noise = 1.0 - self.alpha
        kept = (1.0 - self.beta) ** 0.5 * (1.0 - self.next_alpha) / noise
        return self.next_alpha**0.5 * self.beta / noise * x0 + kept * x


def levels_at(alphas_cumprod: Tensor, timesteps: Tensor) -> list[Level]:
    """The levels of a schedule (T,) at timesteps (N,), of which the last step ends at clean samples."""
    # alpha_bar = sigmoid(log SNR) at real timesteps; after the last step it is 1
    alphas = [*torch.sigmoid(log_snr(alphas_cumprod, timesteps)).tolist(), 1.0]
    return [Level(step, t, alphas[step], alphas[step + 1]) for step, t in enumerate(timesteps.tolist())]


def _composition(component: EnergyComponent) -> Composition:
    return Composition.of(component)  # mypy knows converters that are functions only


def inner_leaves(composition: Composition) -> list[Any]:
    """The leaves of a composition, with those inside a mixture, or an observed composition, in its place."""
    leaves: dict[Any, None] = {}  # each once, in their order
    for leaf in composition.terms:
        inside = compositions_in(leaf)
        for part in inside:
            leaves |= dict.fromkeys(inner_leaves(part))
        if not inside:
            leaves[leaf] = None
    return list(leaves)


def shown_by(weight: AnyWeight, n: int) -> Tensor:
    """Which of n samples show a leaf of a weight, (n,), as 0 or 1.

    >>> shown_by(1.0, 2), shown_by(-1.0, 2)
    (tensor([1, 1]), tensor([0, 0]))
    """
    if not isinstance(weight, Weight):
        return torch.full((n,), int(weight > 0))
    if weight.samples is None or n % weight.samples:
        return torch.ones(n, dtype=torch.long)
    # Those in which the weight is above 0 anywhere on the trajectory
    seen = [weight.at(torch.full((n,), share / SHARES), (1, 1, 1)) for share in range(SHARES + 1)]
    return (torch.stack(seen).reshape(SHARES + 1, n) > 0).any(0).long()


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
        if self.mixed_precision == "no":
            return
        # Autocast does not mix float16 with bfloat16
        for group in self.groups:
            if isinstance(group, Denoiser) and any(w.dtype == torch.float16 for w in group.network.parameters()):
                got = f"got mixed_precision='bf16' for {self.composition!r}, whose network is in float16"
                raise InputError(f"{got}; expected float32 or bfloat16; leave mixed_precision out")

    @property
    def weights(self) -> tuple[float, ...]:
        """The weight b_i of each leaf, (K,); raises `InputError` where one varies, see `weights_at`."""
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
        # Numbers at each noise level, which is a share of the trajectory
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
        return [group for group, _ in group_leaves(inner_leaves(self.composition))]

    @property
    def decode(self) -> Callable[[Tensor], Tensor] | None:
        """Samples (B, ...) to the data: images of latents, or numbers; None where samples are the data."""
        decode = decoder(inner_leaves(self.composition))
        return None if decode is None else lambda samples: decode(samples.to(self.network_device)).to(samples.device)

    @property
    def prediction_type(self) -> PredictionType:
        """The type in which the leaves are summed, and guided, without a conversion."""
        if self.guide is None:
            return native_type(self.composition)
        return self.guide.prediction_type or native_type(conditional(self.composition))

    @property
    def device(self) -> torch.device:
        """Where samples must be: with the networks, or on the CPU where these are on a device without float64."""
        return home(self.network_device)

    @property
    def network_device(self) -> torch.device:
        """Where the networks are; raises `CompositionError` for several devices."""
        devices = {str(group.device): group.device for group in self.groups if group.device is not None}
        if len(devices) > 1:
            got = f"got components on the devices {sorted(devices)}"
            raise CompositionError(f"{got}; expected one; move the models with `.to(device)` first")
        return next(iter(devices.values()), self.noised_space.alphas_cumprod.device)

    def compose(self, sample: Tensor, timestep: Tensor, *, prediction_type: PredictionType = "epsilon") -> Tensor:
        """The composed, and guided, prediction (B, C, H, W) at timesteps (B,), see `energycomp.components.predict`."""
        # Without guidance, the weighted sum of the leaves.
        guide = self.guide
        if guide is None:
            with self._precision():
                return predict(self.composition, sample, timestep, prediction_type=prediction_type)
        # Predict all that the guidance combines in one batch.
        kind = self.prediction_type
        needed = [need(self.composition) for need in guide.needs]
        with self._precision():
            predictions = predict_all(needed, sample, timestep, prediction_type=kind)
        # Guide, and convert to the type that was asked for.
        space = self.noised_space
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
        # One leaf after the other: an energy is no prediction of a group.
        energies = []
        for leaf in with_energies(self.composition.terms, "; choose a sampler that needs noise predictions only"):
            with count_component(len(sample)):
                there = group_of(leaf).device or sample.device
                energies.append(leaf.energy(sample.to(there), timestep.to(there)).to(sample.device))
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
            raise InputError(f"got num_inference_steps={num_inference_steps}; expected 1 to {T}")
        return trailing_timesteps(T, num_inference_steps).to(self.device, torch.float32)

    def levels(self, num_inference_steps: int) -> list[Level]:
        """N noise levels, at `timesteps`; the last step ends at clean samples."""
        return levels_at(self.noised_space.alphas_cumprod, self.timesteps(num_inference_steps))

    def _precision(self) -> AbstractContextManager[object]:
        if self.mixed_precision == "no":
            return nullcontext()
        return torch.autocast(self.network_device.type, torch.bfloat16)
