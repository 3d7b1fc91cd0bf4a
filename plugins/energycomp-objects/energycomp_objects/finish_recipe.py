"""`energycomp train objects-finish`: the network of a model of marked photos learns to finish its pictures."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from energycomp.errors import InputError
from energycomp.files import fingerprint
from energycomp.images import from_bytes, to_bytes
from energycomp.models import Model
from energycomp.progress import progress
from energycomp.sampling import FOLD
from energycomp_datasets.pictures import make_once
from energycomp_lab.training import (
    Critic,
    Finishing,
    Pairs,
    Recipe,
    Step,
    bend,
    check_critic,
    collate,
    draw_again,
    exposed,
    finish_config,
    finish_loss,
    option_number,
)
from energycomp_objects.conditioner import Objects
from energycomp_objects.crops import CropOptions, crop_all, turned
from energycomp_objects.finish import drawing
from energycomp_objects.network import PlacedUNet
from energycomp_objects.photos import choose_photos
from energycomp_objects.recipe import read_flag, read_scene

NOISED = ((250.0, 650.0), (650.0, 1000.0))  # timesteps from which crops are drawn again, in turn
TOGETHER = 20  # crops in a file of the cache
CROP = 96  # pixels
OPEN = 0.1  # how often words, or sizes, are not said
TINT = 0.05  # how much lighter or darker, and of other colours, crops are


def objects_finish(
    *,
    data: Path | None,
    init: Model | None,
    preset: str,
    cache: Path,
    format: str | None = None,  # noqa: A002 - as of `read_marks`
    turns: bool | str = False,
    mirror: bool | str = True,
    kept: int | str | None = None,
    draws: int | str = 3,
    critic: float | str = 0.3,
) -> Recipe:
    """The recipe of sharp samples of a model of marked photos. It does not change how the model reads.

    Args:
        data, format, turns, mirror, kept: as of `energycomp train objects`; photos that are kept back are not used.
        init: the model.
        draws: rough pictures of each photo, which are drawn once (2 s each for 14 cells).
        critic: share of the run after which a critic of patches counts.

    Raises:
        InputError: no photos, no model, another model, or a share that is none.
    """
    if preset != "default":
        raise InputError(f"got preset {preset!r}; expected 'default'")
    if data is None or init is None:
        raise InputError(
            "got no data or no model; expected the photos and the model that `energycomp train objects` made of them; "
            "pass --data FOLDER --init MODEL"
        )
    network, conditioner = init.denoiser.network, init.conditioner
    if not isinstance(network, PlacedUNet) or not isinstance(conditioner, Objects):
        raise InputError(f"got the model {init.name}; expected one of `energycomp train objects`")
    share, count = option_number("critic", critic), round(option_number("draws", draws))
    check_critic(share)
    if count < 1:
        raise InputError(f"got draws={count}; expected one at least")
    options = CropOptions(turns=read_flag("turns", turns), mirror=read_flag("mirror", mirror))
    back = None if kept is None else round(option_number("kept", kept))
    photos = choose_photos(data, format, schema=conditioner.attributes, kept=back).train
    scenes = [read_scene(photo, conditioner, init.processor.size) for photo in progress(list(photos), "reading photos")]
    pairs = pairs_of(scenes * count, init, options, cache)
    edges = network.begin()
    made = Finishing(init, edges, Critic(edges.maps))
    judged = partial(_loss, conditioner=conditioner, options=options, critic=share)
    return Recipe(
        model=made, module=made.trained, loss=judged, data=pairs, config=finish_config(), collate_fn=_together,
        can_sample=False,
    )  # fmt: skip


def pairs_of(
    scenes: Sequence[dict[str, Any]], model: Model, options: CropOptions, cache: Path
) -> list[dict[str, Tensor]]:
    """A crop of each photo and a rough picture of it (3, H, W), uint8, its objects (K, V), and how alike they are."""
    network: Any = model.denoiser.network
    conditioner: Any = model.conditioner
    height, width = network.tile
    denoiser = attrs.evolve(model.denoiser, sample_shape=(3, height, width))
    drawn_by = attrs.evolve(model, denoiser=denoiser, processor=attrs.evolve(model.processor, size=(height, width)))
    weights = network.state_dict()
    drawer = fingerprint({name: weights[name] for name in weights if not name.startswith("edges.")})
    names = sha256(b"".join(scene["image"].numpy().tobytes() for scene in scenes)).hexdigest()
    folder = cache / f"objects-rough-{sha256(f'{drawer}{names}{options}'.encode()).hexdigest()[:16]}"
    plain = attrs.evolve(options, exposure=0.0, tint=0.0)

    def draw(first: int) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(1000 + first)
        crops, described, owner, rough, alike = [], [], [], [], []
        for number, scene in enumerate(scenes[first : first + TOGETHER]):
            single = torch.zeros(len(scene["values"]), dtype=torch.long)
            crop, values, _ = crop_all(
                scene["image"][None], scene["values"], single, (height, width), conditioner.box, plain, generator
            )
            low, high = NOISED[(first + number) % len(NOISED)]
            start = low + (high - low) * float(torch.rand((), generator=generator))
            picture, share = draw_again(drawn_by, drawn_by.compose(values), crop, start, generator)
            crops.append(to_bytes(crop))
            rough.append(to_bytes(picture.clamp(-1, 1)))
            alike.append(share)
            described.append(values)
            owner += [number] * len(values)
        return {
            "pictures": torch.cat(crops), "rough": torch.cat(rough), "alike": torch.tensor(alike),
            "values": torch.cat(described), "owner": torch.tensor(owner, dtype=torch.long),
        }  # fmt: skip

    pairs = []
    for first in progress(range(0, len(scenes), TOGETHER), "drawing rough pictures"):
        kept = make_once(folder / f"{first // TOGETHER:04d}.safetensors", partial(draw, first))
        for number, (picture, rough, alike) in enumerate(
            zip(kept["pictures"], kept["rough"], kept["alike"], strict=True)
        ):
            values = kept["values"][kept["owner"] == number]
            pairs.append({"image": torch.cat([picture, rough]), "values": values, "alike": alike})
    return pairs


def _together(items: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {**collate(items), "alike": torch.stack([item["alike"] for item in items])}


def _loss(
    module: nn.Module,
    batch: dict[str, Tensor],
    step: Step,
    *,
    conditioner: Objects,
    options: CropOptions,
    critic: float,
) -> Tensor:
    generator = step.generator
    rows, columns = (min(CROP, side) for side in batch["image"].shape[2:])
    both, maps = [], []
    for index, image in enumerate(batch["image"]):
        pair, values = turned(
            from_bytes(image), batch["values"][batch["owner"] == index], conditioner.box, options, generator
        )
        # Say less of some objects
        opened = torch.rand(len(values), 2, generator=generator) < OPEN
        values[:, conditioner.length :] *= ~opened[:, :1]
        if conditioner.box:
            values[:, 2:4] *= ~opened[:, 1:]
        drawn = drawing(conditioner(values).rows[:, 0], pair.shape[1:], box=conditioner.box)
        # A square in the lattice of the maps
        down, right = (
            4 * int(torch.randint((room - side) // 4 + 1, (), generator=generator))
            for room, side in zip(pair.shape[1:], (rows, columns), strict=True)
        )
        both.append(pair[:, down : down + rows, right : right + columns])
        maps.append(drawn[:, down // FOLD : (down + rows) // FOLD, right // FOLD : (right + columns) // FOLD])
    pictures, rough = torch.stack(both).split(3, dim=1)
    # The same light for both
    light = exposed(torch.cat([pictures, rough], dim=3), generator, TINT, TINT).clamp(-1, 1)
    pictures, rough = light.split(columns, dim=3)
    said = torch.stack(maps)
    seen = F.interpolate(said, scale_factor=FOLD)
    return finish_loss(module, Pairs(pictures, bend(rough, generator), said, seen, batch["alike"]), step, critic)
