"""FLUX.1: a flow-matching transformer over packed latents, T5 and the pooled vector of CLIP.

FLUX.1 dev is guidance-distilled: its guidance scale is an input of the network, the setting `embedded_guidance`, and
one prompt needs no unconditional row. In compositions u is the empty prompt at the same embedded guidance.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from energycomp.components import Condition
from energycomp_text.families.family import Family, Settings
from energycomp_text.families.prompted import Prompted


def encode(pipe: Any, prompts: list[str], settings: Settings) -> Condition:
    """Tokens of T5, and the pooled vector of CLIP."""
    rows, pooled, _ = pipe.encode_prompt(prompts, max_sequence_length=settings.length)
    return Condition(rows, pooled=pooled)


def predict(pipe: Any, sample: Tensor, timestep: Tensor, condition: Condition, settings: Settings) -> Tensor:
    """The transformer's velocity. Each token is a patch of 2x2 latents, at the place that its id says."""
    height, width = sample.shape[-2] // 2, sample.shape[-1] // 2
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    places = torch.stack([torch.zeros_like(rows), rows, columns], dim=-1).reshape(-1, 3).to(sample)
    scale = torch.full((len(sample),), float(settings.embedded_guidance or 0.0), device=sample.device)
    packed: Tensor = pipe.transformer(
        hidden_states=F.pixel_unshuffle(sample, 2).flatten(2).transpose(1, 2),
        timestep=timestep / 1000,
        guidance=scale if pipe.transformer.config.guidance_embeds else None,
        pooled_projections=condition.pooled,
        encoder_hidden_states=condition.rows,
        txt_ids=sample.new_zeros(condition.rows.shape[1], 3),
        img_ids=places,
        return_dict=False,
    )[0]
    return F.pixel_shuffle(packed.transpose(1, 2).unflatten(2, (height, width)), 2)


def family() -> Family:
    """Pipelines of the class `FluxPipeline`, dev and schnell."""
    return Family(
        pipeline="FluxPipeline",
        parts={
            "transformer": "FluxTransformer2DModel",
            "vae": "AutoencoderKL",
            "scheduler": "FlowMatchEulerDiscreteScheduler",
            "text_encoder": "CLIPTextModel",
            "text_encoder_2": "T5EncoderModel",
            "tokenizer": "CLIPTokenizer",
            "tokenizer_2": "T5Tokenizer",
        },
        network="transformer",
        build=Prompted(
            encode=encode,
            predict=predict,
            token_shape=lambda pipe, own: (own.length, pipe.transformer.config.joint_attention_dim),
            tokenizer="tokenizer_2",
        ),
        flow=True,
        guidance_scale=1.0,
        num_inference_steps=28,
        defaults=Settings(max_sequence_length=512, embedded_guidance=3.5),
        patch=2,
        latent_channels=lambda network: network.config.in_channels // 4,
        latent_size=lambda _: 128,
    )
