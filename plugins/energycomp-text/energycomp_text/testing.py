"""A tiny Stable Diffusion pipeline with random weights for tests, with every part of a real one."""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["tiny_pipeline", "tiny_tokenizer"]

LENGTH = 32
WIDTH = 32


def tiny_tokenizer() -> Any:
    """A CLIP tokenizer whose vocabulary is single letters.

    >>> tiny_tokenizer()("cat")["input_ids"]
    [512, 66, 64, 339, 513]
    """
    from transformers import CLIPTokenizer
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    letters = list(bytes_to_unicode().values())
    ends = [f"{letter}</w>" for letter in letters]
    vocabulary = {token: index for index, token in enumerate([*letters, *ends, "<|startoftext|>", "<|endoftext|>"])}
    return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=LENGTH)


def tiny_pipeline(*, seed: int = 0, prediction_type: str = "epsilon") -> Any:
    """A `StableDiffusionPipeline` for images of 32x32 and prompts of 30 letters; its images are noise.

    >>> tiny_pipeline().unet.config.sample_size
    16
    """
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    tokenizer = tiny_tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet = UNet2DConditionModel(
            sample_size=16, in_channels=4, out_channels=4, layers_per_block=1, block_out_channels=(16, 32),
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            cross_attention_dim=WIDTH, attention_head_dim=8, norm_num_groups=8,
        )  # fmt: skip
        vae = AutoencoderKL(
            block_out_channels=(8, 16), down_block_types=("DownEncoderBlock2D",) * 2, norm_num_groups=4,
            up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=4, sample_size=32,
        )  # fmt: skip
        config = CLIPTextConfig(
            hidden_size=WIDTH, intermediate_size=64, num_attention_heads=4, num_hidden_layers=2,
            vocab_size=len(tokenizer), max_position_embeddings=LENGTH, bos_token_id=512, eos_token_id=513,
        )  # fmt: skip
        text_encoder = CLIPTextModel(config)
    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False,
        steps_offset=1, prediction_type=prediction_type,
    )  # fmt: skip
    pipe = StableDiffusionPipeline(
        vae=vae.eval(), text_encoder=text_encoder.eval(), tokenizer=tokenizer, unet=unet.eval(), scheduler=scheduler,
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipe.set_progress_bar_config(disable=True)
    return pipe
