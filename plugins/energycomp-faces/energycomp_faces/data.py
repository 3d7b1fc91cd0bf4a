"""Faces as a data source: drawn ones, and folders in CelebA's layout."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import attrs
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchmetrics import MetricCollection

from energycomp.errors import InputError
from energycomp.evaluation import Example, Generated
from energycomp.files import atomic_file
from energycomp_faces.avatars import ATTRIBUTES, GROUPS, PERSONA_ATTRIBUTES, avatar, labels_of, persona
from energycomp_faces.celeba import PICTURES, read, write_table
from energycomp_faces.labels import BINARY, Labels
from energycomp_faces.metrics import AttributeAccuracy, CalibrationError, ExactMatch

__all__ = ["HELD_OUT", "FacesSource", "draw"]

HELD_OUT = 1_000_000_000  # added to the seed of evaluation faces, so that no training face is among them
KINDS = {"synthetic": "a", "synthetic:shifted": "b", "synthetic:style": None}


def draw(index: int, seed: int, group: str | None, *, size: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """Face number `index` of a seed: (size, size, 3) uint8, and its labels (12,); group None is the other style."""
    rng = np.random.default_rng([seed, index])
    labels = labels_of(rng)
    made = persona(labels, rng, size=size) if group is None else avatar(labels, rng, group=group, size=size)
    return made, labels


def values_of(labels: np.ndarray, attributes: Sequence[str] = ATTRIBUTES, known: Sequence[str] = ATTRIBUTES) -> Tensor:
    """Those of labels (12,) that are known, as values (K,) of a model of these attributes.

    >>> values_of(np.ones(12, dtype=int), ("smiling", "hat", "suit"))
    tensor([1, 5])
    """
    values = [2 * k + int(labels[ATTRIBUTES.index(name)]) for k, name in enumerate(attributes) if name in known]
    return torch.tensor(values)


@attrs.frozen
class FacesSource:
    """Pictures with the values of their attributes, (K,).

    Args:
        attributes: of the model that the values are for.

    >>> len(FacesSource().examples("synthetic", count=2, seed=0))
    2
    """

    attributes: tuple[str, ...] = ATTRIBUTES

    def adapted(self, conditioner: object) -> FacesSource:
        """The same faces with values as this conditioner numbers them."""
        if not isinstance(conditioner, Labels) or any(values != BINARY for values in conditioner.attributes.values()):
            raise InputError(f"got a model conditioned on {conditioner}; expected one on yes/no attributes")
        return FacesSource(tuple(conditioner.attributes))

    def examples(self, spec: str, *, count: int, seed: int) -> Sequence[Example]:
        """Drawn faces (64x64, held out from training), or a folder in CelebA's layout.

        "synthetic": styles of hair and beard as in training. "synthetic:shifted": others. "synthetic:style": another
        style of drawing, of which 8 of the 12 attributes are known.
        """
        if spec in KINDS:
            if not set(self.attributes) & set(PERSONA_ATTRIBUTES if KINDS[spec] is None else ATTRIBUTES):
                raise InputError(
                    f"got a model of {', '.join(self.attributes)}; drawn faces have {', '.join(ATTRIBUTES)}; "
                    "expected some of these; pass a folder in CelebA's layout"
                )
            return Generated(count, partial(self._drawn, seed=HELD_OUT + seed, group=KINDS[spec]))
        if spec.startswith("synthetic"):
            raise InputError(f"got {spec}; expected one of {', '.join(KINDS)}, or a folder in CelebA's layout")
        return [Example(record.path, record.values, record.path.name) for record in read(spec, self.attributes)[:count]]

    def write(self, folder: Path, *, count: int, seed: int, options: str, progress: Callable[[int], None]) -> None:
        """Faces in CelebA's layout, 128x128; `options` is the group of styles, "a" or "b"."""
        group = options or GROUPS[0]
        if group not in GROUPS:
            raise InputError(f"got the group {group!r}; expected one of {', '.join(GROUPS)}")
        (folder / PICTURES).mkdir(parents=True, exist_ok=True)
        rows = []
        for index in range(count):
            image, labels = draw(index, seed, group, size=128)
            name = f"{index + 1:06d}.png"
            with atomic_file(folder / PICTURES / name) as temporary:
                Image.fromarray(image).save(temporary, format="PNG")
            rows.append((name, labels.tolist()))
            progress(index + 1)
        write_table(folder, rows)

    def metrics(self) -> MetricCollection:
        """Exact match, accuracy over attributes, calibration error."""
        return MetricCollection(
            {
                "exact_match": ExactMatch(),
                "per_attribute": AttributeAccuracy(),
                "calibration_error": CalibrationError(),
            },
            compute_groups=False,
        )

    def _drawn(self, index: int, *, seed: int, group: str | None) -> Example:
        image, labels = draw(index, seed, group)
        picture = torch.from_numpy(image.copy()).permute(2, 0, 1).float() / 127.5 - 1.0
        known = PERSONA_ATTRIBUTES if group is None else ATTRIBUTES
        return Example(picture, values_of(labels, self.attributes, known), f"face {index}")
