"""How the model of faces is trained: the data, random subsets of attributes, and the settings of `fit`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, StackDataset

from energycomp.errors import InputError
from energycomp.images import ImageProcessor, to_bytes
from energycomp.models import Model
from energycomp.progress import progress
from energycomp_datasets.faces.avatars import ATTRIBUTES, avatar, labels_of
from energycomp_datasets.faces.celeba import FaceRecord, read
from energycomp_datasets.pictures import make_once
from energycomp_faces.contrast import contrast_loss
from energycomp_faces.model import faces as build
from energycomp_lab.training import FitConfig, Loss, Recipe, Step, augment, denoising_loss, option_number, start

DRAWN = 24_000
TIMESTEP_POWER = 0.5
GROUP = "a"  # the other group of hair and beards stays out of distribution


class Folder(Dataset[dict[str, Tensor]]):
    """Pictures of a folder in CelebA's layout, each read when it is asked for."""

    def __init__(self, records: Sequence[FaceRecord], processor: ImageProcessor) -> None:
        self.records = records
        self.processor = processor

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        record = self.records[index]
        image = to_bytes(self.processor(record.path)[0])
        return {"image": image, "values": record.values}


def subsets(values: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A random subset of the values (B, A) of each sample, its size even from 0 to A: flat values (R,), owner (R,).

    The empty subset is among them: it is what the unconditional row is learned from.
    """
    batch, count = values.shape
    size = torch.randint(count + 1, (batch, 1), generator=generator)
    rank = torch.rand(batch, count, generator=generator).argsort(1).argsort(1)
    chosen = (rank < size).to(values.device)
    return values[chosen], chosen.nonzero()[:, 0]


def faces(
    *,
    data: Path | None,
    init: Model | None,
    preset: str,
    cache: Path,
    contrast: float | str = 0.0,
    timestep_power: float | str = TIMESTEP_POWER,
    vary: float | str = 1.0,
    **options: Any,
) -> Recipe:
    """The recipe of the shipped weights (preset "default"), or of the network of the thesis (preset "paper").

    Under "paper", too, noisy timesteps come often and weigh much, and images vary in exposure and tint; the thesis has
    neither.

    Args:
        data: a folder in CelebA's layout; drawn faces when left out, made once and kept under `cache`.
        contrast: weight of `contrast_loss`; 0 leaves it out.
        timestep_power: timesteps are drawn as T U^power: 0.5 prefers noise, 1 is uniform.
        vary: how much exposure, tint and, above 1, position vary; 1 is the shipped weights'.
        options: of the preset; `attributes` names columns of the folder's table.
    """
    model = start(init, partial(build, preset=preset, pretrained=False, **options))
    attributes = tuple(model.conditioner.attributes)  # type: ignore[attr-defined]
    config = FitConfig(
        steps=4_000, batch_size=32, learning_rate=1e-3, warmup_fraction=0.1, max_grad_norm=0.5, mixed_precision="bf16"
    )
    if preset == "paper":
        config = FitConfig(steps=30_000, batch_size=128, learning_rate=2e-5, schedule="constant")
    loss = _loss(
        model,
        contrast=option_number("contrast", contrast),
        power=option_number("timestep_power", timestep_power),
        vary=option_number("vary", vary),
    )
    return Recipe(
        model=model,
        module=model.denoiser.network,
        loss=loss,
        data=_draw_faces(cache / "faces.safetensors", attributes)
        if data is None
        else _read_faces(data, model, attributes),
        config=config,
    )


def _loss(model: Model, *, contrast: float, power: float, vary: float) -> Loss:
    denoiser = model.denoiser
    conditioner = model.conditioner
    varied = {"exposure": 0.05 * vary, "tint": 0.02 * vary, "jitter": 0.03 * max(vary - 1, 0.0)}

    def loss(module: torch.nn.Module, batch: dict[str, Tensor], step: Step) -> Tensor:
        generator = step.generator
        images, _ = augment(batch["image"], generator, **varied)
        values, owner = subsets(batch["values"], generator)
        samples = images if denoiser.codec is None else denoiser.codec.encode(images)
        if contrast:
            trained = attrs.evolve(denoiser, network=module)
            return contrast_loss(
                trained,
                conditioner,
                samples,
                values,
                owner,
                weight=contrast,
                timestep_power=power,
                generator=generator,
            )
        # Labels of a whole picture matter where the noise hides it: noisy timesteps come often and weigh much.
        settings: dict[str, Any] = {"gamma": 1.0, "floor": 0.5, "timestep_power": power}
        return denoising_loss(
            denoiser, samples, conditioner(values), owner, module=module, generator=generator, **settings
        )

    return loss


def _read_faces(folder: Path, model: Model, attributes: Sequence[str]) -> Folder:
    """The faces of a folder whose table must know every attribute of the model."""
    records = read(folder, attributes)
    if not records or len(records[0].values) < len(attributes):
        known = [attributes[int(value) // 2] for record in records[:1] for value in record.values]
        raise InputError(
            f"got {folder}, whose table knows {', '.join(known) or 'no picture'} of the model's attributes "
            f"{', '.join(attributes)}; expected all of them; pass --option attributes={','.join(known) or 'NAME,NAME'}"
        )
    return Folder(records, model.processor)


def _draw_faces(path: Path, attributes: Sequence[str]) -> Dataset[dict[str, Tensor]]:
    """The training faces of seed 0, drawn once to disk."""
    if unknown := [name for name in attributes if name not in ATTRIBUTES]:
        raise InputError(
            f"got the attribute {unknown[0]!r}; drawn faces have {', '.join(ATTRIBUTES)}; expected some of these; pass "
            "--data with a folder in CelebA's layout for others"
        )

    def draw() -> dict[str, Tensor]:
        images, labels = [], []
        for index in progress(range(DRAWN), f"drawing {DRAWN:,} faces"):
            rng = np.random.default_rng([0, index])
            labels.append(labels_of(rng))
            images.append(avatar(labels[-1], rng, group=GROUP).transpose(2, 0, 1))
        return {"images": torch.from_numpy(np.stack(images)), "labels": torch.from_numpy(np.stack(labels))}

    tensors = make_once(path, draw)
    columns = [ATTRIBUTES.index(name) for name in attributes]
    values = tensors["labels"][:, columns] + 2 * torch.arange(len(columns))
    return StackDataset(image=tensors["images"], values=values)  # type: ignore[arg-type]
