"""Images into latents of their parts, and back: the Decomposer protocol, and what decomposes with a model.

A decomposer reads K latents from an image, one for each part, without labels (chapter 4 of Wang, 2026). Latents are
recombined by choosing rows, for any decomposer: see `energycomp.decomposition.latents`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

import attrs
import torch
from torch import Tensor

from energycomp.components.ledger import RowCount, count_rows
from energycomp.images import from_unit
from energycomp.models.given import model_of
from energycomp.models.model import Model
from energycomp.plugins.registry import find
from energycomp.seeds import Generator, as_generators

EXPLAINED = 0.5  # share of the variance below which an image is out of distribution
PLAIN = 1e-2  # variance of brightness in [-1, 1] below which an image counts as one colour
DEFAULT = "diffusion"  # the decomposer of a model with an encoder that names none


@attrs.frozen(eq=False)
class Parts:
    """Images of the parts that latents stand for.

    >>> from energycomp.testing import stripes_model
    >>> parts = decompose(torch.zeros(1, 3, 16, 16), stripes_model(parts=2)).parts
    >>> parts.masks[0, :, 0].int().sum(1), parts.whole.shape  # of the first row of 16 pixels, 8 belong to each part
    (tensor([8, 8]), torch.Size([1, 3, 16, 16]))
    """

    images: Tensor  # each part alone, (B, K, 3, H, W) in [-1, 1]
    masks: Tensor | None  # the pixels of each part, (B, K, H, W) bool; None where they cannot be determined
    whole: Tensor  # all parts together, (B, 3, H, W)


@runtime_checkable
class Decomposer(Protocol):
    """Encodes images as latents of their parts, and decodes latents to images.

    `num_inference_steps` defaults to the decomposer's own number. A decomposer without steps or without random numbers
    accepts both arguments and ignores them. Latents of another width are refused. A model names its decomposer by
    `Model(decomposer_name=...)`. `energycomp_lab.checks.check_decomposer` checks one.

    A decomposer may have more members: `sample(n, *, generator=None)` generates whole scenes (n, 3, H, W) in [-1, 1];
    `views` says how many turned and mirrored views of an image it searches, 1 for the image alone.

    >>> from energycomp.images import ImageProcessor
    >>> class Bands:
    ...     # a latent is the position of a vertical band and its mean colour
    ...
    ...     def encode(self, images, *, generator=None):
    ...         colour = ImageProcessor(size=(32, 32))(images).unflatten(3, (4, -1)).mean((2, 4)).transpose(1, 2)
    ...         position = torch.linspace(0, 0.75, 4).expand(len(colour), -1)
    ...         return torch.cat([position[..., None], colour], dim=2)  # (B, 4, 4)
    ...
    ...     def decode(self, latents, *, generator=None, num_inference_steps=None):
    ...         return self.parts(latents).whole
    ...
    ...     def parts(self, latents, *, generator=None, num_inference_steps=None):
    ...         place = torch.arange(32) / 32
    ...         inside = (place >= latents[..., :1]) & (place < latents[..., :1] + 0.25)  # (B, K, W)
    ...         masks = inside[:, :, None].expand(-1, -1, 32, -1)
    ...         images = masks[:, :, None] * latents[..., 1:, None, None]
    ...         return Parts(images=images, masks=masks, whole=images.sum(1).clamp(-1, 1))
    >>> decompose(torch.rand(1, 3, 32, 32), Bands()).parts.images.shape
    torch.Size([1, 4, 3, 32, 32])
    """

    def encode(self, images: Any, *, generator: torch.Generator | None = None) -> Tensor:
        """Latents (B, K, D) of images, in any form that `ImageProcessor` takes."""

    def decode(self, latents: Tensor, *, generator: Generator = None, num_inference_steps: int | None = None) -> Tensor:
        """Images (B, 3, H, W) in [-1, 1] of latents (B, K', D), for any K' of at least 1."""

    def parts(self, latents: Tensor, *, generator: Generator = None, num_inference_steps: int | None = None) -> Parts:
        """Each part of latents (B, K', D) alone, and all parts together."""


@attrs.frozen(eq=False)
class Decomposition:
    """The result of `decompose`."""

    latents: Tensor  # (B, K, D)
    parts: Parts
    spent: RowCount


def decompose(
    images: Any,
    model: Model | Decomposer | str | Path,
    *,
    generator: Generator = None,
    num_inference_steps: int | None = None,
) -> Decomposition:
    """Decomposes images: their latents, an image of each part, and the reconstruction from all parts.

    Args:
        images: one or several, as `infer` takes them, float tensors in [0, 1].
        model: a model with an encoder or a decomposer, or its name or folder; or any decomposer.
        generator: of the initial noise; one, or a seed; or one for each image.
        num_inference_steps: steps of each reverse diffusion; by default the model's own number.

    Raises:
        InputError: no images, or a model that has neither an encoder nor a decomposer.

    >>> from energycomp.testing import stripes_model
    >>> found = decompose(torch.rand(1, 3, 16, 16), stripes_model(parts=4))
    >>> found.latents.shape, found.parts.images.shape, found.parts.masks.shape
    (torch.Size([1, 4, 4]), torch.Size([1, 4, 3, 16, 16]), torch.Size([1, 4, 16, 16]))
    """
    given = isinstance(model, Decomposer) and not isinstance(model, Model | type)
    decomposer = cast("Decomposer", model) if given else decomposer_of(model_of(model))
    return decompose_samples(
        from_unit(images), decomposer, generator=generator, num_inference_steps=num_inference_steps
    )


def decompose_samples(
    images: Any, decomposer: Decomposer, *, generator: Generator = None, num_inference_steps: int | None = None
) -> Decomposition:
    """`decompose` of images as a model's processor takes them: float tensors are in [-1, 1]."""
    generator = as_generators(generator)
    with count_rows() as spent:
        latents = decomposer.encode(images)
        parts = decomposer.parts(latents, generator=generator, num_inference_steps=num_inference_steps)
    return Decomposition(latents, parts, spent)


def explained_variance(images: Tensor, rebuilt: Tensor) -> list[float | None]:
    """1 - squared error / variance of the pixels, for each image (B, 3, H, W) in [-1, 1].

    A share below `EXPLAINED` means that the image is out of distribution. None for an image of one colour that is
    rebuilt as one, of which there is nothing to explain.

    >>> bright = torch.linspace(-1, 1, 8).expand(1, 3, 8, 8)
    >>> explained_variance(bright, bright), explained_variance(bright, torch.zeros(1, 3, 8, 8))
    ([1.0], [0.0])
    """
    variances = (images - images.mean((2, 3), keepdim=True)).square().flatten(1).mean(1).tolist()
    errors = (rebuilt.to(images) - images).square().flatten(1).mean(1).tolist()
    both = zip(variances, errors, strict=True)
    return [None if max(var, error) < PLAIN else 1 - error / max(var, PLAIN) for var, error in both]


def takes_apart(model: Model) -> bool:
    """Whether a model can decompose images: it has an encoder, or names a decomposer."""
    return model.encoder is not None or model.decomposer_name is not None


def decomposer_of(model: Model | str | Path) -> Decomposer:
    """The decomposer that a model names, or `DiffusionDecomposer` where it names none.

    Raises:
        InputError: the model has no encoder and names no decomposer.
        NotFoundError: no installed plugin registers the decomposer that it names.

    >>> from energycomp.testing import stripes_model
    >>> type(decomposer_of(stripes_model())).__name__
    'DiffusionDecomposer'
    """
    model = model_of(model)
    decomposer: Decomposer = find("decomposers", model.decomposer_name or DEFAULT)(model)
    return decomposer


def sampler_of(model: Model) -> Callable[..., Tensor] | None:
    """The method `sample(n, *, generator)` of a model's decomposer; None where it has none."""
    decomposer = decomposer_of(model) if takes_apart(model) else None
    sample: Callable[..., Tensor] | None = getattr(decomposer, "sample", None)
    return sample
