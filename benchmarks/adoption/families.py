"""Small networks of the families of pipelines that `energycomp lint` opens, trained on pictures of four coloured discs.

python benchmarks/adoption/families.py [-o runs/families] [--minutes 4] [--only sd flux]

Writes the folder of a pipeline for each: those of `energycomp_text.testing`, with random encoders of text and random
autoencoders whose latents have the scale that the family has, and a network of pixels without conditions. A folder that
is there is kept. `lint.py` plants mistakes in them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from benchmarks.common.options import parser
from energycomp.components import Condition, by_sample, values_of
from energycomp.denoisers import Denoiser, rows, trunk
from energycomp.models import Model
from energycomp.seeds import torch_seed
from energycomp_text import from_pipeline
from energycomp_text.testing import OPTIONS, TINY

WORDS = ("red", "green", "blue", "white")
COLOURS = torch.tensor([[0.9, 0.1, 0.1], [0.1, 0.8, 0.2], [0.2, 0.3, 0.95], [0.95, 0.95, 0.9]])
SCALES = {  # factor and shift of the latents of the family's own autoencoder
    "sd": (0.18215, 0.0), "sdxl": (0.13025, 0.0), "sd3": (1.5305, 0.0609), "flux": (0.3611, 0.1159),
    "pixart": (0.13025, 0.0), "zimage": (0.3611, 0.1159),
}  # fmt: skip
LARGER: dict[str, dict[str, Any]] = {
    "sd": {"block_out_channels": (48, 64)},
    "sdxl": {"block_out_channels": (48, 64)},
    "sd3": {"num_layers": 3, "attention_head_dim": 24, "caption_projection_dim": 96},
    "flux": {"num_layers": 2, "num_single_layers": 2, "num_attention_heads": 6},
    "pixart": {"num_layers": 3, "attention_head_dim": 24, "cross_attention_dim": 96},
    "zimage": {"n_layers": 3, "dim": 96, "n_heads": 6, "n_kv_heads": 6},
}
PIXELS = "pixels"
DROPPED = 0.15  # of the prompts
BATCH = 32


def pictures(count: int, seed: int, side: int = 32) -> tuple[Tensor, Tensor]:
    """Pictures (N, 3, side, side) in [0, 1] of a disc on a slope of grey, and the colour of each, (N,)."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % len(WORDS)
    place = 0.35 + 0.3 * torch.rand(count, 2, generator=generator)
    radius = 0.16 + 0.08 * torch.rand(count, generator=generator)
    light = 0.85 + 0.15 * torch.rand(count, generator=generator)
    slope = 0.15 * torch.randn(count, 2, generator=generator)
    axis = (torch.arange(side) + 0.5) / side
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    away = ((x - place[:, 0, None, None]).square() + (y - place[:, 1, None, None]).square()).sqrt()
    inside = ((radius[:, None, None] - away) * side + 0.5).clamp(0, 1)[:, None]
    ground = 0.45 + slope[:, 0, None, None] * (x - 0.5) + slope[:, 1, None, None] * (y - 0.5)
    colour = (light[:, None] * COLOURS[labels])[:, :, None, None]
    return (inside * colour + (1 - inside) * ground[:, None]).clamp(0, 1), labels


def prompts(labels: Tensor) -> list[str]:
    """The prompt of each label."""
    return [f"a {WORDS[label]} disc" for label in labels.tolist()]


def family(name: str) -> tuple[Any, Model]:
    """The pipeline of a family with a larger network, its latents of deviation 1 by its own scale, and its model."""
    pipe = TINY[name]()
    part = "unet" if hasattr(pipe, "unet") else "transformer"
    old = getattr(pipe, part)
    with torch_seed(1):
        network = type(old).from_config({**old.config, **LARGER[name]})
        for token in (getattr(network, "x_pad_token", None), getattr(network, "cap_pad_token", None)):
            if token is not None:
                nn.init.normal_(token)
    pipe.register_modules(**{part: network.eval()})
    factor, shift = SCALES[name]
    pipe.vae.register_to_config(scaling_factor=factor, shift_factor=shift)
    images = 2 * pictures(64, 1)[0] - 1
    with torch.no_grad():
        z = pipe.vae.encode(images).latent_dist.mean
        for k in range(z.shape[1]):  # each channel has the mean 0 and the deviation 1, once it is scaled
            mean, std = float(z[:, k].mean()), float(z[:, k].std())
            pipe.vae.quant_conv.weight[k] /= std * factor
            bias = pipe.vae.quant_conv.bias
            bias[k] = (bias[k] - mean) / (std * factor) + shift
    return pipe, from_pipeline(pipe, concepts=prompts(torch.arange(len(WORDS))), **OPTIONS[name])


def pixels() -> tuple[Any, Denoiser]:
    """A pipeline of pixels without conditions, and its network as a denoiser to train."""
    from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

    with torch_seed(1):
        network = UNet2DModel(
            sample_size=32, block_out_channels=(32, 64), layers_per_block=1, norm_num_groups=8,
            down_block_types=("DownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "UpBlock2D"),
        )  # fmt: skip
    scheduler = DDPMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction")
    alphas = scheduler.alphas_cumprod.clamp(1e-6, 1 - 1e-6)
    denoiser = Denoiser(_Plain(network), alphas, "v_prediction", "product", (3, 32, 32), (1, 1))
    return DDPMPipeline(unet=network, scheduler=scheduler), denoiser


class _Plain(nn.Module):
    """A network of diffusers without conditions, called as those of the library."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.config = dict[str, Any]()

    def forward(self, sample: Tensor, timestep: Tensor, _: Condition) -> Tensor:
        return self.network(sample, timestep).sample  # type: ignore[no-any-return] # diffusers has no types


def train(denoiser: Denoiser, samples: Tensor, condition: Callable[[Tensor], Condition], minutes: float) -> float:
    """Trains a network on samples (N, ...), whose average it becomes; returns the mean of the last losses."""
    network = denoiser.network
    parameters = [p.requires_grad_() for p in network.parameters() if p.is_floating_point()]
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.0)
    average = [p.detach().clone() for p in parameters]
    generator = torch.Generator().manual_seed(0)
    losses: list[float] = []
    started = time.process_time()
    for step in _steps(started, minutes):
        share = min(1.0, (time.process_time() - started) / (60 * minutes))
        optimizer.param_groups[0]["lr"] = 1e-3 * min(1.0, (step + 1) / 100) * (1 - share) + 1e-5
        index = torch.randint(len(samples), (BATCH,), generator=generator)
        clean = samples[index]
        noise = torch.randn(clean.shape, generator=generator)
        timestep = torch.rand(BATCH, generator=generator) * (len(denoiser.alphas_cumprod) - 1)
        alpha = by_sample(denoiser.alphas_cumprod[timestep.round().long()], clean.ndim)
        timestep = timestep.round()
        signal, sigma = alpha.sqrt(), (1 - alpha).sqrt()
        shared = trunk(denoiser, signal * clean + sigma * noise, timestep)
        predicted = rows(denoiser, shared, condition(index), torch.arange(BATCH))
        wanted = {
            "epsilon": noise, "v_prediction": signal * noise - sigma * clean, "flow": noise - clean,
        }[denoiser.prediction_type]  # fmt: skip
        loss = F.mse_loss(predicted, wanted)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        decay = min(0.998, (1 + step) / (10 + step))
        for mean, own in zip(average, parameters, strict=True):
            mean.lerp_(own.detach(), 1 - decay)
        losses.append(float(loss.detach()))
    with torch.no_grad():
        for mean, own in zip(average, parameters, strict=True):
            own.copy_(mean)
    return sum(losses[-100:]) / len(losses[-100:])


def _steps(started: float, minutes: float) -> Iterator[int]:
    with tqdm(total=round(60 * minutes), unit="CPU s", desc="training") as bar:
        step = 0
        while (spent := time.process_time() - started) < 60 * minutes:
            bar.update(round(spent) - bar.n)
            yield step
            step += 1


def main(arguments: Sequence[str] | None = None) -> None:
    """Trains what is missing."""
    parse = parser(__doc__, out=(Path("runs/families"), "folder of the pipelines"))
    parse.add_argument("--minutes", type=float, default=4.0, help="CPU minutes of training of each")
    parse.add_argument("--only", nargs="*", default=[PIXELS, *TINY], choices=[PIXELS, *TINY], help="families")
    options = parse.parse_args(arguments)
    torch.set_num_threads(1)
    images, labels = pictures(4096, 0)
    for name in options.only:
        out = options.out / name
        if out.is_dir():
            continue
        if name == PIXELS:
            pipe, denoiser = pixels()
            null = Condition.unconditional(1, 1, rows=BATCH)
            loss = train(denoiser, 2 * images - 1, lambda _, null=null: null, options.minutes)
        else:
            pipe, model = family(name)
            known = model.conditioner(values_of(model.conditioner, prompts(torch.arange(len(WORDS)))))
            samples = torch.cat([model.denoiser.codec.encode(one) for one in (2 * images - 1).split(256)])  # type: ignore[union-attr] # it has one
            drop = torch.Generator().manual_seed(1)

            def given(index: Tensor, known: Condition = known, drop: torch.Generator = drop) -> Condition:
                own = labels[index]
                null = torch.rand(len(own), generator=drop) < DROPPED
                parts = [None if one is None else one[own] for one in (known.pooled, known.mask)]
                return Condition(known.rows[own], null, *parts)

            loss = train(model.denoiser, samples, given, options.minutes)
        pipe.save_pretrained(out, safe_serialization=True)
        print(f"{name}: loss {loss:.4f}, {out}", flush=True)


if __name__ == "__main__":
    main()
