"""The noised space of a component: noise schedule, shape and value range of a sample, pixels or latents."""

from __future__ import annotations

import math
from functools import cached_property
from itertools import pairwise
from typing import Any

import attrs
import torch
from torch import Tensor

from energycomp.components.precision import wide_type, widen
from energycomp.errors import CompositionError, InputError
from energycomp.fields import legal
from energycomp.seeds import as_generator

LEAST_ALPHA = 1e-9  # where diffusers' own cosine schedule ends
LEAST_NOISE = 1e-7  # the nearest that float32 comes to 1
ValueRange = tuple[float, float]
"""(-r, r): the least and greatest number in a clean sample. Images are in (-1, 1)."""


def _is_range(value: Any) -> bool:
    numbers = isinstance(value, tuple) and len(value) == 2 and all(isinstance(v, int | float) for v in value)
    return numbers and 0 < value[1] < math.inf and value[0] == -value[1]


def as_value_range(given: Any) -> Any:
    """A value range of floats, also of whole numbers or of a list, as configurations have it; others as they are."""
    numbers = tuple(given) if isinstance(given, list | tuple) else given
    return (float(numbers[0]), float(numbers[1])) if _is_range(numbers) else given


check_value_range = legal(
    lambda value: value is None or _is_range(value),
    "(-r, r) with a finite r > 0, since schedulers clip symmetrically, or None for data that are not clipped; centre "
    "the data on 0",
)


@attrs.frozen(eq=False)
class NoisedSpace:
    """Where the noised samples x_t of a component live. Two components can be composed if their spaces are equal.

    Args:
        alphas_cumprod: noise schedule (T,), falling, in (0, 1).
        sample_shape: of one sample: (C, H, W) of an image, or of any other rank, such as (13,) or (2, 64).
        identity: "pixels", or the identity of the codec whose latents are composed.
        value_range: (-r, r), to which predictions of x0 are clipped while sampling; (-1, 1) for images. None for data
            without bounds, such as latents: nothing is clipped.
        places: of numbers that are standardised at each place along the first axis, how each one is, such as
            "(x - 2) / 0.5"; None where the component does not act. None for all other data.

    Raises:
        InputError: a value range that is not symmetric about 0.

    >>> pixels = NoisedSpace(cosine_schedule(), (3, 8, 8))
    >>> pixels == NoisedSpace(cosine_schedule(), (3, 8, 8)), pixels == NoisedSpace(cosine_schedule(500), (3, 8, 8))
    (True, False)
    >>> pixels == NoisedSpace(cosine_schedule(), (3, 8, 8), value_range=(-1.0, 1.0))
    False
    """

    alphas_cumprod: Tensor
    sample_shape: tuple[int, ...]
    identity: str = "pixels"
    value_range: ValueRange | None = attrs.field(default=None, converter=as_value_range, validator=check_value_range)
    places: tuple[str | None, ...] | None = None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, NoisedSpace):
            return NotImplemented
        own = self.alphas_cumprod
        theirs = other.alphas_cumprod
        return mismatch(self, other) is None and (
            own is theirs
            or (own.shape == theirs.shape and torch.allclose(own.cpu().double(), theirs.cpu().double(), atol=1e-6))
        )

    def __hash__(self) -> int:
        return hash((self.identity, tuple(self.sample_shape)))

    def levels(self, timestep: Tensor, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
        """The amplitudes of signal and noise in x_t at real timesteps (B,) in [0, T], each (B, 1, .., 1)."""
        return signal_noise(self.alphas_cumprod, timestep, dtype, 1 + len(self.sample_shape))

    @cached_property
    def order(self) -> tuple[float, ...]:
        """The numbers of the schedule, by which equal spaces are put in an order."""
        return tuple(self.alphas_cumprod.tolist())


def check_compatible(a: tuple[object, NoisedSpace], b: tuple[object, NoisedSpace]) -> None:
    """Raises `CompositionError`, naming both components, where the noised spaces of two pairs differ."""
    (first, space), (second, other) = a, b
    if space == other:
        return
    if found := mismatch(space, other):
        what, one, two = found
        got = f"got {first!r} with {what} {one} and {second!r} with {what} {two}"
        raise CompositionError(f"{got}; expected one {what}; compose components of the same space")
    raise CompositionError(
        f"got {first!r} and {second!r} with different alphas_cumprod; expected one noise schedule; match the second to "
        f"the first: match_snr({second!r}, space), where space is the noised_space of the first"
    )


def mismatch(space: NoisedSpace, other: NoisedSpace) -> tuple[str, object, object] | None:
    """What two spaces differ in beside their schedules: its name and both values; None if in nothing."""
    for what, one, two in (
        ("space", space.identity, other.identity),
        ("sample_shape", tuple(space.sample_shape), tuple(other.sample_shape)),
        ("value_range", space.value_range, other.value_range),
    ):
        if one != two:
            return what, one, two
    for place, (one, two) in enumerate(zip(space.places or (), other.places or (), strict=False)):
        if one and two and one != two:
            return f"standardisation at place {place}", one, two
    return None


def cosine_schedule(steps: int = 1000) -> Tensor:
    """alphas_cumprod (T,) of Nichol and Dhariwal (2021), the schedule `squaredcos_cap_v2` of diffusers.

    >>> [round(alpha.item(), 3) for alpha in cosine_schedule()[[0, 500, 999]]]  # clean, half, noise
    [1.0, 0.492, 0.0]
    """
    levels = [math.cos((i / steps + 0.008) / 1.008 * math.pi / 2) ** 2 for i in range(steps + 1)]
    betas = torch.tensor([min(1 - after / before, 0.999) for before, after in pairwise(levels)])
    return (1 - betas).cumprod(0)


def flow_schedule(steps: int = 1000, shift: float = 1.0) -> Tensor:
    """alphas_cumprod (T,) of the rectified flow x_t = (1 - t) x0 + t eps, rescaled to preserve the variance.

    The timestep i has the noise level t = shift u / (1 + (shift - 1) u) with u = (i + 1) / T, as in the flow-matching
    schedulers of diffusers, and alpha_bar = (1 - t)^2 / ((1 - t)^2 + t^2). A shift above 1, such as 3 in Stable
    Diffusion 3 (Esser et al., 2024), makes more timesteps noisy.

    Raises:
        InputError: fewer than 2 steps, or a shift that is not above 0.

    >>> flow_schedule().shape, round(flow_time(flow_schedule(shift=3.0), torch.tensor([249.0])).item(), 3)
    (torch.Size([1000]), 0.5)
    """
    if steps < 2 or not 0 < shift < math.inf:
        raise InputError(f"got steps={steps} and shift={shift}; expected at least 2 steps and a finite shift above 0")
    u = torch.arange(1, steps + 1, dtype=torch.float64) / steps
    t = shift * u / (1 + (shift - 1) * u)
    alphas = (1 - t).square() / ((1 - t).square() + t.square())
    return alphas.clamp(LEAST_ALPHA, 1 - LEAST_NOISE).float()


def log_snr(alphas_cumprod: Tensor, timestep: Tensor) -> Tensor:
    """log(alpha_bar / (1 - alpha_bar)) at real timesteps in [0, T], interpolated linearly.

    It is float64, or float32 on a device that has no more.
    """
    t = widen(timestep)
    table = torch.logit(widen(alphas_cumprod).to(t.device))
    t = t.clamp(0, len(table) - 1)
    low = t.floor().long().clamp(max=len(table) - 2)
    found = torch.lerp(table[low], table[low + 1], t - low)
    return found.to(timestep.device, wide_type(timestep.device))


def flow_time(alphas_cumprod: Tensor, timestep: Tensor) -> Tensor:
    """t = sigma / (signal + sigma) at real timesteps (B,), in float64: the time of the rectified flow with their SNR.

    Networks of other libraries are conditioned on it, or on 1000 times it, where ours take the timestep. It is 1 where
    alpha_bar is the least one of a schedule, which stands for 0.

    >>> flow_time(flow_schedule(), torch.tensor([249.0, 999.0])).round(decimals=3)
    tensor([0.2500, 1.0000], dtype=torch.float64)
    """
    snr = log_snr(alphas_cumprod, timestep)
    return torch.where(snr > math.log(LEAST_ALPHA) + 1e-3, torch.sigmoid(-snr / 2), 1.0)


def trailing_timesteps(T: int, num_inference_steps: int) -> Tensor:
    """N timesteps (N,) of a schedule of T, from T - 1 downwards, T / N apart, in float64: "trailing" in diffusers."""
    steps = torch.arange(num_inference_steps, dtype=torch.float64) * (T / num_inference_steps)
    return (T - steps).round() - 1


def timestep_of(alphas_cumprod: Tensor, snr: Tensor) -> Tensor:
    """The real timesteps in [0, T - 1], float64, at which `log_snr` is `snr`; the nearest one outside the schedule.

    >>> alphas = torch.tensor([0.9, 0.5, 0.1])
    >>> timestep_of(alphas, log_snr(alphas, torch.tensor([0.25, 1.75])))
    tensor([0.2500, 1.7500], dtype=torch.float64)
    """
    given = widen(snr)
    table = -torch.logit(widen(alphas_cumprod).to(given.device))  # rises with the timestep
    wanted = -given.clamp(-table[-1], -table[0])
    low = (torch.searchsorted(table, wanted, right=True) - 1).clamp(0, len(table) - 2)
    width = table[low + 1] - table[low]
    found = low + torch.where(width > 0, (wanted - table[low]) / width, 0.0)
    return found.to(snr.device, wide_type(snr.device))


def by_sample(values: Tensor, ndim: int) -> Tensor:
    """One value for each sample (B,) as (B, 1, .., 1), which broadcasts over samples of that many axes, B included."""
    return values.reshape(-1, *[1] * (ndim - 1))


def signal_noise(
    alphas_cumprod: Tensor, timestep: Tensor, dtype: torch.dtype = torch.float32, ndim: int = 4
) -> tuple[Tensor, Tensor]:
    """sqrt(alpha_bar) and sqrt(1 - alpha_bar) at timesteps (B,), each (B, 1, .., 1) of so many axes.

    >>> signal, noise = signal_noise(torch.tensor([0.64, 0.36]), torch.tensor([0.0, 1.0]))
    >>> signal.flatten(), noise.flatten(), signal.shape
    (tensor([0.8000, 0.6000]), tensor([0.6000, 0.8000]), torch.Size([2, 1, 1, 1]))
    """
    snr = by_sample(log_snr(alphas_cumprod, timestep), ndim)
    return torch.sigmoid(snr).sqrt().to(dtype), torch.sigmoid(-snr).sqrt().to(dtype)


def stratified_timesteps(
    n: int, low: float, high: float, *, power: float = 1.0, generator: int | torch.Generator | None = None
) -> Tensor:
    """n timesteps low + (high - low) U^power (n,) in random order, one U from each of n equal parts of [0, 1).

    Args:
        power: 1 for uniform timesteps; below 1 the noisy ones come more often.
        generator: the numbers are drawn, and returned, on its device; on the CPU when left out.

    >>> t = stratified_timesteps(4, 200, 600, generator=torch.Generator().manual_seed(0))
    >>> (t / 100).floor().sort().values.tolist()
    [2.0, 3.0, 4.0, 5.0]
    """
    generator = as_generator(generator)
    device = generator.device if generator is not None else torch.device("cpu")
    order = torch.randperm(n, generator=generator, device=device)
    place = order + torch.rand(n, generator=generator, device=device)
    if power == 1.0:
        return low + (high - low) * place / n
    return low + (high - low) * (place / n) ** power
