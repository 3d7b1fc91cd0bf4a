"""Stable Diffusion XL: two text encoders, a pooled vector, and the size of the image as an input of the UNet."""

from __future__ import annotations

from typing import Any

import attrs
import torch
from torch import Tensor

from energycomp.components import Condition
from energycomp_text.families.family import Family, Settings
from energycomp_text.families.prompted import Prompted


def encode(pipe: Any, prompts: list[str], settings: Settings) -> Condition:  # noqa: ARG001 - CLIP has one length
    """Tokens of both encoders side by side, and the pooled vector of the second."""
    rows, _, pooled, _ = pipe.encode_prompt(prompts, do_classifier_free_guidance=False)
    return Condition(rows, pooled=pooled)


def null(pipe: Any, settings: Settings) -> Condition:
    """The empty prompt, or zeros for a UNet that was trained so."""
    empty = encode(pipe, [""], settings)
    if not pipe.config.force_zeros_for_empty_prompt:
        return empty
    assert empty.pooled is not None  # noqa: S101 - for the type checker
    return attrs.evolve(empty, rows=torch.zeros_like(empty.rows), pooled=torch.zeros_like(empty.pooled))


def predict(pipe: Any, sample: Tensor, timestep: Tensor, condition: Condition, settings: Settings) -> Tensor:
    """The UNet with the original size, the crop and the target size of an image that was not cropped."""
    size = settings.image_size
    time_ids = sample.new_tensor([[size, size, 0, 0, size, size]]).expand(len(sample), -1)
    prediction: Tensor = pipe.unet(
        sample,
        timestep,
        encoder_hidden_states=condition.rows,
        added_cond_kwargs={"text_embeds": condition.pooled, "time_ids": time_ids},
        return_dict=False,
    )[0]
    return prediction


def family() -> Family:
    """Pipelines of the class `StableDiffusionXLPipeline`."""
    return Family(
        pipeline="StableDiffusionXLPipeline",
        parts={
            "unet": "UNet2DConditionModel",
            "vae": "AutoencoderKL",
            "scheduler": "DDIMScheduler",
            "text_encoder": "CLIPTextModel",
            "text_encoder_2": "CLIPTextModelWithProjection",
            "tokenizer": "CLIPTokenizer",
            "tokenizer_2": "CLIPTokenizer",
        },
        network="unet",
        build=Prompted(
            encode=encode,
            predict=predict,
            token_shape=lambda pipe, _: (pipe.tokenizer.model_max_length, pipe.unet.config.cross_attention_dim),
            null=null,
        ),
        guidance_scale=5.0,
        index=("force_zeros_for_empty_prompt",),
        given={"add_watermarker": False},
    )
