"""CLEVR as a data source: rendered scenes, and folders in the layouts of CLEVR and CLEVRTex."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from energycomp.errors import InputError
from energycomp.fields import parse_range
from energycomp.images import from_bytes, to_bytes
from energycomp_datasets.clevr.layout import FRAME, describe_objects, scan, scene_of, write
from energycomp_datasets.clevr.renderer import render
from energycomp_datasets.clevr.requests import SceneRequest, parse_request
from energycomp_datasets.synthetic import HELD_OUT, WRITTEN, synthetic
from energycomp_lab.evaluation import Example, Generated

if TYPE_CHECKING:
    from torchmetrics import MetricCollection


@attrs.frozen
class ClevrSource:
    """Images with their objects: {"x": 0.3, "y": 0.4}, in [0, 1], and size, color, material and shape where known.

    Args:
        size: (width, height) of rendered images where nothing else is asked for.

    >>> (example,) = ClevrSource().examples("synthetic:1", count=1, seed=0)
    >>> list(example.conditions[0])
    ['x', 'y', 'size', 'color', 'material', 'shape']
    """

    size: tuple[int, int] = (64, 64)

    def at(self, size: tuple[int, int]) -> ClevrSource:
        """Itself, for a model of images of a size (width, height)."""
        return attrs.evolve(self, size=size)

    def examples(self, spec: str, *, count: int, seed: int) -> Sequence[Example]:
        """Rendered scenes for "synthetic:3-5", held out from training, or a folder of CLEVR or CLEVRTex.

        "synthetic:textured:3-5" has other shapes, textures and grounds, "synthetic:wide:3-5:128x128" views and sizes
        that vary more, and larger images. A folder may be narrowed to a range of counts: "DIR:3-8".
        """
        options = synthetic(spec)
        if options is not None:
            wanted = parse_request(options, self.size)
            return Generated(count, partial(_render_example, wanted=wanted, seed=HELD_OUT + seed))
        folder, _, kept = spec.rpartition(":")
        low, high = (0, 64)
        if folder and kept.replace("-", "").isdigit() and not Path(spec).exists():
            spec = folder
            low, high = parse_range(kept)
        found = list(islice((record for record in scan(spec) if low <= record.count <= high), count))
        if not found:
            raise InputError(f"got {spec}, which holds no scene of {low} to {high} objects; expected at least one")
        examples = []
        for record in found:
            words = record.attributes or ({},) * record.count
            objects = [{"x": x, "y": y, **own} for (x, y), own in zip(record.coordinates.tolist(), words, strict=True)]
            examples.append(Example(record.path, name=record.path.name, conditions=objects))
        return examples

    def write(self, folder: Path, *, count: int, seed: int, options: str, progress: Callable[[int], None]) -> None:
        """Scenes in CLEVR's layout, 480x320 unless `options` says otherwise: "3-5" or "wide:0-5:128x128"."""
        wanted = parse_request(options, FRAME)
        write(
            folder, count, objects=wanted.objects, seed=WRITTEN + seed, size=wanted.size, progress=progress,
            textured=wanted.textured, variety=wanted.variety,
        )  # fmt: skip

    def render(self, folder: Path, *, seed: int, **settings: Any) -> None:
        """Scenes in CLEVR's layout, rendered by Blender; see `render_folder`."""
        from energycomp_datasets.clevr.blender import render_folder

        render_folder(folder, seed=WRITTEN + seed, **settings)

    def metrics(self) -> MetricCollection:
        """Perception rate, precision, estimation error and count accuracy."""
        from torchmetrics import MetricCollection

        from energycomp_lab.evaluation import CountAccuracy, EstimationError, PerceptionRate, Precision

        return MetricCollection(
            {
                "perception_rate": PerceptionRate(),
                "precision": Precision(),
                "estimation_error": EstimationError(),
                "count_accuracy": CountAccuracy(),
            },
            compute_groups=False,
        )


def _render_example(index: int, *, wanted: SceneRequest, seed: int) -> Example:
    scene = scene_of(seed, index, wanted.objects, wanted.textured, wanted.variety)
    width, height = wanted.size
    return Example(
        from_bytes(to_bytes(render(scene, (height, width)))), name=f"scene {index}", conditions=describe_objects(scene)
    )
