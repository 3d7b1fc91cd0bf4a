"""The baselines of reading labels: a generative classifier (Li et al., 2023) and a ResNet."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor, nn
from torch.distributions import constraints
from torch.nn import functional

from benchmarks.baselines.networks import ResNet
from benchmarks.baselines.training import QUICK, Baseline
from energycomp import Model
from energycomp.components import Condition
from energycomp.denoisers import rows
from energycomp.errors import InputError
from energycomp_datasets.faces.avatars import ATTRIBUTES
from energycomp_faces.contrast import label_loss, snr_of
from energycomp_faces.labels import BINARY
from energycomp_faces.model import faces as untrained
from energycomp_faces.recipe import faces, subsets
from energycomp_lab.training import Loss, Recipe, Step, augment, denoising_loss
from energycomp_lab.training.loss import make_trunk

OPEN = -1  # of an attribute that is not stated
CONTRAST = 0.05  # as of our own model


@attrs.frozen
class LabelSets:
    """Sets of labels: a value is (A,) of 0 (no), 1 (yes) and OPEN; its one token has a place for each label.

    Args:
        attributes: their names.
        asked: those that `enumerate_support` states, each way; the others stay open.

    >>> sets = LabelSets(("smiling", "beard"), ("beard",))
    >>> sets.enumerate_support().tolist()
    [[-1, 0], [-1, 1]]
    >>> sets(sets.enumerate_support()).rows[:, 0].tolist()
    [[0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]]
    """

    attributes: tuple[str, ...]
    asked: tuple[str, ...] = ()

    @property
    def token_shape(self) -> tuple[int, int]:
        """One token with a place for each label."""
        return (1, len(BINARY) * len(self.attributes))

    @property
    def value_shape(self) -> tuple[int, ...]:
        """(A,)."""
        return (len(self.attributes),)

    @property
    def support(self) -> constraints.Constraint:
        """-1, 0 or 1 of each attribute."""
        return constraints.independent(constraints.integer_interval(OPEN, 1), 1)

    def enumerate_support(self) -> Tensor:
        """All answers for the asked attributes (2^asked, A)."""
        ways = [(0, 1) if name in self.asked else (OPEN,) for name in self.attributes]
        return torch.tensor(list(product(*ways)))

    def parse(self, **labels: bool) -> Tensor:
        """`smiling=True, ...` as a value (1, A)."""
        if unknown := labels.keys() - set(self.attributes):
            raise InputError(f"got the attribute {min(unknown)!r}; expected one of {', '.join(self.attributes)}")
        return torch.tensor([[int(labels.get(name, OPEN)) for name in self.attributes]])

    def describe(self, value: Tensor) -> dict[str, bool]:
        """What a value states."""
        return {name: bool(v) for name, v in zip(self.attributes, value.tolist(), strict=True) if v != OPEN}

    def config(self) -> dict[str, Any]:
        """Arguments of the constructor."""
        return {"attributes": list(self.attributes), "asked": list(self.asked)}

    def __call__(self, values: Tensor) -> Condition:
        """Values (R, A) as rows (R, 1, 2 A); nothing stated is the null row."""
        tokens = torch.stack([values == label for label in range(len(BINARY))], dim=2).flatten(1).float()
        return Condition(tokens[:, None], ~tokens.any(1))


def label_sets(model: Model, asked: Sequence[str] = ()) -> Model:
    """An untrained generative classifier, otherwise like a model of labels. `infer` takes count=1."""
    sets = LabelSets(tuple(model.conditioner.attributes), tuple(asked))  # type: ignore[attr-defined]
    return attrs.evolve(model, name="label_sets", conditioner=sets, conditioner_name="label_sets")


def set_loss(model: Model, contrast: float, beta: float = 0.25) -> Any:
    """The loss of our own recipe, with all stated labels of a picture in one row.

    Args:
        model: a model of `label_sets`.
        contrast: weight of the likelihood of each stated label given the others; 0 leaves it out.
        beta: inverse temperature of one draw.
    """
    sets = model.conditioner

    def loss(module: nn.Module, batch: dict[str, Tensor], step: Step) -> Tensor:
        generator, size = step.generator, len(batch["image"])
        samples, _ = augment(batch["image"], generator)
        labels, owner = subsets(batch["values"], generator)
        values = torch.full((size, *sets.value_shape), OPEN)
        values[owner, labels // 2] = labels % 2
        if contrast:
            denoiser = attrs.evolve(model.denoiser, network=module)
            flipped = values[owner].scatter(1, (labels // 2)[:, None], 1 - (labels % 2)[:, None])
            features, _, timestep = make_trunk(denoiser, samples, None, 0.5, generator)
            condition, owners = Condition.cat([sets(values), sets(flipped)]), torch.cat([torch.arange(size), owner])
            # a row for each sample and one for each stated label
            predicted, other = rows(denoiser, features, condition, owners).split([size, len(owner)])
            gap = other - predicted[owner]
            snr = snr_of(denoiser, timestep)
            return label_loss(samples - predicted, gap, owner, snr, weight=contrast, beta=beta)
        settings: dict[str, Any] = {"gamma": 1.0, "floor": 0.5, "timestep_power": 0.5}
        return denoising_loss(
            model.denoiser, samples, sets(values), torch.arange(size), module=module, generator=generator, **settings
        )

    return loss


def loss_of(contrast: float) -> Loss:
    """The denoising error in the first part of training, with the likelihood of each label in the second."""

    def loss(module: nn.Module, batch: dict[str, Tensor], step: Step) -> Any:
        return set_loss(_untrained(), contrast)(module, batch, step)

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
    "classifier_denoising": Baseline(_network, loss_of(0.0), {"steps": 4500}, (0,)),
    "classifier": Baseline(
        _network, loss_of(CONTRAST), {"steps": 1500, "learning_rate": 5e-4}, (0,), start="classifier_denoising"
    ),
    "resnet": Baseline(lambda: ResNet((len(ATTRIBUTES),)), likelihood, {"steps": 4000, **QUICK}, (0, 1, 2)),
}


def recipe(cache: Path) -> Recipe:
    """The recipe of our own model; the faces are drawn once under `cache`."""
    return faces(data=None, init=None, preset="default", cache=cache)
