"""What a model is made of: parts that fit each other, as they are written to disk and as they are described."""

from __future__ import annotations

from typing import Any, Protocol

import attrs
from torch import Tensor, nn

from energycomp.components.conditioning import Conditioner, mixed_of, prior_of, weights_of
from energycomp.components.sampling_defaults import SamplingDefaults
from energycomp.denoisers.denoiser import Denoiser
from energycomp.errors import InputError
from energycomp.fields import TEXT, plain
from energycomp.images import ImageProcessor, as_text, html, rich_table
from energycomp.models.defaults import Defaults
from energycomp.models.proposals import Proposer

FORMAT = 2  # of config.json
DENOISER = ("prediction_type", "rule", "sample_shape", "token_shape", "null_trained", "value_range", "trained_alone")


class Processor(Protocol):
    """What a person gives, to what the codec, or the network of a model without one, takes.

    `bounded` says whether the numbers are in [-1, 1], as those of images. A `config.json` names it by
    `registered_name`, under which a plugin registers it, with its arguments, `config()`, as JSON.

    >>> from PIL import Image
    >>> processor = ImageProcessor(size=(16, 16))
    >>> processor.sample_shape, processor.bounded, processor([Image.new("RGB", (20, 20))] * 2).shape
    ((3, 16, 16), True, torch.Size([2, 3, 16, 16]))
    """

    @property
    def registered_name(self) -> str: ...
    @property
    def sample_shape(self) -> tuple[int, ...]: ...
    @property
    def bounded(self) -> bool: ...
    def config(self) -> dict[str, Any]: ...
    def __call__(self, given: Any) -> Tensor:
        """One thing or several as a batch (B, *sample_shape); raises `InputError` for anything else."""


@attrs.frozen(eq=False, repr=False)
class ModelParts:
    """The parts of a `Model`, which says what each is, and what is saved of it."""

    name: str = attrs.field(validator=TEXT)
    denoiser: Denoiser
    conditioner: Conditioner
    processor: ImageProcessor | Any  # or another `Processor`
    network_name: str
    conditioner_name: str
    defaults: Defaults = attrs.field(factory=Defaults)
    encoder: nn.Module | None = None
    encoder_name: str | None = None
    decomposer_name: str | None = None
    proposals: Proposer | None = None

    def __attrs_post_init__(self) -> None:
        self._check()
        self.denoiser.sample_u_as(sampling_of(self.defaults, self.conditioner))

    def _check(self) -> None:
        codec = self.denoiser.codec
        denoiser = self.denoiser
        made = self.processor.sample_shape if codec is None else tuple(codec.latent_shape)
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

    def config(self) -> dict[str, Any]:
        """What `config.json` says: the parts by their registered names, with their arguments."""
        network: Any = self.denoiser.network
        encoder: Any = self.encoder
        optional = {
            "encoder": None if encoder is None else {"name": self.encoder_name, "config": dict(encoder.config)},
            "decomposer": self.decomposer_name,
        }
        return {
            "format": FORMAT,
            "name": self.name,
            "network": {"name": self.network_name, "config": dict(network.config)},
            "conditioner": {"name": self.conditioner_name, "config": self.conditioner.config()},
            "denoiser": {name: getattr(self.denoiser, name) for name in DENOISER},
            "codec": None if self.denoiser.codec is None else _describe_part("codec", self.denoiser.codec),
            "processor": _describe_part("processor", self.processor),
            "defaults": attrs.asdict(self.defaults, value_serializer=plain),
            **{key: value for key, value in optional.items() if value is not None},
        }

    @property
    def modules(self) -> dict[str, nn.Module]:
        """What has weights, by name: the network, and the encoder and the conditioner's module where there are any."""
        found = {"network": self.denoiser.network, "encoder": self.encoder, "conditioner": weights_of(self.conditioner)}
        return {name: module for name, module in found.items() if module is not None}

    @property
    def weights(self) -> dict[str, Tensor]:
        """What `model.safetensors` holds, except for the noise schedule."""
        parts = self.modules.items()
        return {f"{part}.{name}": tensor for part, module in parts for name, tensor in module.state_dict().items()}

    @property
    def trained(self) -> nn.Module:
        """What training changes: the network, or a dict with the encoder or the conditioner's weights, too, by name."""
        modules = self.modules
        return modules["network"] if len(modules) == 1 else nn.ModuleDict(modules)

    def facts(self) -> dict[str, str]:
        """What it is made of, in words: what a notebook and a model card show."""
        denoiser = self.denoiser
        defaults = self.defaults
        mixed = mixed_of(self.conditioner)
        words = {} if mixed is None else mixed.attributes
        return {
            "samples": self._samples,
            "component": type(self.conditioner).__name__,
            **{name: ", ".join(known) for name, known in words.items()},
            "network": f"{type(denoiser.network).__name__}, {self._size:,} parameters",
            "prediction": f"{denoiser.prediction_type}, {len(denoiser.alphas_cumprod):,} timesteps",
            "rule": denoiser.rule,
            "sampling": f"{defaults.sampler or defaults.scheduler}, {defaults.num_inference_steps} steps",
            "inference": f"{defaults.solver}, {defaults.counts[0]} to {defaults.counts[1]} components",
        }

    def __repr__(self) -> str:
        made = [repr(self.name), self._samples, type(self.conditioner).__name__, f"rule {self.denoiser.rule}"]
        return f"Model({', '.join([*made, f'{self._size:,} parameters'])})"

    def _repr_html_(self) -> str:
        return html(f"Model {self.name!r}\n" + as_text(rich_table([], list(self.facts().items()))))

    @property
    def _size(self) -> int:
        return sum(parameter.numel() for parameter in self.trained.parameters())

    @property
    def _samples(self) -> str:
        """What is sampled, in words."""
        if len(self.denoiser.sample_shape) != 3 or not isinstance(self.processor, ImageProcessor):
            return f"samples {self.denoiser.sample_shape}"
        channels, height, width = self.denoiser.sample_shape
        if self.denoiser.codec is not None:
            height, width = self.processor.size
            return f"{width}x{height} colour images through a codec"
        kind = {1: "grey images", 3: "colour images"}.get(channels, f"samples of {channels} channels")
        return f"{width}x{height} {kind}"


def _describe_part(what: str, part: Any) -> dict[str, Any]:
    """A codec or a processor as a `config.json` has it."""
    if not (hasattr(part, "registered_name") and hasattr(part, "config")):
        raise InputError(
            f"got the {what} {type(part).__name__} to save; expected the attribute registered_name, under which a "
            f"plugin registers it, and config(), its arguments; see energycomp.plugins.Add.{what}"
        )
    return {"name": part.registered_name, "config": part.config()}


def sampling_of(defaults: Defaults, conditioner: Conditioner) -> SamplingDefaults:
    """How a model is sampled: with its guidance, or with that of attributes where its components have some."""
    guidance = defaults.guidance
    guidance_scale = None if guidance is None else defaults.guidance_scale
    if guidance is None and defaults.attribute_guidance != 1.0 and mixed_of(conditioner) is not None:
        guidance = "attributes"
        guidance_scale = defaults.attribute_guidance
    return SamplingDefaults(
        scheduler=defaults.scheduler,
        sampler=defaults.sampler,
        num_inference_steps=defaults.num_inference_steps,
        guidance=guidance,
        guidance_scale=guidance_scale,
        prior=prior_of(conditioner),
    )
