"""Train baselines on the images and augmentation of the recipe of the model, with the same `fit`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import nn

from energycomp.errors import InputError
from energycomp.files import atomic_file, read_tensors, write_tensors
from energycomp_lab.training import Loss, Recipe, fit

QUICK = {"learning_rate": 1e-3, "max_grad_norm": 0.3}  # twice the rate taught Slot Attention less, or nothing


@attrs.frozen
class Baseline:
    """A network to train.

    Args:
        build: makes it untrained, from torch's own random numbers.
        loss: as `fit` takes it.
        settings: fields of `FitConfig`, where they are not those of our own recipe.
        seeds: one training run each.
        start: name of the baseline, trained before, whose weights it starts from.
    """

    build: Callable[[], nn.Module]
    loss: Loss
    settings: dict[str, Any]
    seeds: tuple[int, ...]
    start: str | None = None

    def network(self, seed: int) -> nn.Module:
        """The untrained network of a seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.build().to(memory_format=torch.channels_last)

    def trained(self, name: str, folder: Path, seed: int) -> nn.Module:
        """The network with the weights that `train` left, in eval mode."""
        file = weights_of(folder, name, seed)
        if not file.is_file():
            raise InputError(f"got no {file}; expected the weights of {name}, seed {seed}; train it: --train")
        network = self.network(seed)
        network.load_state_dict(read_tensors(file))
        return network.eval()


def weights_of(folder: Path, name: str, seed: int) -> Path:
    """Where the weights of a baseline are kept."""
    return folder / f"{name}-{seed}.safetensors"


def train_all(baselines: Mapping[str, Baseline], chosen: Sequence[str], folder: Path, ours: Recipe) -> None:
    """Trains each seed of the chosen baselines, and of those that they start from, or goes on where it was stopped.

    The averaged weights are FOLDER/NAME-SEED.safetensors.

    Args:
        ours: the recipe of our own model, whose images and settings are taken.
    """
    starts = {baselines[name].start for name in chosen if name in baselines}
    for name, baseline in baselines.items():
        for seed in baseline.seeds if name in {*chosen, *starts} else ():
            _train(name, baseline, seed, folder, ours)


def _train(name: str, baseline: Baseline, seed: int, folder: Path, ours: Recipe) -> None:
    target, out = weights_of(folder, name, seed), folder / f"{name}-{seed}"
    if not target.is_file():
        network = baseline.network(seed)
        if baseline.start:
            network.load_state_dict(read_tensors(weights_of(folder, baseline.start, seed)))
        config = attrs.evolve(ours.config, **{**baseline.settings, "seed": seed})
        result = fit(network, baseline.loss, ours.data, config, out=out, collate_fn=ours.collate_fn)
        with atomic_file(target) as temporary:
            write_tensors(temporary, result.ema_state)
