"""Galaxies as a telescope sees them, and the prior of one galaxy.

A galaxy is an elliptical Sersic profile, I(r) = exp(-b (r / r_e)^(1 / n)), convolved with a Gaussian PSF.
"""

import math
from functools import cache

import attrs
import torch
from energycomp.components import Gaussian
from torch import Tensor

SIDE, STAMP = 32, 25  # pixels of an image, and of the stamp around a galaxy
PSF, NOISE = 1.2, 1.0  # standard deviations: of the PSF in pixels, of a pixel
FLUX = (100.0, 600.0)  # of all light of a galaxy, log-uniform
RADIUS, RATIO, INDEX = (1.0, 2.5), (0.4, 1.0), (0.6, 1.6)  # half-light radius in pixels, axis ratio, Sersic index
LEAST_APART = 3  # pixels between galaxies
FINE, SCATTER = 3, 0.5  # points of a pixel, in each direction; pixels by which places are wrong


def stamps(n: int, generator: torch.Generator, scatter: float = 0.0) -> Tensor:
    """Random galaxies (n, STAMP, STAMP), centred anywhere in the middle pixel, and beyond it by `scatter`."""

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(n, 1, 1, generator=generator)

    # A profile for each: concentric ellipses, on a grid of several points a pixel.
    radius, ratio, index, angle = uniform(*RADIUS), uniform(*RATIO), uniform(*INDEX), uniform(0.0, math.pi)
    dx, dy = (uniform(-0.5, 0.5) + scatter * torch.randn(n, 1, 1, generator=generator) for _ in range(2))
    points = (torch.arange(STAMP * FINE) + 0.5) / FINE - STAMP / 2
    x, y = points[None, None, :] - dx, points[None, :, None] - dy
    along, across = x * angle.cos() + y * angle.sin(), y * angle.cos() - x * angle.sin()
    r = (along.square() * ratio + across.square() / ratio).sqrt() / radius
    profile = (-(2.0 * index - 1.0 / 3.0) * r ** (1.0 / index)).exp()
    # The PSF: a matrix for the rows, and for the columns.
    centres = torch.arange(STAMP) - STAMP // 2
    blur = (-0.5 * ((centres[:, None] - points) / PSF).square()).exp()
    pixels = blur @ profile @ blur.T
    flux = uniform(math.log(FLUX[0]), math.log(FLUX[1])).exp()
    return pixels / pixels.sum((1, 2), keepdim=True) * flux


def placed(stamp: Tensor, place: tuple[int, int]) -> Tensor:
    """Images (B, SIDE, SIDE) with stamps (B, STAMP, STAMP) in the middle of the pixel (row, column)."""
    half, (row, column) = STAMP // 2, place
    canvas = stamp.new_zeros(len(stamp), SIDE + 2 * half, SIDE + 2 * half)
    canvas[:, row : row + STAMP, column : column + STAMP] = stamp
    return canvas[:, half : half + SIDE, half : half + SIDE]


def blend(count: int, generator: torch.Generator) -> tuple[Tensor, list[tuple[int, int]], Tensor]:
    """An image (SIDE, SIDE) of so many galaxies, their places in its middle, and their stamps."""
    places: list[tuple[int, int]] = []
    while len(places) < count:
        row, column = (SIDE // 4 + SIDE // 2 * torch.rand(2, generator=generator)).long().tolist()
        if all(math.dist((row, column), place) >= LEAST_APART for place in places):
            places.append((row, column))
    galaxies = stamps(count, generator)
    light = torch.cat([placed(one[None], place) for one, place in zip(galaxies, places, strict=True)]).sum(0)
    return light + NOISE * torch.randn(SIDE, SIDE, generator=generator), places, galaxies


@attrs.frozen(eq=False)
class Galaxy:
    """One galaxy in the middle of its stamp: z @ basis of numbers z ~ N(mean, I); basis (D, STAMP^2), mean (D,)."""

    basis: Tensor
    mean: Tensor

    def component(self, name: str) -> Gaussian:
        """The distribution of z."""
        return Gaussian(self.mean, 1.0, name=name, sample_shape=tuple(self.mean.shape))

    def stamp(self, z: Tensor) -> Tensor:
        """(B, STAMP, STAMP) of z (B, D)."""
        return (z @ self.basis).reshape(-1, STAMP, STAMP)


@attrs.frozen(eq=False)
class Prior:
    """What galaxies look like: mean (D,) and covariance (D, D) of those of flux 1, along `directions` (D, STAMP^2)."""

    directions: Tensor
    mean: Tensor
    covariance: Tensor

    @classmethod
    def of(cls, galaxies: Tensor, numbers: int = 24) -> "Prior":
        """Estimated from stamps (n, STAMP, STAMP), in the directions in which they have most light."""
        x = galaxies.flatten(1).double()
        x = x / x.sum(1, keepdim=True)
        directions = torch.linalg.eigh(x.T @ x).eigenvectors[:, -numbers:]
        z = x @ directions
        return cls(directions.T, z.mean(0), z.T.cov())

    def about(self, flux: float) -> Galaxy:
        """Galaxies of any flux, whose shapes vary as much as those of this one.

        An image f s of flux f and shape s is f E[s] + flux (s - E[s]), to first order about `flux` and E[s].
        """
        low, high = FLUX
        mean = (high - low) / math.log(high / low)
        variance = (high**2 - low**2) / (2.0 * math.log(high / low)) - mean**2
        root = torch.linalg.cholesky(flux**2 * self.covariance + variance * torch.outer(self.mean, self.mean))
        white = torch.linalg.solve_triangular(root, mean * self.mean[:, None], upper=False)[:, 0]
        return Galaxy((root.T @ self.directions).float(), white.float())


@cache
def usual_prior() -> Prior:
    """Of 2,000 random galaxies, whose centres are about `SCATTER` pixels beyond the middle one, as detectors err."""
    return Prior.of(stamps(2_000, torch.Generator().manual_seed(0), SCATTER))
