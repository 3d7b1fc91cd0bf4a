"""Tiny pipelines with random weights for tests, with every part of a real one. Nothing is downloaded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from energycomp.seeds import torch_seed

LENGTH = 32
WIDTH = 32


def tiny_tokenizer() -> Any:
    """A CLIP tokenizer whose vocabulary is single letters."""
    from transformers import CLIPTokenizer
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    letters = list(bytes_to_unicode().values())
    ends = [f"{letter}</w>" for letter in letters]
    vocabulary = {token: index for index, token in enumerate([*letters, *ends, "<|startoftext|>", "<|endoftext|>"])}
    return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=LENGTH)


def tiny_t5_tokenizer() -> Any:
    """A T5 tokenizer whose vocabulary is single letters; an underlined one begins a word."""
    from transformers import T5Tokenizer

    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    letters = [(letter, -1.0) for letter in "\u2581abcdefghijklmnopqrstuvwxyz0123456789.,"]
    return T5Tokenizer(vocab=special + letters, extra_ids=0, model_max_length=4 * LENGTH)


def tiny_pipeline(*, seed: int = 0, prediction_type: str = "epsilon") -> Any:
    """A `StableDiffusionPipeline` for images of 32x32 and prompts of 30 letters; its images are noise."""
    from diffusers import StableDiffusionPipeline

    with torch_seed(seed):
        unet = _unet(cross_attention_dim=WIDTH)
        vae = _vae()
        text_encoder = _clip()
    return _quiet(
        StableDiffusionPipeline(
            vae=vae, text_encoder=text_encoder, tokenizer=tiny_tokenizer(), unet=unet,
            scheduler=_diffusion_scheduler(prediction_type), safety_checker=None, feature_extractor=None,
            requires_safety_checker=False,
        )
    )  # fmt: skip


def tiny_sdxl(*, seed: int = 0) -> Any:
    """A `StableDiffusionXLPipeline` for images of 32x32."""
    from diffusers import StableDiffusionXLPipeline

    with torch_seed(seed):
        unet = _unet(
            cross_attention_dim=2 * WIDTH, addition_embed_type="text_time", addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=6 * 8 + WIDTH, use_linear_projection=True,
        )  # fmt: skip
        vae = _vae()
        first = _clip()
        second = _clip(projected=True)
    return _quiet(
        StableDiffusionXLPipeline(
            vae=vae, unet=unet, scheduler=_diffusion_scheduler(), text_encoder=first, text_encoder_2=second,
            tokenizer=tiny_tokenizer(), tokenizer_2=tiny_tokenizer(), add_watermarker=False,
        )
    )  # fmt: skip


def tiny_sd3(*, seed: int = 0, t5: bool = True) -> Any:
    """A `StableDiffusion3Pipeline` for images of 32x32, with or without T5."""
    from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline

    with torch_seed(seed):
        transformer = SD3Transformer2DModel(
            sample_size=16, patch_size=2, in_channels=4, num_layers=1, attention_head_dim=8, num_attention_heads=4,
            joint_attention_dim=2 * WIDTH, caption_projection_dim=32, pooled_projection_dim=2 * WIDTH, out_channels=4,
            pos_embed_max_size=16,
        )  # fmt: skip
        vae = _vae(shift_factor=0.06)
        first = _clip(projected=True)
        second = _clip(projected=True)
        third = _t5(2 * WIDTH) if t5 else None
    return _quiet(
        StableDiffusion3Pipeline(
            vae=vae, transformer=transformer, scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
            text_encoder=first, text_encoder_2=second, text_encoder_3=third, tokenizer=tiny_tokenizer(),
            tokenizer_2=tiny_tokenizer(), tokenizer_3=tiny_t5_tokenizer() if t5 else None,
        )
    )  # fmt: skip


def tiny_flux(*, seed: int = 0, guidance_embeds: bool = True) -> Any:
    """A `FluxPipeline`, as FLUX.1 dev or, without `guidance_embeds`, as schnell; for images of any size."""
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel

    with torch_seed(seed):
        transformer = FluxTransformer2DModel(
            patch_size=1, in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16,
            num_attention_heads=2, joint_attention_dim=WIDTH, pooled_projection_dim=WIDTH, axes_dims_rope=(4, 4, 8),
            guidance_embeds=guidance_embeds,
        )  # fmt: skip
        vae = _vae(shift_factor=0.1)
        first = _clip()
        second = _t5(WIDTH)
    return _quiet(
        FluxPipeline(
            vae=vae, transformer=transformer, text_encoder=first, text_encoder_2=second, tokenizer=tiny_tokenizer(),
            tokenizer_2=tiny_t5_tokenizer(),
            scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=guidance_embeds),
        )
    )  # fmt: skip


def tiny_pixart(*, seed: int = 0) -> Any:
    """A `PixArtSigmaPipeline` for images of 32x32."""
    from diffusers import PixArtSigmaPipeline, PixArtTransformer2DModel

    with torch_seed(seed):
        transformer = PixArtTransformer2DModel(
            sample_size=16, num_layers=1, patch_size=2, attention_head_dim=8, num_attention_heads=4,
            caption_channels=WIDTH, in_channels=4, cross_attention_dim=32, out_channels=8, attention_bias=True,
            activation_fn="gelu-approximate", num_embeds_ada_norm=1000, norm_type="ada_norm_single",
            norm_elementwise_affine=False, norm_eps=1e-6,
        )  # fmt: skip
        vae = _vae()
        text_encoder = _t5(WIDTH)
    return _quiet(
        PixArtSigmaPipeline(
            vae=vae, transformer=transformer, text_encoder=text_encoder, tokenizer=tiny_t5_tokenizer(),
            scheduler=_diffusion_scheduler(),
        )
    )  # fmt: skip


def tiny_zimage(*, seed: int = 0) -> Any:
    """A `ZImagePipeline` for images of any size."""
    from diffusers import FlowMatchEulerDiscreteScheduler, ZImagePipeline, ZImageTransformer2DModel
    from transformers import Qwen3Config, Qwen3Model

    tokenizer = _qwen_tokenizer()
    with torch_seed(seed):
        transformer = ZImageTransformer2DModel(
            all_patch_size=(2,), all_f_patch_size=(1,), in_channels=4, dim=32, n_layers=1, n_refiner_layers=1,
            n_heads=2, n_kv_heads=2, cap_feat_dim=16, axes_dims=[8, 4, 4], axes_lens=[512, 32, 32],
        )  # fmt: skip
        for token in (transformer.x_pad_token, transformer.cap_pad_token):
            torch.nn.init.normal_(token)
        vae = _vae(shift_factor=0.1)
        text_encoder = Qwen3Model(
            Qwen3Config(
                hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, head_dim=8,
                num_key_value_heads=2, vocab_size=len(tokenizer), max_position_embeddings=512,
            )
        )  # fmt: skip
    return _quiet(
        ZImagePipeline(
            vae=vae, transformer=transformer.eval(), text_encoder=text_encoder.eval(), tokenizer=tokenizer,
            scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        )
    )  # fmt: skip


def tiny_lora(pipe: Any, *, seed: int = 0, rank: int = 2, encoder: bool = False) -> dict[str, torch.Tensor]:
    """Random LoRA weights for the attention of a pipeline's network, and of its first text encoder."""
    network = "unet" if "unet" in pipe.components else "transformer"
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for part, ends in ((network, (".to_q", ".to_v")), *([("text_encoder", (".q_proj", ".v_proj"))] * encoder)):
        for full, layer in getattr(pipe, part).named_modules():
            name = full.removesuffix(".base_layer")  # of a network that has LoRA weights already
            if name.endswith(ends) and isinstance(layer, torch.nn.Linear):
                key = f"{part}.{name}"
                state[f"{key}.lora_A.weight"] = torch.randn(rank, layer.in_features, generator=generator)
                state[f"{key}.lora_B.weight"] = 0.3 * torch.randn(layer.out_features, rank, generator=generator)
    return state


TINY: dict[str, Callable[[], Any]] = {
    "sd": tiny_pipeline,
    "sdxl": tiny_sdxl,
    "sd3": tiny_sd3,
    "flux": tiny_flux,
    "pixart": tiny_pixart,
    "zimage": tiny_zimage,
}
# Of their models, for images of 32x32 and prompts of few tokens.
OPTIONS: dict[str, dict[str, Any]] = {
    "sd": {},
    "sdxl": {},
    "sd3": {"max_sequence_length": 40},
    "flux": {"image_size": 32, "max_sequence_length": 48},
    "pixart": {"max_sequence_length": 40},
    "zimage": {"image_size": 32, "max_sequence_length": 48},
}


def _unet(**options: Any) -> Any:
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=16, in_channels=4, out_channels=4, layers_per_block=1, block_out_channels=(16, 32),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"), attention_head_dim=2, norm_num_groups=8, **options,
    ).eval()  # fmt: skip


def _vae(**options: Any) -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(8, 16), down_block_types=("DownEncoderBlock2D",) * 2, norm_num_groups=4,
        up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=4, sample_size=32, **options,
    ).eval()  # fmt: skip


def _clip(*, projected: bool = False) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        hidden_size=WIDTH, intermediate_size=64, num_attention_heads=4, num_hidden_layers=2, projection_dim=WIDTH,
        vocab_size=514, max_position_embeddings=LENGTH, bos_token_id=512, eos_token_id=513,
    )  # fmt: skip
    return (CLIPTextModelWithProjection if projected else CLIPTextModel)(config).eval()


def _t5(width: int) -> Any:
    from transformers import T5Config, T5EncoderModel

    config = T5Config(vocab_size=64, d_model=width, d_kv=8, d_ff=64, num_layers=1, num_heads=4)
    return T5EncoderModel(config).eval()


def _diffusion_scheduler(prediction_type: str = "epsilon") -> Any:
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False,
        steps_offset=1, prediction_type=prediction_type,
    )  # fmt: skip


def _qwen_tokenizer() -> Any:
    """A tokenizer of bytes with a chat template."""
    from transformers import Qwen2Tokenizer
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    vocabulary = {token: index for index, token in enumerate([*bytes_to_unicode().values(), "<|endoftext|>"])}
    made = Qwen2Tokenizer(vocab=vocabulary, merges=[], model_max_length=512)
    made.chat_template = "{% for message in messages %}<{{ message['role'] }}>{{ message['content'] }}{% endfor %}"
    return made


def _quiet(pipe: Any) -> Any:
    pipe.set_progress_bar_config(disable=True)
    return pipe
