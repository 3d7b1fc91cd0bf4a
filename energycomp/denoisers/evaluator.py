"""What a network is, and the only file that calls one: trunks are shared, rows run in chunks, and both are counted."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Protocol, cast, runtime_checkable
from weakref import WeakKeyDictionary

import attrs
import torch
from torch import Tensor, nn

from energycomp.components.condition import Condition
from energycomp.components.ledger import count
from energycomp.denoisers.together import run_batched
from energycomp.errors import InputError

HALF = (torch.bfloat16, torch.float16)


def row_limit(device: torch.device, sample_shape: Sequence[int], network: nn.Module) -> int:
    """Rows of one network call, measured with `benchmarks/speed/row_limit.py`.

    On few CPU cores 16 heads on 3x64x64 fill the caches. A whole network takes as many rows as fit into half a
    gigabyte, and on an accelerator into an eighth of its memory, with four float32 maps per row of the size of a sample
    and the depth of the widest convolution.
    """
    if device.type == "cpu" and isinstance(network, TwoStage):
        return max(1, 16 * (3 * 64 * 64) // math.prod(sample_shape))
    memory = torch.cuda.get_device_properties(device).total_memory // 8 if device.type == "cuda" else 2**29
    # The width stays the same from step to step, and looking for it takes a walk over all modules.
    if network not in _WIDTHS:
        _WIDTHS[network] = widest(network)
    return max(1, min(4096, memory // (math.prod(sample_shape[1:]) * 4 * _WIDTHS[network] * 4)))


_WIDTHS: WeakKeyDictionary[nn.Module, int] = WeakKeyDictionary()  # of networks that were called


def widest(network: nn.Module) -> int:
    """Channels of the widest convolution; without one, a quarter of the widest linear layer, at least 64.

    Networks without convolutions are transformers, whose tokens are patches of 2x2 pixels.
    """
    shapes = [weight.shape for weight in network.parameters() if weight.ndim in (2, 4)]
    linear = max((64, *(shape[0] // 4 for shape in shapes)))
    return max((shape[0] for shape in shapes if len(shape) == 4), default=linear)


@runtime_checkable
class Network(Protocol):
    """A network of one stage: every row costs an evaluation of the whole of it.

    It is a `torch.nn.Module` with an attribute `config`, the keyword arguments that it was made with, as JSON: loading
    a model calls the registered factory with them. The class decorator `configured` keeps them. The tokens of rows with
    `condition.null` are zeros; the network gives these rows a meaning of their own.
    `energycomp_lab.checks.check_network` builds a network whose arguments all have default values, and checks it.

    A network may have more attributes:

    - `device`: where it computes, if its weights may be elsewhere meanwhile: offloaded, or mapped.
    - `effects(features, condition, owner)`, of a `TwoStage`: what conditions add to the shared prediction
      `features[1]`, in windows of cells of `patch` pixels: rows, their `Cells`, and (R, F, s, s), for each window size.
    - `casts_samples`, true if it computes with samples before it casts them to the type of its weights by itself.
    - `engine_methods`: the names of its methods that an `Engine` may run: functions of tensors, all of whose first axes
      are those of rows, without branches on numbers.
    - `finish(pictures, shown)`: draws into decoded pictures (B, 3, H, W) in [-1, 1] what their descriptions say, such
      as straight edges; each shows the rows of one condition.

    >>> from energycomp.denoisers import configured
    >>> @configured
    ... class Shift(nn.Module):
    ...     def __init__(self, *, by: float = 1.0):
    ...         super().__init__()
    ...         self.by = by
    ...
    ...     def forward(self, sample, timestep, condition):
    ...         return sample + self.by * condition.rows.mean((1, 2))[:, None, None, None]
    >>> isinstance(Shift(by=2.0), Network), Shift(by=2.0).config
    (True, {'by': 2.0})
    """

    def __call__(self, sample: Tensor, timestep: Tensor, condition: Condition) -> Tensor:
        """Prediction (R, ...) for samples (R, ...) of the sample shape at timesteps (R,) under R conditions.

        Timesteps are real numbers in [0, T], in float32 at least: samples and conditions are of the type of the
        weights, and bfloat16 has no number between 996 and 1000. The type of the prediction is the `prediction_type` of
        the `Denoiser`.
        """


@runtime_checkable
class TwoStage(Protocol):
    """A network whose trunk is shared by all conditions of one noised sample; a module with `config` as a `Network`.

    >>> from energycomp.denoisers import ConditionUNet
    >>> from energycomp.testing import tiny_model
    >>> isinstance(tiny_model().denoiser.network, TwoStage), issubclass(ConditionUNet, TwoStage)
    (True, False)
    """

    def features(self, sample: Tensor, timestep: Tensor) -> tuple[Tensor, ...]:
        """The trunk: B noised samples (B, C, H, W) at timesteps (B,) to tensors whose first dimension is B."""

    def head(self, features: tuple[Tensor, ...], condition: Condition, owner: Tensor) -> Tensor:
        """R conditions, row r on the features of sample owner[r], to predictions (R, C, H, W)."""


class Evaluated:
    """What has a network that is called here: the base of `Denoiser`."""

    network: nn.Module
    sample_shape: tuple[int, ...]

    def scale_model_input(self, sample: Tensor, timestep: Tensor) -> Tensor:  # noqa: ARG002
        """What the network is given of noised samples (B, C, H, W) at timesteps (B,)."""
        return sample


@attrs.frozen(eq=False)
class Trunk:
    """What rows under different conditions share: B noised samples at their timesteps, and a trunk's features."""

    sample: Tensor  # (B, C, H, W)
    timestep: Tensor  # (B,)
    features: tuple[Tensor, ...] | None

    def __len__(self) -> int:
        return len(self.sample)


def trunk(denoiser: Evaluated, sample: Tensor, timestep: Tensor) -> Trunk:
    """Runs the trunk once for noised samples (B, C, H, W) at real timesteps (B,) in [0, T].

    For a network of one stage it only keeps the inputs.

    >>> from energycomp.denoisers import count_rows
    >>> from energycomp.testing import tiny_model
    >>> with count_rows() as spent:
    ...     _ = trunk(tiny_model().denoiser, torch.zeros(2, 3, 16, 16), torch.tensor([100.0, 900.0]))
    >>> spent
    RowCount(rows=0, trunks=2)
    """
    if tuple(sample.shape[1:]) != tuple(denoiser.sample_shape):
        expected = f"(B, {', '.join(map(str, denoiser.sample_shape))})"
        raise InputError(f"got samples {tuple(sample.shape)}; expected {expected}; use the model's `encode` on images")
    if timestep.shape != sample.shape[:1]:
        got = f"got timesteps {tuple(timestep.shape)} for {len(sample)} samples"
        raise InputError(f"{got}; expected one per sample, (B,)")
    bare = Trunk(sample, timestep, None)
    if not isinstance(denoiser.network, TwoStage):
        return bare
    count(trunks=len(sample))
    return attrs.evolve(bare, features=run_batched(_key("trunk", denoiser, sample), partial(_features, denoiser), bare))


def rows(denoiser: Evaluated, shared: Trunk, condition: Condition, owner: Tensor) -> Tensor:
    """R predictions of the network's own type, row r for sample owner[r] under condition r.

    Args:
        shared: what `trunk` gave for B samples.
        condition: R rows; ragged batches are flat rows, nothing is padded.
        owner: (R,) integers in [0, B).

    Returns:
        (R, C, H, W) of the type of the samples, float32 at least. Costs R rows.

    >>> from energycomp.testing import tiny_model
    >>> denoiser = tiny_model().denoiser
    >>> shared = trunk(denoiser, torch.zeros(2, 3, 16, 16), torch.tensor([100.0, 900.0]))
    >>> rows(denoiser, shared, Condition(torch.rand(3, 1, 2)), torch.tensor([0, 0, 1])).shape
    torch.Size([3, 3, 16, 16])
    """
    if len(condition) != len(owner):
        raise InputError(f"got {len(condition)} condition rows and {len(owner)} owners; expected one owner per row")
    count(rows=len(owner))
    condition = condition.to(shared.sample.device, _own_type(denoiser.network, shared.sample.dtype))
    key = _key("rows", denoiser, shared.sample)
    return run_batched(key, partial(_rows_of_all, denoiser), shared, condition, owner)


def _key(kind: str, denoiser: Evaluated, sample: Tensor) -> tuple[object, ...]:
    """What calls have in common that can run as one."""
    return kind, denoiser.network, sample.shape[1:], sample.dtype, sample.device


def _features(denoiser: Evaluated, calls: Sequence[tuple[Trunk]]) -> list[tuple[Tensor, ...]]:
    """The features of several trunks, which run as one."""
    network = cast("TwoStage", denoiser.network)
    trunks = [bare for (bare,) in calls]
    whole = _join_trunks(trunks)
    limit = row_limit(whole.sample.device, denoiser.sample_shape, denoiser.network)
    given = denoiser.scale_model_input(whole.sample, whole.timestep)
    chunks = zip(given.split(limit), _cast_timestep(whole.timestep, whole.sample).split(limit), strict=True)
    own = _own_type(denoiser.network, whole.sample.dtype)
    parts = [network.features(s.to(own), t) for s, t in chunks]
    joined = parts[0] if len(parts) == 1 else tuple(torch.cat(group) for group in zip(*parts, strict=True))
    return list(zip(*(part.split([len(one) for one in trunks]) for part in joined), strict=True))


def _rows_of_all(denoiser: Evaluated, calls: Sequence[tuple[Trunk, Condition, Tensor]]) -> list[Tensor]:
    """The predictions of several calls, which run as one."""
    trunks = [shared for shared, _, _ in calls]
    starts = itertools.accumulate((len(shared) for shared in trunks), initial=0)
    owner = torch.cat([owner + start for (_, _, owner), start in zip(calls, starts, strict=False)])
    condition = Condition.cat([condition for _, condition, _ in calls])
    together = _rows(denoiser, _join_trunks(trunks), condition, owner)
    return list(together.split([len(owner) for _, _, owner in calls]))


def _join_trunks(trunks: Sequence[Trunk]) -> Trunk:
    if len(trunks) == 1:
        return trunks[0]
    features = [one.features for one in trunks if one.features is not None]
    joined = tuple(torch.cat(group) for group in zip(*features, strict=True)) if features else None
    return Trunk(torch.cat([one.sample for one in trunks]), torch.cat([one.timestep for one in trunks]), joined)


def _rows(denoiser: Evaluated, shared: Trunk, condition: Condition, owner: Tensor) -> Tensor:
    limit = row_limit(shared.sample.device, denoiser.sample_shape, denoiser.network)
    chunks = (slice(start, start + limit) for start in range(0, len(owner), limit))
    parts = (_call(denoiser, shared, condition[part], owner[part]) for part in chunks)
    return _concatenate(parts, len(owner)) if len(owner) else shared.sample.new_zeros(0, *denoiser.sample_shape)


def _call(denoiser: Evaluated, shared: Trunk, condition: Condition, owner: Tensor) -> Tensor:
    owner = owner.to(shared.sample.device)
    if shared.features is not None:
        out = cast("TwoStage", denoiser.network).head(shared.features, condition, owner)
    else:
        timestep = shared.timestep.index_select(0, owner)
        sample = denoiser.scale_model_input(shared.sample.index_select(0, owner), timestep)
        if not getattr(denoiser.network, "casts_samples", False):
            sample = sample.to(condition.rows.dtype)
        out = cast("Network", denoiser.network)(sample, _cast_timestep(timestep, shared.sample), condition)
    return out.to(torch.promote_types(shared.sample.dtype, torch.float32))


def _cast_timestep(timestep: Tensor, sample: Tensor) -> Tensor:
    """Timesteps as a network is told them: in the type of the samples, but never in half precision."""
    return timestep.to(torch.promote_types(sample.dtype, torch.float32))


def _own_type(network: nn.Module, other: torch.dtype) -> torch.dtype:
    """The type of a network in half or double precision; the other one for any other, or one without parameters."""
    first = next(network.parameters(), None)
    return other if first is None or first.dtype not in (*HALF, torch.float64) else first.dtype


def _concatenate(parts: Iterator[Tensor], total: int) -> Tensor:
    """All rows in one tensor; without gradients each part is copied as it comes, while it is in the cache."""
    first = next(parts)
    if len(first) == total:
        return first
    if torch.is_grad_enabled():
        return torch.cat([first, *parts])
    out = first.new_empty(total, *first.shape[1:])
    start = 0
    for part in itertools.chain([first], parts):
        out[start : start + len(part)] = part
        start += len(part)
    return out
