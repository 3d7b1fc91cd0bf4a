"""CLEVR as a data source: rendered scenes, and folders in the layouts of CLEVR and CLEVRTex."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from pathlib import Path

from torchmetrics import MetricCollection

from energycomp.errors import InputError
from energycomp.evaluation import (
    CountAccuracy,
    EstimationError,
    Example,
    Generated,
    PerceptionRate,
    Precision,
    parse_range,
)
from energycomp_clevr.layout import render_arrays, scan, write

__all__ = ["HELD_OUT", "ClevrSource"]

HELD_OUT = 1_000_000_000  # added to the seed of evaluation scenes, so that no training scene is among them


class ClevrSource:
    """Pictures with the centres of their objects, (K, 2) in [0, 1].

    >>> len(ClevrSource().examples("synthetic:3-5", count=2, seed=0))
    2
    """

    def examples(self, spec: str, *, count: int, seed: int) -> Sequence[Example]:
        """Rendered scenes for "synthetic:3-5" (64x64, held out from training), or a folder of CLEVR or CLEVRTex.

        "synthetic:textured:3-5" has other shapes, textures and grounds. A folder may be narrowed to a range of counts:
        "DIR:3-8".
        """
        if spec == "synthetic" or spec.startswith("synthetic:"):
            objects, textured = _kind(spec.partition(":")[2])
            return Generated(count, partial(_rendered, objects=objects, textured=textured, seed=HELD_OUT + seed))
        folder, _, kept = spec.rpartition(":")
        low, high = (0, 64)
        if folder and kept.replace("-", "").isdigit() and not Path(spec).exists():
            spec, (low, high) = folder, parse_range(kept)
        found = list(islice((record for record in scan(spec) if low <= record.count <= high), count))
        if not found:
            raise InputError(f"got {spec}, which holds no scene of {low} to {high} objects; expected at least one")
        return [Example(record.path, record.coordinates, record.path.name) for record in found]

    def write(self, folder: Path, *, count: int, seed: int, options: str, progress: Callable[[int], None]) -> None:
        """Scenes in CLEVR's layout, 480x320; `options` is the range of object counts, "3-5" or "textured:3-5"."""
        objects, textured = _kind(options)
        write(folder, count, objects=objects, seed=seed, progress=progress, textured=textured)

    def metrics(self) -> MetricCollection:
        """Perception rate, precision, estimation error and count accuracy."""
        return MetricCollection(
            {
                "perception_rate": PerceptionRate(),
                "precision": Precision(),
                "estimation_error": EstimationError(),
                "count_accuracy": CountAccuracy(),
            },
            compute_groups=False,
        )


def _kind(text: str) -> tuple[tuple[int, int], bool]:
    """The range of counts of "3-5", "textured:3-5", "textured" or "", and whether the scenes are textured."""
    kind, _, counts = text.partition(":")
    textured = kind == "textured"
    return parse_range((counts if textured else text) or "3-5", greatest=10), textured


def _rendered(index: int, *, objects: tuple[int, int], textured: bool, seed: int) -> Example:
    images, values = render_arrays(1, objects=objects, seed=seed, start=index, textured=textured)
    return Example(images[0].float() / 127.5 - 1.0, values[0], f"scene {index}")
