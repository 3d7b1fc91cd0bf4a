"""Model: what a user loads. Calling it makes a leaf."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeAlias

import attrs
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from energycomp.components.algebra import Composition, combine
from energycomp.components.conditioning import Conditioner, ability, mixed_of, weights_of
from energycomp.components.text import WeightedText, weighted
from energycomp.components.values import parse_value, read_value, values_of
from energycomp.denoisers.denoiser import Conditional
from energycomp.denoisers.engines import Engine, run_by
from energycomp.errors import InputError
from energycomp.fields import is_number
from energycomp.images import decoded, framed, from_unit
from energycomp.models.folder import write
from energycomp.models.hub import CARD, upload
from energycomp.models.model_card import plain_card
from energycomp.models.parts import ModelParts, sampling_of
from energycomp.models.sources import check_device, dtype_of, open_model
from energycomp.plugins.registry import object_of
from energycomp.seeds import as_generator, derived_seed

Adapt: TypeAlias = Callable[["Model", str | Path | Mapping[str, Tensor], float], "Model"]
"""`(model, source, scale)`: the model with LoRA weights."""


@attrs.frozen(eq=False, repr=False)
class Model(ModelParts):
    """A denoiser with what is needed to use it: conditioner, image processor, defaults, and an encoder of pictures.

    A notebook shows what it is made of.

    Args:
        name: what `repr` of its leaves begins with.
        denoiser: network, schedule, prediction type, rule, sample space and codec.
        conditioner: values to condition rows.
        processor: images to the size the model works at; or a `NumberProcessor`, which is the codec, too.
        defaults: how it is best used.
        network_name, conditioner_name: the registered names under which plugins rebuild both.
        encoder: samples (B, C, H, W) to latents (B, K, D), values of the conditioner; see `energycomp.decomposition`.
        encoder_name: its registered name.
        decomposer_name: the registered name of its decomposer; None for "diffusion" where there is an encoder, and for
            no decomposer where there is none. See `energycomp.decomposition.decomposer_of`.
        proposals: of values that an image may show, see `energycomp.models.proposals`; solvers may begin with them.
        adapt: puts LoRA weights on it, for `with_lora`; None for a network that takes none.

    Raises:
        InputError: the conditioner's tokens, or what processor or codec make of a picture, do not fit the denoiser.

    >>> from energycomp.testing import tiny_model
    >>> model = tiny_model()
    >>> model
    Model('tiny', 16x16 colour images, UnitSquare, rule product, 29,608 parameters)
    >>> model(0.3, 0.4) & model(0.7, 0.6)
    -u + tiny(0.3, 0.4) + tiny(0.7, 0.6)
    """

    adapt: Adapt | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Conditional:
        """A component under the condition that the arguments stand for; raises `InputError`.

        The arguments are those of the conditioner's `parse`; or a value: `model(*value)` and `model(value)` take a row
        of `Solution.conditions`, and `compose` takes all its rows; or a text as on the command line, without a weight,
        such as "red cube at 0.3,0.5". A description without a place gets one that depends on the text alone: the same
        one each time, whatever it is composed with. `scene` keeps the places of several apart.

        >>> from energycomp.testing import tiny_model
        >>> model = tiny_model()
        >>> model(0.3, 0.4), model(torch.tensor([0.5, 0.75]))
        (tiny(0.3, 0.4), tiny(0.5, 0.75))
        >>> from energycomp import load
        >>> clevr = load("clevr-small")
        >>> clevr("red cube"), clevr("blue sphere")
        (clevr-small(red cube at 0.573,0.735), clevr-small(blue sphere at 0.590,0.555))
        """
        text = args[0] if len(args) == 1 and not kwargs and isinstance(args[0], str) else None
        read, place = ability(self.conditioner, "read"), ability(self.conditioner, "placed")
        if text is not None and read is not None:
            if place is not None:
                args = (text,) = place([text], as_generator(derived_seed("place", text)))
            value = read(text)
        else:
            value = parse_value(self.conditioner, *args, **kwargs)
        if any(isinstance(arg, Tensor | np.ndarray) for arg in (*args, *kwargs.values())):
            return self.leaf(value)
        shown = ", ".join([*(f"{a}" for a in args), *(f"{k}={v}" for k, v in kwargs.items())])
        return self.leaf(value, name=f"{self.name}({shown})")

    def read(self, text: str, *, weight: float | None = None) -> Composition:
        """A component as it is written on the command line, with its weight, see `energycomp.components.weighted`.

        Args:
            text: such as "0.3,0.5", "a red cube * 7.5", or "smiling @ left half, 0-0.4".
            weight: where the text has none; `Defaults.guidance_scale` when left out.

        Raises:
            InputError: a text that is none of the model's components, or of a weight.

        >>> from energycomp.testing import tiny_model
        >>> tiny_model().read("0.3,0.4 * 2 @ left half, 0-0.4")
        2 [0 to 0.4] [left half] tiny(0.3, 0.4)
        """
        return self._read(weighted(text), weight)

    def _read(self, found: WeightedText, weight: float | None) -> Composition:
        try:
            value = read_value(self.conditioner, found.text)
        except InputError as error:
            raise InputError(
                f"got the component {found.text!r}, which is not a component of {self.name}: {error}"
            ) from error
        name = f"{self.name}({re.sub(r',(?! )', ', ', found.text)})"
        default = self.defaults.guidance_scale if weight is None else weight
        return self.leaf(value, name) * found.weight(default)

    def scene(
        self, *texts: str, weight: float | None = None, generator: int | torch.Generator | None = 0
    ) -> list[Composition]:
        """Components as `read` takes them. Those without a place are put where there is room.

        Args:
            weight: as of `read`.
            generator: or a seed, of the places.
        """
        found = [weighted(text) for text in texts]
        if (place := ability(self.conditioner, "placed")) is not None:
            placed = place([one.text for one in found], as_generator(generator))
            found = [attrs.evolve(one, text=text) for one, text in zip(found, placed, strict=True)]
        return [self._read(one, weight) for one in found]

    def leaf(self, value: Tensor, name: str | None = None) -> Conditional:
        """A component for values (1, *V), or (B, *V) with one for each sample of a batch."""
        value = value.to(self.denoiser.device)
        mixed = mixed_of(self.conditioner)
        opened = None
        if mixed is not None:
            numbers, words = mixed.support.split(value)
            opened = self.conditioner(mixed.support.opened(numbers)) if words.any() else None
        shown = name or f"{self.name}({_short(value)})"
        least, most = self.defaults.counts
        known = (self.name, most) if least < most else None
        sampling = sampling_of(self.defaults, self.conditioner)
        return Conditional(
            self.denoiser, self.conditioner(value), shown, opened, known, values=value, sampling=sampling
        )

    @property
    def unconditional(self) -> Conditional:
        """The unconditional leaf u, which all models of this denoiser share: other defaults are no other u."""
        return self.denoiser.unconditional

    def sampling(self) -> dict[str, Any]:
        """How it is best sampled, as keywords of `Composer.sample`: what that takes for its components by default."""
        return sampling_of(self.defaults, self.conditioner).options()

    def compose(self, values: Any) -> Composition:
        """K values (K, *V) composed by the denoiser's rule; K = 0 is u, under the product rule only.

        Args:
            values: such as `Solution.conditions`; a tensor, an array, or a list of what the model is called with.

        Raises:
            InputError: a value that the conditioner does not have, or none under another rule than product.

        >>> from energycomp.testing import tiny_model
        >>> tiny_model().compose([(0.3, 0.4), (0.7, 0.6)])
        -u + tiny(0.3, 0.4) + tiny(0.7, 0.6)
        """
        values = values_of(self.conditioner, values)
        if len(values) == 0:
            if self.denoiser.rule != "product":
                raise InputError(f"got no values under the rule {self.denoiser.rule!r}; expected at least one")
            return Composition.of(self.unconditional)
        return combine([self.leaf(value[None]) for value in values], self.denoiser.rule)

    def with_lora(self, source: str | Path | Mapping[str, Tensor], *, scale: float = 1.0) -> Model:
        """Another model: this one with LoRA weights. Its leaves compose with those of this model by `&`, `+` and `-`.

        `lora_a("x") & lora_b("y")` blends no weights: each prompt is predicted by its own. The networks share their
        memory, and u of all is that of this model. Costs one call of the network for each LoRA and step; the network
        evaluations are those of one model.

        Args:
            source: a safetensors file, a folder or a hub id with one, or tensors by name.
            scale: of the weights.

        Raises:
            InputError: a model that takes no LoRA, or weights for another base.
            NotFoundError: no such file, or the package peft is missing.

        >>> from energycomp_text import from_pipeline
        >>> from energycomp_text.testing import tiny_sdxl
        >>> from_pipeline(tiny_sdxl()).with_lora("not/there.safetensors")
        Traceback (most recent call last):
        energycomp.errors.NotFoundError: ...
        """
        if self.adapt is None:
            raise InputError(
                f"got LoRA weights for {self.name}; expected a pipeline of diffusers that takes them, such as SDXL; "
                "load one"
            )
        if not is_number(scale):
            raise InputError(f"got scale {scale!r}; expected a number, such as 0.8")
        return self.adapt(self, source, float(scale))

    def with_engine(self, engine: str | Engine) -> Model:
        """Another model: this one, whose network an engine runs. Predictions agree to 1e-4, by "bf16" to 5 %.

        "openvino" and "onnx" export each part of the network at its first call, in some CPU seconds, and keep it in
        ENERGYCOMP_CACHE. Torch runs what an engine cannot, such as gradients; a warning says so where it is not the
        engine's nature.

        Args:
            engine: "bf16", "openvino", "onnx", "compile" for `torch.compile`, a registered name, or "torch" for none.

        Raises:
            NotFoundError: no plugin registers the name.
            InputError: an engine that is not installed.

        >>> from energycomp.testing import tiny_model
        >>> tiny_model().with_engine("quantum")
        Traceback (most recent call last):
        energycomp.errors.NotFoundError: No engine is named 'quantum'. Known engines: bf16, compile, onnx, openvino...
        """
        made = None if engine == "torch" else object_of("engines", engine)
        return attrs.evolve(self, denoiser=attrs.evolve(self.denoiser, network=run_by(self.denoiser.network, made)))

    def encode(self, images: Any) -> Tensor:
        """Images, as `processor` takes them, to samples (B, C, H, W): resized, through the codec where there is one."""
        batch = self.processor(images).to(self.denoiser.device)
        return batch if self.denoiser.codec is None else self.denoiser.codec.encode(batch)

    def decode(self, samples: Tensor, output_type: str = "pil") -> Any:
        """Samples (B, C, H, W) to images, or other data, as `energycomp.images.decoded` gives them.

        >>> from energycomp.testing import tiny_model
        >>> tiny_model().decode(torch.ones(1, 3, 16, 16))[0].getpixel((0, 0))
        (255, 255, 255)
        """
        denoiser = self.denoiser
        return decoded(samples, output_type, decode=denoiser.decode, value_range=denoiser.value_range)

    def shown(self, image: Image.Image, *, side: int = 1) -> Image.Image:
        """An image in the shape of `Defaults.aspect` if it is one of the model's size, with at least `side` px a side.

        >>> from PIL import Image
        >>> from energycomp.testing import tiny_model
        >>> tiny_model(aspect=1.5).shown(Image.new("RGB", (16, 16)), side=320).size
        (480, 320)
        """
        own = image.size == self.processor.size[::-1]
        return framed(image, self.defaults.aspect if own else 1.0, side=side)

    def given(self, images: Any) -> Any:
        """Images as `infer` takes them, float tensors in [0, 1], as `processor` takes them; see `images.from_unit`."""
        return from_unit(images) if self.processor.bounded else images

    def to(self, device: torch.device | str) -> Model:
        """The model on a device (its network, encoder and conditioner are moved in place).

        Raises:
            InputError: a device that torch does not have here.
        """
        check_device(device)
        denoiser = self.denoiser.to(device)
        encoder = None if self.encoder is None else self.encoder.to(device)
        if (weights := weights_of(self.conditioner)) is not None:
            weights.to(device)
        return attrs.evolve(self, denoiser=denoiser, encoder=encoder)

    def save_pretrained(
        self, folder: str | Path, *, dtype: torch.dtype | None = None, extra: Mapping[str, str] | None = None
    ) -> None:
        """Writes a folder from which `energycomp.load` rebuilds the model; it appears whole or not at all.

        Args:
            dtype: of the floating-point weights on disk, such as torch.float16; their own when left out.
            extra: further text files by name; README.md replaces the model card that is written otherwise.

        Raises:
            InputError: a codec that is in memory alone.

        >>> from energycomp.testing import tiny_model
        >>> with TemporaryDirectory() as folder:
        ...     tiny_model().save_pretrained(f"{folder}/mine")
        ...     sorted(file.name for file in Path(f"{folder}/mine").iterdir())
        ['README.md', 'config.json', 'manifest.json', 'model.safetensors']
        """
        write(self, folder, dtype, {CARD: plain_card(self), **(extra or {})})

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        *,
        device: torch.device | str = "cpu",
        dtype: str | torch.dtype | None = None,
        engine: str | Engine | None = None,
        revision: str | None = None,
        token: str | bool | None = None,
        local_files_only: bool = False,
        cache_dir: str | Path | None = None,
        subfolder: str | None = None,
        check: Callable[[str, Conditioner], object] | None = None,
        **options: Any,
    ) -> Model:
        """A model: a name that a plugin registers, a folder, or a hub id. `energycomp.load` is this function.

        Args:
            source: "clevr"; a folder that `save_pretrained` wrote, or that of a pipeline of diffusers, such as SDXL or
                FLUX, which energycomp-text reads; or "owner/name" on the hub, of either kind, or "owner/name@revision".
            device: where to put the network.
            dtype: of the network, such as "bfloat16"; float32 when left out. The encoders of a model of ours stay
                float32; all parts of a pipeline have it, its text encoders and its VAE included.
            engine: of the network, as `with_engine` takes it; that of ENERGYCOMP_ENGINE, or torch, when left out.
            revision: of a hub id: a branch, a tag or a commit.
            token: of a private repository of the hub; that of `hf auth login` when left out.
            local_files_only: reads the cache of the hub alone, without the network.
            cache_dir: folder of that cache; the hub's own when left out.
            subfolder: where the model is inside the folder or repository.
            check: called with the name and the conditioner of a model, before the seconds that the weights of a folder
                take; what it raises ends the loading.
            options: of a registered model, such as `preset=`, or of a pipeline, such as `image_size=`.

        Raises:
            NotFoundError: there is no such model; the message lists the registered names.
            InputError: an object that is no name, a device that cannot be used, or an option that the model does not
                have.
            CheckpointError: the files are incomplete, altered, or do not fit.
            HubError: a token that the hub refuses, or a connection that broke off.

        >>> Model.from_pretrained("clevr-places")
        Model('clevr-places', 64x64 colour images, Coordinates, rule product, ... parameters)
        """
        chosen = dtype_of(dtype)
        check_device(device)
        reading = {
            "revision": revision,
            "token": token,
            "local_files_only": local_files_only,
            "cache_dir": cache_dir,
            "subfolder": subfolder,
        }
        model = open_model(cls, source, dtype, reading, options, check)
        network = model.denoiser.network
        if chosen is not None and any(p.dtype != chosen for p in network.parameters() if p.is_floating_point()):
            if model.decomposer_name is not None:
                raise InputError(f"got dtype {chosen} with {model.name}, which is evaluated in float32; leave it out")
            network.to(dtype=chosen)
        model = model.to(device)
        engine = engine or os.environ.get("ENERGYCOMP_ENGINE")
        return model if engine is None else model.with_engine(engine)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        token: str | None = None,
        commit_message: str | None = None,
        revision: str | None = None,
        dtype: torch.dtype | None = None,
    ) -> str:
        """Writes the model and its card to a repository of the hub, in one commit; returns the address of the commit.

        The repository, and the branch `revision`, are made where they do not exist. A card that the repository has
        already is kept.

        Args:
            repo_id: "owner/name".
            private: whether a repository that is made is private; as the account has it when left out.
            token: with write access; that of `hf auth login` when left out.
            dtype: of the weights on the hub, as for `save_pretrained`.

        Raises:
            InputError: no hub id, or a codec that is in memory alone.
            HubError: the hub refuses the token, or the connection broke off.
        """
        with TemporaryDirectory() as temporary:
            folder = Path(temporary) / "model"
            self.save_pretrained(folder, dtype=dtype, extra={CARD: plain_card(self, source=repo_id)})
            return upload(folder, repo_id, private=private, token=token, message=commit_message, revision=revision)


def _short(value: Tensor) -> str:
    numbers = value.flatten()[:4].tolist()
    return ", ".join(f"{v:.3g}" for v in numbers) + (", ..." if value.numel() > 4 else "")
