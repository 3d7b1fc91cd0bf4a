"""Numbers that are no image, such as rows of a table and trajectories: standardised for a model, and back."""

from __future__ import annotations

import hashlib
from typing import Any, ClassVar

import attrs
import torch
from torch import Tensor

from energycomp.errors import InputError
from energycomp.fields import is_number, legal
from energycomp.images import is_picture

NUMBERS = legal(lambda value: bool(value) and all(map(is_number, value)), "finite numbers, one along the first axis")


@attrs.frozen
class NumberProcessor:
    """Numbers x of one shape to (x - mean) / scale, one mean and scale for each place along the first axis.

    It is the processor of a model and the codec of its denoiser: samples are given back as numbers, by "np" and "pt",
    and those that were standardised alike compose.

    Args:
        sample_shape: (13,) for rows, (2, 64) for trajectories, and so on; images have an `ImageProcessor`.
        mean, scale: as many numbers as the first axis has; scales are above 0.

    >>> table = NumberProcessor.fit(torch.tensor([[0.0, 10.0], [2.0, 30.0]]))
    >>> table.mean, table.encode(table([1.0, 40.0])), table.decode(torch.tensor([[0.0, 2.0]]))
    ((1.0, 20.0), tensor([[0., 2.]]), tensor([[ 1., 40.]]))
    """

    sample_shape: tuple[int, ...] = attrs.field(converter=tuple)
    mean: tuple[float, ...] = attrs.field(converter=tuple, validator=NUMBERS)
    scale: tuple[float, ...] = attrs.field(converter=tuple, validator=NUMBERS)
    bounded: ClassVar[bool] = False

    def __attrs_post_init__(self) -> None:
        shape, (means, scales) = self.sample_shape, map(len, (self.mean, self.scale))
        if is_picture(shape) or {means, scales} != {*shape[:1]} or min(self.scale) <= 0:
            got = f"got {means} means and {scales} scales for samples {shape}"
            raise InputError(f"{got}; expected one of each for the first axis, above 0, and no image; change them")

    @classmethod
    def fit(cls, data: Any) -> NumberProcessor:
        """The one by which data (N, *shape) have mean 0 and deviation 1 along their first axis; constants stay."""
        rows = torch.as_tensor(data).double().transpose(0, 1).flatten(1)
        scale = rows.std(1, correction=0)
        return cls(tuple(data.shape[1:]), rows.mean(1).tolist(), torch.where(scale > 0, scale, 1.0).tolist())

    def __call__(self, data: Any) -> Tensor:
        """Numbers (*shape) or (B, *shape): a tensor, an array or lists, as a tensor (B, *shape) of float32."""
        try:
            rows = torch.as_tensor(data).float()
        except (TypeError, ValueError, RuntimeError):
            rows = torch.empty(0)
        rows = rows[None] if tuple(rows.shape) == self.sample_shape else rows
        if tuple(rows.shape[1:]) != self.sample_shape or not rows.numel() or not bool(rows.isfinite().all()):
            raise InputError(f"got {data!r:.80}; expected finite numbers of shape {self.sample_shape}, one or several")
        return rows

    def encode(self, images: Tensor) -> Tensor:
        """Standardised numbers (B, *shape)."""
        return (images - self._wide(self.mean, images)) / self._wide(self.scale, images)

    def decode(self, latents: Tensor) -> Tensor:
        """The numbers (B, *shape) of standardised ones."""
        return latents * self._wide(self.scale, latents) + self._wide(self.mean, latents)

    config = attrs.asdict  # as JSON, from which it is made again
    latent_shape = property(lambda self: self.sample_shape)
    identity = property(lambda self: f"numbers {hashlib.sha256(repr(self).encode()).hexdigest()[:16]}")

    def _wide(self, values: tuple[float, ...], like: Tensor) -> Tensor:
        return torch.tensor(values, dtype=like.dtype, device=like.device).reshape(-1, *[1] * (like.ndim - 2))
