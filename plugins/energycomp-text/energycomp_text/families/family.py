"""What a family of pipelines is: which parts it has, how it encodes prompts, and how its network is called."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs
from torch import Tensor, nn

from energycomp.errors import InputError
from energycomp.fields import number, whole
from energycomp_text.text import Text


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, str) and value.isdecimal() else value


def _number(value: Any) -> Any:
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


@attrs.frozen
class Settings:
    """What may be chosen when a pipeline is loaded; each is the family's own where it is left out.

    Args:
        image_size: height and width of the images in pixels.
        max_sequence_length: tokens of a prompt, of encoders without a fixed length, such as T5.
        embedded_guidance: the guidance scale that a guidance-distilled network takes as an input.

    >>> Settings(image_size="512").image_size, Settings().length  # the command line gives texts
    (512, 0)
    """

    image_size: int | None = attrs.field(default=None, converter=_whole, validator=whole(1, or_none=True))
    max_sequence_length: int | None = attrs.field(default=None, converter=_whole, validator=whole(1, or_none=True))
    embedded_guidance: float | None = attrs.field(
        default=None, converter=_number, validator=number(least=0, most=1e6, or_none=True)
    )

    @property
    def length(self) -> int:
        """`max_sequence_length`; 0 for a family without one."""
        return self.max_sequence_length or 0


@attrs.frozen(eq=False)
class Opened:
    """A pipeline that is to become a model.

    Args:
        alphas_cumprod: its noise schedule (T,).
        words: `template` and `concepts` of the conditioner.
    """

    pipe: Any
    family: Family
    settings: Settings
    source: str
    alphas_cumprod: Tensor
    words: Mapping[str, Any]

    @property
    def network(self) -> Any:
        return getattr(self.pipe, self.family.network)


@attrs.frozen
class Family:
    """Pipelines of one class of diffusers. Other packages add theirs by entry points: `energycomp_text.families`.

    Args:
        pipeline: name of the class in diffusers, which `model_index.json` says.
        parts: the name of the class of each part, in diffusers or transformers, by its folder.
        network: the part that denoises, "unet" or "transformer".
        build: makes the network and the conditioner; for most families an `energycomp_text.families.Prompted`.
        flow: whether the network predicts the velocity of a rectified flow.
        guidance_scale: the weight of each component where a person gives none.
        num_inference_steps: steps of the scheduler where a person gives none.
        defaults: settings; one that is None here cannot be chosen, except for the size of the images.
        optional: parts that a pipeline may lack.
        index: names of booleans in `model_index.json` that the pipeline takes.
        given: further arguments of the class of the pipeline.
        network_name: the registered name of the network that `build` makes, if it has one; then models can be saved.
        patch: the side of the latents must be a multiple of it.
        latent_channels, latent_size: of the latents, from the network.
    """

    pipeline: str
    parts: Mapping[str, str]
    network: str
    build: Callable[[Opened], tuple[nn.Module, Text]]
    flow: bool = False
    guidance_scale: float = 7.5
    num_inference_steps: int = 50
    defaults: Settings = attrs.field(factory=Settings)
    optional: tuple[str, ...] = ()
    index: tuple[str, ...] = ()
    given: Mapping[str, Any] = attrs.field(factory=dict)
    network_name: str | None = None
    patch: int = 1
    latent_channels: Callable[[Any], int] = lambda network: network.config.in_channels
    latent_size: Callable[[Any], Any] = lambda network: network.config.sample_size

    def settings(self, options: Mapping[str, Any]) -> Settings:
        """The settings of options that a person gave; raises `InputError` for one that the family does not have."""
        own = attrs.asdict(self.defaults)
        taken = [name for name, value in own.items() if value is not None or name == "image_size"]
        if unknown := sorted(options.keys() - set(taken)):
            raise InputError(f"got the option {unknown[0]!r} with a {self.pipeline}; expected {', '.join(taken)}")
        return Settings(**{**own, **{name: value for name, value in options.items() if value is not None}})
