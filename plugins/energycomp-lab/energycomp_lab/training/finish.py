"""How `energycomp.sampling.Finish` is trained: pictures beside rough ones of the same scene that a model draws.

1. Rough pictures  A picture is noised to some timestep, and drawn again under its description, see `draw_again`.
2. Bent pictures   They are bent by some pixels, since samples from noise are rougher than those from noised pictures.
3. Loss            Absolute errors of pictures and of their gradients, as far as noise left their details; in the last
                   part of the run, a critic of patches, too, which brings gloss and texture back.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, Self

import attrs
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from energycomp.components import Composition
from energycomp.errors import InputError
from energycomp.fields import is_number
from energycomp.models import Model
from energycomp.sampling import AttributeGuidance, Finish, Target, make_scheduler
from energycomp_lab.training.config import FitConfig, Step

STEPS = 24  # of the scheduler, from noise
OBJECTS = 4.0  # weight of objects, beside 1 of the ground
COARSE = 8  # pixels: what a finished picture keeps where noise left no details
BENT, WAVES = 2.5, 7  # pixels, of a standard deviation, and points along a side of the grid of displacements
WEIGHT = 0.05  # of the critic
BEFORE = 0.03  # share of the run in which the critic learns before it counts


class Critic(nn.Module):
    """Tells patches of pictures from finished ones: pictures and maps (B, C, H, W) to a number a 4x4 pixels.

    Spectral norms keep it from changing faster than what it judges (Miyato et al., 2018).
    """

    def __init__(self, maps: int) -> None:
        super().__init__()
        act = nn.LeakyReLU(0.2)
        first = nn.Conv2d(3 + maps, 48, 4, 2, 1)
        last = [nn.Conv2d(48, 96, 4, 2, 1), nn.Conv2d(96, 128, 3, padding=1), nn.Conv2d(128, 1, 3, padding=1)]
        layers = [part for layer in last for part in (act, spectral_norm(layer))]
        self.net = nn.Sequential(spectral_norm(first), *layers)

    def forward(self, seen: Tensor) -> Tensor:
        out: Tensor = self.net(seen)
        return out


@attrs.frozen(eq=False)
class Finishing:
    """A model whose pictures `edges` finishes, and the critic of them. `energycomp train` saves the model."""

    model: Model
    edges: Finish
    critic: Critic

    @property
    def trained(self) -> nn.ModuleDict:
        """What finishes pictures, and the critic."""
        return nn.ModuleDict({"edges": self.edges.requires_grad_(requires_grad=True), "critic": self.critic})

    def to(self, device: Any) -> Self:
        """Itself, on a device."""
        return attrs.evolve(self, model=self.model.to(device), critic=self.critic.to(device))

    def save_pretrained(self, folder: str | Path, *, dtype: torch.dtype | None = None) -> None:
        """Writes the folder of the model."""
        self.model.save_pretrained(folder, dtype=dtype)


@attrs.frozen(eq=False)
class Pairs:
    """A batch of pictures beside rough ones.

    Args:
        pictures, rough: (B, 3, H, W) in [-1, 1].
        maps: (B, M, H/2, W/2), for `Finish`.
        seen: (B, S, H, W), what the critic sees beside a picture.
        alike: (B,), the share of a rough picture's details that are those of the picture.
        where: (B, 1, H, W), objects, which count more, and alone before the critic; the whole picture when left out.
    """

    pictures: Tensor
    rough: Tensor
    maps: Tensor
    seen: Tensor
    alike: Tensor
    where: Tensor | None = None


def finish_config(**changes: Any) -> FitConfig:
    """How `Finish` is trained, unless a recipe says otherwise."""
    config = FitConfig(
        steps=6_000, batch_size=12, learning_rate=1e-3, max_grad_norm=100.0, ema_decay=0.999, mixed_precision="bf16",
        warmup_fraction=0.02,
    )  # fmt: skip
    return attrs.evolve(config, **changes)


def check_critic(critic: Any) -> None:
    """Raises `InputError` for what is no share of a run."""
    if not is_number(critic) or not 0 <= critic <= 1:
        raise InputError(f"got critic={critic!r}; expected a share of the run, from 0 to 1")


@torch.no_grad()
def draw_again(
    model: Model, scene: Composition, sample: Tensor, start: float, generator: torch.Generator
) -> tuple[Tensor, float]:
    """A sample (1, C, H, W), noised to a timestep and drawn again, and the share of it that noise left.

    It is guided as samples are.
    """
    denoiser = model.denoiser
    target = Target(AttributeGuidance(model.defaults.attribute_guidance).weighted(scene))
    scheduler = make_scheduler(model.defaults.scheduler, denoiser.alphas_cumprod, prediction_type="sample")
    scheduler.set_timesteps(STEPS)
    timesteps = [timestep for timestep in scheduler.timesteps if timestep <= start]
    alpha = denoiser.alphas_cumprod[int(timesteps[0])]
    x = alpha.sqrt() * sample + (1 - alpha).sqrt() * torch.randn(sample.shape, generator=generator)
    for timestep in timesteps:
        predicted = target.compose(x, timestep.float().expand(1), prediction_type="sample")
        x = scheduler.step(predicted, timestep, x, generator=generator, return_dict=False)[0]
    return x, float(alpha)


def finish_loss(module: nn.Module, pairs: Pairs, step: Step, critic: float) -> Tensor:
    """The error of a batch, and in the last part of the run that of the critic.

    Args:
        critic: share of the run after which the critic counts.
    """
    made: Any = module
    finished = made["edges"](pairs.rough, pairs.maps).float()
    difference = finished - pairs.pictures
    weight = pairs.alike[:, None, None, None].expand_as(difference[:, :1])
    if pairs.where is not None:
        weight = weight * (1 + OBJECTS * F.max_pool2d(pairs.where, 5, 1, 2))
    error = (weight * difference.abs()).mean()
    error = error + 0.5 * (weight[..., 1:, :] * difference.diff(dim=2).abs()).mean()
    error = error + 0.5 * (weight[..., 1:] * difference.diff(dim=3).abs()).mean()
    kept = F.avg_pool2d(finished - pairs.rough, COARSE).abs().mean((1, 2, 3))
    error = error + ((1 - pairs.alike) * kept).mean()
    if step.fraction < critic - BEFORE:
        return error

    def judged(pictures: Tensor, judge: Any = made["critic"]) -> Tensor:
        answer = judge(torch.cat([pictures, pairs.seen], dim=1)).float()
        if pairs.where is None:
            return answer.flatten()
        here = F.max_pool2d(F.adaptive_avg_pool2d(pairs.where, answer.shape[2:]), 3, 1, 1) > 0.05
        return answer[here] if bool(here.any()) else answer.flatten()

    error = error + F.relu(1 - judged(pairs.pictures)).mean() + F.relu(1 + judged(finished.detach())).mean()
    if step.fraction >= critic:
        fixed = {name: parameter.detach() for name, parameter in made["critic"].named_parameters()}
        frozen = partial(torch.func.functional_call, made["critic"], fixed)
        error = error - WEIGHT * judged(finished, lambda seen: frozen((seen,))).mean()
    return error


def bend(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Pictures (B, 3, H, W) whose points are displaced smoothly, each picture by more or less."""
    count, side = len(pictures), pictures.shape[-1]
    most = torch.rand(count, 1, 1, 1, generator=generator).square() * BENT * 2 / side
    moved = torch.randn(count, 2, WAVES, WAVES, generator=generator) * most
    grid = F.affine_grid(torch.eye(2, 3).expand(count, 2, 3), list(pictures.shape), align_corners=False)
    grid = grid + F.interpolate(moved, pictures.shape[-2:], mode="bicubic").movedim(1, -1)
    return F.grid_sample(pictures, grid, padding_mode="border", align_corners=False)
