"""Faces as a data source: rendered avatars, and folders in CelebA's layout."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import numpy as np
import torch
from PIL import Image

from energycomp.errors import InputError
from energycomp.images import from_bytes, save_image
from energycomp_datasets.faces.avatars import ATTRIBUTES, GROUPS, PERSONA_ATTRIBUTES, avatar, labels_of, persona
from energycomp_datasets.faces.celeba import PICTURES, attributes_of, read, write_table
from energycomp_datasets.synthetic import HELD_OUT, WRITTEN
from energycomp_lab.evaluation import Example, Generated

if TYPE_CHECKING:
    from torchmetrics import MetricCollection

KINDS = {"synthetic": "a", "synthetic:shifted": "b", "synthetic:style": None}
BINARY = ("no", "yes")


def draw(index: int, seed: int, group: str | None, *, size: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """Face number `index` of a seed: (size, size, 3) uint8, and its labels (12,); group None is the other style."""
    rng = np.random.default_rng([seed, index])
    labels = labels_of(rng)
    made = persona(labels, rng, size=size) if group is None else avatar(labels, rng, group=group, size=size)
    return made, labels


@attrs.frozen
class FacesSource:
    """Images with the values of their attributes: {"attribute": "smiling", "value": "yes"}.

    >>> (example,) = FacesSource().examples("synthetic", count=1, seed=0)
    >>> len(example.conditions), example.conditions[0]
    (12, {'attribute': 'black_hair', 'value': 'yes'})
    """

    def examples(self, spec: str, *, count: int, seed: int) -> Sequence[Example]:
        """Rendered faces (64x64, held out from training), or a folder in CelebA's layout.

        "synthetic": styles of hair and beard as in training. "synthetic:shifted": other styles. "synthetic:style":
        another style of drawing, of which 8 of the 12 attributes are known.
        """
        if spec in KINDS:
            return Generated(count, partial(_draw_example, seed=HELD_OUT + seed, group=KINDS[spec]))
        if spec.startswith("synthetic") and not Path(spec).is_dir():
            raise InputError(f"got {spec}; expected one of {', '.join(KINDS)}, or a folder in CelebA's layout")
        attributes = attributes_of(spec)
        records = read(spec, attributes, most=count)
        return [
            Example(record.path, name=record.path.name, conditions=_conditions(attributes, record.values))
            for record in records
        ]

    def write(self, folder: Path, *, count: int, seed: int, options: str, progress: Callable[[int], None]) -> None:
        """Faces in CelebA's layout, 128x128; `options` is the group of styles, "a" or "b"."""
        group = options or GROUPS[0]
        if group not in GROUPS:
            raise InputError(f"got the group {group!r}; expected one of {', '.join(GROUPS)}")
        rows = []
        for index in range(count):
            image, labels = draw(index, WRITTEN + seed, group, size=128)
            name = f"{index + 1:06d}.png"
            save_image(Image.fromarray(image), folder / PICTURES / name)
            rows.append((name, labels.tolist()))
            progress(index + 1)
        write_table(folder, rows)

    def metrics(self) -> MetricCollection:
        """Exact match, accuracy over attributes, calibration error."""
        from torchmetrics import MetricCollection

        from energycomp_datasets.faces.metrics import CalibrationError, LabelAccuracy

        return MetricCollection(
            {
                "exact_match": LabelAccuracy(whole=True),
                "per_attribute": LabelAccuracy(),
                "calibration_error": CalibrationError(),
            },
            compute_groups=False,
        )


def _draw_example(index: int, *, seed: int, group: str | None) -> Example:
    made, labels = draw(index, seed, group)
    image = from_bytes(torch.from_numpy(made.copy()).permute(2, 0, 1))
    known = PERSONA_ATTRIBUTES if group is None else ATTRIBUTES
    values = [
        2 * k + int(label) for k, (name, label) in enumerate(zip(ATTRIBUTES, labels, strict=True)) if name in known
    ]
    return Example(image, name=f"face {index}", conditions=_conditions(ATTRIBUTES, values))


def _conditions(attributes: Sequence[str], values: Sequence[int] | torch.Tensor) -> list[dict[str, str]]:
    """Values 2 k + (0 or 1) of attributes k."""
    return [{"attribute": attributes[int(value) // 2], "value": BINARY[int(value) % 2]} for value in values]
