"""Images with the concepts that they show: rendered ones, and folders with one folder per set of concepts."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import numpy as np
import torch

from energycomp.errors import InputError
from energycomp.images import FORMATS, save_image, to_output
from energycomp_datasets.solids.solids import CONCEPTS, held_out_pairs, picture, seen_pairs
from energycomp_datasets.synthetic import HELD_OUT, WRITTEN
from energycomp_lab.evaluation import Example, Generated

if TYPE_CHECKING:
    from torchmetrics import MetricCollection

KINDS = ("synthetic", "synthetic:seen", "synthetic:1", "synthetic:3")


@attrs.frozen
class SolidsRecord:
    """An image file and the concepts that it shows."""

    path: Path
    concepts: tuple[str, ...]


def read(spec: str) -> list[SolidsRecord]:
    """The images of a folder whose subfolders are named after what their images show: `cat,dog/`, `rabbit/`.

    Images of all folders take turns, so that the first few show every set.

    Raises:
        InputError: no such folder, or none with images in it.
    """
    root = Path(spec)
    try:
        folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    except (OSError, ValueError) as error:
        raise InputError(
            f"got {spec}, which is not a folder; expected one with a folder for each set of concepts, such as cat,dog/"
        ) from error
    groups = []
    for folder in folders:
        names = tuple(dict.fromkeys(name.strip() for name in re.split(r",|\+", folder.name) if name.strip()))
        if not names:
            raise InputError(f"got the folder {folder}; expected the concepts of its images as its name: cat,dog")
        files = _files(folder)
        groups.append([SolidsRecord(file, names) for file in files])
    longest = max(map(len, groups), default=0)
    records = [group[place] for place in range(longest) for group in groups if place < len(group)]
    if not records:
        raise InputError(
            f"got {spec} without folders of images; expected one folder for each set of concepts, such as "
            f"{spec}/cat,dog/1.jpg"
        )
    return records


def _files(folder: Path) -> list[Path]:
    try:
        files = sorted(file for file in folder.iterdir() if file.suffix.lower() in FORMATS)
    except OSError as error:
        raise InputError(f"got {folder}, which cannot be read ({error.strerror}); check its permissions") from error
    return [file for file in files if not file.name.startswith(".")]


def draw(index: int, seed: int, kind: str = "synthetic") -> tuple[tuple[str, ...], torch.Tensor]:
    """Image number `index` of a seed: its concepts, and (3, 64, 64) in [-1, 1]."""
    rng = np.random.default_rng([seed, index])
    if kind == "synthetic:3":
        triples = unseen_triples()
        names: tuple[str, ...] = triples[int(rng.integers(len(triples)))]
    elif kind == "synthetic:1":
        names = (CONCEPTS[int(rng.integers(len(CONCEPTS)))],)
    else:
        pairs = held_out_pairs() if kind == "synthetic" else seen_pairs()
        names = pairs[int(rng.integers(len(pairs)))]
    return names, picture(names, rng)


def unseen_triples() -> list[tuple[str, ...]]:
    """Sets of three concepts with a held-out pair; no training image shows one of them."""
    held = set(held_out_pairs())
    return [names for names in combinations(CONCEPTS, 3) if not held.isdisjoint(combinations(names, 2))]


@attrs.frozen
class TextSource:
    """Images with the concepts that they show: {"concept": "red cube"}.

    >>> (example,) = TextSource().examples("synthetic", count=1, seed=0)
    >>> example.image.shape, len(example.conditions)
    (torch.Size([3, 64, 64]), 2)
    """

    def concepts(self, spec: str) -> Sequence[str]:
        """The concepts that the images of a spec show."""
        if spec in KINDS:
            return CONCEPTS
        return tuple(dict.fromkeys(name for record in read(spec) for name in record.concepts))

    def examples(self, spec: str, *, count: int, seed: int) -> Sequence[Example]:
        """Rendered images, or those of a folder with one folder per set of concepts.

        "synthetic": pairs of concepts that no training image shows. "synthetic:seen": other pairs. "synthetic:1": one
        object. "synthetic:3": three objects with a held-out pair.
        """
        if spec in KINDS:
            return Generated(count, partial(_example, seed=HELD_OUT + seed, kind=spec))
        if spec.startswith("synthetic") and not Path(spec).is_dir():
            raise InputError(f"got {spec}; expected one of {', '.join(KINDS)}, or a folder")
        return [
            Example(record.path, name=str(record.path), conditions=_conditions(record.concepts))
            for record in read(spec)[:count]
        ]

    def write(self, folder: Path, *, count: int, seed: int, options: str, progress: Callable[[int], None]) -> None:
        """Images in folders named after what they show; `options` is 1, 3, seen, or empty for held-out pairs."""
        kind = f"synthetic:{options}" if options else "synthetic"
        if kind not in KINDS:
            known = ", ".join(name.partition(":")[2] for name in KINDS[1:])
            raise InputError(f"got the options {options!r}; expected one of {known}, or none")
        for index in range(count):
            names, image = draw(index, WRITTEN + seed, kind)
            save_image(to_output(image[None], "pil")[0], folder / ",".join(names) / f"{index:06d}.png")
            progress(index + 1)

    def metrics(self) -> MetricCollection:
        """Share of images whose set is exactly right, and recall of concepts."""
        from torchmetrics import MetricCollection

        from energycomp_datasets.solids.metrics import ConceptRecall
        from energycomp_lab.evaluation import ExactSet

        return MetricCollection({"exact_match": ExactSet(), "recall": ConceptRecall()}, compute_groups=False)


def _example(index: int, *, seed: int, kind: str) -> Example:
    names, image = draw(index, seed, kind)
    return Example(image, name=" and ".join(names), conditions=_conditions(names))


def _conditions(names: Sequence[str]) -> list[dict[str, str]]:
    return [{"concept": name} for name in names]
