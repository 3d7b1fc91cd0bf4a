"""What a codec of a denoiser is, and what it may be able to do besides."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from energycomp.components.space import ValueRange


class Codec(Protocol):
    """Images (B, 3, H, W) in [-1, 1] to the latents (B, C, h, w) that are diffused, and back, such as a `VAECodec`; or
    numbers of another shape, such as a `NumberProcessor`.

    Latents of codecs of the same identity can be composed. `encode` gives the posterior mean of scaled latents. A model
    is saved with the `registered_name` of its codec and with its `config`: its constructor arguments, as JSON.

    >>> import torch
    >>> class Halved:  # latents of half the size
    ...     registered_name, identity, latent_shape = "halved", "halved", (3, 8, 8)
    ...
    ...     def encode(self, images):
    ...         return torch.nn.functional.avg_pool2d(images, 2)
    ...
    ...     def decode(self, latents):
    ...         return latents.repeat_interleave(2, 2).repeat_interleave(2, 3)
    ...
    ...     def config(self):
    ...         return {}
    >>> Halved().decode(Halved().encode(torch.zeros(1, 3, 16, 16))).shape
    torch.Size([1, 3, 16, 16])
    """

    @property
    def registered_name(self) -> str: ...
    @property
    def identity(self) -> str: ...
    @property
    def latent_shape(self) -> tuple[int, ...]: ...
    def encode(self, images: Tensor) -> Tensor: ...
    def decode(self, latents: Tensor) -> Tensor: ...
    def config(self) -> dict[str, Any]: ...


@runtime_checkable
class HasFiles(Protocol):
    """A codec with files of its own, such as weights, in the folder of a saved model.

    >>> from energycomp import load
    >>> isinstance(load("clevr").denoiser.codec, HasFiles)  # the autoencoder of its latents
    True
    """

    def save(self, folder: Path, dtype: torch.dtype | None) -> dict[str, Any]:
        """Writes its files into a model's folder, floats as `dtype`, and gives its `config` as it stands there.

        Raises:
            InputError: a codec that cannot be found again.
        """

    def opened(self, folder: Path) -> Codec:
        """What was made of that `config`, with its files.

        Raises:
            CheckpointError: files that are absent or do not fit.
        """


@runtime_checkable
class Standardiser(Codec, Protocol):
    """A codec of numbers that standardises each place along the first axis of a sample by itself."""

    @property
    def places(self) -> tuple[str, ...]:
        """How each place is standardised, such as "(x - 2) / 0.5"."""

    @property
    def value_range(self) -> ValueRange | None:
        """(-r, r), of the standardised data; None where it is not known."""
