"""How the model of whole objects at 192x128 pixels is trained: latents of renders, turns, views."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from energycomp.components import Condition
from energycomp.errors import InputError
from energycomp.images import from_bytes, to_bytes
from energycomp.models import Model
from energycomp.progress import Bar, counting, progress
from energycomp_clevr.codes import QUARTER, SHAPE, TURN
from energycomp_clevr.model import SIZE
from energycomp_clevr.network import SketchedUNet
from energycomp_clevr.recipe import WIDE, WIDE_CROWDED, draw_open, values_of
from energycomp_clevr.rivals import draw_rivals
from energycomp_clevr.viewpoint import Viewpoint
from energycomp_datasets.clevr.geometry import CAMERA_POSITION, camera_basis
from energycomp_datasets.clevr.layout import read, write
from energycomp_datasets.clevr.records import SceneRecord
from energycomp_datasets.pictures import make_once
from energycomp_lab.training import FitConfig, Loss, Recipe, Step, collate, contrastive_loss, exposed

KEY = (6.45, -2.91, 4.26)  # scene units: where the key lamp hangs
SEEN = 0.5  # how often the view of a scene is said; that of a mirrored one always is, since its light is on the left
POWER = 0.8  # timesteps are drawn as T U^power: below 1, noisy ones come more often
RENDERED: dict[str, dict[str, Any]] = {
    "varied": {"objects": (0, 5), "variety": WIDE},
    "crowded": {"objects": (3, 5), "variety": WIDE_CROWDED},
}
SCENES = 4_000  # of each kind
TURNS_OPEN = 0.3  # how often no turn is said in a scene


def on_latents(model: Model, *, data: Path | None, cache: Path, rivals: float) -> Recipe:
    """The recipe of `energycomp_clevr.model.objects`, on a folder in CLEVR's layout, or on rendered scenes."""
    network = model.denoiser.network
    if not isinstance(network, SketchedUNet):
        raise InputError(
            f"got the model {model.name} to start from, which has another network; expected clevr, or a model that was "
            "trained from it; leave --init out"
        )
    if network.edges is not None:  # which this loss does not ask
        network.edges.requires_grad_(requires_grad=False)
    records = read(_write_scenes(cache / "clevr-scenes") if data is None else data)
    scenes = latents_of(records, model, cache)
    config = FitConfig(
        steps=24_000, batch_size=16, learning_rate=3e-4, max_grad_norm=0.1, ema_decay=0.999, mixed_precision="bf16"
    )
    return Recipe(
        model=model, module=network, loss=_loss(model, rivals), data=scenes, config=config, collate_fn=together
    )


def _write_scenes(folder: Path) -> Path:
    """The folder of rendered scenes, which are made once."""
    for seed, (split, kind) in enumerate(RENDERED.items()):
        if not (folder / "scenes" / f"CLEVR_{split}_scenes.json").is_file():  # the records come after all pictures
            with counting(f"rendering {split} scenes", SCENES) as bar:
                to = partial(_advance, bar)
                write(folder, SCENES, split=split, seed=seed, size=SIZE[::-1], progress=to, **kind)
    return folder


def _advance(bar: Bar, done: int) -> None:
    bar.advance(done - bar.done)


def latents_of(records: Sequence[SceneRecord], model: Model, cache: Path) -> list[dict[str, Tensor]]:
    """Each scene and its mirror image, as latents, made once: image, values (K, 7), view (6,), whether it is mirrored.

    Exposure and tint vary from image to image.
    """
    codec: Any = model.denoiser.codec
    names = "".join(f"{record.path} {record.path.stat().st_size}" for record in records)
    key = sha256(f"{codec.identity}{names}".encode()).hexdigest()[:16]

    def encode() -> dict[str, Tensor]:
        made = []
        for number, record in enumerate(progress(records, "encoding")):
            picture = to_bytes(model.processor(record.path))
            generator = torch.Generator().manual_seed(number)
            both = exposed(from_bytes(torch.cat([picture, picture.flip(-1)])), generator, exposure=0.08).clamp(-1, 1)
            made.append(codec.encode(both).half())
        return {"latents": torch.cat(made)}

    # What is known of each scene, and of its mirror image
    latents = make_once(cache / f"clevr-latents-{key}.safetensors", encode)["latents"].unflatten(0, (-1, 2))
    scenes = []
    for both, record in zip(latents, records, strict=True):
        for image, mirrored in zip(both, (False, True), strict=True):
            values = turned_values_of(record)
            view = view_of(record)
            if mirrored:
                values, view = _mirror(values, view)
            said = torch.tensor([mirrored, record.camera is not None])
            scenes.append({"image": image, "values": values, "view": view, "said": said})
    return scenes


def turned_values_of(record: SceneRecord) -> Tensor:
    """The objects of a record with their turns, (K, 7); what it does not say of them is left open."""
    values = values_of(record)
    turns = values.new_full((len(values),), torch.nan) if record.turns is None else record.turns
    codes = torch.where(turns.isnan(), 0.0, 1 + turns.round() % QUARTER)
    return torch.cat([values, codes[:, None]], dim=1)


def view_of(record: SceneRecord) -> Tensor:
    """The camera and the key lamp of a record as a value of `Viewpoint`, (6,); 0 where they are not known."""
    basis = camera_basis(torch.tensor(CAMERA_POSITION))
    usual = torch.tensor(CAMERA_POSITION)
    camera = torch.zeros(3) if record.camera is None else record.camera - usual
    light = torch.zeros(3) if record.lights is None else record.lights[0]
    return torch.cat([basis @ camera, basis @ light])


def together(items: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """A batch of scenes, as `collate` makes it, with their views (B, 6), and what is said of them (B, 2)."""
    stacked = {name: torch.stack([item[name] for item in items]) for name in ("view", "said")}
    return {**collate(items), **stacked}


def _mirror(values: Tensor, view: Tensor) -> tuple[Tensor, Tensor]:
    right = camera_basis(torch.tensor(CAMERA_POSITION))[0]
    values, view = values.clone(), view.clone()
    values[:, 0] = 1 - values[:, 0]
    values[:, TURN] = torch.where(values[:, TURN] > 0, 1 + (1 - values[:, TURN]) % QUARTER, 0.0)
    view[0] *= -1
    view[3] = -2 * (right @ torch.tensor(KEY)) - view[3]
    return values, view


def _loss(model: Model, weight: float) -> Loss:
    denoiser = model.denoiser
    conditioner = model.conditioner
    viewed = Viewpoint(model.denoiser.token_shape)

    def loss(module: torch.nn.Module, batch: dict[str, Tensor], step: Step) -> Tensor:
        generator = step.generator
        owner = batch["owner"]
        values = batch["values"].clone()
        scenes = len(batch["image"])
        # Leave words and turns open at random, and the viewpoint of some scenes
        values[:, 2:] *= ~draw_open(owner, scenes, values.shape[1] - 2, generator)
        turned = (torch.rand(scenes, generator=generator) >= TURNS_OPEN).to(owner.device)[owner]
        values[:, TURN] *= turned & (values[:, SHAPE] > 0)  # who says a turn says "cube"
        mirrored, known = batch["said"].T
        said = mirrored | known & (torch.rand(scenes, generator=generator).to(known.device) < SEEN)
        condition = Condition.cat([conditioner(values), viewed(batch["view"][said])])
        owners = torch.cat([owner, said.nonzero()[:, 0]])
        rivals = draw_rivals(values, owner, scenes, conditioner, generator)
        return contrastive_loss(
            denoiser, batch["image"].float(), condition, owners, rivals, weight=weight, module=module,
            timestep_power=POWER, generator=generator,
        )  # fmt: skip

    return loss
