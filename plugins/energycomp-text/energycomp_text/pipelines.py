"""Stable Diffusion pipelines as models: a fixed class reads each of UNet, VAE, noise schedule and text encoder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from energycomp.denoisers import ConditionUNet, Denoiser, PredictionType
from energycomp.errors import InputError, NotFoundError, first_line
from energycomp.images import ImageProcessor
from energycomp.models import Defaults, HubSource, Model, VAECodec, is_folder, load
from energycomp_text.encoders import PIPELINE_FILES, made_text, pipeline_text
from energycomp_text.folders import HOW_TO_GET, INDEX, WANTED, check_size, complete, read_json
from energycomp_text.text import Text

__all__ = ["from_pipeline", "load_model"]

PIPELINES = ("StableDiffusionPipeline",)
PARTS = ("unet", "vae", "scheduler", "text_encoder", "tokenizer")
WEIGHTS = "diffusion_pytorch_model.safetensors"
FILES = (
    INDEX, "scheduler/scheduler_config.json", *PIPELINE_FILES, "unet/config.json", f"unet/{WEIGHTS}",
    "vae/config.json", f"vae/{WEIGHTS}",
)  # fmt: skip
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
MAX_TIMESTEPS = 100_000
LEAST_ALPHA = 1e-9  # a schedule with zero terminal SNR ends at 0, where the log SNR is undefined


def load_model(
    source: str, *, dtype: str | torch.dtype | None = None, revision: str | None = None, **options: Any
) -> Model:
    """A text-conditioned model in a folder or on the hub: a Stable Diffusion pipeline, or one from `save_pretrained`.

    Args:
        source: a folder, or a hub id, "owner/name" or "owner/name@revision".
        dtype: data type of the networks: "float32" (default), "bfloat16" or "float16".
        revision: of a hub id.
        options: of a hub id: `token`, `local_files_only` and `cache_dir`, as for `energycomp.load`.

    Raises:
        NotFoundError: there is no model, or a part is missing.
        InputError: another kind of pipeline.
    """
    local = is_folder(source)
    hub = None if local else HubSource.parse(source, revision, **options)
    if not local and hub is None:
        raise NotFoundError(f"got the model {source!r}, which is no folder and no hub id; {HOW_TO_GET}")
    folder = Path(source).resolve() if hub is None else hub.download((INDEX, "config.json"), WANTED)
    place = str(folder) if hub is None else hub.repo
    if (folder / "config.json").is_file() and not (folder / INDEX).is_file():
        model = load(place, dtype=dtype, **({} if hub is None else hub.options()))
        if not isinstance(model.conditioner, Text):
            raise InputError(
                f"got {source}, a model that is not conditioned on text; expected one on prompts; load it with "
                "energycomp.load, or name another"
            )
        return model
    _check_index(folder, source)
    if hub is not None:
        folder = hub.download(FILES, WANTED)
    return _read(folder, place, _dtype("float32" if dtype is None else dtype))


def from_pipeline(pipe: Any, *, concepts: Sequence[str] = (), template: str = "a photo of a {}") -> Model:
    """A model from a Stable Diffusion pipeline of diffusers that is already in memory.

    The parts are not copied. The model sets them to eval mode and freezes them.

    Calling the model creates a component: `sd("a photo of a dog") & sd("a photo of a cat")`. Samples are composed under
    the rule product, `&`. Inference uses the rule mean (thesis 5.4.3). Two such models can be composed if their VAEs
    have equal weights. The model cannot be saved, because its weights may differ from those of its source: save the
    pipeline with its own `save_pretrained`, and load that folder.

    Args:
        pipe: a `StableDiffusionPipeline`, or an object with `unet`, `vae`, `scheduler`, `text_encoder`, `tokenizer`.
        concepts: the candidates of inference.
        template: the prompt of a concept; {} stands for the concept.

    Raises:
        InputError: a part is missing, or has another type.
    """
    parts: dict[str, Any] = {name: getattr(pipe, name, None) for name in PARTS}
    if missing := [name for name, part in parts.items() if part is None]:
        raise InputError(
            f"got a {type(pipe).__name__} without {', '.join(missing)}; expected a Stable Diffusion pipeline (1.x or "
            "2.x); load it with these parts"
        )
    settings = {"source": "in memory", "pooled": False, "length": None}
    conditioner = made_text(parts["tokenizer"], parts["text_encoder"], settings, template=template, concepts=concepts)
    return _model(parts["unet"], parts["vae"], parts["scheduler"], conditioner)


def _check_index(folder: Path, source: str) -> None:
    file = folder / INDEX
    index = read_json(file) if file.is_file() else None
    found = index.get("_class_name") if isinstance(index, dict) else None
    if index is None:
        raise NotFoundError(
            f"got {source} without {INDEX}; expected the folder of a Stable Diffusion pipeline, as save_pretrained of "
            f"diffusers writes it, or of a model of energycomp; {HOW_TO_GET}"
        )
    if found not in PIPELINES:
        raise InputError(
            f"got {source}, a {found}; expected a {' or '.join(PIPELINES)} (1.x or 2.x): one UNet, one text encoder; "
            f"{HOW_TO_GET}"
        )


def _read(folder: Path, source: str, dtype: torch.dtype) -> Model:
    """Reads each part of a pipeline from its folder with a fixed class, from safetensors only."""
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel

    if missing := [name for name in PARTS if not (folder / name).is_dir()]:
        raise NotFoundError(
            f"got {source} without {', '.join(missing)}; expected the folders {', '.join(PARTS)} of a Stable Diffusion "
            f"pipeline; {HOW_TO_GET}"
        )
    conditioner = pipeline_text(folder, source=source, dtype=dtype)
    try:
        unet = _network(UNet2DConditionModel, folder / "unet", dtype)
        vae = _network(AutoencoderKL, folder / "vae", dtype)
        scheduler = DDIMScheduler.from_config(_checked_steps(read_json(folder / "scheduler" / "scheduler_config.json")))
    except Exception as error:  # diffusers raises many kinds
        raise NotFoundError(
            f"got {source} without a UNet, VAE or scheduler that can be read ({first_line(error)}); expected the "
            "folders unet, vae and scheduler of a Stable Diffusion pipeline, in safetensors; download it again"
        ) from error
    return _model(unet, vae, scheduler, conditioner, source)


def _network(cls: Any, folder: Path, dtype: torch.dtype) -> Any:
    config = read_json(folder / "config.json")
    check_size(lambda: cls.from_config(config), folder / WEIGHTS)
    return complete(
        cls.from_pretrained(
            folder, use_safetensors=True, torch_dtype=dtype, local_files_only=True, output_loading_info=True
        )
    )


def _checked_steps(config: Any) -> Any:
    steps = config.get("num_train_timesteps", 1000)
    if type(steps) is not int or not 1 <= steps <= MAX_TIMESTEPS:
        raise InputError(f"got num_train_timesteps {steps!r}; expected 1 to {MAX_TIMESTEPS:,}")
    return config


def _model(unet: Any, vae: Any, scheduler: Any, conditioner: Text, source: str | None = None) -> Model:
    if unet.config.in_channels != vae.config.latent_channels:
        raise InputError(
            f"got a UNet of {unet.config.in_channels} channels over a VAE of {vae.config.latent_channels}; expected a "
            "text-to-image pipeline; take one that is not for inpainting or depth"
        )
    codec = VAECodec.of(vae, latent_size=_latent_size(unet), source=source)
    null = conditioner(conditioner.parse("").to(unet.device)).rows[0]
    network = ConditionUNet.from_unet(unet, tokens=conditioner.token_shape[0], null=null)
    denoiser = Denoiser(
        network=network.eval().requires_grad_(requires_grad=False),
        alphas_cumprod=_schedule(scheduler).to(unet.device),
        prediction_type=_prediction_type(scheduler),
        rule="product",
        sample_shape=codec.latent_shape,
        token_shape=conditioner.token_shape,
        codec=codec,
    )
    return Model(
        name="text",
        denoiser=denoiser,
        conditioner=conditioner,
        processor=ImageProcessor(size=(codec.image_size, codec.image_size), resize="crop"),
        network_name="unet2d_condition",
        conditioner_name="text",
        defaults=Defaults(draws=64, solver="enumerate", counts=(1, 3), reading_rule="mean", guidance_scale=7.5),
    )


def _latent_size(unet: Any) -> int:
    size = unet.config.sample_size
    sides = size if isinstance(size, list | tuple) and size else [size]
    if not all(type(side) is int and side >= 1 for side in sides):
        raise InputError(
            f"got a UNet of sample_size {size!r}; expected the height and width of its latents; add it to its "
            "config, for example 64 for images of 512x512"
        )
    return int(min(sides))


def _schedule(scheduler: Any) -> Tensor:
    alphas_cumprod = getattr(scheduler, "alphas_cumprod", None)
    if not isinstance(alphas_cumprod, Tensor):
        raise InputError(
            f"got a {type(scheduler).__name__} without alphas_cumprod; expected the scheduler of a diffusion model "
            "that predicts noise or v; use a pipeline with one, such as DDIM or PNDM; models of flow matching are "
            "not supported"
        )
    return alphas_cumprod.float().clamp(min=LEAST_ALPHA)


def _prediction_type(scheduler: Any) -> PredictionType:
    found = scheduler.config.get("prediction_type")
    if found not in get_args(PredictionType):
        raise InputError(
            f"got a scheduler for predictions of {found!r}; expected one of {', '.join(get_args(PredictionType))}; "
            "set prediction_type in its config to what its UNet was trained for"
        )
    kind: PredictionType = found
    return kind


def _dtype(dtype: str | torch.dtype) -> torch.dtype:
    found = dtype if isinstance(dtype, torch.dtype) else DTYPES.get(str(dtype))
    if found is None or found not in DTYPES.values():
        raise InputError(f"got dtype {dtype!r}; expected one of {', '.join(DTYPES)}; leave it out for float32")
    return found
