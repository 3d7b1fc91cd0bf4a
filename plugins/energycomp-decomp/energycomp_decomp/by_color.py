"""Objects of an image by colour and place, without a network: connected pixels that differ from the ground.

Notation: variable -> symbol
    places @ fitted     mu(u, v), the colour of the ground, quadratic in the position
    z                   Sigma^-1/2 (x - mu), in standard deviations of the ground
    points (N, 5)       of the pixels of a component: position, in shares of the image, and direction of z
    r (S, N, G)         responsibilities of G Gaussians for the pixels, from S starts
    pi, mu, Sigma       weights, means and covariances of the Gaussians; position and colour are independent
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt, gaussian_filter, label
from torch import Tensor

from energycomp.errors import InputError

ROUNDS = 3  # fits of the ground
NEAR = 3.0  # its pixels, in standard deviations
NOISE = 0.03  # least one, in brightness
DIFFERS = 3.4  # standard deviations from which on a pixel is of an object
SMOOTH = 0.04  # of colours within a component, a share of the image: patterns average out
PLACE = 0.01  # least standard deviation of the position in a Gaussian
COLOR, VARIED = 0.15, 0.5  # that of the colour: this, and a share of the standard deviation in the component
GAUSSIANS = 4  # of a component, at most
STARTS = 4  # of EM
STEPS = 30  # of EM
COST = 0.025  # of a further Gaussian, nats for each pixel of the image: neighbours are alike, so pixels count less
SPLIT, SHARE, LEAST = 0.01, 0.08, 0.004  # of the image: what is split; of the component and of the image: a part
CONNECTED = np.ones((3, 3))


def masks_by_color(images: Tensor, *, seed: int = 0) -> list[Tensor]:
    """Masks (K, H, W) of the objects of each image (B, 3, H, W) in [-1, 1], without a network.

    Pixels that differ from the ground are grouped into connected components. A component in which the positions and the
    colours are described better by several Gaussians than by one shows objects that touch or hide each other, and is
    divided among them. Pixels of the ground have no mask, and masks do not overlap.

    The ground must be smooth or have a fine pattern and fill most of the image, and objects must have another mean
    colour. Takes about 0.04 CPU seconds an image of 64x64 pixels.

    Raises:
        InputError: not images (B, 3, H, W).

    >>> image = torch.zeros(1, 3, 64, 64)
    >>> image[:, 0, 4:12, 4:12] = 1.0
    >>> image[:, 1, 40:48, 8:24] = 1.0
    >>> masks_by_color(image)[0].sum((1, 2)).tolist()
    [64, 128]
    """
    z = from_ground(images)
    found = []
    for one in z:
        masks = [
            part
            for component in find_components(one.norm(dim=0) > DIFFERS)
            for part in _divide(component, one, torch.Generator().manual_seed(seed))
        ]
        found.append(torch.stack(masks) if masks else torch.zeros(0, *z.shape[2:], dtype=torch.bool))
    return found


def from_ground(images: Any) -> Tensor:
    """How far the pixels of images (B, 3, H, W) are from the ground, in its standard deviations, (B, 3, H, W).

    The ground of an image is a Gaussian of colours (the detector of Reed and Yu, 1990), whose mean is quadratic in the
    position. It is fitted to all pixels, and again to the pixels within three standard deviations.
    """
    if not isinstance(images, Tensor) or images.ndim != 4 or images.shape[1] != 3:
        shape = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
        raise InputError(f"got {shape}; expected images (B, 3, H, W) in [-1, 1]; stack them")
    height, width = images.shape[2:]
    v, u = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    u, v = u.flatten(), v.flatten()
    places = torch.stack([torch.ones_like(u), u, v, u * u, v * v, u * v], 1)  # (N, 6)
    pixels = images.flatten(2).mT
    z: Tensor = torch.zeros_like(pixels)
    for _ in range(ROUNDS):
        ground = (z.norm(dim=2, keepdim=True) < NEAR).float()
        # Fit the mean colour at each position.
        weighted = (places * ground).mT
        fitted = torch.linalg.solve(weighted @ places + 1e-4 * torch.eye(6), weighted @ pixels)
        rest = pixels - places @ fitted
        # Whiten what is left by the covariance of the ground.
        covariance = (rest * ground).mT @ rest / ground.sum(1, keepdim=True) + NOISE**2 * torch.eye(3)
        values, vectors = torch.linalg.eigh(covariance)
        z = rest @ vectors @ torch.diag_embed(values.rsqrt()) @ vectors.mT
    return z.mT.reshape(images.shape)


def find_components(mask: Tensor) -> list[Tensor]:
    """The connected components of a mask (H, W), diagonals included, as masks (H, W)."""
    numbers, count = label(mask.numpy(), structure=CONNECTED)
    return [torch.from_numpy(numbers == k) for k in range(1, count + 1)]


def _divide(component: Tensor, z: Tensor, generator: torch.Generator) -> list[Tensor]:
    """A component (H, W), or what its Gaussians divide it into."""
    size = component.numel()
    if component.sum() < SPLIT * size:
        return [component]
    points = _points(component, z)
    # Add Gaussians as long as the likelihood gains more than they cost.
    best = -math.inf
    labels = torch.zeros(len(points), dtype=torch.long)
    for number in range(1, GAUSSIANS + 1):
        log_likelihood, owner = _mixture(points, number, generator)
        value = log_likelihood - COST * size * number
        if value <= best:
            break
        best = value
        labels = owner
    # Of each Gaussian the greatest connected piece is an object, unless it is small.
    least = max(LEAST * size, SHARE * len(points))
    pieces = []
    for k in range(int(labels.max()) + 1):
        own = torch.zeros_like(component)
        own[component] = labels == k
        greatest = max(find_components(own), key=lambda piece: int(piece.sum()), default=own)
        if greatest.sum() >= least:
            pieces.append(greatest)
    if len(pieces) < 2:
        return [component]
    # Every pixel belongs to the nearest object.
    nearest = np.stack([distance_transform_edt(~piece.numpy()) for piece in pieces]).argmin(0)
    return [component & torch.from_numpy(nearest == k) for k in range(len(pieces))]


def _points(component: Tensor, z: Tensor) -> Tensor:
    """Positions and smoothed directions of colour of the pixels of a component, (N, 5) float64."""
    height, width = component.shape
    inside = component.numpy().astype(float)
    direction = (z / z.abs().amax(0).clamp(min=1e-6)).double().numpy()
    blur = SMOOTH * min(height, width)
    weight = gaussian_filter(inside, blur) + 1e-6
    colors = torch.from_numpy(np.stack([gaussian_filter(one * inside, blur) / weight for one in direction]))
    rows = (torch.arange(height).double() / height).expand(width, -1).T
    columns = (torch.arange(width).double() / width).expand(height, -1)
    return torch.cat([rows[None], columns[None], colors])[:, component].T


def _mixture(points: Tensor, number: int, generator: torch.Generator) -> tuple[float, Tensor]:
    """The greatest log likelihood of `number` Gaussians over some starts of EM, and the Gaussian of each point (N,)."""
    varied = COLOR + VARIED * float(points[:, 2:].var(0).sum().sqrt())
    floors = torch.tensor([PLACE, PLACE, varied, varied, varied], dtype=points.dtype)
    independent = torch.block_diag(torch.ones(2, 2), torch.ones(3, 3)).to(points)
    starts = STARTS if number > 1 else 1
    # Start: far points as means (k-means++).
    scaled = points / floors
    means = scaled[torch.randint(len(points), (starts, 1), generator=generator)]  # (S, 1, 5)
    for _ in range(1, number):
        away = torch.cdist(scaled.expand(starts, -1, -1), means).amin(2).square() + 1e-9
        means = torch.cat([means, scaled[torch.multinomial(away, 1, generator=generator)]], dim=1)
    r = (-torch.cdist(scaled.expand(starts, -1, -1), means).square()).softmax(2)
    total = r.new_zeros(starts)
    for _ in range(STEPS if number > 1 else 1):
        # M step.
        weight = r.sum(1) + 1e-6  # (S, G)
        mu = r.mT @ points / weight[..., None]
        rest = points[:, None] - mu[:, None]  # (S, N, G, 5)
        sigma = torch.einsum("sng,sngi,sngj->sgij", r, rest, rest) / weight[..., None, None]
        sigma = sigma * independent + torch.diag(floors.square())
        # E step.
        distance = torch.einsum("sngi,sgij,sngj->sng", rest, torch.linalg.inv(sigma), rest)
        log_density = (weight / len(points)).log()[:, None] - (torch.logdet(sigma)[:, None] + distance) / 2
        total = log_density.logsumexp(2).sum(1)
        r = log_density.softmax(2)
    best = int(total.argmax())
    return float(total[best]), r[best].argmax(1)
