"""`energycomp train objects`: a model of the objects of marked photos."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch
import typer
from PIL import Image

from energycomp.components import cosine_schedule
from energycomp.denoisers import Denoiser, channels_last
from energycomp.errors import InputError
from energycomp.images import ImageProcessor
from energycomp.models import Defaults, Model
from energycomp.progress import progress
from energycomp_lab.training import FitConfig, Recipe, Trainable, Validation, collate, option_number, start
from energycomp_objects.conditioner import Objects
from energycomp_objects.crops import CropOptions
from energycomp_objects.curve import POINTS, Curve, read_points
from energycomp_objects.formats import MarkedPhoto
from energycomp_objects.loss import LossOptions, make_loss
from energycomp_objects.network import PlacedUNet
from energycomp_objects.photos import TrainingPhotos, choose_photos, split, values_of
from energycomp_objects.plan import PATCH, Plan, make_plan
from energycomp_objects.validate import PhotoValidation

PIXELS = 24 * 112 * 112  # of the crops of a step
EVALUATIONS = 16  # of a run, of which those of its last part happen


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
        network=channels_last(network),
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
    cache: Path | None = None,  # noqa: ARG001 - of all recipes
    format: str | None = None,  # noqa: A002 - as of `read_marks`
    turns: bool | str = False,
    mirror: bool | str = True,
    box: bool | str = True,
    pixels: float | str | None = None,
    across: float | str | None = None,
    photos: int | str | None = None,
    kept: int | str | None = None,
    validation: str | Path | None = None,
    patience: int | str = 2,
    curve: bool | str = False,
) -> Trainable:
    """The recipe of marked photos.

    Args:
        data: photos with labels in a format of `read_marks`, or a folder with splits train and val.
        format: of the labels, where it cannot be seen from the files.
        turns: whether photos may be turned and mirrored, as those from above may.
        mirror: whether left and right may change places.
        box: whether width and height are a part of what describes an object.
        pixels, across: as of `make_plan`.
        photos: how many are used, drawn by a fixed seed; all when left out.
        kept, validation: as of `choose_photos`. They choose among the weights of the run, the odds are fitted on them,
            and the model card has their scores.
        patience: as of `Validation`; 0 for never.
        curve: numbers of photos, such as "25,50,100,all" or true for these: a model is trained on each, see `Curve`.
    """
    if data is None:
        raise InputError("got no data; expected a folder of photos with labels; pass --data FOLDER")
    if preset != "default":
        raise InputError(f"got preset {preset!r}; expected default, the only one")
    # Choose photos
    known = getattr(init.conditioner, "attributes", None) if init is not None else None
    count = None if kept is None else round(option_number("kept", kept))
    chosen = choose_photos(
        data, format, schema=known, kept=count, validation=None if validation is None else Path(validation)
    )
    if photos is not None:
        chosen = _some(chosen, round(option_number("photos", photos)))
    # Look at them
    size = None if across is None else option_number("across", across)
    plan = make_plan(chosen.train, pixels=None if pixels is None else option_number("pixels", pixels), across=size)
    held = f"kept back for validation: {chosen.source}" if chosen.held else "no photo is kept back for validation"
    typer.echo(f"{plan.report()}\n{held}")
    options = _Options(
        boxed=_flag("box", box) and size is None,
        crops=CropOptions(turns=_flag("turns", turns), mirror=_flag("mirror", mirror)),
        patience=round(option_number("patience", patience)) or None,
    )
    points = _read_curve(curve, chosen, init)
    if not points:
        return _make_recipe(chosen, plan, init, options)[0]
    made = {n: _make_recipe(_some(chosen, n), plan, None, options, names_photos=n == points[-1]) for n in points}
    return Curve(recipes={n: recipe for n, (recipe, _) in made.items()}, validation=made[points[-1]][1])


@attrs.frozen
class _Options:
    boxed: bool
    crops: CropOptions
    patience: int | None


def _make_recipe(
    chosen: TrainingPhotos, plan: Plan, init: Model | None, options: _Options, *, names_photos: bool = True
) -> tuple[Recipe, PhotoValidation]:
    """A training on photos, whose plan may be that of more of them."""
    model = start(init, lambda: build(plan, Objects(chosen.train.attributes, box=options.boxed)))
    conditioner = model.conditioner
    network = model.denoiser.network
    if not isinstance(conditioner, Objects) or not isinstance(network, PlacedUNet):
        raise InputError(f"got the model {model.name!r} to start from; expected one that this recipe made")
    height, width = network.tile
    tile = (height, width)
    losses = LossOptions()
    loss = make_loss(model.denoiser, conditioner, tile, options.crops, losses)
    batch = max(4, min(24, round(PIXELS / (tile[0] * tile[1]) / (1 if tile != plan.size else 1.5))))
    scenes = [
        _scene(photo, conditioner, model.processor.size) for photo in progress(list(chosen.train), "reading photos")
    ]
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
    reader = PhotoValidation(model, chosen, plan, names_photos)
    # Weights before the last part of the loss cannot draw, however well they read
    begin = 1 - losses.drawing
    validation = Validation(reader.measure, evaluations=EVALUATIONS, patience=options.patience, begin=begin)
    recipe = Recipe(
        model=model,
        module=network,
        loss=loss,
        data=scenes,
        config=config,
        collate_fn=collate,
        validation=validation if chosen.held else None,
        finish=reader.finish,
    )
    return recipe, reader


def _some(chosen: TrainingPhotos, count: int) -> TrainingPhotos:
    """So many of the photos to train on; fewer of them are a part of more."""
    if count < 1:
        raise InputError(f"got photos={count}; expected one at least; pass for example photos=50")
    return attrs.evolve(chosen, train=split(chosen.train, max(0, len(chosen.train) - count))[0])


def _read_curve(curve: bool | str, chosen: TrainingPhotos, init: Model | None) -> list[int]:
    text = str(curve).lower()
    if text in ("false", "no"):
        return []
    if init is not None or not chosen.held:
        reason = "a model to start from" if init is not None else "no photos that are kept back"
        raise InputError(
            f"got curve={curve} with {reason}; expected new models that read the same photos; leave it out"
        )
    return read_points(POINTS if text in ("true", "yes") else text, len(chosen.train))


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
