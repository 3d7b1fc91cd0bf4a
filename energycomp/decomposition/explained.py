"""How much of an image its parts explain: the sign that an image is out of distribution for a decomposer."""

from __future__ import annotations

from torch import Tensor

EXPLAINED = 0.5  # share of the variance below which an image is out of distribution
PLAIN = 1e-2  # variance of brightness in [-1, 1] below which an image counts as one colour


def explained_variance(images: Tensor, rebuilt: Tensor) -> list[float | None]:
    """1 - squared error / variance of the pixels, for each image (B, 3, H, W) in [-1, 1].

    A low share means that the image is out of distribution: the model has not learned images of its kind. None for an
    image of one colour that is rebuilt as one, of which there is nothing to explain.

    >>> import torch
    >>> bright = torch.linspace(-1, 1, 8).expand(1, 3, 8, 8)
    >>> explained_variance(bright, bright), explained_variance(bright, torch.zeros(1, 3, 8, 8))
    ([1.0], [0.0])
    """
    variances = (images - images.mean((2, 3), keepdim=True)).square().flatten(1).mean(1).tolist()
    errors = (rebuilt.to(images) - images).square().flatten(1).mean(1).tolist()
    return [
        None if max(variance, error) < PLAIN else 1 - error / max(variance, PLAIN)
        for variance, error in zip(variances, errors, strict=True)
    ]
