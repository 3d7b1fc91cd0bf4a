"""What the samplers share: the noise levels of a run, and the Gaussian reverse kernel of each component.

Notation: variable -> symbol
    x, y                the sample at timestep t, and at the next timestep s < t
    alpha, next_alpha   alpha_bar_t, alpha_bar_s
    beta                1 - alpha_bar_t / alpha_bar_s, of the forward kernel q(x | y) = N(sqrt(1 - beta) y, beta I)
    x0                  E_i[x_0 | x_t = x], the prediction of component i
    mean                mu_i, the mean of the reverse kernel m_i(y | x) = N(mu_i, beta I)

    mu_i = sqrt(alpha_bar_s) beta / (1 - alpha_bar_t) x0_i + sqrt(1 - beta) (1 - alpha_bar_s) / (1 - alpha_bar_t) x

This is (x + beta s_i(x)) / sqrt(1 - beta) with the score s_i (Ho et al., 2020, eqs 7 and 11), without a division by
sqrt(alpha_bar_t).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import attrs
import torch
from torch import Tensor

from energycomp.components import WrappedGroup, bounds
from energycomp.denoisers import Conditional, Denoiser
from energycomp.errors import InputError, NonFiniteError
from energycomp.progress import progress as shown
from energycomp.sampling import StepCallback, Target


@attrs.frozen
class Level:
    """One step, from timestep t to the next one; the last step ends at clean samples, where alpha_bar is 1.

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


def levels(target: Target, num_inference_steps: int, *, progress: bool) -> Iterator[Level]:
    """The steps of a run, from the noisiest timestep to clean samples, with a progress bar after half a second."""
    timesteps = target.timesteps(num_inference_steps)
    alphas = [*torch.sigmoid(target.log_snr(timesteps)).tolist(), 1.0]
    for step, t in enumerate(shown(timesteps.tolist(), "sampling", show=progress)):
        yield Level(step, t, alphas[step], alphas[step + 1])


def predicted(target: Target, x: Tensor, level: Level) -> Tensor:
    """E_i[x_0 | x_t] of every component, (K, G, P, ...), for particles (G, P, ...), in one batch.

    Raises:
        NonFiniteError: naming the component and the step.
    """
    rows = x.flatten(0, 1)
    with _named(level):
        x0 = target.predict(rows, level.rows(rows), prediction_type="sample")
    return x0.unflatten(1, x.shape[:2])


def total_energy(target: Target, x: Tensor, level: Level) -> Tensor:
    """sum_i b_i E_i(x, t), (G, P), in float64.

    Raises:
        NonFiniteError: naming the component and the step.
    """
    rows = x.flatten(0, 1)
    with _named(level):
        energies = target.energies(rows, level.rows(rows)).double()
    return torch.einsum("k,kb->b", energies.new_tensor(target.weights_at(level.timestep)), energies).unflatten(
        0, x.shape[:2]
    )


@contextmanager
def _named(level: Level) -> Iterator[None]:
    """Adds the step to the error of a component whose prediction or energy is not finite."""
    try:
        yield
    except NonFiniteError as error:
        raise NonFiniteError(f"{error} It happened in step {level.step + 1} (timestep {level.timestep:g}).") from error


def clipped(x0: Tensor, target: Target) -> Tensor:
    """A prediction of x0 inside the value range of the space, as schedulers clip it."""
    bounds = target.noised_space.value_range
    return x0 if bounds is None else x0.clamp(*bounds)


def called_back(callback: StepCallback | None, level: Level, x: Tensor) -> Tensor:
    """The particles (G, P, ...), or what the callback replaces them by."""
    if callback is None:
        return x
    rows = x.flatten(0, 1)
    return (callback(level.step, level.timestep, {"sample": rows}) or {}).get("sample", rows).reshape(x.shape)


def _trained_alone(group: Any) -> bool:
    """Whether each leaf of a group is a density, also one of another schedule: an adopted network averages these."""
    while isinstance(group, WrappedGroup):
        group = group.inner
    return isinstance(group, Denoiser) and group.trained_alone


def check_densities(target: Target) -> None:
    """Raises `InputError` where the leaves are not noise predictions of densities of their own, or weights vary over
    pixels or samples. Weights that vary over the noise level are numbers at each.

    Leaves of a denoiser that was trained under the rule "sum" or "mean" predict noise only together, unless it was
    adopted, and averages what was trained alone. The particles of a run change places, so that all need the same
    condition.
    """
    together = (group for group in target.groups if not _trained_alone(group))
    rules = {group.rule for group in together} & {"sum", "mean"}
    target.weights_at(0.0)  # raises
    if rules and tuple(target.composition.terms.values()) != (1.0,):
        raise InputError(
            f"got components that were trained under the rule {rules.pop()!r}; expected components that are "
            "distributions on their own, since only their sum was trained to be one; leave sampler= out"
        )
    for leaf in target.composition.terms:
        if isinstance(leaf, Conditional) and len(leaf.condition) > 1:
            raise InputError(
                f"got {leaf!r} with {len(leaf.condition)} conditions, one for each sample; expected one for all "
                "samples of this sampler; sample one condition at a time"
            )


def least_sum(target: Target) -> float:
    """The least sum of the weights over the noise levels."""
    return bounds(target.composition.mass, target.noised_space.sample_shape)[0]


def sum_of_squares(x: Tensor, like: Tensor) -> Tensor:
    """|x|^2 over a sample, in float64, because weights are differences of large sums; see `axes` for `like`."""
    return x.double().square().sum(dim=axes(like))


def axes(like: Tensor) -> tuple[int, ...]:
    """The axes of one sample, from the last: of tensors (..., *shape), where particles like these are (G, P, *shape).

    >>> axes(torch.zeros(1, 4, 3, 8, 8)), axes(torch.zeros(1, 4, 13))
    ((-3, -2, -1), (-1,))
    """
    return tuple(range(2 - like.ndim, 0))
