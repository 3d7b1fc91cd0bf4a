"""Pictures with the concepts that they show: drawn ones, and folders with one folder for each set of concepts."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache, partial
from itertools import combinations
from pathlib import Path

import attrs
import numpy as np
import torch
from torchmetrics import MetricCollection

from energycomp.errors import InputError
from energycomp.evaluation import Example, Generated
from energycomp.files import atomic_file
from energycomp.images import to_output
from energycomp_text.metrics import ConceptRecall, ExactSet
from energycomp_text.model import own_words
from energycomp_text.text import Text
from energycomp_text.world import CONCEPTS, held_out_pairs, picture, seen_pairs

__all__ = ["HELD_OUT", "Record", "TextSource", "drawn", "read", "unseen_triples"]

HELD_OUT = 1_000_000_000  # added to the seed of evaluation pictures, so that no training picture is among them
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp"})
KINDS = ("synthetic", "synthetic:seen", "synthetic:1", "synthetic:3")


@attrs.frozen
class Record:
    """A picture file and what it shows."""

    path: Path
    concepts: tuple[str, ...]


def read(spec: str) -> list[Record]:
    """The pictures of a folder whose folders are named for what their pictures show: `cat,dog/`, `rabbit/`.

    Pictures of all folders take turns, so that the first few are of every set.

    Raises:
        InputError: no such folder, or none with pictures in it.
    """
    root = Path(spec)
    try:
        folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    except (OSError, ValueError) as error:
        raise InputError(
            f"got {spec}, which is no folder; expected one with a folder for each set of concepts, such as cat,dog/"
        ) from error
    groups = []
    for folder in folders:
        names = tuple(dict.fromkeys(name.strip() for name in re.split(r",|\+", folder.name) if name.strip()))
        if not names:
            raise InputError(f"got the folder {folder}; expected the concepts of its pictures as its name: cat,dog")
        files = _pictures(folder)
        groups.append([Record(file, names) for file in files])
    longest = max(map(len, groups), default=0)
    records = [group[place] for place in range(longest) for group in groups if place < len(group)]
    if not records:
        raise InputError(
            f"got {spec} without folders of pictures; expected one folder for each set of concepts, such as "
            f"{spec}/cat,dog/1.jpg"
        )
    return records


def _pictures(folder: Path) -> list[Path]:
    try:
        files = sorted(file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES)
    except OSError as error:
        raise InputError(f"got {folder}, which cannot be read ({error.strerror}); check its permissions") from error
    return [file for file in files if not file.name.startswith(".")]


def drawn(index: int, seed: int, kind: str = "synthetic") -> tuple[tuple[str, ...], torch.Tensor]:
    """Picture number `index` of a seed: its concepts, and (3, 64, 64) in [-1, 1].

    >>> names, image = drawn(0, 0)
    >>> names in held_out_pairs(), image.shape
    (True, torch.Size([3, 64, 64]))
    """
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
    """Sets of three: training has two at most, and no pair that is held out."""
    held = set(held_out_pairs())
    return [names for names in combinations(CONCEPTS, 3) if any(pair in held for pair in combinations(names, 2))]


@attrs.frozen
class TextSource:
    """Pictures with the prompts of what they show, (K, L).

    Args:
        conditioner: of the model that the values are for; that of the small model when left out.

    >>> (example,) = TextSource().examples("synthetic", count=1, seed=0)
    >>> example.image.shape, len(example.values)
    (torch.Size([3, 64, 64]), 2)
    """

    conditioner: Text | None = None

    def adapted(self, conditioner: object) -> TextSource:
        """The same pictures with the prompts of this conditioner."""
        if not isinstance(conditioner, Text):
            raise InputError(f"got a model conditioned on {conditioner}; expected one on text")
        return TextSource(conditioner)

    def concepts(self, spec: str) -> Sequence[str]:
        """What the pictures of a spec are of."""
        if spec.startswith("synthetic"):
            return CONCEPTS
        return tuple(dict.fromkeys(name for record in read(spec) for name in record.concepts))

    def examples(self, spec: str, *, count: int, seed: int) -> Sequence[Example]:
        """Drawn pictures, or those of a folder with one folder for each set of concepts.

        "synthetic": pairs of concepts that no training picture shows. "synthetic:seen": other pairs. "synthetic:1",
        "synthetic:3": one object, and three, of which some pair was never seen.
        """
        if spec in KINDS:
            return Generated(count, partial(self._example, seed=HELD_OUT + seed, kind=spec))
        if spec.startswith("synthetic"):
            raise InputError(f"got {spec}; expected one of {', '.join(KINDS)}, or a folder")
        return [Example(record.path, self._values(record.concepts), str(record.path)) for record in read(spec)[:count]]

    def write(self, folder: Path, *, count: int, seed: int, options: str, progress: Callable[[int], None]) -> None:
        """Pictures in folders named for what they show; `options` such as 3 or seen, held-out pairs otherwise."""
        kind = f"synthetic:{options}" if options else "synthetic"
        if kind not in KINDS:
            known = ", ".join(name.partition(":")[2] for name in KINDS[1:])
            raise InputError(f"got the options {options!r}; expected one of {known}, or none")
        for index in range(count):
            names, image = drawn(index, seed, kind)
            place = folder / ",".join(names)
            place.mkdir(parents=True, exist_ok=True)
            with atomic_file(place / f"{index:06d}.png") as temporary:
                to_output(image[None], "pil")[0].save(temporary, format="PNG")
            progress(index + 1)

    def metrics(self) -> MetricCollection:
        """Whether the set is exactly right, and the share of concepts that is found."""
        return MetricCollection({"exact_match": ExactSet(), "recall": ConceptRecall()}, compute_groups=False)

    def _example(self, index: int, *, seed: int, kind: str) -> Example:
        names, image = drawn(index, seed, kind)
        return Example(image, self._values(names), " and ".join(names))

    def _values(self, names: Sequence[str]) -> torch.Tensor:
        """Prompts (K, L)."""
        conditioner = self.conditioner or _own_words()
        return torch.cat([conditioner.parse(concept=name) for name in names])


@cache
def _own_words() -> Text:
    return own_words()
