"""An autoencoder of diffusers as a codec: images to the latents that are diffused, and back."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar, Self

import attrs
import torch
from torch import Tensor, nn

from energycomp.errors import CheckpointError, InputError, NotFoundError
from energycomp.fields import a, is_number, legal, number, whole
from energycomp.files import fingerprint, read_tensors
from energycomp.models.hub import is_folder, is_hub_id
from energycomp.models.offloaded import all_weights, execution_device
from energycomp.models.residual_autoencoder import WEIGHTS as VAE_WEIGHTS, ResidualAutoencoder, is_residual
from energycomp.models.weights import check_fit, fill_weights, on_meta

AUTOENCODERS = ("AutoencoderKL", "AutoencoderDC", "AutoencoderTiny")  # of diffusers, by the name in their config
VAE = "vae"  # the folder of a codec inside that of its model
MAX_OWN_CODEC = 50_000_000  # bytes up to which the codec of a folder is written beside the model that uses it
MAX_CONFIG_BYTES = 1_000_000


def _is_size(value: Any) -> bool:
    sides = [value, value] if isinstance(value, int) else value
    return (
        isinstance(sides, list | tuple) and len(sides) == 2 and all(type(side) is int and side >= 1 for side in sides)
    )


@attrs.define(eq=False, frozen=True, slots=False)
class VAECodec:
    """An autoencoder of diffusers, as Stable Diffusion has one, read from a folder or the hub when it is first used.

    Args:
        source: folder or hub id, where it is read from; its subfolder "vae" is taken where there is one. Safetensors
            only. What it can be composed with depends on its weights, see `identity`.
        image_size: height and width of the images, or one number for both.
        scaling_factor: what latents are multiplied by; 0.18215 for Stable Diffusion 1 and 2.
        channels, reduction: of the latents, (channels, height / reduction, width / reduction).
        shift_factor: what is subtracted from latents before they are multiplied; 0 for Stable Diffusion 1 and 2.

    Raises:
        InputError: a number that cannot be.

    >>> VAECodec("some/vae", image_size=64).latent_shape
    (4, 8, 8)
    >>> VAECodec("some/vae", image_size=(128, 192)).latent_shape
    (4, 16, 24)
    """

    source: str = attrs.field(validator=a(str, "a folder or hub id"))
    image_size: int | Sequence[int] = attrs.field(validator=legal(_is_size, "a whole number, or height and width"))
    scaling_factor: float = attrs.field(default=0.18215, validator=number())
    channels: int = attrs.field(default=4, validator=whole(1))
    reduction: int = attrs.field(default=8, validator=whole(1))
    shift_factor: float = attrs.field(default=0.0, validator=legal(is_number, "a number"))
    registered_name: ClassVar[str] = "vae"

    def __attrs_post_init__(self) -> None:
        if min(self.sides) < self.reduction:
            raise InputError(f"got image_size={self.image_size}; expected at least the reduction {self.reduction}")

    @classmethod
    def of(cls, vae: Any, *, latent_size: int, source: str | None = None) -> Self:
        """The codec of an autoencoder that is in memory already; it is put into eval mode and frozen, not copied.

        Args:
            vae: one of `AUTOENCODERS`.
            latent_size: height and width of the latents.
            source: where it was read from; when left out, a model with it cannot be saved.

        Raises:
            InputError: one whose latents have a mean and a deviation for each channel.
        """
        if vae.config.get("latents_mean") is not None:
            got = "got a VAE with latents_mean, whose latents are standardised channel by channel"
            raise InputError(f"{got}; expected scaling_factor and shift_factor alone; write a codec for it")
        widths = vae.config.get("block_out_channels") or vae.config.encoder_block_out_channels
        reduction = 2 ** (len(widths) - 1)
        return cls(
            source or "in memory",
            image_size=latent_size * reduction, reduction=reduction,
            scaling_factor=vae.config.scaling_factor, channels=vae.config.latent_channels,
            shift_factor=vae.config.get("shift_factor") or 0.0,
        ).holding(vae)  # fmt: skip

    def holding(self, vae: Any) -> Self:
        """Itself, with its autoencoder, which is put into eval mode and frozen."""
        self.__dict__["vae"] = vae.eval().requires_grad_(False)  # where cached_property keeps it
        return self

    @classmethod
    def read(cls, source: str, *, image_size: int | Sequence[int]) -> Self:
        """The codec of a folder or hub id, with the channels and the scale that its own config says.

        Raises:
            NotFoundError: no autoencoder.
        """
        vae = cls(source, image_size=image_size, reduction=1).vae
        made = cls.of(vae, latent_size=1, source=source)
        return attrs.evolve(made, image_size=image_size).holding(vae)

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
        weights = all_weights(self.vae)
        return fingerprint({name: weights[name].bfloat16() for name in sorted(weights)})

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(C, h, w)."""
        height, width = self.sides
        return (self.channels, height // self.reduction, width // self.reduction)

    @property
    def sides(self) -> tuple[int, int]:
        if isinstance(self.image_size, int):
            return (self.image_size, self.image_size)
        return (self.image_size[0], self.image_size[1])

    @cached_property
    def vae(self) -> Any:
        """The diffusers module."""
        import diffusers

        folder = Path(self.source)
        reader = diffusers.AutoencoderKL
        try:
            if not folder.is_dir() and not is_hub_id(self.source):  # diffusers would open any file
                raise FileNotFoundError(f"no folder and no hub id: {self.source}")  # noqa: TRY301 - as any other reason
            part = "vae" if (folder / "vae").is_dir() or not folder.is_dir() else None
            try:
                config = reader.load_config(self.source, subfolder=part)
            except OSError:
                if folder.is_dir():
                    raise
                part = None  # a repository of a VAE alone
                config = reader.load_config(self.source)
            kind = config.get("_class_name", AUTOENCODERS[0])
            if kind not in AUTOENCODERS:
                raise TypeError(f"its class is {kind!r}")  # noqa: TRY301
            vae = getattr(diffusers, kind).from_pretrained(self.source, subfolder=part, use_safetensors=True)
        except Exception as error:  # diffusers raises many kinds for files that are no autoencoder
            raise NotFoundError(
                f"got the VAE {self.source!r}, which is no folder or hub id of one ({error}); expected "
                f"{', '.join(AUTOENCODERS)} in safetensors; download one and pass its folder"
            ) from error
        return vae.eval().requires_grad_(False)

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [-1, 1] to the posterior mean, scaled: (B, C, h, w).

        One picture at a time, as `decode` does: a batch takes the memory of one.
        """
        with self._on_device(images.device) as (vae, device):
            means = [_mean(vae.encode(image.to(device, vae.dtype))) for image in images.split(1)]
        return ((torch.cat(means) - self.shift_factor) * self.scaling_factor).to(images)

    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents (B, C, h, w) to images (B, 3, H, W) in [-1, 1], with gradients where latents ask for them."""
        follows = torch.is_grad_enabled() and latents.requires_grad  # and those of weights never
        with torch.set_grad_enabled(follows), self._on_device(latents.device) as (vae, device):
            parts = (latents / self.scaling_factor + self.shift_factor).to(device, vae.dtype).split(1)
            images = torch.cat([vae.decode(part).sample for part in parts])
        return images.clamp(-1, 1).to(latents)

    @contextmanager
    def _on_device(self, device: torch.device) -> Iterator[tuple[Any, torch.device]]:
        """The module, in float32 where it would overflow, and its device: that of its input, or of its offloading."""
        vae = self.vae
        found = execution_device(vae)
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

    def save(self, folder: Path, dtype: torch.dtype | None) -> dict[str, Any]:
        """As `Codec`: a small autoencoder of a folder is written into that of the model, others stay in place."""
        if self._is_small_file():
            vae = self.vae if dtype is None else nn.Module.to(deepcopy(self.vae), dtype)  # without a warning
            vae.save_pretrained(folder / VAE)
            return {**self.config(), "source": VAE}
        if not _has_a_place(self.source):
            raise InputError(
                f"got a model whose codec is {self.source!r}; expected one that was read from a folder or the hub; "
                "save the pipeline that it is of with its own save_pretrained, and load that folder"
            )
        return self.config()

    def opened(self, folder: Path) -> Self:
        """As `Codec`: the one in the folder of its model, read at once, or another, read when it is used."""
        if self.source == VAE:
            here = attrs.evolve(self, source=str((folder / VAE).absolute()))
            return here.holding(_read_vae(folder / VAE))
        if not _has_a_place(self.source):
            raise CheckpointError(f"got the codec {self.source!r}; expected a hub id or the absolute path of a folder")
        return self

    def _is_small_file(self) -> bool:
        folder = Path(self.source)
        if not is_folder(folder):
            return False
        return 0 < sum(file.stat().st_size for file in folder.rglob("*.safetensors")) <= MAX_OWN_CODEC


def _has_a_place(source: str) -> bool:
    """Whether a codec is found again."""
    folder = Path(source)
    return is_hub_id(source) or (folder.is_absolute() and ".." not in folder.parts)


def _read_vae(folder: Path) -> Any:
    """The autoencoder in a model's folder: built without memory, compared with its weights, then filled with them."""
    file = folder / "config.json"
    if not file.is_file() or file.stat().st_size > MAX_CONFIG_BYTES:
        raise CheckpointError(f"got {folder} without a {file.name} of at most {MAX_CONFIG_BYTES:,} bytes; restore it")
    config = json.loads(file.read_text(encoding="utf-8"))
    tensors = read_tensors(folder / VAE_WEIGHTS)
    kind = config.get("_class_name")
    if kind not in AUTOENCODERS:
        raise CheckpointError(f"got {file} of the class {kind!r}; expected {', '.join(AUTOENCODERS)}; restore it")
    if is_residual(config):
        build = partial(ResidualAutoencoder, config)
    else:
        import diffusers

        build = partial(getattr(diffusers, kind).from_config, config)
    with on_meta(tensors, str(folder)):
        made = build()
    check_fit(made.state_dict(), tensors, f"the codec of {folder}")
    return fill_weights(made, build, tensors, f"the codec of {folder}")


def _mean(encoded: Any) -> Tensor:
    """What an encoder of diffusers gives; the mean of its distribution where it has one."""
    mean: Tensor = encoded["latent_dist"].mean if "latent_dist" in encoded else encoded[0]
    return mean
