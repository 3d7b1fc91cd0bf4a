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
    """A picture (3, H, W) in [0, 1], how many were drawn for it, and their network evaluations."""

    image: Tensor
    tries: int
    rows: int


class Drawing:
    """Draws what is asked for; the share of right pictures of each skill."""

    def __init__(self, artist: Artist) -> None:
        self.artist, self.solver = artist, artist.name
        self.of: dict[str, Scores] = {}

    @property
    def scores(self) -> list[Scores]:
        """Those of the skills that were asked."""
        return list(self.of.values())

    def examples(self, spec: str, *, count: int, seed: int) -> Sequence[Example]:
        """Prompts, one of each skill in turn."""
        return self.artist.examples(spec, count=count, seed=seed)

    def true(self, example: Example) -> Tensor:
        """The prompt, as numbers."""
        return torch.tensor(list(example.name.encode()))

    def answer(self, example: Example, _: Tensor, generator: torch.Generator, /) -> tuple[Any, dict[str, Any]]:
        asked = (example.conditions or ())[0]
        image, tries, rows = self.artist.drawn(asked, generator)
        right, found = self.artist.right(asked, image)
        (shown,) = to_output(image[None], "pil", (0.0, 1.0))
        return shown, {"skill": asked.skill, "right": right, "found": found, "tries": tries, "rows": rows}

    def score(self, _true: Tensor, _image: Tensor, record: Mapping[str, Any], /) -> None:
        from torchmetrics import MeanMetric, MetricCollection

        from energycomp_lab.evaluation.report import Scores

        skill = record["skill"]
        if skill not in self.of:
            self.of[skill] = Scores(MetricCollection({skill: MeanMetric()}))
        self.of[skill].update(float(record["right"]))


def chosen(spec: str, known: Iterable[str]) -> list[str]:
    """The skills that a spec names, all of them where it is empty."""
    names = [name.strip() for name in spec.split(",")] if spec else list(known)
    if unknown := [name for name in names if name not in known]:
        raise InputError(f"got the skill {unknown[0]!r}; expected some of {', '.join(known)}")
    return names
