"""The methods of the tables as functions of an image and its number of objects that return places."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import attrs
import torch
from torch import Tensor, nn

from benchmarks.baselines.compound import MOST, PlaceSet
from benchmarks.baselines.padding import kept
from energycomp import Model, infer
from energycomp.images import to_unit
from energycomp.inference import OutOfDistributionWarning, Solver

__all__ = ["Method", "Reader", "composed", "joint", "regressed"]

Reader = Callable[[Tensor, int, torch.Generator], tuple[Tensor, int]]  # picture, count: places (K, 2), rows


@attrs.frozen
class Method:
    """A row of a table.

    Args:
        key: what records call it; it names every setting that changes an answer.
        label: what the table calls it.
        pictures: how many it reads.
        readers: makers of one reader for each training seed.
    """

    key: str
    label: str
    pictures: int
    readers: tuple[Callable[[], Reader], ...]


def composed(model: Model, solver: Solver, *, known: bool = True) -> Reader:
    """Our own model under a solver, told the number of objects or not."""

    def read(image: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, int]:
        return _infer(image, model, solver, count if known else None, generator)

    return read


def joint(model: Model, solver: Solver) -> Reader:
    """A generative classifier: its one value is the set of as many places as the picture has (thesis alg. 5)."""

    def read(image: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, int]:
        asked = attrs.evolve(model, conditioner=PlaceSet(min(count, MOST)))
        places, rows = _infer(image, asked, solver, 1, generator)
        return places[0], rows

    return read


def regressed(network: nn.Module, *, known: bool = True) -> Reader:
    """A network that puts out padded places; told the number of objects, the outputs farthest from (1, 1) stay."""

    @torch.no_grad()
    def read(image: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, int]:
        return kept(network(image[None], generator)[0], count if known else None), 1

    return read


def _infer(
    image: Tensor, model: Model, solver: Solver, count: int | None, generator: torch.Generator
) -> tuple[Tensor, int]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OutOfDistributionWarning)  # how wrong the answers are is what is measured
        solution = infer(to_unit(image), model, solver=solver, count=count, generator=generator)
    return solution.conditions.detach(), solution.rows
