"""What the samplers share: predictions and energies of particles (G, P, *shape), and which components they follow."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from energycomp.components import WrappedGroup, bounds, differs_by_sample, unwrap
from energycomp.denoisers import Conditional, Denoiser
from energycomp.errors import InputError
from energycomp.sampling import Level, Target


def predict_clean(target: Target, x: Tensor, level: Level, copies: Tensor | None = None) -> Tensor:
    """E_i[x_0 | x_t] of every component, (K, G, P, ...), for particles (G, P, ...), in one batch.

    Of the groups `copies` (G,), whose particles are copies of each other, one is evaluated.
    """
    rows, places = _distinct(x, copies)
    return target.predict(rows, level.rows(rows), prediction_type="sample")[:, places]


def total_energy(target: Target, x: Tensor, level: Level, copies: Tensor | None = None) -> Tensor:
    """sum_i b_i E_i(x, t), (G, P), in float64; see `predict_clean` for `copies`."""
    rows, places = _distinct(x, copies)
    energies = target.energies(rows, level.rows(rows)).double()
    return weighted_sum(target.weights_at(level.timestep), energies)[places]


def _distinct(x: Tensor, copies: Tensor | None) -> tuple[Tensor, Tensor]:
    """The particles to evaluate (B, ...), and the places (G, P) of all among them."""
    needed = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
    if copies is not None:
        needed[:, 1:] = ~copies[:, None]
    places = needed.flatten().cumsum(0).reshape(x.shape[:2]) - 1
    return x[needed], places


def weighted_sum(weights: Iterable[Any], values: Tensor) -> Tensor:
    """sum_i b_i of values (K, ...)."""
    return torch.einsum("k,k...->...", values.new_tensor(list(weights)), values)


def clip(x0: Tensor, target: Target) -> Tensor:
    """A prediction of x0 inside the value range of the space, as schedulers clip it."""
    value_range = target.noised_space.value_range
    return x0 if value_range is None else x0.clamp(*value_range)


def _is_trained_alone(group: Any) -> bool:
    """Whether each leaf of a group is a density, also one of another schedule: an adopted network averages these."""
    while isinstance(group, WrappedGroup):
        group = group.inner
    return isinstance(group, Denoiser) and group.trained_alone


def check_densities(target: Target, instead: str = "leave sampler= out") -> None:
    """Raises `InputError` where leaves are no densities of their own, or weights vary over pixels or samples.

    Leaves of a denoiser that was trained under the rule "sum" or "mean" predict noise only together, unless it was
    adopted. The particles of a run change places, so that all need the same condition.
    """
    target.weights_at(0.0)  # raises
    # Components that were trained together, and are composed.
    rules = {group.rule for group in target.groups if not _is_trained_alone(group)} & {"sum", "mean"}
    if rules and tuple(target.composition.terms.values()) != (1.0,):
        raise InputError(
            f"got components that were trained under the rule {rules.pop()!r}; expected components that are "
            f"distributions on their own, since only their sum was trained to be one; {instead}"
        )
    # Components that differ from sample to sample.
    for leaf in target.composition.terms:
        if differs_by_sample(leaf):
            bare = unwrap(leaf)
            several = f"{len(bare.condition)} conditions" if isinstance(bare, Conditional) else "conditions"
            raise InputError(
                f"got {leaf!r} with {several}, one for each sample; expected one for all samples of this sampler; "
                "sample one condition at a time"
            )


def least_sum(target: Target) -> float:
    """The least sum of the weights over the noise levels."""
    return bounds(target.composition.mass, target.noised_space.sample_shape)[0]


def as_column(values: Tensor, like: Tensor) -> Tensor:
    """Values (B,), or (G, P), with axes of size 1 behind them, as many as `like` has."""
    return values.reshape(*values.shape, *[1] * (like.ndim - values.ndim))


def sum_of_squares(x: Tensor, like: Tensor) -> Tensor:
    """|x|^2 over a sample, in float64, because weights are differences of large sums; see `axes` for `like`."""
    return x.double().square().sum(dim=axes(like))


def axes(like: Tensor) -> tuple[int, ...]:
    """The axes of one sample, from the last, of tensors (..., *shape), where particles `like` are (G, P, *shape)."""
    return tuple(range(2 - like.ndim, 0))
