"""What a codec of a denoiser is."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor


class Codec(Protocol):
    """Images (B, 3, H, W) in [-1, 1] to the latents (B, C, h, w) that are diffused, and back, such as a `VAECodec`; or
    numbers of another shape, such as a `NumberProcessor`.

    Latents of codecs of the same identity can be composed. `encode` gives the posterior mean of scaled latents. A model
    is saved with the `registered_name` of its codec and with its `config`: its constructor arguments, as JSON.

    A codec may have more members:

    - `save(folder, dtype) -> dict` writes files of its own, such as weights, floats as `dtype`, into the folder of a
      model, and gives its `config` as it stands there; it raises `InputError` where it could not be found again.
      `opened(folder) -> Codec` is what was made of that `config`, with its files; it raises `CheckpointError`.
    - `places: tuple[str, ...]`, how each place along the first axis of numbers is standardised, such as
      "(x - 2) / 0.5", with `value_range`, (-r, r), of the standardised data, or None.

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
