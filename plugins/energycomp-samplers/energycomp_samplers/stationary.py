"""How sure components are of each spatial frequency of an image: a covariance that is the same at every place.

One variance for all pixels says that pixels are independent, so that the average of 4 x 4 of them hardly varies, and an
observation of it is hardly followed. Neighbours in images are alike: strong at low frequencies, weak at high ones.

Notation: variable -> symbol
    F               the orthonormal Fourier transform of the last two axes, and of the axis of three colours
    values          eigenvalues p of P = F' diag(p) F, (C, H, W): precisions of clean samples
    ratio           alpha_bar_t / (1 - alpha_bar_t)

    C = F' diag(1 / (ratio + p)) F

p is one number for each ring of frequencies, and for grey and colour apart.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import torch
from torch import Tensor

SHARE = 0.5  # of the least precision of a component, up to which that of a product counts as measured
COLOURS = 3  # on the first axis: red, green and blue, whose Fourier transform is grey and two of colour


def _axes(shape: Sequence[int]) -> tuple[int, ...]:
    return (-3, -2, -1) if shape[0] == COLOURS else (-2, -1)


def rings(shape: Sequence[int]) -> Tensor:
    """Which ring each Fourier coefficient of an image (C, H, W) is in, (C, H, W), from 0.

    >>> rings((1, 1, 6)).tolist()  # frequencies 0, 1, 2, 3, -2, -1
    [[[0, 1, 2, 3, 2, 1]]]
    """
    channels, height, width = shape
    # Cycles in the length of the longer side, at most that of a diagonal
    longer = max(height, width)
    down, across = (torch.fft.fftfreq(size).abs() * longer for size in (height, width))
    ring = torch.hypot(down[:, None], across).round().long()
    # Colour is a channel of its own; its two coefficients are conjugate, and count as one
    kinds = torch.arange(channels).clamp(max=1) if channels == COLOURS else torch.arange(channels)
    return kinds[:, None, None] * (int(ring.max()) + 1) + ring


def ring_variances(probes: Tensor, moved: Tensor) -> Tensor:
    """Eigenvalues of C, (C, H, W), from random probes v and C v, (R, C, H, W): a regression in each ring."""
    axes = _axes(probes.shape[1:])
    given, found = (torch.fft.fftn(one, dim=axes, norm="ortho") for one in (probes, moved))
    ring = rings(probes.shape[1:])
    empty = torch.zeros(int(ring.max()) + 1, dtype=torch.float64)
    together = empty.index_add(0, ring.flatten(), (given.conj() * found).real.sum(0).flatten().double())
    size = empty.index_add(0, ring.flatten(), given.abs().square().sum(0).flatten().double())
    return (together / size)[ring]


@attrs.frozen(eq=False)
class Stationary:
    """The precision P of images (C, H, W), by its eigenvalues `values` (C, H, W) in float64."""

    values: Tensor

    def covariance(self, ratio: Tensor) -> StationaryCovariance:
        """(ratio I + P)^-1 at the noise levels (B,), or (1,), of samples."""
        return StationaryCovariance(self, ratio.double().reshape(-1, 1, 1, 1))


@attrs.frozen(eq=False)
class StationaryCovariance:
    """C = Cov[x_0 | x_t] of images (B, C, H, W), each at its noise level (B, 1, 1, 1). Called with v, it is C v."""

    spread: Stationary
    ratio: Tensor

    def __call__(self, v: Tensor) -> Tensor:
        return self.apply(v, self.eigenvalues(v))

    def root(self, v: Tensor) -> Tensor:
        return self.apply(v, self.eigenvalues(v).sqrt())

    def eigenvalues(self, like: Tensor) -> Tensor:
        return (1.0 / (self.ratio + self.spread.values).to(like.device)).to(like)

    def diagonal(self, like: Tensor, shape: Sequence[int]) -> None:
        """None: pixels depend on each other."""

    def apply(self, v: Tensor, factor: Tensor) -> Tensor:
        """F' diag(factor) F v of v (B, C, *size), whose size may be smaller than that of samples."""
        axes = _axes(self.spread.values.shape)
        return torch.fft.ifftn(torch.fft.fftn(v, dim=axes) * factor, dim=axes).real


def product_stationary(spectra: Sequence[Tensor], weights: Sequence[float]) -> Stationary:
    """P = sum_i b_i P_i of components, from the eigenvalues of each.

    Where one is not above half the least of the components of positive weight, it is that: errors of measured ones add
    up in a product of many.
    """
    pairs = list(zip(weights, spectra, strict=True))
    total = torch.stack([b * one for b, one in pairs]).sum(0)
    positive = [one for b, one in pairs if b > 0.0]
    if not positive:
        return Stationary(total.clamp(min=SHARE))
    least = torch.stack(positive).amin(0)
    return Stationary(torch.where(total > SHARE * least, total, least))
