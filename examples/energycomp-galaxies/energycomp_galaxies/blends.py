"""Blends: peaks are candidates, and `separate` says which of them are galaxies, and how bright each is."""

import math
import warnings
from collections.abc import Mapping, Sequence
from functools import partial

import attrs
import torch
from energycomp.errors import EnergycompWarning, InputError
from energycomp_samplers import separate
from energycomp_samplers.separated import Separation
from scipy.ndimage import gaussian_filter, maximum_filter
from torch import Tensor

from energycomp_galaxies.galaxies import FLUX, NOISE, PSF, SIDE, STAMP, Galaxy, Prior, placed, usual_prior

Place = tuple[int, int]  # row, column
FAINT, APART = 4.0, 2  # a peak is above so many standard deviations, and so many pixels from a brighter one
MORE = 2  # candidates than galaxies


@attrs.frozen(eq=False)
class Found:
    """The K galaxies of a blend."""

    places: Sequence[Place]
    stamps: Tensor  # (n, K, STAMP, STAMP), draws of the posterior
    counts: Mapping[int, float]  # the posterior of K
    residual: Tensor  # what the mean of the draws does not explain, (SIDE, SIDE)

    @property
    def flux(self) -> Tensor:
        """(n, K), draws of all light of each galaxy."""
        return self.stamps.sum((2, 3))

    def interval(self, level: float = 0.9) -> tuple[Tensor, Tensor]:
        """Lower and upper bounds of the flux, (K,) each."""
        return self.flux.quantile(0.5 - level / 2.0, dim=0), self.flux.quantile(0.5 + level / 2.0, dim=0)


def find(image: Tensor, prior: Prior | None = None, most: int = 6, n: int = 200) -> Found:
    """How many galaxies an image (SIDE, SIDE) shows, 1 to `most`, and draws of each."""
    prior = prior or usual_prior()
    if not (first := peaks(image)[: most + MORE]):
        raise InputError("got an image without a peak above the noise; expected one of at least one galaxy")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EnergycompWarning)  # galaxies that are missing yet, or too many
        # Candidates: peaks of the image, then of what the galaxies at the peaks leave over.
        found = everywhere(image, first, prior, n)
        while len(found.places) < most + MORE:
            new = [one for one in peaks(found.residual) if all(math.dist(one, at) >= APART for at in found.places)]
            if not new:
                break
            found = everywhere(image, [*found.places, *new][: most + MORE], prior, n)
        # Which of them are galaxies; then again, with the fluxes that those have without the others.
        places, galaxies = list(found.places), [prior.about(flux) for flux in _fluxes(found)]
        for _ in range(2):
            counted = separated(image, places, galaxies, most, n)
            names = next(one.names for one in counted.explanations if len(one.names) == counted.count)
            kinds = [int(name) for name in names]
            chosen = everywhere(image, [places[kind] for kind in kinds], prior, n)
            for kind, place, flux in zip(kinds, chosen.places, _fluxes(chosen), strict=True):
                places[kind], galaxies[kind] = place, prior.about(flux)
    return attrs.evolve(chosen, counts=counted.counts)


def everywhere(image: Tensor, places: Sequence[Place], prior: Prior, n: int) -> Found:
    """Draws of a galaxy at each of these places, or a pixel beside it where its light has its centre."""
    galaxies = [prior.about((FLUX[0] * FLUX[1]) ** 0.5)] * len(places)
    for _ in range(2):
        found = _drawn(image, places, galaxies, n)
        galaxies = [prior.about(flux) for flux in _fluxes(found)]
        places = _centred(found)
    return _drawn(image, places, galaxies, n)


def separated(y: Tensor, places: Sequence[Place], galaxies: Sequence[Galaxy], most: int | None, n: int) -> Separation:
    """Draws of a galaxy at each place; with `most`, only at some of them, 1 to `most`."""
    # What all places can show: an orthonormal basis of it. The rest of the image is noise, which says nothing.
    pairs = list(zip(galaxies, places, strict=True))
    shown = [placed(one.stamp(torch.eye(len(one.mean))), place).flatten(1) for one, place in pairs]
    seen = torch.linalg.qr(torch.cat(shown).T.double()).Q.float()
    return separate(
        y.flatten() @ seen,
        [one.component(str(kind)) for kind, one in enumerate(galaxies)],
        noise=NOISE,
        count=None if most is None else (1, min(most, len(places))),
        repeats=False,
        operators=[(partial(_product, basis @ seen), partial(_product, (basis @ seen).T)) for basis in shown],
        covariances=1.0,
        n=n,
        num_inference_steps=1,  # exact for Gaussians
        generator=0,
        progress=False,
    )


def _drawn(image: Tensor, places: Sequence[Place], galaxies: Sequence[Galaxy], n: int) -> Found:
    """Draws of these galaxies, all of which are there."""
    z = separated(image, places, galaxies, None, n).samples
    stamps = torch.stack([one.stamp(z[:, k]) for k, one in enumerate(galaxies)], dim=1)
    light = torch.stack([placed(stamps[:, k].mean(0, keepdim=True), place)[0] for k, place in enumerate(places)])
    return Found(tuple(places), stamps, {len(places): 1.0}, image - light.sum(0))


def _product(matrix: Tensor, z: Tensor) -> Tensor:
    return z @ matrix


def _fluxes(found: Found) -> list[float]:
    """The mean flux of each galaxy, within what galaxies have."""
    return found.flux.mean(0).clamp(*FLUX).tolist()


def _centred(found: Found) -> list[Place]:
    """Places at the brightest pixel of each galaxy, or next to where they were."""
    places: list[Place] = []
    for stamp, (row, column) in zip(found.stamps.mean(0), found.places, strict=True):
        top = int(stamp[STAMP // 2 - 1 :, STAMP // 2 - 1 :][:3, :3].argmax())
        moved = (row + top // 3 - 1, column + top % 3 - 1)
        is_free = moved not in [*places, *found.places] and {*moved} <= {*range(SIDE)}
        places.append(moved if is_free else (row, column))
    return places


def peaks(image: Tensor) -> list[Place]:
    """Local maxima of the image less its surroundings, the most significant first."""
    point = torch.zeros(STAMP, STAMP)
    point[STAMP // 2, STAMP // 2] = 1.0
    significant = _sharpened(image) / (NOISE * _sharpened(point).square().sum().sqrt())
    top = torch.from_numpy(maximum_filter(significant.numpy(), 2 * APART - 1))
    found = ((significant == top) & (significant > FAINT)).nonzero().tolist()
    return sorted(((row, column) for row, column in found), key=lambda place: -float(significant[place]))


def _sharpened(image: Tensor) -> Tensor:
    """The difference of two Gaussian filters, of the scale of the PSF."""
    return torch.from_numpy(gaussian_filter(image.numpy(), 0.6 * PSF) - gaussian_filter(image.numpy(), 1.75 * PSF))
