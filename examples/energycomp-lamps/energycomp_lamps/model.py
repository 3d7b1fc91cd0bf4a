"""The network, the model and its training recipe."""

from pathlib import Path

import torch
from energycomp import Condition, Denoiser, Model
from energycomp.components import cosine_schedule
from energycomp.denoisers import configured
from energycomp.errors import InputError
from energycomp.images import ImageProcessor
from energycomp.models import Defaults, shipped
from energycomp_lab.evaluation import true_values
from energycomp_lab.training import FitConfig, Recipe, Step, collate, denoising_loss, start
from torch import Tensor, nn

from energycomp_lamps.scenes import NAMES, SIZE, Colours, Lamps


@configured
class LampNet(nn.Module):
    """A network with one stage: row r becomes three more channels of sample r."""

    def __init__(self, *, width: int = 24) -> None:
        super().__init__()
        self.picture = nn.Linear(len(NAMES) + 1, 3 * SIZE * SIZE)
        inner = (nn.SiLU(), nn.Conv2d(width, width, 5, padding=2), nn.SiLU(), nn.Conv2d(width, 3, 5, padding=2))
        self.layers = nn.Sequential(nn.Conv2d(7, width, 5, padding=2), *inner)

    def forward(self, sample: Tensor, timestep: Tensor, condition: Condition) -> Tensor:
        null = condition.null[:, None].to(sample)
        row = torch.cat([condition.rows[:, 0].to(sample) * (1 - null), null], dim=1)
        level = (timestep.to(sample) / 1000)[:, None, None, None].expand(-1, 1, SIZE, SIZE)
        return self.layers(torch.cat([sample, self.picture(row).reshape(sample.shape), level], dim=1))


def lamps(*, preset: str = "default", pretrained: bool = True) -> Model:
    """The model, with the weights of this package if `pretrained`."""
    if preset != "default":
        raise InputError(f"got preset {preset!r}; expected 'default'; there is no other")
    if pretrained:
        return shipped("energycomp_lamps")
    conditioner, shape = Colours(), (3, SIZE, SIZE)
    denoiser = Denoiser(LampNet(), cosine_schedule(), "sample", "product", shape, conditioner.token_shape)
    defaults = Defaults(timesteps=(200, 800), gamma=4.0, draws=32, solver="greedy", counts=(0, 4))
    return Model("lamps", denoiser, conditioner, ImageProcessor(size=(SIZE, SIZE)), "lamps", "colours", defaults)


def recipe(*, data: Path | None, init: Model | None, preset: str, cache: Path) -> Recipe:
    """Trains on drawn scenes, or on a folder that `energycomp data lamps` wrote."""
    model = start(init, lambda: lamps(preset=preset, pretrained=False))
    examples = Lamps().examples("synthetic" if data is None else str(data), count=4096, seed=1)
    images = [
        {"image": model.processor(one.image)[0], "values": true_values(one, model.conditioner)} for one in examples
    ]

    def loss(module: nn.Module, batch: dict[str, Tensor], step: Step) -> Tensor:
        rows, owner = model.conditioner(batch["values"]), batch["owner"]
        return denoising_loss(model.denoiser, batch["image"], rows, owner, module=module, generator=step.generator)

    config = FitConfig(steps=400, batch_size=min(32, len(images)), learning_rate=4e-3, ema_decay=0.98)
    return Recipe(model=model, module=model.trained, loss=loss, data=images, config=config, collate_fn=collate)
