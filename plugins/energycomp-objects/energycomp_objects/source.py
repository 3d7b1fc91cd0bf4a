"""Marked photos as a data source: `energycomp evaluate MODEL --data FOLDER`."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import torch

from energycomp.errors import EnergycompWarning, InputError
from energycomp_lab.evaluation import Example
from energycomp_objects.formats import Mark, read_marks

if TYPE_CHECKING:
    from torchmetrics import MetricCollection


@attrs.define
class MarkedSource:
    """Photos with the marks of their objects: {"x": 0.3, "y": 0.4, "width": 0.1, "height": 0.1, "category": "RBC"}."""

    words: tuple[str, ...] = attrs.field(default=(), init=False)

    def examples(self, spec: str, *, count: int, seed: int) -> Sequence[Example]:
        """Photos of a folder or a file of labels, in a random order where it has more."""
        if spec.startswith("synthetic") and not Path(spec).exists():
            raise InputError(f"got {spec}; expected a folder of photos with labels, which nobody can draw; pass --data")
        photos = read_marks(spec)
        self.words = next(iter(photos.attributes.values()), ())
        order = torch.randperm(len(photos), generator=torch.Generator().manual_seed(seed)).tolist()
        return [
            Example(photos[k].path, name=photos[k].path.name, conditions=list(map(_describe, photos[k].marks)))
            for k in order[:count]
        ]

    def write(self, folder: Path, *, count: int, seed: int, options: str, progress: Callable[[int], None]) -> None:  # noqa: ARG002
        """Raises `InputError`: photos are taken and marked by people."""
        raise InputError(f"got {folder} to write photos to; expected photos of your own; mark them with a label tool")

    def metrics(self) -> MetricCollection:
        """Those of `object_metrics`, of counts by the words of the photos that `examples` read last."""
        from energycomp_objects.metrics import object_metrics

        if find_spec("pycocotools") is None:
            warnings.warn(
                "got no package pycocotools, which average precision takes; it is left out; pip install "
                "'energycomp-objects[evaluate]'",
                EnergycompWarning,
                stacklevel=2,
            )
        return object_metrics(self.words)


def _describe(mark: Mark) -> dict[str, Any]:
    numbers: dict[str, Any] = {"x": min(max(mark.x, 0.0), 1.0), "y": min(max(mark.y, 0.0), 1.0)}
    if mark.width is not None and mark.height is not None:
        numbers |= {"width": min(mark.width, 1.0), "height": min(mark.height, 1.0)}
    return numbers | mark.attributes
