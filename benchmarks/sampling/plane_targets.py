"""The nine tasks of CompLift in the plane: two components each, the samples that are right, and what is measured.

Yu and Gao (2025, "CompLift"). Products and negations `c` are empty: what counts there is the share of rejected samples.
A sample is right where it lies in the support of the target: within 3 standard deviations of a mode along both axes,
within 0.1 of a point or of a circle, or inside the box. For the two circles CompLift counts the discs as well.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import attrs
import torch
from torch import Tensor

from benchmarks.sampling.plane_densities import Box, Circle, Modes, Shape

__all__ = ["SHAPES", "TASKS", "Disc", "Task", "accuracy", "chamfer", "right_samples", "spread"]

SD, REACH = 0.03, 0.1
CROSSING = 0.75**0.5  # of unit circles around (-0.5, 0) and (0.5, 0)
LEFT, RIGHT = Box((-1.0, -1.0), (-0.5, 1.0)), Box((0.5, -1.0), (1.0, 1.0))
MODES = tuple(Modes(((x, 0.5), (x, 0.0), (x, -0.5)), SD) for x in (-0.25, 0.25))
RING = tuple((0.5 * math.cos(math.pi * i / 4), 0.5 * math.sin(math.pi * i / 4)) for i in range(8))

SHAPES: dict[str, Shape] = {
    "ring": Modes(RING, SD),
    "bar": Box((-0.1, -1.0), (0.1, 1.0)),
    "left circle": Circle((-0.5, 0.0)),
    "right circle": Circle((0.5, 0.0)),
    "left box": LEFT,
    "right box": RIGHT,
    "left modes": MODES[0],
    "right modes": MODES[1],
    "square": Box((-1.0, -1.0), (1.0, 1.0)),
    "small square": Box((-0.5, -0.5), (0.5, 0.5)),
    "strip": Box((-0.5, -2.0), (0.5, 2.0)),
}
"""The distinct components, in the order of the trained networks."""


@attrs.frozen
class Disc:
    """A region between two radii."""

    centre: tuple[float, float]
    outer: float
    inner: float = 0.0


@attrs.frozen
class Task:
    """Two components and their target.

    Args:
        a, b: names of the components.
        target: densities of equal weights; none where nothing is right.
        support: regions in which samples are right.
        loose: the regions of CompLift, where they are others.
    """

    kind: Literal["product", "summation", "negation"]
    a: str
    b: str
    target: tuple[Shape, ...] = ()
    support: tuple[Box | Disc, ...] = ()
    loose: tuple[Disc, ...] = ()


def _around(*modes: Modes) -> tuple[Box, ...]:
    """What is within 3 standard deviations of a mode."""
    centres = [centre for shape in modes for centre in shape.centres]
    return tuple(Box((x - 3 * SD, y - 3 * SD), (x + 3 * SD, y + 3 * SD)) for x, y in centres)


def _tasks() -> dict[str, Task]:
    poles = Modes(((0.0, 0.5), (0.0, -0.5)), SD)
    crossings = Modes(((0.0, CROSSING), (0.0, -CROSSING)), sd=0.0)
    frame = tuple(  # four boxes of one area
        Box(low, high)
        for low, high in (
            ((-1.0, -1.0), (-0.5, 0.5)),
            ((-0.5, -1.0), (1.0, -0.5)),
            ((-1.0, 0.5), (0.5, 1.0)),
            ((0.5, -0.5), (1.0, 1.0)),
        )
    )
    circles = (SHAPES["left circle"], SHAPES["right circle"])
    centres = ((-0.5, 0.0), (0.5, 0.0))
    return {
        "product_a": Task("product", "ring", "bar", (poles,), _around(poles)),
        "product_b": Task(
            "product",
            "left circle",
            "right circle",
            (crossings,),
            tuple(Disc(centre, REACH) for centre in crossings.centres),
        ),
        "product_c": Task("product", "left box", "right box"),
        "summation_a": Task("summation", "left modes", "right modes", MODES, _around(*MODES)),
        "summation_b": Task("summation", "left box", "right box", (LEFT, RIGHT), (LEFT, RIGHT)),
        "summation_c": Task(
            "summation",
            "left circle",
            "right circle",
            circles,
            tuple(Disc(centre, 1 + REACH, 1 - REACH) for centre in centres),
            tuple(Disc(centre, 1 + REACH) for centre in centres),
        ),
        "negation_a": Task("negation", "square", "small square", frame, frame),
        "negation_b": Task("negation", "square", "strip", (LEFT, RIGHT), (LEFT, RIGHT)),
        "negation_c": Task("negation", "small square", "square"),
    }


TASKS = _tasks()


def right_samples(task: Task, n: int, generator: torch.Generator) -> Tensor:
    """n samples (n, 2) of the target; none of an empty one.

    >>> right_samples(TASKS["summation_b"], 5, torch.Generator().manual_seed(0)).shape
    torch.Size([5, 2])
    """
    if not task.target:
        return torch.zeros(0, 2)
    parts = torch.stack([shape.sample(n, generator) for shape in task.target])
    return parts[torch.randint(len(parts), (n,), generator=generator), torch.arange(n)].float()


def accuracy(x: Tensor, support: Sequence[Box | Disc]) -> float:
    """The share of samples (n, 2) in one of the regions; NaN is in none.

    >>> accuracy(torch.tensor([[0.0, 0.0], [0.0, 1.0], [torch.nan, 0.0]]), [Disc((0.0, 0.0), 0.5)])
    0.3333333432674408
    """
    inside = torch.zeros(len(x), dtype=torch.bool)
    for region in support:
        if isinstance(region, Box):
            inside |= ((x >= torch.tensor(region.low)) & (x <= torch.tensor(region.high))).all(1)
        else:
            r = (x - torch.tensor(region.centre)).norm(dim=1)
            inside |= (r >= region.inner) & (r <= region.outer)
    return float(inside.float().mean())


def chamfer(x: Tensor, y: Tensor) -> float:
    """The mean distance to the nearest sample of the other set, both ways added, for (n, 2) and (m, 2).

    >>> chamfer(torch.zeros(1, 2), torch.tensor([[3.0, 4.0], [0.0, 0.0]]))  # 0 one way, (5 + 0) / 2 the other
    2.5
    """
    distances = torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")
    return float(distances.min(1).values.mean() + distances.min(0).values.mean())


def spread(x: Tensor) -> tuple[float, float]:
    """Standard deviations along both axes of samples (n, 2) of two modes that mirror each other at y = 0.

    >>> spread(torch.tensor([[1.0, 2.0], [-1.0, -2.0], [1.0, -2.0], [-1.0, 2.0]]))
    (1.0, 0.0)
    """
    return float(x[:, 0].std(correction=0)), float(x[:, 1].abs().std(correction=0))
