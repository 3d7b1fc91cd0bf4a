"""Stable Diffusion 1.x and 2.x: one CLIP encoder and a UNet. Its models can be saved with `save_pretrained`."""

from __future__ import annotations

from torch import nn

from energycomp.denoisers import ConditionUNet
from energycomp_text.encoders import made_text
from energycomp_text.families.family import Family, Opened
from energycomp_text.text import Text

__all__ = ["family"]


def build(opened: Opened) -> tuple[nn.Module, Text]:
    """Registered classes, by whose names a saved model is read; the empty prompt is a parameter of the network."""
    pipe, settings = opened.pipe, {"source": opened.source, "pooled": False, "length": None}
    text = made_text(pipe.tokenizer, pipe.text_encoder, settings, **opened.words)
    null = text(text.parse("").to(pipe.unet.device)).rows[0]
    network = ConditionUNet.from_unet(pipe.unet, tokens=text.token_shape[0], null=null)
    return network.eval().requires_grad_(requires_grad=False), text


def family() -> Family:
    """Pipelines of the class `StableDiffusionPipeline`."""
    return Family(
        pipeline="StableDiffusionPipeline",
        parts={
            "unet": "UNet2DConditionModel",
            "vae": "AutoencoderKL",
            "scheduler": "DDIMScheduler",
            "text_encoder": "CLIPTextModel",
            "tokenizer": "CLIPTokenizer",
        },
        network="unet",
        build=build,
        guidance_scale=7.5,
        network_name="unet2d_condition",
        given={"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False},
    )
