"""Places that satisfy a scene graph.

Notation: variable -> symbol
    ground      g, the numbers of a sample: right and depth of each of the K objects, in scene units
    energy      -log p(relations | g) + E_layout(g) + E_field(g), a constraint on g ~ N(0, SPREAD^2)

Places are samples of a composition: a Gaussian component, which knows places that are given, and the energy as a
constraint of `SMC`. Those that satisfy all demands by the margin `CLEAR` are kept.
"""

from __future__ import annotations

import math
from typing import Any

import attrs
import torch
from torch import Tensor

from energycomp.components import Gaussian
from energycomp.errors import InputError
from energycomp.sampling import Composer
from energycomp.seeds import as_generator
from energycomp_clevr.objects import Objects
from energycomp_clevr.words import has_place
from energycomp_datasets.clevr.geometry import CAMERA_POSITION, camera_basis, project
from energycomp_samplers import constraint
from energycomp_samplers.smc import SMC
from energycomp_scenes.graph import SceneGraph
from energycomp_scenes.layouts import layout_prior
from energycomp_scenes.relations import HEIGHTS, ground_of

SPREAD = 1.7  # standard deviation of places, in scene units
FIELD = 2.9  # half the side of CLEVR's square, in scene units
EDGE = 0.08  # of the picture, in which no object stands
CLEAR = 0.5  # scene units by which relations hold
APART = (0.21, 0.28)  # shares of the picture, across and down, between objects
PARTICLES = 512
STEPS = 40
TRIES = 3
HALF = math.log(0.5)


def placed(
    graph: SceneGraph,
    n: int = 1,
    *,
    objects: Objects = Objects(),  # noqa: B008 - frozen
    generator: int | torch.Generator | None = None,
) -> Tensor:
    """Values (n, K, *V) of the objects of a graph, placed n times so that it holds.

    Places that a description has are kept as they are.

    Raises:
        InputError: a description that is not understood; no place was found where all holds, with what failed most
            often.

    >>> from energycomp_scenes import scene
    >>> values = placed(scene("a: red cube; b: sphere; a left of b"), 4, generator=0)
    >>> values.shape, bool((values[:, 0, 0] < values[:, 1, 0]).all())
    (torch.Size([4, 2, 6]), True)
    """
    layout = _Layout.of(graph, objects)
    random = as_generator(generator)
    sampler = SMC(constraint=constraint(layout.energy, gradient=True))
    how: dict[str, Any] = {"sampler": sampler, "num_inference_steps": STEPS, "output_type": "pt", "progress": False}
    how["report"] = lambda _: None  # copies of a few particles are what is searched for here
    kept: list[Tensor] = []
    for _ in range(TRIES):
        numbers = Composer(layout.base).sample(max(PARTICLES, 4 * n), generator=random, **how)
        found = layout.values(numbers)[layout.is_right(numbers)]
        kept += list(found.unique(dim=0))  # particles have copies
        if len(kept) >= n:
            return torch.stack(kept)[torch.randperm(len(kept), generator=random)[:n]]
    if kept:
        return torch.stack(kept)[torch.arange(n) % len(kept)]
    ground = numbers.unflatten(1, (-1, 2))
    failed = min(graph.relations, key=lambda one: float(one.holds(ground, graph.index).float().mean()), default=None)
    reason = "" if failed is None else f"; what failed most often is {failed!r}"
    raise InputError(f"got a scene without places where all holds{reason}; expected one that there is; leave it out")


@attrs.frozen(eq=False)
class _Layout:
    """The places of K objects, as 2 K numbers."""

    graph: SceneGraph
    known: Tensor
    given: Tensor

    @classmethod
    def of(cls, graph: SceneGraph, objects: Objects) -> _Layout:
        given = [has_place(text) for text in graph.objects.values()]
        texts = [text if at else f"{text} at 0.5,0.5" for text, at in zip(graph.objects.values(), given, strict=True)]
        return cls(graph, torch.cat(list(map(objects.read, texts))), torch.tensor(given))

    @property
    def base(self) -> Gaussian:
        """Where objects are before anything is asked of them."""
        at = self.given[:, None]
        mean = torch.where(at, ground_of(self.known), 0.0)
        variance = torch.where(at, 1e-4, SPREAD**2)
        return Gaussian(
            mean.flatten(), variance.expand(-1, 2).flatten(), name="places", sample_shape=(2 * len(at),), space="ground"
        )

    def values(self, numbers: Tensor) -> Tensor:
        """Values (N, K, *V) of numbers (N, 2 K)."""
        places = torch.where(self.given[:, None], self.known[:, :2], self._project(numbers.unflatten(1, (-1, 2))))
        return torch.cat([places, self.known[:, 2:].expand(len(places), -1, -1)], dim=2)

    def energy(self, numbers: Tensor) -> Tensor:
        """Energies (N,) of relations, of the layout, of what is out of the picture, and of what is close in it."""
        ground = numbers.unflatten(1, (-1, 2))
        values = self.values(numbers)
        total = self._outside(ground, values).sum(1) + layout_prior().energy(values)
        for one in self.graph.relations:
            total = total - one.log_probability(ground, self.graph.index, clear=CLEAR)
        i, j = torch.triu_indices(len(self.known), len(self.known), 1)
        apart = ((values[:, i, :2] - values[:, j, :2]) / torch.tensor(APART)).norm(dim=2)
        return total + 100 * (1 - apart).clamp(min=0).square().sum(1)

    def is_right(self, numbers: Tensor) -> Tensor:
        """Whether all relations hold, by half of `CLEAR`, of objects in the picture, (N,)."""
        ground = numbers.unflatten(1, (-1, 2))
        right = self._outside(ground, self.values(numbers)).amax(1) < 0.2
        for one in self.graph.relations:
            right &= one.log_probability(ground, self.graph.index, clear=CLEAR / 2) > HALF
        return right

    def _project(self, ground: Tensor) -> Tensor:
        """Places in the picture (N, K, 2)."""
        heights = torch.tensor(HEIGHTS)[self.known[:, 2].long()].expand(len(ground), -1)
        return project(torch.cat([_turn(ground), heights[..., None]], dim=2), torch.tensor(CAMERA_POSITION))

    def _outside(self, ground: Tensor, values: Tensor) -> Tensor:
        """How far objects whose places are not given are out of CLEVR's square and of the picture, (N, K)."""
        beyond = (_turn(ground).abs() - FIELD).clamp(min=0).square().sum(2)
        edge = ((values[..., :2] - 0.5).abs() - (0.5 - EDGE)).clamp(min=0).square().sum(2)
        return (20 * beyond + 2e4 * edge) * ~self.given


def _turn(ground: Tensor) -> Tensor:
    """The scene's x and y of places to the right and away."""
    right, _, forward = camera_basis(torch.tensor(CAMERA_POSITION))
    return ground[..., :1] * right[:2] + ground[..., 1:] * torch.nn.functional.normalize(forward[:2], dim=0)
