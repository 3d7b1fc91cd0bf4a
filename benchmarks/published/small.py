"""Train a small Stable Diffusion pipeline on rendered solids, and two LoRAs of subjects that it has never seen.

python benchmarks/published/small.py [--steps 1000] [-n 1000] [--seed 0] [-o runs/published]

`OUT/pipeline` is a `StableDiffusionPipeline` for images of 32x32 as diffusers saves it, `OUT/zog` and `OUT/mib` are
LoRAs as `save_lora_weights` writes them. Its images show one or two red, blue or green solids. A zog has red and
cyan bands, a mib lime and violet ones: hues far apart, and grey between two bands. A run that was stopped goes on.

The VAE is an `AutoencoderKL` trained here: `StableDiffusionPipeline` hands its VAE a generator, which the
`AutoencoderDC` of `clevr` does not take.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import StackDataset
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

from benchmarks.common.options import parser
from benchmarks.common.training import report, trained
from energycomp.files import atomic_file, read_tensors, write_tensors
from energycomp.images import to_bytes
from energycomp.progress import progress
from energycomp_datasets.clevr.geometry import CAMERA_POSITION, SHAPES
from energycomp_datasets.clevr.lighting import sample_lighting
from energycomp_datasets.clevr.renderer import instance_map, render
from energycomp_datasets.clevr.scenes import COLORS, Scene
from energycomp_datasets.solids.solids import caption
from energycomp_lab.training import Step

SIZE, LENGTH = 32, 16
CONCEPTS = tuple(f"{tint} {shape}" for tint in ("red", "blue", "green") for shape in SHAPES)
SUBJECTS = {"zog": ("red", "cyan"), "mib": ("lime", "violet")}  # bands from the top, in turns
NAMES = (*CONCEPTS, *SUBJECTS)
BANDS = 5
PAINT = {**COLORS, "lime": (150, 230, 30), "violet": (150, 60, 240)}
WORDS = ("green", "red", "blue", *SHAPES, "and", "zog", "mib")  # "green" before "red", whose merges it would take
RANK, CHANNELS, REDUCTION = 16, 16, 4
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2")
EMPTY, BOTH = 0.15, 0.5  # shares of captions that are left out, and of two objects that name both


def tokenizer() -> Any:
    """A CLIP tokenizer with one token for each word.

    >>> len(tokenizer()("a zog and a red cube")["input_ids"])
    8
    """
    letters = list(bytes_to_unicode().values())
    merges = []
    for word in WORDS:
        parts = [*word[:-1], f"{word[-1]}</w>"]
        merges += [("".join(parts[:k]), parts[k]) for k in range(1, len(parts))]
    merges = list(dict.fromkeys(merges))
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), *(a + b for a, b in merges)]
    vocabulary = {token: k for k, token in enumerate([*tokens, "<|startoftext|>", "<|endoftext|>"])}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=LENGTH)


def picture(names: Sequence[str], rng: np.random.Generator) -> Tensor:
    """An image (3, 32, 32) in [0, 1] of one solid for each concept or subject; other names have random bands."""
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    while True:
        sizes, places = rng.uniform(0.7, 1.0, len(names)), rng.uniform(-1.9, 1.9, (len(names), 2))
        if len(names) < 2 or math.dist(*places) > sizes.sum() + 0.4:
            break
    known = [name.split() if name in CONCEPTS else ("gray", SHAPES[rng.integers(3)]) for name in names]
    scene = Scene(
        positions=torch.tensor(np.c_[places, sizes], dtype=torch.float32),
        sizes=torch.tensor(sizes, dtype=torch.float32),
        shapes=torch.tensor([SHAPES.index(shape) for _, shape in known]),
        colors=torch.tensor([list(COLORS).index(tint) for tint, _ in known]),
        materials=torch.zeros(len(names), dtype=torch.long),
        rotations=torch.tensor(rng.uniform(0, 6.28, len(names)), dtype=torch.float32),
        camera=torch.tensor(0.72 * (np.array(CAMERA_POSITION) + rng.uniform(-0.5, 0.5, 3)), dtype=torch.float32),
        lighting=sample_lighting(len(names), generator),
    )
    frame = (SIZE, SIZE * 3 // 2)
    image = (render(scene, frame, rays=(2, 2)) / 2 + 0.5)[..., SIZE // 4 : -SIZE // 4]
    shown = instance_map(scene, frame)[..., SIZE // 4 : -SIZE // 4]
    for k, name in enumerate(names):
        if name not in CONCEPTS and (shown == k).any():
            colors = [PAINT[tint] for tint in SUBJECTS.get(name) or rng.choice(list(PAINT), 2, replace=False)]
            rows = (shown == k).any(1).nonzero()[:, 0]
            band = (torch.arange(SIZE) - rows[0]) * BANDS // (len(rows) or 1) % 2
            paint = torch.tensor(colors)[band].T[..., None] / 255 * (0.75 + 0.5 * image.mean(0)).clamp(max=1)
            image = torch.where(shown == k, paint, image)
    return image


def drawn(path: Path, n: int, seed: int, subject: str | None = None) -> dict[str, Tensor]:
    """n images of one or two solids, uint8 (n, 3, 32, 32), with indices (n, 2) into `NAMES`, -1 for none.

    Args:
        path: of a file that keeps them.
        subject: that is in every image; "any" has random bands.
    """
    if not path.is_file():
        images, shown = torch.empty(n, 3, SIZE, SIZE, dtype=torch.uint8), torch.full((n, 2), -1)
        for k in progress(range(n), f"rendering {subject or 'solids'}"):
            rng = np.random.default_rng([seed, k])
            count = 1 + int(rng.random() < 0.5)
            chosen = [NAMES[int(i)] for i in rng.choice(len(CONCEPTS), count, replace=False)]
            chosen[0] = subject or chosen[0]
            images[k] = to_bytes(2 * picture(chosen, rng) - 1)
            shown[k, :count] = torch.tensor([NAMES.index(name) if name in NAMES else -1 for name in chosen])
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as temporary:
            write_tensors(temporary, {"image": images, "shown": shown})
    return read_tensors(path)


def vae() -> Any:
    """16 channels of 8x8; it begins without residual branches and with orthogonal filters, for few steps."""
    made = AutoencoderKL(
        block_out_channels=(16, 32, 64), latent_channels=CHANNELS, norm_num_groups=8, sample_size=SIZE,
        down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3,
        mid_block_add_attention=False,
    )  # fmt: skip
    for name, module in made.named_modules():
        if isinstance(module, nn.Conv2d):
            (nn.init.zeros_ if name.endswith("conv2") else nn.init.orthogonal_)(module.weight)
    return made


def vae_loss(network: Any, batch: dict[str, Tensor], step: Step) -> Tensor:
    """Absolute and squared error from means with a little noise, and a penalty of large means."""
    images = batch["image"].float() / 127.5 - 1
    means = network.encode(images).latent_dist.mean  # the noise of the distribution hides colours for many steps
    noise = 0.1 * torch.randn(means.shape, generator=step.generator)
    error = network.decode(means + noise).sample - images
    return error.abs().mean() + 4 * error.square().mean() + 1e-3 * means.square().mean()


def decoder(codec: Any) -> Any:
    """A copy of an autoencoder of which the decoder is trained further: latents stay."""
    made = copy.deepcopy(codec).requires_grad_(requires_grad=False)
    made.decoder.requires_grad_(requires_grad=True)
    return made


def decoder_loss(network: Any, batch: dict[str, Tensor], _: Step) -> Tensor:
    """Absolute and squared error."""
    error = network.decode(batch["latents"]).sample - (batch["image"].float() / 127.5 - 1)
    return error.abs().mean() + 4 * error.square().mean()


def network() -> nn.ModuleDict:
    """The UNet and the text encoder, which are trained together."""
    words, letters = tokenizer(), 64
    unet = UNet2DConditionModel(
        sample_size=SIZE // REDUCTION, in_channels=CHANNELS, out_channels=CHANNELS, block_out_channels=(64, 96),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1, norm_num_groups=16, cross_attention_dim=letters, attention_head_dim=4,
    )  # fmt: skip
    unet.set_attn_processor(AttnProcessor())  # on a CPU the other is slow in its backward pass
    config = CLIPTextConfig(
        vocab_size=len(words), hidden_size=letters, intermediate_size=4 * letters, num_hidden_layers=2,
        num_attention_heads=4, max_position_embeddings=LENGTH, bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id, pad_token_id=words.pad_token_id,
    )  # fmt: skip
    return nn.ModuleDict({"unet": unet, "text": CLIPTextModel(config)})


def captions(shown: Tensor, generator: torch.Generator) -> list[str]:
    """A caption for each image: of all that it shows or of its first object, or the empty one."""
    drawn = torch.rand(len(shown), 2, generator=generator).tolist()
    names = [[NAMES[k] for k in row if k >= 0] for row in shown.tolist()]
    return [
        "" if empty < EMPTY else caption(row if both < BOTH else row[:1])
        for row, (empty, both) in zip(names, drawn, strict=True)
    ]


def denoising_loss(words: Any, scheduler: Any, text: nn.Module | None = None) -> Any:
    """The loss of a module with "unet" and "text", or of a UNet beside a text encoder that stays as it is."""
    ends = scheduler.config.num_train_timesteps

    def loss(module: Any, batch: dict[str, Tensor], step: Step) -> Tensor:
        generator, latents = step.generator, batch["latents"]
        unet, encoder = (module["unet"], module["text"]) if text is None else (module, text)
        ids = words(captions(batch["shown"], generator), padding="max_length", return_tensors="pt")["input_ids"]
        noise = torch.randn(latents.shape, generator=generator)
        timestep = torch.randint(ends, (len(latents),), generator=generator)
        noised = scheduler.add_noise(latents, noise, timestep)
        found = unet(noised, timestep, encoder(ids)[0]).sample
        return functional.mse_loss(found, scheduler.get_velocity(latents, noise, timestep))

    return loss


@torch.no_grad()
def encoded(codec: Any, data: dict[str, Tensor]) -> StackDataset[dict[str, Tensor]]:
    """Latents of images and of their mirror images, with what they show."""
    images = torch.cat([data["image"], data["image"].flip(-1)])
    parts = progress(images.split(100), "encoding")
    latents = torch.cat([codec.encode(part.float() / 127.5 - 1).latent_dist.mean for part in parts])
    return StackDataset(latents=latents * codec.config.scaling_factor, shown=data["shown"].repeat(2, 1))


def adapted(unet: Any) -> Any:
    """A copy of a UNet, frozen, with a LoRA that is trained."""
    made = copy.deepcopy(unet).requires_grad_(requires_grad=False)
    made.add_adapter(
        LoraConfig(r=RANK, lora_alpha=RANK, init_lora_weights="gaussian", target_modules=[*ATTENTION, "conv1", "conv2"])
    )
    return made


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes the pipeline, both LoRAs, and report.json with the CPU seconds of this call."""
    parsed = parser(
        __doc__, steps=(1000, "of the base; a third for the VAE, a fifth for each LoRA"), seed=0,
        n=(1000, "images of the base"), out="runs/published",
    )  # fmt: skip
    options = parsed.parse_args(arguments)
    out, n, seed, steps = options.out, options.n, options.seed, options.steps

    def train(name: str, *given: Any, share: int, rate: float = 1e-3) -> Any:
        config: dict[str, Any] = {"steps": max(steps // share, 1), "batch_size": 8, "learning_rate": rate}
        return trained(*given, out / "training" / name, seed=seed, save_every=100, **config)

    banded = drawn(out / "data" / "any.safetensors", n // 3, seed + 1, "any")["image"]
    solids = drawn(out / "data" / "solids.safetensors", n, seed)
    images = torch.cat([banded, banded, solids["image"]])
    codec = train("vae", vae, vae_loss, StackDataset(image=images), share=3, rate=3e-3)
    codec.register_to_config(scaling_factor=1.0)
    codec.register_to_config(scaling_factor=round(1 / float(encoded(codec, solids)[:]["latents"].std()), 4))
    subjects = [
        drawn(out / "data" / f"{name}.safetensors", n // 7, seed + 2 + k, name) for k, name in enumerate(SUBJECTS)
    ]
    images = torch.cat([images, *(data["image"] for data in subjects)])
    known = encoded(codec, {"image": images, "shown": images[:, 0, 0]})[:]["latents"][: len(images)]
    pairs = StackDataset(latents=known / codec.config.scaling_factor, image=images)
    codec = train("decoder", partial(decoder, codec), decoder_loss, pairs, share=2, rate=2e-3)
    words, scheduler = tokenizer(), DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False,
        steps_offset=1, prediction_type="v_prediction",
    )  # fmt: skip
    base = train("base", network, denoising_loss(words, scheduler), encoded(codec, solids), share=1)
    pipe = StableDiffusionPipeline(
        vae=codec, text_encoder=base["text"], tokenizer=words, unet=base["unet"], scheduler=scheduler,
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipe.save_pretrained(out / "pipeline")
    loss = denoising_loss(words, scheduler, base["text"].requires_grad_(requires_grad=False))
    for name, shown in zip(SUBJECTS, subjects, strict=True):
        unet = train(name, partial(adapted, base["unet"]), loss, encoded(codec, shown), share=5)
        StableDiffusionPipeline.save_lora_weights(out / name, get_peft_model_state_dict(unet))
    report(out / "report.json", {"steps": steps, "seed": seed, "n": n, "cpu_seconds": round(time.process_time())})


if __name__ == "__main__":
    main()
