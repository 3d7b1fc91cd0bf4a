"""The baselines of reading labels: a generative classifier and a ResNet."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from torch import Tensor, nn
from torch.nn import functional

from benchmarks.baselines.label_sets import label_sets, set_loss
from benchmarks.baselines.resnet import ResNet
from benchmarks.baselines.training import QUICK, Baseline
from energycomp import Model
from energycomp_datasets.faces.avatars import ATTRIBUTES
from energycomp_faces.model import faces as untrained
from energycomp_faces.recipe import faces
from energycomp_lab.training import Recipe, Step, augment

__all__ = ["LABELS", "recipe"]

CONTRAST = 0.05  # as of our own model


def denoising(module: nn.Module, batch: dict[str, Tensor], step: Step) -> Tensor:
    """The first part of training: the denoising error."""
    loss: Tensor = set_loss(_untrained(), 0.0)(module, batch, step)
    return loss


def contrasting(module: nn.Module, batch: dict[str, Tensor], step: Step) -> Tensor:
    """The second part: with the likelihood of each label."""
    loss: Tensor = set_loss(_untrained(), CONTRAST)(module, batch, step)
    return loss


def likelihood(module: nn.Module, batch: dict[str, Tensor], step: Step) -> Tensor:
    """-log p of all labels of a picture."""
    found = module(augment(batch["image"], step.generator)[0])
    return functional.binary_cross_entropy(found.float(), (batch["values"] % 2).float())


@cache
def _untrained() -> Model:
    return label_sets(untrained(pretrained=False))


def _network() -> nn.Module:
    network: nn.Module = label_sets(untrained(pretrained=False)).denoiser.network
    return network


LABELS = {
    "classifier_denoising": Baseline(_network, denoising, {"steps": 4500}, (0,)),
    "classifier": Baseline(
        _network, contrasting, {"steps": 1500, "learning_rate": 5e-4}, (0,), start="classifier_denoising"
    ),
    "resnet": Baseline(lambda: ResNet((len(ATTRIBUTES),)), likelihood, {"steps": 4000, **QUICK}, (0, 1, 2)),
}


def recipe(cache: Path) -> Recipe:
    """The recipe of our own model; the faces are drawn once under `cache`."""
    return faces(data=None, init=None, preset="default", cache=cache)
