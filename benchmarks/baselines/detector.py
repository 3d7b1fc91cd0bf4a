"""A detector of centres, sizes and words (Zhou et al., 2019, CenterNet) beside a model of placed objects.

It is the trunk of that model's network, with a wider layer behind it: it proposes objects in images without noise, and
no description is compared. Photos, crops, augmentation and tiles are those of the model, and so is what is fitted on
photos that were kept back: the odds of an object, here by its score alone.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import ClassVar

import attrs
import torch
from torch import Tensor, nn

from benchmarks.common.training import trained
from energycomp.denoisers import channels_last
from energycomp.errors import InputError
from energycomp.inference import Problem, Solution
from energycomp.models import Model
from energycomp.seeds import as_generator
from energycomp_lab.training import Loss, Recipe, Step, collate
from energycomp_objects.conditioner import Objects
from energycomp_objects.crops import CropOptions, crop_all
from energycomp_objects.loss import LossOptions, proposal_loss
from energycomp_objects.network import PlacedUNet
from energycomp_objects.solver import Propose

PROPOSALS = 560  # channels of the layer behind the trunk: with it the detector has as many weights as the model
CLEAN = (0.0, 1.0)  # timesteps, of which images show no noise
TIMED = 3  # steps


def make_detector(model: Model) -> Model:
    """An untrained detector of the size of a model of placed objects, as a model that `Detect` reads with."""
    config = {**network_of(model).config, "proposals": PROPOSALS, "odds": (0.0, 1.0, 0.0)}
    network = channels_last(PlacedUNet(**config))
    for part in (network.token, network.place, network.blocks, network.out, network.base):
        part.requires_grad_(False)  # of what a description adds, which a detector does not predict
    network.null.requires_grad_(False)
    return attrs.evolve(model, name="detector", denoiser=attrs.evolve(model.denoiser, network=network))


def network_of(model: Model) -> PlacedUNet:
    """The network of a model of placed objects."""
    network = model.denoiser.network
    if not isinstance(network, PlacedUNet):
        raise InputError(f"got the model {model.name!r}; expected one of `energycomp train objects`")
    return network


def detector_recipe(recipe: Recipe, turns: bool) -> Recipe:
    """How a detector is trained: on the photos and with the settings of the recipe of a model, turned likewise."""
    torch.manual_seed(recipe.config.seed)
    model = make_detector(recipe.model)
    conditioner = model.conditioner
    network = network_of(model)
    assert isinstance(conditioner, Objects)  # noqa: S101 - for mypy
    height, width = network.tile
    loss = make_loss(conditioner, (height, width), CropOptions(turns=turns))
    return attrs.evolve(recipe, model=model, module=network, loss=loss)


def make_loss(conditioner: Objects, tile: tuple[int, int], crops: CropOptions) -> Loss:
    """The loss of proposals of crops without noise."""

    def loss(module: nn.Module, batch: dict[str, Tensor], step: Step) -> Tensor:
        assert isinstance(module, PlacedUNet)  # noqa: S101 - for mypy
        images, values, owner = crop_all(
            batch["image"], batch["values"], batch["owner"], tile, conditioner.box, crops, step.generator
        )
        none = torch.zeros(len(images))
        maps = module.propose(module.features(images, none))
        return proposal_loss(maps, values, owner, none + 1, conditioner, LossOptions())

    return loss


def seconds_of_step(recipe: Recipe) -> float:
    """CPU seconds of a step of a recipe, the least of a few."""
    batch = collate([recipe.data[k] for k in range(recipe.config.batch_size)])
    took = []
    for number in range(TIMED):
        start = time.process_time()
        with torch.autocast("cpu", torch.bfloat16):
            loss = recipe.loss(recipe.module, batch, Step(number, TIMED, torch.Generator().manual_seed(number)))
        loss.backward()
        took.append(time.process_time() - start)
        recipe.module.zero_grad()
    return min(took)


def train(recipe: Recipe, out: Path, steps: int) -> Model:
    """The model of a recipe with the averaged weights of a run, which goes on where it was stopped."""
    config = attrs.asdict(attrs.evolve(recipe.config, steps=steps))
    trained(lambda: recipe.module, recipe.loss, recipe.data, out, collate_fn=recipe.collate_fn, **config)
    return recipe.model


@attrs.frozen
class Detect:
    """The solver of a detector: objects whose odds are above 1, each with its probability, and counts of them all."""

    needs: ClassVar[str] = "continuous"

    def solve(self, problem: Problem, *, generator: int | torch.Generator | None = None) -> Solution:
        """Costs one trunk."""
        network = problem.denoiser.network
        conditioner = problem.conditioner
        assert isinstance(network, PlacedUNet)  # noqa: S101 - for mypy
        assert isinstance(conditioner, Objects)  # noqa: S101 - for mypy
        with torch.no_grad():
            proposals = Propose(views=1, timesteps=CLEAN).propose(problem, network, as_generator(generator))
        odds = torch.tensor([network.log_odds(logit, 0.0) for logit in proposals.logits.tolist()])
        probability = odds.sigmoid()
        chosen = odds > 0
        words = next(iter(conditioner.attributes.values()), ())
        return Solution(
            conditions=proposals.values[chosen],
            count=int(chosen.sum()),
            error=0.0,
            stderr=0.0,
            rows=0,
            trace=proposals.trace(probability, [0.0] * len(odds), conditioner.length, spread=network.spread),
            counts=proposals.count(probability, words, spread=network.spread),
            probability=probability[chosen],
            posteriors=tuple(each[chosen] for each in proposals.words),
        )
