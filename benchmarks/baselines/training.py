"""How the baselines are trained: on the pictures and augmentation of our own recipe, and fit by the same loop."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from baselines.compound import compound, set_condition
from baselines.padding import matched_error, padded
from baselines.resnet import ResNet
from baselines.slot_attention import SlotAttention
from energycomp import Model, fit
from energycomp.recipe import Recipe, denoising_loss
from energycomp.storage import atomic_file, read_tensors, write_tensors
from energycomp_clevr.model import clevr as untrained
from energycomp_clevr.recipe import augment, clevr

__all__ = ["BASELINES", "Baseline", "recipe", "train"]

Loss = Callable[[nn.Module, dict[str, Tensor], torch.Generator], Tensor]


@attrs.frozen
class Baseline:
    """A network to train.

    Args:
        build: makes it untrained, from torch's own random numbers.
        loss: as `fit` takes it.
        settings: of `fit`, where they are not those of our own recipe.
        seeds: one training run each.
    """

    build: Callable[[], nn.Module]
    loss: Loss
    settings: dict[str, Any]
    seeds: tuple[int, ...]

    def network(self, seed: int) -> nn.Module:
        """The untrained network of a seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.build().to(memory_format=torch.channels_last)

    def trained(self, file: Path, seed: int) -> nn.Module:
        """The network with the weights of a file, in eval mode."""
        network = self.network(seed)
        network.load_state_dict(read_tensors(file))
        return network.eval()


def compound_loss(module: nn.Module, batch: dict[str, Tensor], generator: torch.Generator) -> Tensor:
    """The denoising error under all places of a picture, one row each."""
    images, values = augment(batch, generator)
    rows = set_condition(values, batch["owner"], len(images))
    owner = torch.arange(len(images))
    return denoising_loss(_untrained().denoiser, images, rows, owner, module=module, generator=generator)


def padded_loss(module: nn.Module, batch: dict[str, Tensor], generator: torch.Generator) -> Tensor:
    """The matched squared error of padded places."""
    images, values = augment(batch, generator)
    return matched_error(module(images, generator), padded(values, batch["owner"], len(images)))


QUICK = {"learning_rate": 1e-3, "max_grad_norm": 0.3}  # twice the rate taught Slot Attention less, or nothing
BASELINES = {
    "compound": Baseline(
        lambda: compound(untrained(pretrained=False)).denoiser.network, compound_loss, {"steps": 8000}, (0,)
    ),
    "resnet": Baseline(ResNet, padded_loss, {"steps": 4000, **QUICK}, (0, 1, 2)),
    "slot_attention": Baseline(SlotAttention, padded_loss, {"steps": 8000, **QUICK}, (0, 1, 2)),
}


def recipe(cache: Path) -> Recipe:
    """The recipe of our own model, whose scenes and settings are taken; the scenes are rendered once under `cache`."""
    return clevr(data=None, init=None, preset="default", cache=cache)


def train(name: str, seed: int, folder: Path, ours: Recipe, **settings: Any) -> Path:
    """Trains a baseline, or goes on where it was stopped; the averaged weights are folder/NAME-SEED.safetensors."""
    target = folder / f"{name}-{seed}.safetensors"
    if target.is_file():
        return target
    baseline, run = BASELINES[name], ours.fit
    network = baseline.network(seed)
    scenes = run.args[2]  # type: ignore[attr-defined] - a partial of fit(module, loss, data)
    chosen = {**run.keywords, "steps": ours.steps, **baseline.settings, **settings}  # type: ignore[attr-defined]
    result = fit(network, baseline.loss, scenes, out=folder / f"{name}-{seed}", seed=seed, **chosen)
    with atomic_file(target) as temporary:
        write_tensors(temporary, result.ema_state)
    return target


@cache
def _untrained() -> Model:
    return compound(untrained(pretrained=False))
