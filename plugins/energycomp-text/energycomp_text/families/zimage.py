"""Z-Image: a flow-matching transformer over the states of Qwen 3, of which it takes those of the prompt only."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from energycomp.components import Condition
from energycomp_text.families.family import Family, Settings
from energycomp_text.families.prompted import Prompted


def encode(pipe: Any, prompts: list[str], settings: Settings) -> Condition:
    """One row for each prompt: the tokens of the pipeline's own `encode_prompt`, with padding to L, and a mask."""
    length = settings.length
    texts, _ = pipe.encode_prompt(prompts, do_classifier_free_guidance=False, max_sequence_length=length)
    mask = torch.zeros(len(texts), length, dtype=torch.bool, device=texts[0].device)
    rows = texts[0].new_zeros(*mask.shape, texts[0].shape[1])
    for row, used, text in zip(rows, mask, texts, strict=True):
        row[: len(text)] = text
        used[: len(text)] = True
    return Condition(rows, mask=mask)


def predict(pipe: Any, sample: Tensor, timestep: Tensor, condition: Condition, _: Settings) -> Tensor:
    """The call of the network in the loop of the pipeline, with its scale of the timestep and its sign."""
    assert condition.mask is not None  # noqa: S101 - for the type checker
    texts = [row[used] for row, used in zip(condition.rows, condition.mask, strict=True)]
    images = list(sample[:, :, None])  # (C, 1, h, w) each
    velocities = pipe.transformer(images, (1000 - timestep) / 1000, texts, return_dict=False)[0]
    return -torch.stack(list(velocities))[:, :, 0]


def family() -> Family:
    """Pipelines of the class `ZImagePipeline`. Its guidance scale s is the weight 1 + s here; turbo takes weight 1."""
    return Family(
        pipeline="ZImagePipeline",
        parts={
            "transformer": "ZImageTransformer2DModel",
            "vae": "AutoencoderKL",
            "scheduler": "FlowMatchEulerDiscreteScheduler",
            "text_encoder": "Qwen3Model",
            "tokenizer": "Qwen2Tokenizer",
        },
        network="transformer",
        build=Prompted(
            encode=encode,
            predict=predict,
            token_shape=lambda pipe, own: (own.length, pipe.transformer.config.cap_feat_dim),
        ),
        flow=True,
        guidance_scale=6.0,
        defaults=Settings(max_sequence_length=512),
        patch=2,
        latent_size=lambda _: 128,
    )
