"""Distances of images in the features of a trained network in eval mode: of sets, and of pairs.

Called with images (B, 3, H, W) in [-1, 1], the network returns features (B, F), F = `num_features`, for distances of
sets. Its `layers(images)` are activations (B, C, h, w) of some layers, for distances of pairs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MeanMetric
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from energycomp.errors import InputError, NonFiniteError

SLACK = 1e-4  # how far beyond [-1, 1] an image may reach


def perceptual_distance(network: nn.Module, images: Tensor, others: Tensor) -> Tensor:
    """The distance of each image to its counterpart (B,), 0 for equal ones, at most 4.

    Eq. 1 of Zhang et al. (2018) without their learned weights, and the mean over layers instead of the sum. Numbers of
    two networks cannot be compared, nor any with published LPIPS, which has other features and weights.

    Raises:
        InputError: images of other shapes or ranges, or a network in training mode.
        NonFiniteError: an activation is not finite.
    """
    if images.shape != others.shape:
        raise InputError(f"got images {tuple(images.shape)} and {tuple(others.shape)}; expected the same shape")
    _check(network, images)
    _check(network, others)
    distances = []
    # Notation: a, b -> y, y0, the activations of a layer.
    layers: Any = network.layers
    for a, b in zip(layers(images.float()), layers(others.float()), strict=True):
        difference = F.normalize(a, dim=1, eps=1e-10) - F.normalize(b, dim=1, eps=1e-10)
        distances.append(difference.square().sum(1).mean((1, 2)))
    return _finite(torch.stack(distances).mean(0))


class PerceptualDistance(MeanMetric):
    """The mean of `perceptual_distance` over pairs of images."""

    higher_is_better = False  # type: ignore[assignment]

    def __init__(self, network: nn.Module) -> None:
        super().__init__(nan_strategy="disable")
        self.set_dtype(torch.float64)
        self.network = network

    def update(self, images: Tensor, others: Tensor) -> None:  # type: ignore[override]
        """Adds pairs of images, (B, 3, H, W) each, in [-1, 1]."""
        super().update(perceptual_distance(self.network, images, others).double())


class FrechetDistance(FrechetInceptionDistance):
    """Fréchet distance of two sets of images (Heusel et al., 2017) in the features of a named network, in float64.

    Published FIDs have the features of Inception; those of another network cannot be compared with them. The distance
    of few images is too large: compare equal numbers, many more than features. `update(images, real=True)` adds images
    (B, 3, H, W) in [-1, 1] to one set, `real=False` to the other.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__(feature=_Features(network))


class KernelDistance(KernelInceptionDistance):
    """Kernel distance of two sets of images (Binkowski et al., 2018) in the features of a named network, in float64.

    It is used as `FrechetDistance`, and keeps all features. `seed` is that of the subsets; torch's own generator is
    left alone.
    """

    def __init__(self, network: nn.Module, *, subsets: int = 100, subset_size: int = 1000, seed: int = 0) -> None:
        super().__init__(feature=_Features(network), subsets=subsets, subset_size=subset_size)
        self.seed = seed

    def compute(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation over subsets; the mean of equal kinds of images is about 0, of either sign."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(self.seed)
            return super().compute()


class _Features(nn.Module):
    """The network as torchmetrics calls it: checked, without gradients, in float64."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.num_features = network.num_features

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        _check(self.network, images)
        features = self.network(images.float())
        if features.shape != (len(images), self.num_features):
            raise InputError(
                f"got features {tuple(features.shape)}; expected {(len(images), self.num_features)}, the images and "
                "the network's num_features"
            )
        return _finite(features.double())


def _check(network: Any, images: Tensor) -> None:
    if network.training:
        raise InputError("got a network in training mode; expected one in eval mode; call its eval()")
    if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
        raise InputError(f"got images {tuple(images.shape)} of {images.dtype}; expected floats (B, 3, H, W)")
    if images.numel() and not bool((images.abs() <= 1 + SLACK).all()):
        raise InputError(
            f"got images from {float(images.min()):.4g} to {float(images.max()):.4g}; expected [-1, 1]; "
            "scale or clamp them"
        )


def _finite(tensor: Tensor) -> Tensor:
    if not bool(torch.isfinite(tensor).all()):
        raise NonFiniteError("got features that are not finite; expected numbers; check the weights of the network")
    return tensor
