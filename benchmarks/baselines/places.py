"""The baselines of finding objects: a generative classifier, a ResNet and Slot Attention that put out places."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.baselines.compound import compound, set_condition
from benchmarks.baselines.padding import OUTPUTS, matched_error, padded
from benchmarks.baselines.resnet import ResNet
from benchmarks.baselines.slot_attention import SlotAttention
from benchmarks.baselines.training import QUICK, Baseline
from energycomp import Model
from energycomp_clevr.model import clevr_places as untrained
from energycomp_clevr.recipe import augment, clevr_places
from energycomp_lab.training import Recipe, Step, denoising_loss

__all__ = ["PLACES", "recipe"]


def compound_loss(module: nn.Module, batch: dict[str, Tensor], step: Step) -> Tensor:
    """The denoising error under all places of a picture, one row each."""
    images, values = augment(batch, step.generator)
    rows = set_condition(values, batch["owner"], len(images))
    owner = torch.arange(len(images))
    return denoising_loss(_untrained().denoiser, images, rows, owner, module=module, generator=step.generator)


def padded_loss(module: nn.Module, batch: dict[str, Tensor], step: Step) -> Tensor:
    """The matched squared error of padded places."""
    images, values = augment(batch, step.generator)
    return matched_error(module(images, step.generator), padded(values, batch["owner"], len(images)))


PLACES = {
    "compound": Baseline(
        lambda: compound(untrained(pretrained=False)).denoiser.network, compound_loss, {"steps": 8000}, (0,)
    ),
    "resnet": Baseline(lambda: ResNet((OUTPUTS, 2)), padded_loss, {"steps": 4000, **QUICK}, (0, 1, 2)),
    "slot_attention": Baseline(SlotAttention, padded_loss, {"steps": 8000, **QUICK}, (0, 1, 2)),
}


def recipe(cache: Path) -> Recipe:
    """The recipe of our own model; the scenes are rendered once under `cache`."""
    return clevr_places(data=None, init=None, preset="default", cache=cache)


@cache
def _untrained() -> Model:
    return compound(untrained(pretrained=False))
