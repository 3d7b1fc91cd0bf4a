"""Numbers that are no image, such as rows of a table and trajectories: standardised for a model, and back."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import attrs
import numpy as np
import torch
from torch import Tensor

from energycomp.errors import InputError
from energycomp.fields import is_number, legal, number, plain
from energycomp.images import is_picture

NUMBERS = legal(lambda value: bool(value) and all(map(is_number, value)), "finite numbers, one along the first axis")
RISING = legal(
    lambda rows: all(
        len(row) == len(rows[0]) > 1 and all(is_number(q) and abs(q) < 1e30 for q in row) and sorted(row) == [*row]
        for row in rows
    ),
    "as many numbers within 1e30 for each place, two at least, none below the one before",
)
LEAST_SPREAD = 1e-5  # of the mean: float32 rounds numbers to 6e-8 of it, which is 0.6 % of such a deviation
ROWS = attrs.field(default=(), converter=lambda rows: tuple(map(tuple, rows)), validator=RISING)


def _sizes(sizes: Iterable[int]) -> tuple[int, ...]:  # mypy knows converters that are functions only
    return tuple(sizes)


def _row(numbers: Iterable[float]) -> tuple[float, ...]:
    return tuple(numbers)


@attrs.frozen
class NumberProcessor:
    """Numbers x of one shape to (x - mean) / scale, one mean and scale for each place along the first axis.

    With quantiles, x is first replaced by its normal score, so that skewed and discrete numbers become nearly normal:
    the i-th of Q quantiles by the quantile (i + 1/2) / Q of N(0, 1), and numbers between and beyond them linearly.

    It is the processor of a model and the codec of its denoiser: samples are given back as numbers, by "np" and "pt",
    and those that were standardised alike compose, on parts of a larger sample place by place.

    Args:
        sample_shape: (13,) for rows, (2, 64) for trajectories, and so on; images have an `ImageProcessor`.
        mean, scale: as many numbers as the first axis has; scales are above 0.
        quantiles: Q numbers that rise for each of them, or none. Equal ones have the score of their mean rank.
        reach: the greatest absolute value of standardised data, to which samplers clip predictions of x0, as they clip
            those of images to [-1, 1]; `fit` finds it. None: nothing is clipped.

    >>> table = NumberProcessor.fit(torch.tensor([[0.0, 10.0], [2.0, 30.0]]))
    >>> table.mean, table.encode(table([1.0, 40.0])), table.decode(torch.tensor([[0.0, 2.0]]))
    ((1.0, 20.0), tensor([[0., 2.]]), tensor([[ 1., 40.]]))
    """

    sample_shape: tuple[int, ...] = attrs.field(converter=_sizes)
    mean: tuple[float, ...] = attrs.field(converter=_row, validator=NUMBERS)
    scale: tuple[float, ...] = attrs.field(converter=_row, validator=NUMBERS)
    quantiles: tuple[tuple[float, ...], ...] = ROWS
    reach: float | None = attrs.field(default=None, validator=number(or_none=True))
    bounded: ClassVar[bool] = False
    registered_name: ClassVar[str] = "numbers"

    def __attrs_post_init__(self) -> None:
        shape = self.sample_shape
        means, scales = map(len, (self.mean, self.scale))
        known = {means, scales, len(self.quantiles) or means}
        if is_picture(shape) or known != {*shape[:1]} or min(self.scale) <= 0:
            got = f"got {means} means, {scales} scales and {len(self.quantiles)} rows of quantiles for samples {shape}"
            raise InputError(f"{got}; expected one of each for the first axis, above 0, and no image; change them")

    @classmethod
    def fit(cls, data: Any, *, quantiles: int = 0) -> NumberProcessor:
        """The one by which data (N, *shape) have mean 0 and deviation 1 along their first axis; constants stay.

        Args:
            quantiles: how many are kept of each place, such as 100; 0 scales numbers only.

        Raises:
            InputError: numbers that float32 hardly tells apart, such as times in seconds since 1970.
        """
        rows = torch.as_tensor(data).double().transpose(0, 1).flatten(1)
        constant = _is_constant(rows)
        kept = ()
        if quantiles:
            kept = np.quantile(rows, (np.arange(quantiles) + 0.5) / quantiles, axis=1).T.tolist()
            rows = torch.stack([_bend(*column, back=False) for column in zip(rows, kept, strict=True)])
        mean = rows.mean(1)
        scale = rows.std(1, correction=0)
        scale = torch.where(constant | (scale == 0), 1.0, scale)
        reach = float(((rows - mean[:, None]) / scale[:, None]).abs().max())
        return cls(tuple(data.shape[1:]), mean.tolist(), scale.tolist(), kept, reach or None)

    def __call__(self, data: Any) -> Tensor:
        """Numbers (*shape) or (B, *shape): a tensor, an array or lists, as a tensor (B, *shape) of float32."""
        try:
            rows = torch.as_tensor(data).float()
        except (TypeError, ValueError, RuntimeError):
            rows = torch.empty(0)
        rows = rows[None] if tuple(rows.shape) == self.sample_shape else rows
        if tuple(rows.shape[1:]) != self.sample_shape or not rows.numel() or not bool(rows.isfinite().all()):
            got = f"numbers {tuple(rows.shape)}" if rows.numel() and bool(rows.isfinite().all()) else f"{data!r:.80}"
            raise InputError(f"got {got}; expected finite numbers of shape {self.sample_shape}, one or several")
        return rows

    def encode(self, images: Tensor) -> Tensor:
        """Standardised numbers (B, *shape)."""
        numbers = self._bend(images)
        return (numbers - self._wide(self.mean, images)) / self._wide(self.scale, images)

    def decode(self, latents: Tensor) -> Tensor:
        """The numbers (B, *shape) of standardised ones."""
        return self._bend(latents * self._wide(self.scale, latents) + self._wide(self.mean, latents), back=True)

    latent_shape = property(lambda self: self.sample_shape)
    identity = property(lambda _: "numbers")  # beside `places`
    value_range = property(lambda self: None if self.reach is None else (-self.reach, self.reach))

    def config(self) -> dict[str, Any]:
        """Constructor arguments, as JSON."""
        return attrs.asdict(self, value_serializer=plain)

    @property
    def places(self) -> tuple[str, ...]:
        """How each place along the first axis is standardised, to six digits."""
        texts = [f"(x - {mean:.6g}) / {scale:.6g}" for mean, scale in zip(self.mean, self.scale, strict=True)]
        if self.quantiles:
            marks = [hashlib.sha256(repr(row).encode()).hexdigest()[:8] for row in self.quantiles]
            texts = [f"{text} by quantiles {mark}" for text, mark in zip(texts, marks, strict=True)]
        return tuple(texts)

    def _wide(self, values: tuple[float, ...], like: Tensor) -> Tensor:
        return torch.tensor(values, dtype=like.dtype, device=like.device).reshape(-1, *[1] * (like.ndim - 2))

    def _bend(self, numbers: Tensor, *, back: bool = False) -> Tensor:
        """Numbers (B, *shape) as normal scores, or these as numbers."""
        if not self.quantiles:
            return numbers
        columns = zip(numbers.unbind(1), self.quantiles, strict=True)
        return torch.stack([_bend(*column, back=back) for column in columns], dim=1)


def _is_constant(rows: Tensor) -> Tensor:
    """Which places of numbers (P, N) have one number, (P,); raises `InputError` for what float32 hardly tells apart."""
    mean = rows.mean(1)
    spread = rows.std(1, correction=0)
    constant = rows.amax(1) == rows.amin(1)
    for place in (~constant & (spread < LEAST_SPREAD * mean.abs())).nonzero()[:, 0].tolist():
        raise InputError(
            f"got numbers around {float(mean[place]):.6g} with the deviation {float(spread[place]):.3g} at place "
            f"{place}; expected a deviation of at least {LEAST_SPREAD:g} of the mean, which float32 resolves; subtract "
            "an offset from them"
        )
    return constant


def _bend(x: Tensor, quantiles: Sequence[float], *, back: bool) -> Tensor:
    """Numbers as normal scores, or back: linear between quantiles, and beyond them with the mean slope between them."""
    known, equal = torch.tensor(quantiles, dtype=x.dtype, device=x.device).unique(return_counts=True)
    score = torch.special.ndtri((equal.cumsum(0) - equal / 2).to(x.dtype) / len(quantiles))
    wide = (known[-1:] - known[:1], score[-1:] - score[:1]) if len(known) > 1 else (1 + 1e-6 * known.abs(), score + 1)
    ends = [torch.cat([k[:1] - width, k, k[-1:] + width]) for k, width in zip((known, score), wide, strict=True)]
    source, target = reversed(ends) if back else ends
    below = torch.searchsorted(source, x.contiguous()).clamp(1, len(source) - 1) - 1
    return target[below].lerp(target[below + 1], (x - source[below]) / (source[below + 1] - source[below]))
