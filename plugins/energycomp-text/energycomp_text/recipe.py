"""How the small text-to-image model is trained: pictures, captions that name some of what they show, and settings."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, StackDataset

from energycomp.errors import InputError
from energycomp.images import to_bytes
from energycomp.models import Model
from energycomp.progress import progress
from energycomp_datasets.pictures import make_once
from energycomp_datasets.solids.solids import CONCEPTS, caption, picture, seen_pairs, seen_triples
from energycomp_datasets.solids.source import read
from energycomp_lab.training import (
    FitConfig,
    Loss,
    Recipe,
    Step,
    augment,
    contrastive_loss,
    denoising_loss,
    option_number,
    start,
)
from energycomp_text.model import small
from energycomp_text.rivals import Concepts
from energycomp_text.text import Text

DRAWN = 20_000
ALONE = 0.2  # share of training pictures with one object
BOTH = 0.2  # share of captions of several objects that name them all
EMPTY = 0.15  # share of captions that are left out
BETA = 2.0  # inverse temperature of the contrastive loss
# What a picture shows matters where the noise hides it: noisy timesteps come often and weigh much.
NOISY: dict[str, Any] = {"gamma": 1.0, "floor": 0.5}
TIMESTEP_POWER = 0.5


def scene(index: int, seed: int = 0, *, alone: float = ALONE, three: float = 0.0) -> tuple[list[str], Tensor]:
    """The concepts of picture `index`, and the picture (3, H, W); shares of pictures show one object, or three."""
    rng = np.random.default_rng([seed, index])
    drawn = float(rng.random())
    sets: tuple[tuple[str, ...], ...] = seen_pairs()
    if drawn < alone:
        sets = tuple((name,) for name in CONCEPTS)
    elif drawn >= 1 - three:
        sets = seen_triples()
    names = list(sets[int(rng.integers(len(sets)))])
    return names, picture(names, rng)


def captions(
    concepts: Tensor, names: tuple[str, ...], generator: torch.Generator, *, both: float = BOTH
) -> list[str | None]:
    """A caption for each picture: all that it shows, in any order, or one thing, or None.

    Captions of pictures say what is in them and seldom everything.

    Args:
        concepts: (B, K) indices into `names`, -1 for none.
        both: the share of captions of several objects that name them all.
    """
    drawn = torch.rand(len(concepts), 3, generator=generator).tolist()
    made: list[str | None] = []
    for shown, (empty, named, order) in zip(concepts.tolist(), drawn, strict=True):
        known = [names[index] for index in shown if index >= 0]
        turn = int((1 - order) * len(known)) % max(len(known), 1)
        ordered = known[turn:] + known[:turn]
        made.append(None if empty < EMPTY else caption(ordered if named < both else ordered[:1]))
    return made


def text(
    *,
    data: Path | None,
    init: Model | None,
    preset: str,
    cache: Path,
    alone: float | str = ALONE,
    three: float | str = 0.0,
    both: float | str = BOTH,
    composed: float | str = 0.0,
    contrast: float | str = 0.0,
    timestep_power: float | str = TIMESTEP_POWER,
    **options: Any,
) -> Recipe:
    """The recipe of the shipped weights.

    Args:
        data: a folder as `energycomp data text` writes it; drawn pictures when left out, made once, kept in `cache`.
        alone: the share of drawn pictures with one object.
        three: the share of drawn pictures with three objects, of which every pair is one that others show.
        both: the share of captions of several objects that name them all.
        composed: the share of pictures whose concepts are composed, one caption each, in place of one caption. Where
            it is not 0, the model samples with weights of 1, as it is trained, and not of 3.
        contrast: weight of the contrastive loss of these; 0 leaves it out.
        timestep_power: timesteps are drawn as T U^power: 0.5 prefers noise, 1 is uniform.
        options: of the model: `encoder`, "words" or "minilm".
    """
    if preset != "default":
        raise InputError(f"got preset {preset!r}; expected 'default'")
    if options.keys() - {"encoder"} or (options and init is not None):
        where = " with a model to start from" if init is not None else ""
        raise InputError(f"got the option {min(options)!r}{where}; expected encoder, for a new model, or none")
    shares = {"alone": alone, "three": three, "both": both, "composed": composed}
    mix = {name: option_number(name, given, most=1.0) for name, given in shares.items()}
    if mix["alone"] + mix["three"] > 1 + 1e-9:
        raise InputError(
            f"got alone={mix['alone']:g} and three={mix['three']:g}; expected shares that add up to 1 at most"
        )
    weight, power = option_number("contrast", contrast), option_number("timestep_power", timestep_power)
    model = start(init, partial(small, **options))
    if mix["composed"]:
        model = attrs.evolve(model, defaults=attrs.evolve(model.defaults, guidance_scale=1.0))
    conditioner = model.conditioner
    if not isinstance(conditioner, Text):
        raise InputError(f"got a model conditioned on {conditioner}; expected one on text")
    if conditioner.module is not None:
        conditioner.module.requires_grad_(requires_grad=True)
    pictures, concepts, names = (
        _draw_pictures(cache, mix["alone"], mix["three"]) if data is None else _read_pictures(data, model)
    )
    config = FitConfig(
        steps=10_000, batch_size=32, learning_rate=1e-3, warmup_fraction=0.1, max_grad_norm=0.5, mixed_precision="bf16"
    )
    known = Concepts.of(concepts, names)
    loss = _loss(model, known, both=mix["both"], composed=mix["composed"], contrast=weight, timestep_power=power)
    data_set: Dataset[dict[str, Tensor]] = StackDataset(image=pictures, concepts=concepts)  # type: ignore[arg-type]
    return Recipe(model=model, module=model.trained, loss=loss, data=data_set, config=config)


def _loss(
    model: Model, known: Concepts, *, both: float, composed: float, contrast: float, timestep_power: float
) -> Loss:
    denoiser = model.denoiser
    conditioner = model.conditioner

    def loss(module: torch.nn.Module, batch: dict[str, Tensor], step: Step) -> Tensor:
        generator = step.generator
        images, _ = augment(batch["image"], generator, tint=0.0)
        shown = batch["concepts"].cpu()
        said: list[list[str]] = [
            [] if one is None else [one] for one in captions(shown, known.names, generator, both=both)
        ]
        whole = torch.rand(len(images), generator=generator) < composed
        shown[~whole] = -1
        for image in whole.nonzero()[:, 0].tolist():
            said[image] = [caption([known.names[index]]) for index in shown[image].tolist() if index >= 0]
        of_row = torch.tensor([image for image, lines in enumerate(said) for _ in lines], dtype=torch.long)
        values = [torch.empty(0, *conditioner.value_shape, dtype=torch.long)]
        values += [conditioner.parse(line) for lines in said for line in lines]
        condition = conditioner(torch.cat(values).to(images.device))
        owner = of_row.to(images.device)
        network = module["network"] if isinstance(module, torch.nn.ModuleDict) else module
        settings = {"module": network, "generator": generator, "timestep_power": timestep_power, **NOISY}
        if not contrast:
            return denoising_loss(denoiser, images, condition, owner, **settings)
        rows = torch.full_like(shown, -1)
        rows[shown >= 0] = whole[of_row].nonzero()[:, 0]
        rivals = known.rivals(shown, rows, conditioner, generator, device=images.device)
        return contrastive_loss(denoiser, images, condition, owner, rivals, weight=contrast, beta=BETA, **settings)

    return loss


def _draw_pictures(cache: Path, alone: float, three: float) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    """The training pictures of seed 0, drawn once to disk."""

    def draw() -> dict[str, Tensor]:
        images = torch.empty(DRAWN, 3, 64, 64, dtype=torch.uint8)
        concepts = torch.full((DRAWN, 3 if three else 2), -1)
        for index in progress(range(DRAWN), f"drawing {DRAWN:,} pictures"):
            names, image = scene(index, alone=alone, three=three)
            images[index] = to_bytes(image)
            concepts[index, : len(names)] = torch.tensor([CONCEPTS.index(name) for name in names])
        return {"images": images, "concepts": concepts}

    tensors = make_once(cache / f"text-world-{alone:g}{f'-{three:g}' if three else ''}.safetensors", draw)
    return tensors["images"], tensors["concepts"], CONCEPTS


def _read_pictures(folder: Path, model: Model) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    """The pictures of one or two concepts of a folder, at the model's size, in memory."""
    records = [record for record in read(str(folder)) if len(record.concepts) <= 2]
    if not records:
        raise InputError(f"got {folder} without pictures of one or two concepts; expected some to train on")
    names = tuple(dict.fromkeys(name for record in records for name in record.concepts))
    images = [to_bytes(model.processor(record.path)[0]) for record in progress(records, "reading")]
    concepts = torch.full((len(records), 2), -1)
    for row, record in enumerate(records):
        concepts[row, : len(record.concepts)] = torch.tensor([names.index(name) for name in record.concepts])
    return torch.stack(images), concepts, names
