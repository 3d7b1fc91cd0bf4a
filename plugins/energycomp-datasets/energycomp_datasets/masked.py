"""Images with the masks of their objects as a data source: drawn ones, folders of them, and mask files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from energycomp_datasets.pictures import image_files, masks_of, write_examples
from energycomp_datasets.rooms.mask_files import examples_in, mask_file
from energycomp_datasets.synthetic import HELD_OUT, WRITTEN, synthetic
from energycomp_lab.evaluation import Example, Generated

if TYPE_CHECKING:
    from torchmetrics import MetricCollection

Draw = Callable[..., Example]  # draw(index, seed=SEED)


@attrs.frozen
class MaskedSource:
    """Images with the masks of their objects, (K, H, W).

    Args:
        parse: what draws the image of an index and a seed, for options such as "2-4"; `InputError` for others.
        metrics: makes the metrics.
        scene_scores: of images that a model samples without conditions, see `DataSource`.
    """

    parse: Callable[[str], Draw]
    metrics: Callable[[], MetricCollection]
    scene_scores: Callable[..., Mapping[str, float]] | None = None

    def examples(self, spec: str, *, count: int, seed: int) -> Sequence[Example]:
        """Images for "synthetic" or "synthetic:OPTIONS", held out from training; or those of a folder or a file.

        A folder is one that `write` makes, or any of images; a file is "scenes.npz", "scenes.h5" or "scenes.npz:4", see
        `mask_file`.
        """
        options = synthetic(spec)
        if options is not None:
            return Generated(count, partial(self.parse(options), seed=HELD_OUT + seed))
        file = mask_file(spec)
        if file is not None:
            return examples_in(file, count=count)
        return [Example(path, name=path.name, masks=masks_of(path)) for path in image_files(spec)[:count]]

    def write(self, folder: Path, *, count: int, seed: int, options: str, progress: Callable[[int], None]) -> None:
        """As `write_examples` does."""
        write_examples(folder, Generated(count, partial(self.parse(options), seed=WRITTEN + seed)), progress)
