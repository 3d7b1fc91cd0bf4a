"""Stable Diffusion 3 and 3.5: a flow-matching transformer over two CLIP encoders and T5, which may be left out."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from energycomp.components import Condition
from energycomp_text.families.family import Family, Settings
from energycomp_text.families.prompted import Prompted


def encode(pipe: Any, prompts: list[str], settings: Settings) -> Condition:
    """Tokens of CLIP, then those of T5, and the pooled vectors of both CLIP encoders."""
    rows, _, pooled, _ = pipe.encode_prompt(
        prompts, None, None, do_classifier_free_guidance=False, max_sequence_length=settings.length
    )
    return Condition(rows, pooled=pooled)


def predict(pipe: Any, sample: Tensor, timestep: Tensor, condition: Condition, _: Settings) -> Tensor:
    prediction: Tensor = pipe.transformer(
        hidden_states=sample,
        timestep=timestep,
        encoder_hidden_states=condition.rows,
        pooled_projections=condition.pooled,
        return_dict=False,
    )[0]
    return prediction


def token_shape(pipe: Any, settings: Settings) -> tuple[int, int]:
    """Tokens of CLIP and of T5 one after another."""
    return pipe.tokenizer_max_length + settings.length, pipe.transformer.config.joint_attention_dim


def family() -> Family:
    """Pipelines of the class `StableDiffusion3Pipeline`."""
    return Family(
        pipeline="StableDiffusion3Pipeline",
        parts={
            "transformer": "SD3Transformer2DModel",
            "vae": "AutoencoderKL",
            "scheduler": "FlowMatchEulerDiscreteScheduler",
            "text_encoder": "CLIPTextModelWithProjection",
            "text_encoder_2": "CLIPTextModelWithProjection",
            "text_encoder_3": "T5EncoderModel",
            "tokenizer": "CLIPTokenizer",
            "tokenizer_2": "CLIPTokenizer",
            "tokenizer_3": "T5Tokenizer",
        },
        network="transformer",
        build=Prompted(encode=encode, predict=predict, token_shape=token_shape, tokenizer="tokenizer_3"),
        flow=True,
        guidance_scale=7.0,
        num_inference_steps=28,
        defaults=Settings(max_sequence_length=256),
        patch=2,
        optional=("text_encoder_3", "tokenizer_3"),
    )
