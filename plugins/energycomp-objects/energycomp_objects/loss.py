"""What a model of placed objects learns: to predict and tell descriptions apart, and to propose objects.

Notation: variable -> symbol
    heat        Y, 1 at the centre of an object and less around it (Zhou et al., 2019, CenterNet)
    score       the logit of Y_hat
"""

from __future__ import annotations

import attrs
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from energycomp.denoisers import Denoiser, Trunk
from energycomp_lab.training import Loss, Step
from energycomp_lab.training.loss import make_trunk
from energycomp_objects.conditioner import Objects
from energycomp_objects.contrast import window_contrast
from energycomp_objects.crops import CropOptions, crop_all
from energycomp_objects.network import TYPICAL, PlacedUNet
from energycomp_objects.rivals import draw_rivals

Noised = tuple[Trunk, Tensor, Tensor]
FOCUS = 2.0  # exponent of the focal loss
LITTLE = (0.0, 250.0)  # timesteps at which objects are proposed alone
SOFT = 4.0  # exponent by which cells near a centre count less as background


@attrs.frozen
class Weights:
    """What a part of a training weighs.

    Args:
        rivals: weight of telling wrong descriptions apart.
        proposals: weight of proposals.
        looks: further crops of each photo, with little noise, from which objects are proposed alone: the trunk costs a
            tenth of the heads.
        timestep_power: timesteps are drawn as T U^power.
        floor: least weight of the error of a prediction, where noise is high and decides where things are drawn.
    """

    rivals: float
    proposals: float
    looks: int
    timestep_power: float
    floor: float


@attrs.frozen
class LossOptions:
    """Weights of the parts of the loss, and how often descriptions say less.

    Args:
        find: weights while a model mostly learns to find objects, which needs details, and so little noise.
        draw: weights at the end, when it mostly learns to draw them, which needs all noise.
        drawing: share of the training that the end is.
        size, words: of the size and the words of a proposal, in the loss of proposals.
        open_scene, open_object: share of the scenes and objects whose attributes are left open.
        open_size: share of the objects whose size is.
    """

    find: Weights = Weights(rivals=2.0, proposals=0.3, looks=2, timestep_power=1.5, floor=0.02)
    draw: Weights = Weights(rivals=1.0, proposals=0.1, looks=1, timestep_power=1.0, floor=0.25)
    drawing: float = 0.25
    size: float = 0.5
    words: float = 2.0
    open_scene: float = 0.1
    open_object: float = 0.15
    open_size: float = 0.15


def make_loss(
    denoiser: Denoiser,
    conditioner: Objects,
    tile: tuple[int, int],
    crops: CropOptions,
    options: LossOptions,
) -> Loss:
    """The loss of batches of photos, as `energycomp_lab.training.collate` makes them."""
    denoiser = attrs.evolve(denoiser, sample_shape=(denoiser.sample_shape[0], *tile))

    def loss(module: nn.Module, batch: dict[str, Tensor], step: Step) -> Tensor:
        generator = step.generator
        weights = options.draw if step.fraction >= 1 - options.drawing else options.find
        trained = attrs.evolve(denoiser, network=module)
        assert isinstance(module, PlacedUNet)  # noqa: S101 - for mypy

        def proposals(timesteps: tuple[float, float] | None) -> tuple[Noised, Tensor, Tensor, Tensor]:
            """Other crops of the photos with noise, their objects, and the loss of proposals."""
            images, values, owner = crop_all(
                batch["image"], batch["values"], batch["owner"], tile, conditioner.box, crops, generator
            )
            noised = make_trunk(trained, images, timesteps, weights.timestep_power, generator)
            signal = denoiser.alphas_cumprod[noised[2].long().clamp(max=len(denoiser.alphas_cumprod) - 1)]
            maps = module.propose(noised[0].features or ())
            return noised, values, owner, proposal_loss(maps, values, owner, signal, conditioner, options)

        noised, values, owner, proposed = proposals(None)
        said = leave_open(values, owner, len(batch["image"]), conditioner, options, generator)
        wrong = draw_rivals(said, owner, len(batch["image"]), conditioner, generator)
        error = window_contrast(
            trained, noised, conditioner(said), owner, wrong, weight=weights.rivals, floor=weights.floor
        )
        for _ in range(weights.looks):
            proposed = proposed + proposals(LITTLE)[-1]
        return error + weights.proposals * proposed

    return loss


def leave_open(
    values: Tensor, owner: Tensor, scenes: int, conditioner: Objects, options: LossOptions, generator: torch.Generator
) -> Tensor:
    """Values (R, V) with all attributes of some scenes and objects left open, and the size of some objects."""
    objects = len(values)
    scene = torch.rand(scenes, generator=generator) < options.open_scene
    opened = scene[owner] | (torch.rand(objects, generator=generator) < options.open_object)
    said = values.clone()
    said[:, conditioner.length :] *= ~opened[:, None]
    if conditioner.box:
        said[:, 2:4] *= (torch.rand(objects, generator=generator) >= options.open_size)[:, None]
    return said


def proposal_loss(
    maps: dict[str, Tensor],
    values: Tensor,
    owner: Tensor,
    signal: Tensor,
    conditioner: Objects,
    options: LossOptions,
) -> Tensor:
    """The focal loss of centres, plus the errors of offset, size and words around them, an object.

    Args:
        maps: as `PlacedUNet.propose` returns them, of B samples.
        values, owner: the objects (R, V) that are there, nothing open, and their samples.
        signal: (B,), the share of signal in the noised samples: what is noise alone shows no object.
    """
    score = maps["score"]
    h, w = score.shape[1:]
    grid = torch.tensor([w, h])
    centre = values[:, :2] * grid  # cells
    extent = values[:, 2:4] * grid if conditioner.box else torch.full((len(values), 2), TYPICAL)
    # Heat: a Gaussian around each centre, as wide as a seventh of the object
    dx = torch.arange(w) + 0.5 - centre[:, :1]
    dy = torch.arange(h) + 0.5 - centre[:, 1:]
    spread = (extent / 7).clamp(min=0.6)
    around = (
        torch.exp(-((dx / spread[:, :1]) ** 2) / 2)[:, None] * torch.exp(-((dy / spread[:, 1:]) ** 2) / 2)[..., None]
    )
    heat = torch.zeros(len(score), h * w).scatter_reduce(0, owner[:, None].expand(-1, h * w), around.flatten(1), "amax")
    cell = centre.floor().long().clamp(min=0).minimum(grid - 1)
    at = cell[:, 1] * w + cell[:, 0]
    heat[owner, at] = 1.0
    # Focal loss, an object
    logits = score.flatten(1)
    probability = logits.sigmoid()
    right = -((1 - probability) ** FOCUS) * F.logsigmoid(logits)
    wrong = -((1 - heat) ** SOFT) * probability**FOCUS * F.logsigmoid(-logits)
    focal = (torch.where(heat == 1, right, wrong).sum(1) * signal).sum()
    if not len(values):
        return focal / len(score)
    # Where an object is: at its centre and in the cells beside it
    step = torch.tensor([[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]])
    near = (cell[:, None] + step).clamp(min=0).minimum(grid - 1).flatten(0, 1)
    which = owner.repeat_interleave(len(step))
    weight = signal[which] / len(step)

    def read(name: str) -> Tensor:
        return maps[name][which, :, near[:, 1], near[:, 0]]

    offset = centre.repeat_interleave(len(step), 0) - near - 0.5
    part = F.smooth_l1_loss(read("offset"), offset, reduction="none").sum(1)
    if conditioner.box:
        size = (extent.clamp(min=0.25) / TYPICAL).log().repeat_interleave(len(step), 0)
        part = part + F.smooth_l1_loss(read("size"), size, reduction="none", beta=0.1).sum(1)
    total = options.size * (part * weight).sum()
    codes = values[:, conditioner.length :].long().repeat_interleave(len(step), 0)
    for words, code in zip(read("words").split(conditioner.words, dim=1), codes.T, strict=True):
        error = F.cross_entropy(words, code - 1, reduction="none", ignore_index=-1)
        total = total + options.words * (error * weight).sum()
    return (focal + total) / len(values)
