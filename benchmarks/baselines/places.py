"""The baselines of finding objects: a generative classifier, a ResNet and Slot Attention that put out places."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor, nn
from torch.distributions import constraints

from benchmarks.baselines.networks import OUTPUTS, ResNet, SlotAttention, matched_error, padded
from benchmarks.baselines.training import QUICK, Baseline
from energycomp import Model
from energycomp.components import Condition
from energycomp.denoisers import TwoStageUNet, configured, place_maps
from energycomp.errors import InputError
from energycomp_clevr.model import clevr_places as untrained
from energycomp_clevr.recipe import augment, clevr_places
from energycomp_lab.training import Recipe, Step, denoising_loss

MOST = 10  # places that a row holds; training sees at most 5


@attrs.frozen
class PlaceSet:
    """Sets of `count` places: one value is (count, 2), one row MOST tokens (x, y, whether there is one).

    >>> PlaceSet(2)(torch.rand(3, 2, 2)).shape
    (10, 3)
    """

    count: int = attrs.field(default=1, validator=[attrs.validators.ge(0), attrs.validators.le(MOST)])
    token_shape: tuple[int, int] = (MOST, 3)

    @property
    def value_shape(self) -> tuple[int, ...]:
        """(count, 2)."""
        return (self.count, 2)

    @property
    def support(self) -> constraints.Constraint:
        """The unit square for each place."""
        return constraints.independent(constraints.unit_interval, 2)

    def parse(self, *places: tuple[float, float]) -> Tensor:
        """`(x, y), (x, y), ...` as a value (1, count, 2)."""
        value = torch.tensor(places, dtype=torch.float32).reshape(1, -1, 2)
        if value.shape[1] != self.count or not bool(self.support.check(value).all()):
            raise InputError(f"got places {places!r}; expected {self.count} pairs in [0, 1]; divide by the image size")
        return value

    def describe(self, value: Tensor) -> list[list[float]]:
        """The pairs."""
        pairs: list[list[float]] = value.tolist()
        return pairs

    def config(self) -> dict[str, Any]:
        """The count."""
        return {"count": self.count}

    def __call__(self, values: Tensor) -> Condition:
        """Sets (R, count, 2) as condition rows (R, MOST, 3)."""
        if tuple(values.shape[1:]) != self.value_shape:
            raise InputError(f"got sets of shape {tuple(values.shape)}; expected (R, {self.count}, 2); stack the pairs")
        owner = torch.arange(len(values), device=values.device).repeat_interleave(self.count)
        return set_condition(values.flatten(0, 1), owner, len(values))


def set_condition(values: Tensor, owner: Tensor, batch: int) -> Condition:
    """Flat places (R, 2) of the pictures owner (R,), in ascending order, as one row a picture (batch, MOST, 3)."""
    count = torch.bincount(owner, minlength=batch)
    if len(count) and int(count.max()) > MOST:
        raise InputError(f"got {int(count.max())} places of one picture; expected at most {MOST}")
    rank = torch.arange(len(owner), device=owner.device) - (count.cumsum(0) - count)[owner]
    rows = values.new_zeros(batch, MOST, 3)
    tokens = torch.cat([values, torch.ones_like(values[:, :1])], dim=1)
    return Condition(rows.index_put((owner, rank), tokens))


@configured
class SetUNet(nn.Module):
    """The trunk and head of a `TwoStageUNet`, with one head row for all places of a picture.

    The head sees the sum of the places' Gaussian bumps. Embeddings and offsets are averaged: a sum over more places
    than training had would leave the range that training saw.

    >>> net = SetUNet(sample_size=16, channels=(8, 16), head_channels=8)
    >>> features = net.features(torch.zeros(1, 3, 16, 16), torch.tensor([10.0]))
    >>> net.head(features, PlaceSet(4)(torch.rand(2, 4, 2)), torch.tensor([0, 0])).shape
    torch.Size([2, 3, 16, 16])
    """

    def __init__(self, **config: Any) -> None:
        super().__init__()
        self.unet = TwoStageUNet(**config)

    def features(self, sample: Tensor, timestep: Tensor) -> tuple[Tensor, ...]:
        """The trunk, as of the network inside."""
        return self.unet.features(sample, timestep)

    def head(self, features: tuple[Tensor, ...], condition: Condition, owner: Tensor) -> Tensor:
        """Predictions (R, C, H, W): the shared part of the owner plus what this set of places adds."""
        (shared, base, time), net = features, self.unet
        present = condition.rows[..., 2] * ~condition.null[:, None]  # (R, MOST)
        places, total = condition.rows[..., :2], present.sum(1)
        share = present / total[:, None].clamp(min=1)
        tokens = (net.token(places).to(places.dtype) * share[..., None]).sum(1)
        embedding = torch.where(total[:, None] == 0, net.null.to(tokens.dtype), tokens) + time[owner]
        h = shared[owner]
        maps = place_maps(places.flatten(0, 1), h.shape[-2:], net.bump_widths).unflatten(0, present.shape)
        offsets, bumps = maps.split([3, len(net.bump_widths)], dim=2)  # (R, MOST, 3 or bumps, h, w)
        seen = [(m * w[..., None, None, None]).sum(1) for m, w in ((offsets, share), (bumps, present))]
        h = h + net.place(torch.cat(seen, dim=1).contiguous(memory_format=torch.channels_last))
        h = net.blocks(h, embedding)
        return base[owner] + torch.nn.functional.pixel_shuffle(net.out(h), net.patch)


def compound(model: Model, count: int = 1) -> Model:
    """An untrained generative classifier, otherwise like a model of a `TwoStageUNet`, that reads `count` places.

    Its one value is the set of all places: `infer` takes count=1.
    """
    network = SetUNet(**model.denoiser.network.config).to(memory_format=torch.channels_last)
    denoiser = attrs.evolve(model.denoiser, network=network, token_shape=(MOST, 3), rule="product")
    return attrs.evolve(
        model,
        name="compound",
        denoiser=denoiser,
        conditioner=PlaceSet(count),
        network_name="set_unet",
        conditioner_name="place_set",
    )


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
