"""Stable Diffusion 1.x and 2.x: one CLIP encoder and a UNet. Its models can be saved with `save_pretrained`."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from energycomp.components import Condition
from energycomp.denoisers import ConditionUNet
from energycomp.models import execution_device
from energycomp_text.encoders import make_text
from energycomp_text.families.family import Family, Opened, Settings
from energycomp_text.families.prompted import Prompted, check_precision
from energycomp_text.text import Text


def encode(pipe: Any, prompts: list[str], settings: Settings) -> Condition:  # noqa: ARG001 - CLIP has one length
    rows, _ = pipe.encode_prompt(prompts, None, 1, do_classifier_free_guidance=False)
    return Condition(rows)


def predict(pipe: Any, sample: Tensor, timestep: Tensor, condition: Condition, _: Settings) -> Tensor:
    prediction: Tensor = pipe.unet(sample, timestep, encoder_hidden_states=condition.rows, return_dict=False)[0]
    return prediction


def token_shape(pipe: Any, _: Settings) -> tuple[int, int]:
    return pipe.tokenizer.model_max_length, pipe.unet.config.cross_attention_dim


def build(opened: Opened) -> tuple[nn.Module, Text]:
    """Registered classes, by whose names a saved model is read; the empty prompt is a parameter of the network.

    Of a pipeline that is offloaded, mapped or quantised, the parts stay with it, as in the other families.
    """
    if execution_device(opened.network) is not None:
        return Prompted(encode=encode, predict=predict, token_shape=token_shape)(opened)
    pipe = opened.pipe
    settings = {"source": opened.source, "pooled": False, "length": None}
    text = make_text(pipe.tokenizer, pipe.text_encoder, settings, **opened.words)
    null = text(text.parse("").to(pipe.unet.device)).rows[0]
    network = ConditionUNet.from_unet(pipe.unet, tokens=text.token_shape[0], null=null)
    network.register_forward_pre_hook(_check_precision)
    return network.eval().requires_grad_(requires_grad=False), text


def _check_precision(network: Any, _: Any) -> None:
    """As in the other families; the hook is the model's, so that the pipeline itself runs as before."""
    check_precision(network.unet)


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
