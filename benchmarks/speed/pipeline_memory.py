"""Memory of text-to-image pipelines: computed for the weights of known ones, and measured while one is loaded.

python benchmarks/speed/pipeline_memory.py [--width 384]

The first table counts the parameters of the configs in this file, on the meta device, so that nothing is downloaded and
no weight is made. They are meant to be those of published pipelines, with whose config files they were not compared.
The second saves a pipeline of each family with random weights, whose width is given, and loads it in a new process: the
peak of its memory, without that of files that are mapped, beyond that of the same imports, and the size of its files.
Linux only.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.common.measure import table

GIB = 2**30
PEAK = """
import sys, threading, time, torch
import energycomp
from energycomp_text.testing import TINY

def anonymous():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("RssAnon"))

def watch():
    while not done:
        seen.append(anonymous())
        time.sleep(0.002)

name = sys.argv[1].split("/")[-1]
options = {"dtype": sys.argv[2]} | ({"image_size": 64} if name in ("flux", "zimage") else {})
TINY[name]().save_pretrained(sys.argv[1] + "-tiny")
energycomp.load(sys.argv[1] + "-tiny", **options)  # imports what loading imports
before, seen, done = anonymous(), [], False
thread = threading.Thread(target=watch)
thread.start()
model = energycomp.load(sys.argv[1], **options)
after, done = anonymous(), True
thread.join()
print(max(*seen, after) - before, after - before)
"""


def clip(width: int, layers: int, heads: int) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel

    return CLIPTextModel(
        CLIPTextConfig(
            hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads, intermediate_size=4 * width
        )
    )


def t5_xxl() -> Any:
    from transformers import T5Config, T5EncoderModel

    return T5EncoderModel(
        T5Config(
            d_model=4096, d_kv=64, d_ff=10240, num_layers=24, num_heads=64, feed_forward_proj="gated-gelu",
            vocab_size=32128,
        )
    )  # fmt: skip


def vae(channels: int) -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(128, 256, 512, 512), down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4, layers_per_block=2, latent_channels=channels,
    )  # fmt: skip


def sdxl() -> Any:
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=128, block_out_channels=(320, 640, 1280), attention_head_dim=(5, 10, 20), cross_attention_dim=2048,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"), use_linear_projection=True,
        transformer_layers_per_block=(1, 2, 10), addition_embed_type="text_time", addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=2816,
    )  # fmt: skip


def sd3(layers: int) -> Any:
    from diffusers import SD3Transformer2DModel

    return SD3Transformer2DModel(
        sample_size=128, num_layers=layers, attention_head_dim=64, num_attention_heads=layers, in_channels=16,
        out_channels=16, joint_attention_dim=4096, caption_projection_dim=64 * layers, pooled_projection_dim=2048,
        pos_embed_max_size=192, qk_norm="rms_norm" if layers > 24 else None,
    )  # fmt: skip


def sd() -> Any:
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(sample_size=64, cross_attention_dim=768)


def flux() -> Any:
    from diffusers import FluxTransformer2DModel

    return FluxTransformer2DModel(guidance_embeds=True)


def pixart() -> Any:
    from diffusers import PixArtTransformer2DModel

    return PixArtTransformer2DModel(sample_size=128, use_additional_conditions=False)


def zimage() -> Any:
    from diffusers import ZImageTransformer2DModel

    return ZImageTransformer2DModel()


def qwen3_4b() -> Any:
    from transformers import Qwen3Config, Qwen3Model

    return Qwen3Model(
        Qwen3Config(
            hidden_size=2560, intermediate_size=9728, num_hidden_layers=36, num_attention_heads=32,
            num_key_value_heads=8, head_dim=128, vocab_size=151936,
        )
    )  # fmt: skip


CONFIGS: dict[str, tuple[Callable[[], Any], list[Callable[[], Any]], int]] = {
    "Stable Diffusion 1.5": (sd, [lambda: clip(768, 12, 12)], 4),
    "Stable Diffusion XL": (sdxl, [lambda: clip(768, 12, 12), lambda: clip(1280, 32, 20)], 4),
    "PixArt-Sigma": (pixart, [t5_xxl], 4),
    "Stable Diffusion 3 medium": (
        lambda: sd3(24),
        [lambda: clip(768, 12, 12), lambda: clip(1280, 32, 20), t5_xxl],
        16,
    ),
    "Stable Diffusion 3.5 large": (
        lambda: sd3(38),
        [lambda: clip(768, 12, 12), lambda: clip(1280, 32, 20), t5_xxl],
        16,
    ),
    "Z-Image": (zimage, [qwen3_4b], 16),
    "FLUX.1": (flux, [lambda: clip(768, 12, 12), t5_xxl], 16),
}


def parameters(make: Callable[[], Any]) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in make().parameters())


def computed() -> list[list[str]]:
    rows = []
    for name, (network, encoders, channels) in CONFIGS.items():
        counts = parameters(network), sum(map(parameters, encoders)), parameters(lambda c=channels: vae(c))
        memory = [f"{2 * count / GIB:.1f}" for count in (*counts, sum(counts))]
        rows.append([name, *(f"{count / 1e9:.2f}" for count in counts), *memory])
    return rows


def wider(name: str, width: int) -> dict[str, Any]:
    """What the config of a tiny network is changed to."""
    if name in ("sd", "sdxl"):
        return {"block_out_channels": (width, 2 * width), "norm_num_groups": 8}
    if name == "zimage":
        return {"dim": width, "n_layers": 12, "n_heads": width // 16, "n_kv_heads": width // 16}
    layers = {"num_layers": 12}
    if name == "flux":
        return {**layers, "num_attention_heads": width // 16}
    own = {"sd3": "caption_projection_dim", "pixart": "cross_attention_dim"}[name]
    return {**layers, "num_attention_heads": width // 8, own: width}


def measured(width: int) -> list[list[str]]:
    from energycomp_text.testing import TINY

    rows = []
    for name, make in TINY.items():
        pipe = make()
        part = "unet" if hasattr(pipe, "unet") else "transformer"
        config = dict(getattr(pipe, part).config)
        pipe.register_modules(**{part: type(getattr(pipe, part)).from_config({**config, **wider(name, width)})})
        with tempfile.TemporaryDirectory() as folder:
            pipe.save_pretrained(Path(folder) / name)
            size = sum(file.stat().st_size for file in Path(folder).rglob("*.safetensors"))
            for dtype in ("float32", "bfloat16"):
                run = [sys.executable, "-c", PEAK, str(Path(folder) / name), dtype]
                printed = subprocess.run(run, check=True, capture_output=True, text=True).stdout  # noqa: S603
                peak, kept = (int(number) * 1024 for number in printed.split())
                numbers = (f"{number / 2**20:.0f}" for number in (size, peak, kept))
                rows.append([name, dtype, *numbers, f"{peak / size:.2f}"])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=384, help="channels of the pipelines that are loaded")
    options = parser.parse_args()
    head = ["pipeline", "network, 1e9", "encoders, 1e9", "VAE, 1e9"]
    sizes = [*head, "network, GiB", "encoders, GiB", "VAE, GiB", "all, GiB"]
    print(table(sizes, computed(), "Computed from the configs in this file; GiB in bfloat16."), flush=True)
    loaded = ["family", "loaded as", "files, MiB", "peak, MiB", "kept, MiB", "peak / files"]
    print(
        table(
            loaded,
            measured(options.width),
            "Measured with random weights in float32 files, in a process each; without the mapped files.",
        )
    )


if __name__ == "__main__":
    main()
