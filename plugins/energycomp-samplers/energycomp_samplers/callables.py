"""Denoisers that are functions of a noised sample and its noise: as components of a composition, and made of one.

Notation: variable -> symbol
    sample, signal, noise   x = s u + n eps, the library's variance-preserving sample of u = z / scale
    z                       data of the function
    sigma                   scale n / s, the noise on z
    given, a, b             a z + b eps, what the function is given, with b / a = sigma

    clock       a                           b           what it is told
    timestep    1 / sqrt(1 + sigma^2)       a sigma     the place in a table of alphas_cumprod = a^2
    sigma       1                           sigma       sigma
    time        1 - t                       t           t = sigma / (1 + sigma)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias, get_args

import attrs
import torch
from torch import Tensor

from energycomp.components import (
    LEAST_ALPHA,
    AnyPrediction,
    Composable,
    EnergyComponent,
    NoisedSpace,
    PredictionType,
    by_sample,
    convert,
    count_component,
    function_name,
    is_noise,
    log_snr,
    timestep_of,
)
from energycomp.errors import InputError
from energycomp.sampling import Target

Denoise: TypeAlias = Callable[[Tensor, Tensor], Tensor]
Predicts = Literal["x0", "eps", "v", "score", "flow"]
Clock = Literal["timestep", "sigma", "time"]
PREDICTIONS: dict[Predicts, AnyPrediction] = {
    "x0": "sample", "eps": "epsilon", "v": "v_prediction", "score": "score", "flow": "flow",
}  # fmt: skip
TABLES: dict[str, tuple[Clock, str]] = {  # the clock, and what a table has
    "alphas": ("timestep", "alphas_cumprod (T,), falling, inside (0, 1)"),
    "sigmas": ("sigma", "two or more different numbers above 0"),
    "times": ("time", "two or more different times in (0, 1], where 1 is noise"),
}


@attrs.frozen(eq=False)
class Convention:
    """How a denoiser is told the noise, and what it predicts: `sigmas` of the noise levels, (T,), rise."""

    clock: Clock
    predicts: Predicts
    sigmas: Tensor
    scale: float = 1.0

    @classmethod
    def of(cls, predicts: Any, scale: float, **tables: Any) -> Convention:
        """Of alphas, sigmas or times; raises `InputError` for none or several, and for what is no such table."""
        said = {name: one for name, one in tables.items() if one is not None}
        if len(said) != 1:
            raise InputError(f"got {len(said)} of alphas, sigmas and times; expected one of them, the noise levels")
        [(name, given)] = said.items()
        clock, expected = TABLES[name]
        # Sigmas and times may come in either order, and with the clean end
        table = torch.as_tensor(given).double().cpu()
        if clock != "timestep":
            table = table[table != 0.0].sort().values
        inside = bool(((table > 0.0) & (table <= (torch.finfo().max if clock == "sigma" else 1.0))).all())
        levels = sigma_of(clock, table)
        if table.ndim != 1 or len(table) < 2 or not inside or not bool((levels.diff() > 0.0).all()):
            got = f"got {name} of shape {tuple(table.shape)}"
            raise InputError(f"{got}; expected {expected}; correct them")
        return cls(clock, check_predicts(predicts, clock), levels, scale)

    @property
    def alphas_cumprod(self) -> Tensor:
        """Those of the variance-preserving samples of data that are divided by the scale, (T,)."""
        return (1.0 / (1.0 + (self.sigmas / self.scale).square())).clamp(min=LEAST_ALPHA)


def check_predicts(predicts: Any, clock: Clock) -> Predicts:
    if predicts not in PREDICTIONS:
        raise InputError(f"got predicts={predicts!r}; expected one of {', '.join(map(repr, PREDICTIONS))}; change it")
    if predicts == "v" and clock != "timestep":
        got = f"got predicts='v' of samples whose noise is told by {clock}"
        raise InputError(f"{got}; expected variance-preserving samples; give alphas=, or predicts='flow'")
    kind: Predicts = predicts
    return kind


def amplitudes(clock: Clock, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """a and b of the table above."""
    if clock == "sigma":
        return torch.ones_like(sigma), sigma
    a = 1.0 / (1.0 + sigma) if clock == "time" else (1.0 + sigma.square()).rsqrt()
    return a, a * sigma


def sigma_of(clock: Clock, told: Tensor) -> Tensor:
    """sigma of alphas_cumprod, of sigma itself, or of t."""
    if clock == "timestep":
        return (1.0 / told - 1.0).sqrt()
    return told if clock == "sigma" else told / (1.0 - told).clamp(min=LEAST_ALPHA**0.5)


@attrs.frozen(eq=False)
class CallableGroup:
    """As `LeafGroup`, of functions of one convention.

    Args:
        align: moves predicted clean data onto the given samples, such as a rotation; None leaves them.
        batch: samples of one call at most.
        like: of the type and on the device of what the functions take.
    """

    convention: Convention
    space: NoisedSpace
    like: Tensor
    align: Callable[[Tensor, Tensor], Tensor] | None = None
    batch: int | None = None

    rule = None
    decode = None

    @property
    def device(self) -> torch.device:
        return self.like.device

    @property
    def prediction_type(self) -> PredictionType:
        # Noise is not divided by an amplitude of the data that is nearly 0; what is aligned are clean data
        has_noise = is_noise(PREDICTIONS[self.convention.predicts]) and self.align is None
        return "epsilon" if has_noise else "sample"

    def predict(self, leaves: Sequence[CallableComponent], sample: Tensor, timestep: Tensor) -> list[Tensor]:
        convention = self.convention
        # The noise on the data, and the amplitudes of what the functions are given
        snr = log_snr(self.space.alphas_cumprod, timestep)
        sigma = convention.scale * (-snr / 2.0).exp()
        a, b = (by_sample(one, sample.ndim).to(sample) for one in amplitudes(convention.clock, sigma))
        noise = by_sample(torch.sigmoid(-snr).sqrt(), sample.ndim).to(sample)
        given = sample * (b / noise)
        wide = torch.promote_types(self.like.dtype, torch.float32)
        times = {"timestep": timestep.round().long(), "sigma": sigma.to(wide), "time": (sigma / (1.0 + sigma)).to(wide)}
        source = PREDICTIONS[convention.predicts]
        predictions = []
        for leaf in leaves:
            with count_component(len(sample)):
                out = leaf.call(given.to(self.like), times[convention.clock], self.batch).to(sample)
            out = convert(out, given, a, b, source=source, target=self.prediction_type)
            if self.align is not None:
                out = self.align(out, given / a)
            predictions.append(out / convention.scale if self.prediction_type == "sample" else out)
        return predictions


@attrs.frozen(eq=False, repr=False)
class CallableComponent(Composable):
    """A function denoise(x, t) as a component."""

    denoise: Denoise
    group: CallableGroup

    @property
    def noised_space(self) -> NoisedSpace:
        return self.group.space

    def call(self, given: Tensor, told: Tensor, batch: int | None) -> Tensor:
        """The predictions of samples (B, *shape), of several calls where the batch is limited."""
        size = batch or max(len(given), 1)
        parts: list[Any] = []
        for x, t in zip(given.split(size), told.split(size), strict=True):
            out: Any = self.denoise(x, t)
            if not isinstance(out, Tensor) or out.shape != x.shape:
                got = f"got {tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__} from {self!r}"
                raise InputError(f"{got}; expected a tensor {tuple(x.shape)}; return it, such as unet(x, t).sample")
            parts.append(out)
        return torch.cat(parts)

    def __repr__(self) -> str:
        return function_name(self.denoise)


def as_denoiser(
    component: EnergyComponent, predicts: Predicts = "x0", *, clock: Clock = "timestep"
) -> Callable[[Tensor, Any], Tensor]:
    """A composition, also under observations, as a function denoise(x, t) for the sampler of another library.

    Args:
        component: what is predicted, such as `a & b` or `scene & observe(...)`.
        predicts: "x0", "eps", "v", "score" or "flow", the velocity eps - x0.
        clock: by what the noise is told, and how samples are scaled: "timestep", sqrt(alpha_bar) x0 +
            sqrt(1 - alpha_bar) eps, as in diffusers; "sigma", x0 + sigma eps; "time", (1 - t) x0 + t eps.

    Returns:
        A function of x (B, *shape) and t, a number or (B,). Data are those of `output_type="latent"`. Noise beyond the
        ends of the component's schedule is taken as that of the end.

    Raises:
        InputError: a prediction or a clock that there is not, or v of another clock than the timestep.

    >>> from energycomp.testing import Gaussian
    >>> denoise = as_denoiser(Gaussian(2.0, 0.25), clock="sigma")
    >>> denoise(torch.zeros(1, 1, 1, 1), 0.5).round(decimals=3).item()  # as sure of the mean 2 as of the sample 0
    1.0
    """
    if clock not in get_args(Clock):
        raise InputError(f"got clock={clock!r}; expected 'timestep', 'sigma' or 'time'; change it")
    kind = PREDICTIONS[check_predicts(predicts, clock)]
    target = Target(component)
    space = target.noised_space

    def denoise(x: Tensor, t: Any) -> Tensor:
        told = torch.as_tensor(t, dtype=torch.float64, device=x.device).expand(len(x))
        # The timestep of the component's own schedule, and its sample
        timestep = told
        if clock != "timestep":
            timestep = timestep_of(space.alphas_cumprod, -2.0 * sigma_of(clock, told).clamp(min=LEAST_ALPHA).log())
        snr = log_snr(space.alphas_cumprod, timestep)
        a, b = (by_sample(one, x.ndim).to(x) for one in amplitudes(clock, (-snr / 2.0).exp()))
        noise = by_sample(torch.sigmoid(-snr).sqrt(), x.ndim).to(x)
        # Predict what is not divided by a small amplitude, and convert it to what was asked for
        native: PredictionType = "epsilon" if is_noise(kind) else "sample"
        out = target.compose(x * (noise / b), timestep.float(), prediction_type=native)
        return convert(out, x, a, b, source=native, target=kind)

    return denoise
