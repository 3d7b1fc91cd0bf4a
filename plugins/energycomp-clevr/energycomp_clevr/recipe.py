"""How the model of places is trained: the data, their augmentation, and the settings of `fit`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor

from energycomp.errors import InputError
from energycomp.images import ImageProcessor, to_bytes
from energycomp.models import Model
from energycomp.progress import counting, progress
from energycomp_clevr.codes import ATTRIBUTES
from energycomp_clevr.model import clevr_places as build, flow_from
from energycomp_datasets.clevr.layout import read, render_objects
from energycomp_datasets.clevr.records import SceneRecord
from energycomp_datasets.clevr.scenes import Variety
from energycomp_datasets.pictures import make_once
from energycomp_lab import training
from energycomp_lab.training import (
    FitConfig,
    Loss,
    Recipe,
    Step,
    collate,
    denoising_loss,
    option_number,
    start,
)

RENDERED = 32_000
OBJECTS = (0, 5)  # 6 and more stay out of distribution; K = 0 identifies the unconditional row
OPEN_SCENE = 0.3  # share of the scenes in which all attributes are left open
OPEN_OBJECT = 0.1  # of the objects of the others
OPEN_ATTRIBUTE = 0.1  # of the attributes of the others
CROWDED = Variety(side=2.6, gap=0.05, direction_gap=0.05)  # objects that cover each other
WIDE = Variety(camera=0.7, lights=1.6, sizes=0.06)  # beyond what CLEVR shows
WIDE_CROWDED = attrs.evolve(CROWDED, camera=WIDE.camera, lights=WIDE.lights, sizes=WIDE.sizes)


def augment(batch: dict[str, Tensor], generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Random flips, exposure and tint: images (B, 3, H, W) in [-1, 1] and the places of their objects (R, 2)."""
    images, flipped = training.augment(batch["image"], generator, exposure=0.08)
    x, y = batch["values"].unbind(1)
    return images, torch.stack([torch.where(flipped[batch["owner"]], 1 - x, x), y], dim=1)


def clevr_places(
    *,
    data: Path | None,
    init: Model | None,
    preset: str,
    cache: Path,
    scenes: int | str = RENDERED,
    textured: float | str = 0.0,
    **options: Any,
) -> Recipe:
    """The recipe of the shipped weights of places (presets "default" and "flow"), or of the thesis' network ("paper").

    Under "paper", too, errors are weighted as `denoising_loss` does by default, and images vary in exposure and tint.
    The thesis has neither.

    Args:
        data: a folder in CLEVR's layout; rendered scenes when left out, made once and kept under `cache`.
        init: a model to start from; under "flow" also one that predicts x0, such as `clevr-places`, see `flow_from`.
        preset: "default"; "flow", which is the same but for the prediction type and the schedule; or "paper".
        scenes: how many are rendered.
        textured: share of those with textures and more shapes, of 0 to 5 objects.
    """
    if preset == "flow" and init is not None and init.denoiser.prediction_type == "sample":
        init = flow_from(init)
    model = start(init, partial(build, preset=preset, pretrained=False, **options))
    count = round(option_number("scenes", scenes))
    share = option_number("textured", textured, most=1.0)
    if data:
        pictures = scenes_of(data, model.processor, lambda record: record.coordinates)
    else:
        pictures = _places(cache, count, share)
    config = FitConfig(
        steps=10_000, batch_size=32, learning_rate=5e-4, warmup_fraction=0.1, max_grad_norm=0.1, mixed_precision="bf16"
    )
    if preset == "paper":
        config = FitConfig(steps=80_000, batch_size=128, learning_rate=2e-5, schedule="constant")
    network = model.denoiser.network
    return Recipe(model=model, module=network, loss=_loss(model), data=pictures, config=config, collate_fn=collate)


def _loss(model: Model) -> Loss:
    denoiser = model.denoiser
    conditioner = model.conditioner

    def loss(module: torch.nn.Module, batch: dict[str, Tensor], step: Step) -> Tensor:
        images, values = augment(batch, step.generator)
        samples = images if denoiser.codec is None else denoiser.codec.encode(images)
        return denoising_loss(
            denoiser, samples, conditioner(values), batch["owner"], module=module, generator=step.generator
        )

    return loss


def _places(cache: Path, count: int, textured: float) -> list[dict[str, Tensor]]:
    """The places of scenes, of which a share is textured."""
    if count < 1:
        raise InputError(f"got scenes={count}; expected at least one scene")
    named = [f"scenes-{count}"] * (count != RENDERED) + [f"textured-{textured:g}"] * (textured > 0)
    painted = round(count * textured)
    kinds: list[tuple[int, dict[str, Any]]] = [
        (count - painted, {"objects": OBJECTS}),
        (painted, {"objects": OBJECTS, "textured": True, "seed": 2}),
    ]
    return render_once(cache / ("-".join(["clevr-scenes", *named]) + ".safetensors"), kinds, columns=2)


def render_once(path: Path, kinds: Sequence[tuple[int, dict[str, Any]]], *, columns: int) -> list[dict[str, Tensor]]:
    """Training scenes, rendered once to disk.

    Args:
        path: of the file that keeps them.
        kinds: how many of each kind, and what `render_objects` takes for it; the seed is its place by default.
        columns: how many of the six values of an object are kept: 2 are its place.
    """

    def render() -> dict[str, Tensor]:
        images = []
        values = []
        chunk = 250
        with counting("rendering scenes", sum(number for number, _ in kinds)) as bar:
            for seed, (number, kind) in enumerate(kinds):
                for start in range(0, number, chunk):
                    some, found = render_objects(min(chunk, number - start), start=start, **{"seed": seed, **kind})
                    images.append(some)
                    values += [one[:, :columns] for one in found]
                    bar.advance(len(some))
        counts = torch.tensor([len(v) for v in values])
        return {"images": torch.cat(images), "values": torch.cat(values), "counts": counts}

    tensors = make_once(path, render)
    objects = tensors["values"].split(tensors["counts"].tolist())
    return [{"image": image, "values": some} for image, some in zip(tensors["images"], objects, strict=True)]


def scenes_of(
    folder: Path, processor: ImageProcessor, values: Callable[[SceneRecord], Tensor]
) -> list[dict[str, Tensor]]:
    """Pictures of a folder in CLEVR's layout, at the model's size, in memory; `values` (K, D) of each record."""
    return [
        {"image": to_bytes(processor(record.path)[0]), "values": values(record)}
        for record in progress(read(folder), "reading")
    ]


def values_of(record: SceneRecord) -> Tensor:
    """The objects of a record, (K, 6); what it does not say of them is left open."""
    described = record.attributes or ({},) * record.count
    codes = [
        [words.index(one[name]) + 1 if name in one else 0 for name, words in ATTRIBUTES.items()] for one in described
    ]
    return torch.cat([record.coordinates, torch.tensor(codes).reshape(-1, len(ATTRIBUTES))], dim=1)


def draw_open(owner: Tensor, scenes: int, attributes: int, generator: torch.Generator) -> Tensor:
    """Which attributes of R objects are left open, (R, A): all of a scene, all of an object, or single ones."""

    def chance(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator).to(owner.device)

    objects = len(owner)
    whole = (chance(scenes, 1) < OPEN_SCENE)[owner] | (chance(objects, 1) < OPEN_OBJECT)
    return whole | (chance(objects, attributes) < OPEN_ATTRIBUTE)


def widen(trained: Model, model: Model) -> Model:
    """`model` with the weights of `trained`; token columns and blocks that `trained` lacks change nothing at first."""
    known, own = trained.denoiser.network.state_dict(), model.denoiser.network.state_dict()
    shared = [name for name in own if name in known and name != "token.0.weight"]
    kind = (trained.denoiser.prediction_type, trained.denoiser.rule)
    others = any(known[name].shape != own[name].shape for name in shared) or bool(known.keys() - own.keys())
    narrow = known.get("token.0.weight", torch.empty(0, 0)).shape[-1]
    if others or not 0 < narrow <= own["token.0.weight"].shape[1] or kind != ("sample", "product"):
        raise InputError(
            f"got the model {trained.name} to start from, which has another network; expected clevr, clevr-places or "
            "one that was trained from them; leave --init out"
        )
    for name, tensor in own.items():
        if name == "token.0.weight":
            columns = known[name].shape[1]
            tensor[:, :columns] = known[name]
        elif name in known:
            tensor.copy_(known[name])
        elif ".conv2." in name:
            tensor.zero_()
    model.denoiser.network.load_state_dict(own)
    return model
