"""Evaluation by drawing: an artist is asked for pictures of some skills, and says which of them are right."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch
from torch import Tensor

from energycomp.errors import InputError
from energycomp.images import to_output
from energycomp_lab.evaluation import Example

if TYPE_CHECKING:
    from energycomp_lab.evaluation.report import Scores


class Artist(Protocol):
    """What draws for a skill, and judges what it has drawn."""

    @property
    def name(self) -> str:
        """That the report gives."""

    def examples(self, spec: str, *, count: int, seed: int) -> Sequence[Example]:
        """Prompts, each with its skill."""

    def drawn(self, asked: Any, generator: torch.Generator) -> Drawn:
        """A picture of what was asked for."""

    def right(self, asked: Any, image: Tensor) -> tuple[bool, Any]:
        """Whether an image (3, H, W) in [0, 1] shows it and nothing else, and what it shows, as JSON."""


class Drawn(NamedTuple):
    """A picture (3, H, W) in [0, 1], how many were drawn for it, and their network evaluations.

    outlines: the shapes that were asked for, each with whether the outline of its object is nearest to it; of the
    objects that were whole in the picture.
    """

    image: Tensor
    tries: int
    rows: int
    outlines: tuple[tuple[str, bool], ...] = ()


class Drawing:
    """Draws what is asked for; the share of right pictures of each skill, and of right outlines of each shape."""

    def __init__(self, artist: Artist) -> None:
        self.artist = artist
        self.solver = artist.name
        self.of: dict[str, Scores] = {}

    @property
    def scores(self) -> list[Scores]:
        """Those of the skills that were asked, and of the shapes whose outlines were judged."""
        return list(self.of.values())

    def examples(self, spec: str, *, count: int, seed: int) -> Sequence[Example]:
        """Prompts, one of each skill in turn."""
        return self.artist.examples(spec, count=count, seed=seed)

    def true(self, example: Example) -> Tensor:
        """The prompt, as numbers."""
        return torch.tensor(list(example.name.encode()))

    def answer(self, example: Example, _: Tensor, generator: torch.Generator, /) -> tuple[Any, dict[str, Any]]:
        asked = (example.conditions or ())[0]
        image, tries, rows, outlines = self.artist.drawn(asked, generator)
        right, found = self.artist.right(asked, image)
        (shown,) = to_output(image[None], "pil", (0.0, 1.0))
        record = {"skill": asked.skill, "right": right, "found": found, "tries": tries, "rows": rows}
        return shown, {**record, "outlines": outlines}

    def score(self, _true: Tensor, _image: Tensor, record: Mapping[str, Any], /) -> None:
        self._add(record["skill"], [record["right"]])
        outlines = record.get("outlines", ())
        for shape in sorted({shape for shape, _ in outlines}):
            self._add(f"{shape}s_by_outline", [right for other, right in outlines if other == shape])

    def _add(self, name: str, right: Sequence[bool]) -> None:
        from torchmetrics import MeanMetric, MetricCollection

        from energycomp_lab.evaluation.report import Scores

        if name not in self.of:
            self.of[name] = Scores(MetricCollection({name: MeanMetric()}))
        self.of[name].update(torch.tensor(right).float())


def choose_skills(spec: str, known: Iterable[str]) -> list[str]:
    """The skills that a spec names, all of them where it is empty."""
    names = [name.strip() for name in spec.split(",")] if spec else list(known)
    if unknown := [name for name in names if name not in known]:
        raise InputError(f"got the skill {unknown[0]!r}; expected some of {', '.join(known)}")
    return names
