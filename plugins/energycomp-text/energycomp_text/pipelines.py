"""Text-to-image pipelines of diffusers as models: their family says how they are read and called."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import torch

from energycomp.denoisers import Denoiser
from energycomp.errors import InputError, NotFoundError
from energycomp.images import ImageProcessor
from energycomp.models import Defaults, HubSource, Model, VAECodec, dtype_of, is_folder, load
from energycomp_text.families import KNOWN, Family, Opened, Settings, families
from energycomp_text.families.prompted import device_of
from energycomp_text.families.reading import files_of, read_pipeline
from energycomp_text.families.schedules import noise_schedule
from energycomp_text.folders import HOW_TO_GET, INDEX, WANTED, read_json
from energycomp_text.lora import adapter_of
from energycomp_text.text import Text

PLAIN = "StableDiffusionPipeline"  # the family of an object that is no pipeline but has the parts of one
HUB_OPTIONS = ("token", "local_files_only", "cache_dir")
IN_MEMORY = "in memory"


def load_model(
    source: str, *, dtype: str | torch.dtype | None = None, revision: str | None = None, **options: Any
) -> Model:
    """A text-conditioned model in a folder or on the hub: a pipeline of diffusers, or one from `save_pretrained`.

    `_class_name` in the `model_index.json` of a pipeline says its family, by a fixed table. No class or code of the
    folder is run, and weights are safetensors only.

    Args:
        dtype: data type of the networks: "float32" (default), "bfloat16" or "float16".
        options: of a hub id, `token`, `local_files_only` and `cache_dir`, as for `energycomp.load`; of a pipeline, the
            `energycomp_text.families.Settings` that its family has, such as `image_size`.

    Raises:
        NotFoundError: there is no model, or a part is missing.
        InputError: another kind of pipeline, or an option that its family does not have.
    """
    local = is_folder(source)
    reading = {name: options.pop(name) for name in HUB_OPTIONS if name in options}
    hub = None if local else HubSource.parse(source, revision, **reading)
    if not local and hub is None:
        raise NotFoundError(f"got the model {source!r}, which is no folder and no hub id; {HOW_TO_GET}")
    folder = Path(source).resolve() if hub is None else hub.download((INDEX, "config.json"), WANTED)
    place = str(folder) if hub is None else hub.repo
    if (folder / "config.json").is_file() and not (folder / INDEX).is_file():
        model = load(place, dtype=dtype, **options, **({} if hub is None else hub.options()))
        if not isinstance(model.conditioner, Text):
            raise InputError(
                f"got {source}, a model that is not conditioned on text; expected one on prompts; load it with "
                "energycomp.load, or name another"
            )
        return model
    family = _family_in(folder, source)
    settings = family.settings(options)
    if hub is not None:
        folder = hub.download(files_of(family), WANTED)
    pipe = read_pipeline(folder, family, place, dtype_of(dtype) or torch.float32)
    return _model(pipe, family, settings, place)


def from_pipeline(
    pipe: Any, *, concepts: Sequence[str] = (), template: str = "a photo of a {}", **options: Any
) -> Model:
    """A model from a pipeline of diffusers that is already in memory.

    The parts are not copied. The model sets them to eval mode and freezes them. Where the pipeline offloads its parts,
    has a device map or quantised networks, they stay where they are: the model calls the pipeline's own modules.

    Calling the model creates a component: `sd("a photo of a dog") & sd("a photo of a cat")`. Samples are composed under
    the rule product, `&`. Inference uses the rule mean (thesis 5.4.3). Two such models can be composed if their VAEs
    have equal weights. The model cannot be saved, because its weights may differ from those of its source: save the
    pipeline with its own `save_pretrained`, and load that folder.

    Args:
        pipe: a pipeline of a class that a family is for, such as `FluxPipeline`; or an object with `unet`, `vae`,
            `scheduler`, `text_encoder` and `tokenizer`.
        concepts: the candidates of inference.
        template: the prompt of a concept; {} stands for the concept.
        options: the `energycomp_text.families.Settings` of its family, such as `image_size`.

    Raises:
        InputError: a part is missing, or has another type.

    >>> from energycomp_text.testing import tiny_pipeline
    >>> sd = from_pipeline(tiny_pipeline(), concepts=["cat", "dog"])
    >>> sd("a cat") & sd("a dog"), sd.conditioner.concepts
    (-u + text(a cat) + text(a dog), ('cat', 'dog'))
    """
    family = _family_of(pipe)
    wanted = [name for name in family.parts if name not in family.optional]
    if missing := [name for name in wanted if getattr(pipe, name, None) is None]:
        raise InputError(
            f"got a {type(pipe).__name__} without {', '.join(missing)}; expected a {family.pipeline}; load it with "
            "these parts"
        )
    return _model(pipe, family, family.settings(options), None, concepts=concepts, template=template)


def _family_in(folder: Path, source: str) -> Family:
    """The family of the pipeline in a folder, by `_class_name` in its index."""
    file = folder / INDEX
    index = read_json(file) if file.is_file() else None
    found = index.get("_class_name") if isinstance(index, dict) else None
    if index is None:
        raise NotFoundError(
            f"got {source} without {INDEX}; expected the folder of a pipeline of diffusers, as its save_pretrained "
            f"writes it, or of a model of energycomp; {HOW_TO_GET}"
        )
    known = KNOWN if isinstance(found, str) and found in KNOWN else families()  # which looks at all installed packages
    if not isinstance(found, str) or found not in known:
        shown = " ".join(str(found).split())[:60]
        raise InputError(f"got {source}, a {shown}; {_known()}; {HOW_TO_GET}")
    return known[found]()


def _family_of(pipe: Any) -> Family:
    from diffusers import DiffusionPipeline

    known = KNOWN if type(pipe).__name__ in KNOWN else families()
    if isinstance(pipe, str | Path):
        raise InputError(
            f"got {str(pipe)!r}; expected a pipeline that is in memory; load one by its folder or hub id with "
            "energycomp.load"
        )
    if isinstance(pipe, type):
        raise InputError(f"got the class {pipe.__name__}; expected a pipeline; make one with its from_pretrained")
    found = next((base.__name__ for base in type(pipe).__mro__ if base.__name__ in known), None)
    if found is None and isinstance(pipe, DiffusionPipeline):
        raise InputError(f"got a {type(pipe).__name__}; {_known()}; write a family for it: docs/pipelines.md")
    family = known[found or PLAIN]()
    if found is None and not {*dir(pipe)}.intersection(family.parts):
        raise InputError(f"got an object of {type(pipe).__name__}; {_known()}; load one with diffusers")
    return family


def _known() -> str:
    return f"expected a pipeline of one of the families {', '.join(sorted(families()))}"


def _model(
    pipe: Any, family: Family, settings: Settings, source: str | None, *, concepts: Sequence[str] = (),
    template: str = "a photo of a {}",
) -> Model:  # fmt: skip
    network = getattr(pipe, family.network)
    vae = pipe.vae
    if (channels := family.latent_channels(network)) != vae.config.latent_channels:
        raise InputError(
            f"got a {family.network} of {channels} channels over a VAE of {vae.config.latent_channels}; expected a "
            "text-to-image pipeline; take one that is not for inpainting or depth"
        )
    if network.config.get("time_cond_proj_dim") is not None:
        raise InputError(
            f"got a {family.network} that takes the guidance scale as an input (time_cond_proj_dim), as latent "
            "consistency models do; expected one that takes none; take the model that it was distilled from"
        )
    side = _latent_side(family, settings, network, vae)
    codec = VAECodec.of(vae, latent_size=side, source=source)
    settings = attrs.evolve(settings, image_size=codec.sides[0])
    schedule, kind = noise_schedule(pipe.scheduler, flow=family.flow, tokens=(side // family.patch) ** 2)
    schedule = schedule.to(device_of(network))
    words = {"template": template, "concepts": concepts}
    opened = Opened(pipe, family, settings, source or IN_MEMORY, schedule, words)
    made, conditioner = family.build(opened)
    denoiser = Denoiser(
        network=made,
        alphas_cumprod=schedule,
        prediction_type=kind,
        rule="product",
        sample_shape=codec.latent_shape,
        token_shape=conditioner.token_shape,
        codec=codec,
    )
    return Model(
        name="text",
        denoiser=denoiser,
        conditioner=conditioner,
        processor=ImageProcessor(size=codec.sides, resize="crop"),
        network_name=family.network_name or family.pipeline,
        conditioner_name="text",
        defaults=Defaults(
            draws=64, solver="enumerate", counts=(1, 3), reading_rule="mean",
            scheduler="FlowMatchEulerDiscreteScheduler" if family.flow else "DDIMScheduler",
            num_inference_steps=family.num_inference_steps, guidance_scale=family.guidance_scale,
        ),
        adapt=adapter_of(pipe, family),
    )  # fmt: skip


def _latent_side(family: Family, settings: Settings, network: Any, vae: Any) -> int:
    """Height and width of the latents: those that the network was trained for, or those of the chosen images."""
    if settings.image_size is not None:
        reduction = 2 ** (len(vae.config.block_out_channels) - 1)
        if settings.image_size % (reduction * family.patch):
            raise InputError(
                f"got image_size {settings.image_size}; expected a multiple of {reduction * family.patch}, of which "
                f"the latents of a {family.pipeline} are made"
            )
        return settings.image_size // reduction
    size = family.latent_size(network)
    sides = size if isinstance(size, list | tuple) and size else [size]
    if not all(type(side) is int and side >= 1 for side in sides):
        raise InputError(
            f"got a {family.network} of sample_size {size!r}; expected the height and width of its latents; add it to "
            "its config, for example 64 for images of 512x512"
        )
    return int(min(sides))
