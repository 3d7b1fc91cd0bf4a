"""`energycomp train objects`: a model of the objects of marked photos."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch
import typer
from PIL import Image
from torch import Tensor

from energycomp.components import cosine_schedule
from energycomp.denoisers import Denoiser
from energycomp.errors import InputError
from energycomp.images import ImageProcessor
from energycomp.models import Defaults, Model
from energycomp.progress import progress
from energycomp_lab.training import FitConfig, Recipe, Step, collate, option_number, start
from energycomp_objects.conditioner import Objects
from energycomp_objects.crops import CropOptions
from energycomp_objects.formats import MarkedPhoto, MarkedPhotos, read_marks
from energycomp_objects.loss import LossOptions, make_loss
from energycomp_objects.network import PlacedUNet
from energycomp_objects.plan import PATCH, Plan, make_plan

PIXELS = 24 * 112 * 112  # of the crops of a step
TIMED = 3  # steps


def build(plan: Plan, conditioner: Objects, *, channels: tuple[int, ...] = (48, 96, 128), head: int = 48) -> Model:
    """The untrained model of a plan."""
    network = PlacedUNet(
        words=conditioner.words,
        box=conditioner.box,
        sample_size=plan.tile,
        window=plan.window,
        patch=PATCH,
        channels=channels,
        head_channels=head,
    )
    denoiser = Denoiser(
        network=network.to(memory_format=torch.channels_last),  # type: ignore[call-overload]
        alphas_cumprod=cosine_schedule(),
        prediction_type="sample",
        rule="product",
        sample_shape=(3, *plan.size),
        token_shape=conditioner.token_shape,
    )
    return Model(
        name="objects",
        denoiser=denoiser,
        conditioner=conditioner,
        processor=ImageProcessor(size=plan.size, resize="squash"),
        network_name="placed",
        conditioner_name="placed",
        defaults=Defaults(timesteps=(50, 600), draws=8, solver="propose", counts=plan.counts),
    )


def objects(
    *,
    data: Path | None,
    init: Model | None,
    preset: str = "default",
    cache: Path | None = None,
    format: str | None = None,  # noqa: A002 - as of `read_marks`
    turns: bool | str = False,
    mirror: bool | str = True,
    box: bool | str = True,
    pixels: float | str | None = None,
    across: float | str | None = None,
    photos: int | str | None = None,
    kept: int | str = 0,
    minutes: float | str | None = None,
) -> Recipe:
    """The recipe of marked photos.

    Args:
        data: photos with labels in a format of `read_marks`.
        format: of the labels, where it cannot be seen from the files.
        turns: whether photos may be turned and mirrored, as those from above may.
        mirror: whether left and right may change places.
        box: whether width and height are a part of what describes an object.
        pixels, across: as of `make_plan`.
        photos: how many are used, drawn by a fixed seed; all when left out.
        kept: how many photos are kept back, drawn by a fixed seed, see `split`.
        minutes: that the training may take, about; a few steps are timed, once for the same photos and options, so that
            the same command goes on with the same number of steps.
    """
    if data is None:
        raise InputError("got no data; expected a folder of photos with labels; pass --data FOLDER")
    if preset != "default":
        raise InputError(f"got preset {preset!r}; expected default, the only one")
    known = getattr(init.conditioner, "attributes", None) if init is not None else None
    marked = drop_points(read_marks(data, format, schema=known))
    train, _ = split(marked, round(option_number("kept", kept)))
    if photos is not None:
        train = split(train, max(0, len(train) - round(option_number("photos", photos))))[0]
    size = None if across is None else option_number("across", across)
    plan = make_plan(train, pixels=None if pixels is None else option_number("pixels", pixels), across=size)
    typer.echo(plan.report())
    boxed = _flag("box", box) and size is None
    model = start(init, lambda: build(plan, Objects(marked.attributes, box=boxed)))
    conditioner = model.conditioner
    network = model.denoiser.network
    if not isinstance(conditioner, Objects) or not isinstance(network, PlacedUNet):
        raise InputError(f"got the model {model.name!r} to start from; expected one that this recipe made")
    height, width = network.tile
    tile = (height, width)
    crops = CropOptions(turns=_flag("turns", turns), mirror=_flag("mirror", mirror))
    loss = make_loss(model.denoiser, conditioner, tile, crops, LossOptions())
    batch = max(4, min(24, round(PIXELS / (tile[0] * tile[1]) / (1 if tile != plan.size else 1.5))))
    scenes = [_scene(photo, conditioner, model.processor.size) for photo in progress(list(train), "reading photos")]
    scenes *= -(-4 * batch // len(scenes))
    config = FitConfig(
        steps=4_000,
        batch_size=batch,
        learning_rate=1e-3,
        max_grad_norm=0.5,
        ema_decay=0.998,
        mixed_precision="bf16",
        save_every=100,
    )
    recipe = Recipe(model=model, module=network, loss=loss, data=scenes, config=config, collate_fn=collate)
    if minutes is None:
        return recipe
    run = repr((str(data), plan, boxed, option_number("minutes", minutes)))
    steps = _steps_within(recipe, 60 * option_number("minutes", minutes), cache, run)
    typer.echo(f"{steps:,} steps in about {minutes} minutes")
    return attrs.evolve(recipe, config=attrs.evolve(config, steps=steps))


def _steps_within(recipe: Recipe, seconds: float, cache: Path | None, run: str) -> int:
    """How many steps take so long here, timed once for a run, which keeps its number in the cache."""
    name = hashlib.sha256(run.encode()).hexdigest()[:16]
    known = None if cache is None else cache / f"objects-{name}.steps"
    if known is not None and known.exists():
        return int(known.read_text())
    batch = collate([recipe.data[k] for k in range(recipe.config.batch_size)])
    took = []
    for number in range(TIMED):
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16):
            loss = recipe.loss(recipe.module, batch, Step(number, TIMED, torch.Generator().manual_seed(number)))
        loss.backward()
        took.append(time.perf_counter() - start)
        recipe.module.zero_grad()
    steps = max(1, int(seconds / min(took)))
    if known is not None:
        known.parent.mkdir(parents=True, exist_ok=True)
        known.write_text(str(steps))
    return steps


def split(photos: MarkedPhotos, kept: int) -> tuple[MarkedPhotos, MarkedPhotos]:
    """Photos to train on, and so many that are kept back, drawn by a fixed seed."""
    if not 0 <= kept < len(photos):
        raise InputError(f"got {kept} photos to keep back of {len(photos)}; expected fewer")
    order = torch.randperm(len(photos), generator=torch.Generator().manual_seed(0)).tolist()
    back = set(order[:kept])
    parts = [tuple(p for k, p in enumerate(photos) if (k in back) == is_back) for is_back in (False, True)]
    return attrs.evolve(photos, photos=parts[0]), attrs.evolve(photos, photos=parts[1])


def drop_points(photos: MarkedPhotos) -> MarkedPhotos:
    """The photos without marks that have no size, where most marks have one."""
    sized = [mark.width is not None for photo in photos for mark in photo.marks]
    if sum(sized) * 2 < len(sized):
        return photos
    kept = [attrs.evolve(p, marks=tuple(mark for mark in p.marks if mark.width is not None)) for p in photos]
    return attrs.evolve(photos, photos=tuple(kept))


def values_of(photo: MarkedPhoto, conditioner: Objects) -> Tensor:
    """The objects (K, V) of a photo; what its marks do not say is left open."""
    rows = []
    for mark in photo.marks:
        numbers = [mark.x, mark.y, mark.width or 0.0, mark.height or 0.0][: conditioner.length]
        codes = [
            1 + words.index(mark.attributes[name]) if name in mark.attributes else 0
            for name, words in conditioner.attributes.items()
        ]
        rows.append([*numbers, *codes])
    return torch.tensor(rows, dtype=torch.float32).reshape(-1, *conditioner.value_shape)


def _scene(photo: MarkedPhoto, conditioner: Objects, size: tuple[int, int]) -> dict[str, Any]:
    picture = photo.image().resize(size[::-1], Image.Resampling.LANCZOS)
    image = torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous()
    return {"image": image, "values": values_of(photo, conditioner)}


def _flag(name: str, given: bool | str) -> bool:
    known = {"true": True, "false": False, "yes": True, "no": False}
    if isinstance(given, bool):
        return given
    if given.lower() not in known:
        raise InputError(f"got {name}={given}; expected true or false")
    return known[given.lower()]
