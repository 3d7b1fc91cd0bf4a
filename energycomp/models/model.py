"""Model: what a user loads. Calling it makes a leaf."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import attrs
import numpy as np
import torch
from torch import Tensor, nn

from energycomp.components.algebra import Composition, combine
from energycomp.components.conditioning import Conditioner, mixed_of, weights_of
from energycomp.components.text import weighted
from energycomp.components.values import parsed, read_value, values_of
from energycomp.denoisers.denoiser import Conditional, Denoiser
from energycomp.errors import InputError
from energycomp.fields import TEXT, is_number
from energycomp.images import ImageProcessor, as_text, decoded, from_unit, html, rich_table
from energycomp.models.defaults import Defaults

Adapt: TypeAlias = Callable[["Model", str | Path | Mapping[str, Tensor], float], "Model"]
"""`(model, source, scale)`: the model with LoRA weights."""


@attrs.frozen(eq=False, repr=False)
class Model:
    """A denoiser with what is needed to use it: conditioner, image processor, defaults, and an encoder of pictures.

    A notebook shows what it is made of.

    Args:
        name: what `repr` of its leaves begins with.
        denoiser: network, schedule, prediction type, rule, sample space and codec.
        conditioner: values to condition rows.
        processor: images to the size the model works at, or data that are not images as they are.
        defaults: how it is best used.
        network_name, conditioner_name: the registered names under which plugins rebuild both.
        encoder: samples (B, C, H, W) to latents (B, K, D), values of the conditioner; see `energycomp.decomposition`.
        encoder_name: its registered name.
        decomposer_name: the registered name of its decomposer; None for "diffusion" where there is an encoder, and for
            no decomposer where there is none. See `energycomp.decomposition.decomposer_of`.
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

    name: str = attrs.field(validator=TEXT)
    denoiser: Denoiser
    conditioner: Conditioner
    processor: ImageProcessor
    network_name: str
    conditioner_name: str
    defaults: Defaults = attrs.field(factory=Defaults)
    encoder: nn.Module | None = None
    encoder_name: str | None = None
    decomposer_name: str | None = None
    adapt: Adapt | None = None

    def __attrs_post_init__(self) -> None:
        codec, denoiser = self.denoiser.codec, self.denoiser
        made = self.processor.sample_shape if codec is None else tuple(codec.latent_shape)
        if not denoiser.sampling:
            denoiser.sampling.update(self.sampling())
        for what, got, expected in (
            ("samples of the image processor or codec", made, tuple(denoiser.sample_shape)),
            ("tokens of the conditioner", tuple(self.conditioner.token_shape), tuple(denoiser.token_shape)),
        ):
            if got != expected:
                raise InputError(f"got {what} of shape {got}; expected {expected}, what the denoiser takes; change one")
        if (self.encoder is None) != (self.encoder_name is None):
            raise InputError(
                f"got the encoder {type(self.encoder).__name__} under the name {self.encoder_name!r}; expected both or "
                "neither; give the name that a plugin registers"
            )

    def __call__(self, *args: Any, **kwargs: Any) -> Conditional:
        """A component under the condition that the arguments stand for; raises `InputError`.

        The arguments are those of the conditioner's `parse`, or a value: `model(*value)` and `model(value)` take a row
        of `Solution.conditions`. `compose` takes all its rows.
        """
        value = parsed(self.conditioner, *args, **kwargs)
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
        found = weighted(text)
        try:
            value = read_value(self.conditioner, found.text)
        except InputError as error:
            raise InputError(
                f"got the component {found.text!r}, which is not a component of {self.name}: {error}"
            ) from error
        name = f"{self.name}({re.sub(r',(?! )', ', ', found.text)})"
        default = self.defaults.guidance_scale if weight is None else weight
        return self.leaf(value, name) * found.weight(default)

    def leaf(self, value: Tensor, name: str | None = None) -> Conditional:
        """A component for values (1, *V), or (B, *V) with one for each sample of a batch."""
        value = value.to(self.denoiser.device)
        mixed, opened = mixed_of(self.conditioner), None
        if mixed is not None:
            numbers, words = mixed.support.split(value)
            opened = self.conditioner(mixed.support.opened(numbers)) if words.any() else None
        return Conditional(
            self.denoiser, self.conditioner(value), name or f"{self.name}({_short(value)})", self.sampling(), opened
        )

    @property
    def unconditional(self) -> Conditional:
        """The unconditional leaf u."""
        return self.denoiser.unconditional

    def sampling(self) -> dict[str, Any]:
        """How it is best sampled, as keywords of `Composer.sample`: what that takes for its components by default.

        >>> from energycomp.testing import tiny_model
        >>> tiny_model().sampling()
        {'scheduler': 'DDIMScheduler', 'num_inference_steps': 50}
        """
        own = self.defaults
        method = {"scheduler": own.scheduler} if own.sampler is None else {"sampler": own.sampler}
        guidance = {"guidance": "attributes", "guidance_scale": own.attribute_guidance}
        has_guidance = own.attribute_guidance != 1.0 and mixed_of(self.conditioner) is not None
        return {**method, "num_inference_steps": own.num_inference_steps, **(guidance if has_guidance else {})}

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
        """
        if self.adapt is None:
            raise InputError(
                f"got LoRA weights for {self.name}; expected a pipeline of diffusers that takes them, such as SDXL; "
                "load one"
            )
        if not is_number(scale):
            raise InputError(f"got scale {scale!r}; expected a number, such as 0.8")
        return self.adapt(self, source, float(scale))

    def encode(self, images: Any) -> Tensor:
        """Images, as `processor` takes them, to samples (B, C, H, W): resized, through the codec where there is one."""
        batch = self.processor(images).to(self.denoiser.device)
        return batch if self.denoiser.codec is None else self.denoiser.codec.encode(batch)

    def decode(self, samples: Tensor, output_type: str = "pil") -> Any:
        """Samples (B, C, H, W) to images, or other data, as `energycomp.images.decoded` gives them."""
        denoiser = self.denoiser
        return decoded(samples, output_type, decode=denoiser.decode, value_range=denoiser.value_range)

    def given(self, images: Any) -> Any:
        """Images as `infer` takes them, float tensors in [0, 1], as `processor` takes them; see `images.from_unit`."""
        return from_unit(images) if self.processor.bounded else images

    def to(self, device: torch.device | str) -> Model:
        """The model on a device (its network, encoder and conditioner are moved in place)."""
        denoiser = self.denoiser.to(device)
        encoder = None if self.encoder is None else self.encoder.to(device)
        if (weights := weights_of(self.conditioner)) is not None:
            weights.to(device)
        return attrs.evolve(self, denoiser=denoiser, encoder=encoder)

    @property
    def trained(self) -> nn.Module:
        """What training changes: the network, or a dict with the encoder or the conditioner's weights, too, by name."""
        parts = {"network": self.denoiser.network, "encoder": self.encoder, "conditioner": weights_of(self.conditioner)}
        found = {name: part for name, part in parts.items() if part is not None}
        return found["network"] if len(found) == 1 else nn.ModuleDict(found)

    def __repr__(self) -> str:
        made = [repr(self.name), _samples(self), type(self.conditioner).__name__, f"rule {self.denoiser.rule}"]
        return f"Model({', '.join([*made, f'{self._size:,} parameters'])})"

    def _repr_html_(self) -> str:
        return html(f"Model {self.name!r}\n" + as_text(rich_table([], list(self.facts().items()))))

    def facts(self) -> dict[str, str]:
        """What it is made of, in words: what a notebook and a model card show."""
        denoiser, defaults, mixed = self.denoiser, self.defaults, mixed_of(self.conditioner)
        words = {} if mixed is None else mixed.attributes
        return {
            "samples": _samples(self),
            "component": type(self.conditioner).__name__,
            **{name: ", ".join(known) for name, known in words.items()},
            "network": f"{type(denoiser.network).__name__}, {self._size:,} parameters",
            "prediction": f"{denoiser.prediction_type}, {len(denoiser.alphas_cumprod):,} timesteps",
            "rule": denoiser.rule,
            "sampling": f"{defaults.sampler or defaults.scheduler}, {defaults.num_inference_steps} steps",
            "inference": f"{defaults.solver}, {defaults.counts[0]} to {defaults.counts[1]} components",
        }

    def save_pretrained(
        self,
        folder: str | Path,
        *,
        dtype: torch.dtype | None = None,
        extra: Mapping[str, str] | None = None,
    ) -> None:
        """Writes a folder that `energycomp.load` reads; see `energycomp.models.save_pretrained`."""
        from energycomp.models.pretrained import save_pretrained

        save_pretrained(self, folder, dtype=dtype, extra=extra)

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        local_files_only: bool = False,
        cache_dir: str | Path | None = None,
        dtype: str | torch.dtype | None = None,
        device: torch.device | str = "cpu",
    ) -> Model:
        """The model of a registered name, a folder or a hub id: `energycomp.load`."""
        from energycomp.models.loading import load

        return load(
            source, device=device, dtype=dtype, revision=revision, token=token, local_files_only=local_files_only,
            cache_dir=cache_dir,
        )  # fmt: skip

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
        """Writes the model and a model card to the hub; see `energycomp.models.push_to_hub`."""
        from energycomp.models.loading import push_to_hub

        return push_to_hub(
            self, repo_id, private=private, token=token, commit_message=commit_message, revision=revision, dtype=dtype
        )

    @property
    def _size(self) -> int:
        return sum(parameter.numel() for parameter in self.trained.parameters())


def checked_model(model: Any) -> Model:
    """A model as it is; raises `InputError` for anything else, such as a name."""
    if not isinstance(model, Model):
        got = repr(model) if isinstance(model, str) else f"an object of {type(model).__name__}"
        raise InputError(f"got {got} for a model; expected a Model; load it once: model = energycomp.load('clevr')")
    return model


def _samples(model: Model) -> str:
    """What a model samples, in words."""
    channels, height, width = model.denoiser.sample_shape
    if model.denoiser.codec is not None:
        height, width = model.processor.size
        return f"{width}x{height} colour images through a codec"
    kind = {1: "grey images", 3: "colour images"}.get(channels, f"samples of {channels} channels")
    return f"{width}x{height} {kind}"


def _short(value: Tensor) -> str:
    numbers = value.flatten()[:4].tolist()
    return ", ".join(f"{v:.3g}" for v in numbers) + (", ..." if value.numel() > 4 else "")
