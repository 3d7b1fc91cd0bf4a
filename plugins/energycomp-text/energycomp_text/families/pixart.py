"""PixArt-Sigma: a diffusion transformer over T5, which attends to the tokens of the prompt only."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from energycomp.components import Condition
from energycomp_text.families.family import Family, Settings
from energycomp_text.families.prompted import Prompted


def encode(pipe: Any, prompts: list[str], settings: Settings) -> Condition:
    rows, mask, _, _ = pipe.encode_prompt(
        prompts, do_classifier_free_guidance=False, max_sequence_length=settings.length
    )
    return Condition(rows, mask=mask.bool())


def predict(pipe: Any, sample: Tensor, timestep: Tensor, condition: Condition, _: Settings) -> Tensor:
    """The transformer's noise; it predicts a variance, too, which samplers here do not use."""
    assert condition.mask is not None  # noqa: S101 - for the type checker
    both: Tensor = pipe.transformer(
        sample,
        encoder_hidden_states=condition.rows,
        encoder_attention_mask=condition.mask.to(sample.dtype),
        timestep=timestep,
        added_cond_kwargs={"resolution": None, "aspect_ratio": None},
        return_dict=False,
    )[0]
    return both[:, : sample.shape[1]]


def family() -> Family:
    """Pipelines of the class `PixArtSigmaPipeline`."""
    return Family(
        pipeline="PixArtSigmaPipeline",
        parts={
            "transformer": "PixArtTransformer2DModel",
            "vae": "AutoencoderKL",
            "scheduler": "DDIMScheduler",
            "text_encoder": "T5EncoderModel",
            "tokenizer": "T5Tokenizer",
        },
        network="transformer",
        build=Prompted(
            encode=encode,
            predict=predict,
            token_shape=lambda pipe, own: (own.length, pipe.transformer.config.caption_channels),
        ),
        guidance_scale=4.5,
        num_inference_steps=20,
        defaults=Settings(max_sequence_length=300),
        patch=2,
    )
