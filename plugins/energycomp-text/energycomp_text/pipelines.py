"""Stable Diffusion pipelines as models: UNet, VAE, noise schedule and text encoder, each read by a fixed class."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor, nn

from energycomp.codec import VAECodec, is_hub_id
from energycomp.denoiser import Denoiser, PredictionType
from energycomp.errors import InputError, NotFoundError
from energycomp.images import ImageProcessor
from energycomp.model import Defaults, Model
from energycomp.pretrained import from_pretrained
from energycomp.unets import ConditionUNet
from energycomp_text.encoders import complete, made_text, pipeline_text
from energycomp_text.text import Text

__all__ = ["download", "from_pipeline", "load_model"]

INDEX = "model_index.json"
PIPELINES = ("StableDiffusionPipeline",)
PARTS = ("unet", "vae", "scheduler", "text_encoder", "tokenizer")
FILES = (
    INDEX, "scheduler/scheduler_config.json", "tokenizer/*", "text_encoder/config.json",
    "text_encoder/model.safetensors", "text_encoder/model-*.safetensors", "text_encoder/*.index.json",
    "unet/config.json", "unet/diffusion_pytorch_model.safetensors", "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
)  # fmt: skip
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
HOW_TO_GET = (
    "download one once, `hf download stable-diffusion-v1-5/stable-diffusion-v1-5 --local-dir sd`, and name the folder"
)


def load_model(source: str, *, dtype: str | torch.dtype = "float32") -> Model:
    """A model of text in a folder or on the hub: a Stable Diffusion pipeline, or what `save_pretrained` wrote.

    Args:
        dtype: of a pipeline's networks: "float32", "bfloat16" or "float16".

    Raises:
        NotFoundError: there is none, or a part is missing.
        InputError: a pipeline of another kind.
    """
    path = Path(source)
    if path.is_dir() and (path / "config.json").is_file() and not (path / INDEX).is_file():
        model = from_pretrained(path)
        if not isinstance(model.conditioner, Text):
            raise InputError(f"got {source}, a model that is not conditioned on text; expected one on prompts")
        return model
    if not path.is_dir() and not is_hub_id(source):
        raise NotFoundError(f"got the model {source!r}, which is no folder and no hub id; {HOW_TO_GET}")
    folder = path if path.is_dir() else download(source, FILES)
    _check_index(folder, source)
    return _read(folder, source if not path.is_dir() else str(path.absolute()), _dtype(dtype))


def from_pipeline(pipe: Any, *, concepts: Sequence[str] = (), template: str = "a photo of a {}") -> Model:
    """A Stable Diffusion pipeline of diffusers that is in memory already, as a model; its parts are not copied.

    Calling the model makes a component of a prompt: `sd("a photo of a dog") & sd("a photo of a cat")`. Samples are
    composed under the rule product, `&`; pictures are read under the rule mean (thesis 5.4.3).

    Args:
        pipe: with `unet`, `vae`, `scheduler`, `text_encoder` and `tokenizer`, such as a `StableDiffusionPipeline`.
        concepts, template: what a reader chooses among, and the prompt of each.

    Raises:
        InputError: a part is missing, or of another kind.
    """
    parts: dict[str, Any] = {name: getattr(pipe, name, None) for name in PARTS}
    if missing := [name for name, part in parts.items() if part is None]:
        raise InputError(
            f"got a {type(pipe).__name__} without {', '.join(missing)}; expected a Stable Diffusion pipeline (1.x or "
            "2.x); load it with these parts"
        )
    source = str(getattr(pipe, "name_or_path", "") or f"in memory {id(pipe)}")
    source = str(Path(source).absolute()) if Path(source).is_dir() else source
    settings = {"source": source, "pooled": False, "length": None}
    conditioner = made_text(parts["tokenizer"], parts["text_encoder"], settings, template=template, concepts=concepts)
    return _model(parts["unet"], parts["vae"], parts["scheduler"], conditioner, source)


def download(repo: str, patterns: Sequence[str]) -> Path:
    """The folder of some files of a hub repository; what was downloaded before is there without a network."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repo, allow_patterns=list(patterns)))
    except Exception as error:  # the hub client raises many kinds; each means that the model is not here
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise NotFoundError(
            f"got {repo!r}, which is no folder and could not be read from the hub ({type(error).__name__}: {reason}); "
            f"without a network {HOW_TO_GET}"
        ) from error


def _check_index(folder: Path, source: str) -> None:
    file = folder / INDEX
    try:
        index = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
    except ValueError as error:
        raise InputError(f"got {file}, which is no JSON ({error}); download the pipeline again") from error
    found = index.get("_class_name") if isinstance(index, dict) else None
    if index is None:
        raise NotFoundError(
            f"got {source} without {INDEX}; expected the folder of a Stable Diffusion pipeline, as save_pretrained of "
            f"diffusers writes it, or of a model of energycomp; {HOW_TO_GET}"
        )
    if found not in PIPELINES:
        raise InputError(
            f"got {source}, a {found}; expected a {' or '.join(PIPELINES)} (1.x or 2.x): one UNet, one text encoder"
        )
    if missing := [name for name in PARTS if not (folder / name).is_dir()]:
        raise NotFoundError(
            f"got {source} without {', '.join(missing)}; expected the folders {', '.join(PARTS)} of a Stable Diffusion "
            f"pipeline; {HOW_TO_GET}"
        )


def _read(folder: Path, source: str, dtype: torch.dtype) -> Model:
    """Reads each part of a pipeline's folder by a class that is named here, safetensors only."""
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel

    conditioner = pipeline_text(folder, source=source, dtype=dtype)
    try:
        unet, vae = (
            complete(
                cls.from_pretrained(
                    folder, subfolder=name, use_safetensors=True, torch_dtype=dtype, local_files_only=True,
                    output_loading_info=True,
                )
            )
            for cls, name in ((UNet2DConditionModel, "unet"), (AutoencoderKL, "vae"))
        )  # fmt: skip
        scheduler = DDIMScheduler.from_pretrained(folder, subfolder="scheduler", local_files_only=True)
    except Exception as error:  # diffusers raises many kinds
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise NotFoundError(
            f"got {source} without a UNet, VAE or scheduler that can be read ({reason}); expected the folders unet, "
            "vae and scheduler of a Stable Diffusion pipeline, in safetensors; download it again"
        ) from error
    return _model(unet, vae, scheduler, conditioner, source)


def _model(unet: Any, vae: Any, scheduler: Any, conditioner: Text, source: str) -> Model:
    reduction = 2 ** (len(vae.config.block_out_channels) - 1)
    size = unet.config.sample_size
    side = (size if isinstance(size, int) else min(size)) * reduction
    if unet.config.in_channels != vae.config.latent_channels:
        raise InputError(
            f"got a UNet of {unet.config.in_channels} channels over a VAE of {vae.config.latent_channels}; expected a "
            "text-to-image pipeline, not one for inpainting or depth"
        )
    null = conditioner(conditioner.parse("").to(unet.device)).rows[0]
    network = ConditionUNet.from_unet(unet, tokens=conditioner.token_shape[0], null=null)
    codec = VAECodec(
        source, image_size=side, scaling_factor=float(vae.config.scaling_factor),
        channels=int(vae.config.latent_channels), reduction=reduction,
    ).around(vae)  # fmt: skip
    denoiser = Denoiser(
        network=_frozen(network),
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
        processor=ImageProcessor(size=(side, side), resize="crop"),
        network_name="unet2d_condition",
        conditioner_name="text",
        defaults=Defaults(draws=64, solver="enumerate", counts=(1, 3), reading_rule="mean", guidance_scale=7.5),
    )


def _schedule(scheduler: Any) -> Tensor:
    alphas_cumprod = getattr(scheduler, "alphas_cumprod", None)
    if not isinstance(alphas_cumprod, Tensor):
        raise InputError(
            f"got a {type(scheduler).__name__} without alphas_cumprod; expected the scheduler of a diffusion model "
            "that predicts noise or v, such as DDIM or PNDM; models of flow matching are of another kind"
        )
    return alphas_cumprod.float()


def _prediction_type(scheduler: Any) -> PredictionType:
    found = scheduler.config.get("prediction_type")
    if found not in get_args(PredictionType):
        raise InputError(
            f"got a scheduler for predictions of {found!r}; expected one of {', '.join(get_args(PredictionType))}"
        )
    kind: PredictionType = found
    return kind


def _frozen(network: nn.Module) -> nn.Module:
    return network.eval().requires_grad_(requires_grad=False)


def _dtype(dtype: str | torch.dtype) -> torch.dtype:
    found = dtype if isinstance(dtype, torch.dtype) else DTYPES.get(str(dtype))
    if found is None or found not in DTYPES.values():
        raise InputError(f"got dtype {dtype!r}; expected one of {', '.join(DTYPES)}")
    return found
