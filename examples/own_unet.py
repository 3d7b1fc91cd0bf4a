"""A model of your own, whole: data, conditioner, diffusers UNet, training, saving, composing and reading.

Pictures of one or two coloured things at random places; the colour is the condition. Run it as
`python examples/own_unet.py [--unet cross-attention|time-embedding] [--steps 250] [--out own_unet]`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from diffusers import DDPMScheduler
from torch import Tensor, nn

import energycomp
from energycomp import Denoiser, Model
from energycomp.components import Classes
from energycomp.denoisers import ConditionUNet, EmbeddingUNet
from energycomp.images import ImageProcessor, grid
from energycomp.models import Defaults, load_weights, save_pretrained
from energycomp_lab.training import FitConfig, Step, collate, denoising_loss, fit

COLOURS = {"red": (0.9, -0.7, -0.7), "green": (-0.7, 0.6, -0.7), "blue": (-0.6, -0.4, 1.0), "yellow": (0.9, 0.8, -0.7)}
SIZE = 32


def scene(index: int) -> dict[str, Tensor]:
    """Picture number `index` (3, 32, 32) with none, one or two discs and squares, and their colours (K,)."""
    generator = torch.Generator().manual_seed(index)
    count = int(torch.randint(3, (), generator=generator))
    values = torch.randperm(len(COLOURS), generator=generator)[:count]
    quarters = torch.randperm(4, generator=generator)
    image, pixel = torch.full((3, SIZE, SIZE), -0.8), torch.arange(SIZE) + 0.5
    for value, quarter in zip(values.tolist(), quarters.tolist(), strict=False):
        corner = torch.tensor([quarter % 2, quarter // 2])
        x, y = 16 * corner + 6 + 4 * torch.rand(2, generator=generator)
        dx, dy = (pixel - x)[None, :].abs(), (pixel - y)[:, None].abs()
        disc, square = (dx**2 + dy**2).sqrt() < 6.2, torch.maximum(dx, dy) < 5.5
        inside = disc if torch.rand((), generator=generator) < 0.5 else square
        image = torch.where(inside, torch.tensor(COLOURS[list(COLOURS)[value]])[:, None, None], image)
    return {"image": image, "values": values}


def cross_attention() -> nn.Module:
    """A small `UNet2DConditionModel`, as any other: its 8x8 maps attend to the token."""
    return ConditionUNet(
        sample_size=SIZE, in_channels=3, out_channels=3, block_out_channels=[16, 32, 32], layers_per_block=1,
        norm_num_groups=8, cross_attention_dim=len(COLOURS), attention_head_dim=16,
        down_block_types=["DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"],
        up_block_types=["CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"],
    )  # fmt: skip


def time_embedding() -> nn.Module:
    """A small `UNet2DModel`, which has no attention to tokens: its time embedding takes the condition."""
    return EmbeddingUNet(
        condition_width=len(COLOURS), sample_size=SIZE, block_out_channels=[16, 32, 32], layers_per_block=1,
        norm_num_groups=8, down_block_types=["DownBlock2D"] * 3, up_block_types=["UpBlock2D"] * 3,
    )  # fmt: skip


NETWORKS = {"cross-attention": ("unet2d_condition", cross_attention), "time-embedding": ("unet2d", time_embedding)}


def build(unet: str) -> Model:
    """The untrained model: network, noise schedule, what is predicted, the rule, the conditioner and how it is used."""
    name, network = NETWORKS[unet]
    torch.manual_seed(0)
    conditioner = Classes(COLOURS)  # a value is the index of a name, its token is one-hot
    denoiser = Denoiser(
        network=network(),
        alphas_cumprod=DDPMScheduler(beta_schedule="squaredcos_cap_v2").alphas_cumprod,
        prediction_type="sample",
        rule="product",
        sample_shape=(3, SIZE, SIZE),
        token_shape=conditioner.token_shape,
    )
    return Model(
        name="things",
        denoiser=denoiser,
        conditioner=conditioner,
        processor=ImageProcessor(size=(SIZE, SIZE)),
        network_name=name,
        conditioner_name="classes",
        defaults=Defaults(timesteps=(300, 800), gamma=4.0, draws=16, solver="enumerate", counts=(0, 2)),
    )


def train(model: Model, steps: int, out: Path) -> None:
    """Trains the network in place; run again, it goes on from the last checkpoint in `out`."""

    def loss(module: nn.Module, batch: dict[str, Tensor], step: Step) -> Tensor:
        condition = model.conditioner(batch["values"])
        return denoising_loss(
            model.denoiser, batch["image"], condition, batch["owner"], module=module, generator=step.generator
        )

    config = FitConfig(steps=steps, batch_size=16, learning_rate=4e-3, warmup_fraction=0.1, ema_decay=0.95)
    scenes = [scene(index) for index in range(1000)]
    result = fit(model.denoiser.network, loss, scenes, config, out=out, collate_fn=collate)
    load_weights(model.denoiser.network, result.ema_state, str(result.checkpoint))
    model.denoiser.network.eval()


def main() -> None:
    """Train, save, load, compose and read."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--unet", choices=list(NETWORKS), default="cross-attention")
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--out", type=Path, default=Path("own_unet"))
    options = parser.parse_args()
    model = build(options.unet)
    train(model, options.steps, options.out / "checkpoints")
    save_pretrained(model, options.out / "model")
    things = energycomp.load(options.out / "model")

    composer = energycomp.Composer([things("red"), things("blue")])
    images = composer.sample(4, num_inference_steps=25, generator=torch.Generator().manual_seed(0))
    grid(images).resize((272, 272), 0).save(options.out / "red-and-blue.png")
    print(f"{composer} is in {options.out / 'red-and-blue.png'}")

    for index in range(1000, 1008):  # pictures that the training did not see
        picture = scene(index)
        answer = energycomp.infer(picture["image"] / 2 + 0.5, things)
        found = sorted(things.conditioner.describe(value) for value in answer.conditions)
        drawn = sorted(things.conditioner.describe(value) for value in picture["values"])
        print(f"picture {index}: found {found}, drawn were {drawn}, p = {answer.p_value:.2g}")


if __name__ == "__main__":
    main()
