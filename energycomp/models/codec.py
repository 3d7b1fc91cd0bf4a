"""A diffusers VAE as a codec: images to the latents that are diffused, and back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Self, cast

import attrs
import torch
from torch import Tensor

from energycomp.errors import InputError, NotFoundError
from energycomp.files import fingerprint
from energycomp.models.hub import is_hub_id
from energycomp.models.places import execution_device


@attrs.define(eq=False, frozen=True, slots=False)
class VAECodec:
    """Stable Diffusion's autoencoder, read from a local folder or the hub when it is first used.

    Args:
        source: folder or hub id, where it is read from; its subfolder "vae" is taken where there is one. Safetensors
            only. What it can be composed with depends on its weights, see `identity`.
        image_size: height and width of the images.
        scaling_factor: what latents are multiplied by; 0.18215 for Stable Diffusion 1 and 2.
        channels, reduction: of the latents, (channels, image_size / reduction, image_size / reduction).
        shift_factor: what is subtracted from latents before they are multiplied; 0 for Stable Diffusion 1 and 2.

    Raises:
        InputError: a number that cannot be.

    >>> VAECodec("some/vae", image_size=64).latent_shape
    (4, 8, 8)
    """

    source: str
    image_size: int
    scaling_factor: float = 0.18215
    channels: int = 4
    reduction: int = 8
    shift_factor: float = 0.0

    def __attrs_post_init__(self) -> None:
        numbers: tuple[Any, ...] = (self.image_size, self.channels, self.reduction)
        scale, source = cast("Any", self.scaling_factor), cast("Any", self.source)
        whole = all(type(n) is int and n >= 1 for n in numbers) and self.image_size >= self.reduction
        shift = cast("Any", self.shift_factor)
        scaled = isinstance(scale, int | float) and 0 < scale <= 1e300
        shifted = isinstance(shift, int | float) and abs(shift) <= 1e300
        if not (whole and scaled and shifted and isinstance(source, str)):
            raise InputError(
                f"got {self}; expected a folder or hub id, whole numbers of at least 1 and a scale above 0; check them"
            )

    @classmethod
    def of(cls, vae: Any, *, latent_size: int, source: str | None = None) -> Self:
        """The codec of an autoencoder that is in memory already; it is put into eval mode and frozen, not copied.

        Args:
            vae: an `AutoencoderKL`.
            latent_size: height and width of the latents.
            source: where it was read from; when left out, a model with it cannot be saved.
        """
        reduction = 2 ** (len(vae.config.block_out_channels) - 1)
        codec = cls(
            source or "in memory",
            image_size=latent_size * reduction, reduction=reduction,
            scaling_factor=vae.config.scaling_factor, channels=vae.config.latent_channels,
            shift_factor=vae.config.get("shift_factor") or 0.0,
        )  # fmt: skip
        codec.__dict__["vae"] = vae.eval().requires_grad_(False)  # where cached_property keeps it
        return codec

    @property
    def identity(self) -> str:
        """Latents of autoencoders with the same weights and scale can be composed, wherever they were read from.

        Weights are compared in bfloat16, so that copies in float32 and bfloat16 are the same. One that was rounded to
        float16 is another. The autoencoder is read when this is first asked for.
        """
        shift = f":{self.shift_factor}" if self.shift_factor else ""
        return f"vae:{self._weights}:{self.scaling_factor}{shift}"

    @cached_property
    def _weights(self) -> str:
        weights = _weights_of(self.vae)
        return fingerprint({name: weights[name].bfloat16() for name in sorted(weights)})

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(C, h, w)."""
        return (self.channels, self.image_size // self.reduction, self.image_size // self.reduction)

    @cached_property
    def vae(self) -> Any:
        """The diffusers module."""
        from diffusers import AutoencoderKL

        try:
            nested = self._is_nested()
            try:
                vae = AutoencoderKL.from_pretrained(
                    self.source, subfolder="vae" if nested else None, use_safetensors=True
                )
            except OSError:
                if not nested or Path(self.source).is_dir():
                    raise
                vae = AutoencoderKL.from_pretrained(self.source, use_safetensors=True)  # a repository of a VAE alone
        except Exception as error:  # diffusers raises many kinds for files that are no autoencoder
            raise NotFoundError(
                f"got the VAE {self.source!r}, which is no folder or hub id of one ({error}); expected "
                "an AutoencoderKL in safetensors; download one and pass its folder"
            ) from error
        return vae.eval().requires_grad_(False)

    def _is_nested(self) -> bool:
        folder = Path(self.source)
        if folder.is_dir():
            return (folder / "vae").is_dir()
        if not is_hub_id(self.source):  # diffusers would open any file
            raise FileNotFoundError(f"no folder and no hub id: {self.source}")
        return True

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [-1, 1] to the posterior mean, scaled: (B, C, h, w).

        One picture at a time, as `decode` does: a batch takes the memory of one.
        """
        with self._placed(images.device) as (vae, device):
            means = [vae.encode(image.to(device, vae.dtype)).latent_dist.mean for image in images.split(1)]
        return ((torch.cat(means) - self.shift_factor) * self.scaling_factor).to(images)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents (B, C, h, w) to images (B, 3, H, W) in [-1, 1]."""
        with self._placed(latents.device) as (vae, device):
            parts = (latents / self.scaling_factor + self.shift_factor).to(device, vae.dtype).split(1)
            images = torch.cat([vae.decode(part).sample for part in parts])
        return images.clamp(-1, 1).to(latents)

    @contextmanager
    def _placed(self, device: torch.device) -> Iterator[tuple[Any, torch.device]]:
        """The module and where it computes: on the device of its input, unless it is offloaded or mapped.

        One in float16 whose config says that it overflows there is in float32 meanwhile, as in pipelines of diffusers.
        """
        vae, found = self.vae, execution_device(self.vae)
        if found is None:
            vae.to(device)
        upcast = vae.dtype == torch.float16 and vae.config.get("force_upcast")
        if upcast:
            vae.to(dtype=torch.float32)
        try:
            yield vae, device if found is None else found
        finally:
            if upcast:
                vae.to(dtype=torch.float16)

    def config(self) -> dict[str, Any]:
        """Constructor arguments, as JSON; a folder by its absolute path."""
        folder = Path(self.source)
        source = str(folder.absolute()) if folder.is_dir() else self.source
        return {**attrs.asdict(self), "source": source}


def _weights_of(module: Any) -> Mapping[str, Tensor]:
    """The weights of a module, those included that accelerate offloads layer by layer.

    Raises:
        InputError: weights on the meta device that nothing brings back.
    """
    weights: Mapping[str, Tensor] = module.state_dict()
    if any(tensor.is_meta for tensor in weights.values()):
        from accelerate.utils.modeling import get_state_dict_offloaded_model

        try:
            weights = get_state_dict_offloaded_model(module)
        except ValueError as error:  # nothing holds their numbers
            raise InputError(
                "got a VAE on the device 'meta'; expected its weights, which tell what it can be composed with; load "
                "it with them"
            ) from error
    return weights
