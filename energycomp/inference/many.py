"""Inference over several images whose network evaluations run in common batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from energycomp.denoisers.together import run_together
from energycomp.errors import InputError
from energycomp.inference.infer import infer
from energycomp.inference.solution import Solution, Solver
from energycomp.models.loading import model_of
from energycomp.models.model import Model
from energycomp.plugins.registry import object_of


def infer_many(
    images: Iterable[Any],
    model: Model | str | Path,
    *,
    batch_size: int = 8,
    solver: Solver | type[Solver] | str | None = None,
    count: int | Sequence[int] | None = None,
    candidates: Any = None,
    attributes: bool = True,
    seed: int = 0,
) -> Iterator[Solution]:
    """Solutions of several images, one after another; the network evaluations of a batch of images run together.

    Each answer is that of `infer(image, model, generator=seed)`, up to rounding in the network, and costs as many
    network evaluations. Evaluations with gradients run image by image. It is meant for accelerators; on a CPU,
    `energycomp infer --workers` uses all cores.

    Args:
        images: as `infer` takes them.
        model: a model, or its name or folder.
        batch_size: images whose evaluations run together. Each holds its predictions in memory.
        solver, count, candidates, attributes: as `infer` takes them.
        seed: of each image, so that an answer does not depend on the other images.

    Raises:
        InputError: as `infer`, for the first image that raises it; solutions of earlier batches are out by then.

    >>> from energycomp.testing import bumps_model, planted
    >>> import torch
    >>> model = bumps_model(solver="pursuit")
    >>> images = [planted(model, torch.tensor(places)) / 2 + 0.5 for places in ([[0.2, 0.2]], [[0.3, 0.7], [0.8, 0.3]])]
    >>> [solution.count for solution in infer_many([image[0] for image in images], model)]
    [1, 2]
    """
    if batch_size < 1:
        raise InputError(f"got batch_size={batch_size}; expected at least 1, such as 8")
    loaded = model_of(model)
    chosen = object_of("solvers", loaded.defaults.solver if solver is None else solver)
    read = partial(
        infer,
        model=loaded,
        solver=chosen,
        count=count,
        candidates=candidates,
        attributes=attributes,
        generator=seed,
        progress=False,
    )
    batch: list[Any] = []
    for image in images:
        batch.append(image)
        if len(batch) == batch_size:
            yield from run_together([partial(read, one) for one in batch])
            batch = []
    yield from run_together([partial(read, one) for one in batch])
