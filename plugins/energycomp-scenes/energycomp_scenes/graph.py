"""Scene graphs: described objects and relations of them; places and pictures that satisfy both.

Notation: variable -> symbol
    ground      g, the numbers of a sample: right and depth of each of the K objects, in scene units
    energy      -log p(relations | g) + E_layout(g) + E_field(g), a constraint on g ~ N(0, SPREAD^2)

Places are samples of a composition: a Gaussian component, which knows places that are given, and the energy as a
constraint of `SMC`. Those that satisfy all demands by the margin `CLEAR` are kept.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from typing import Any

import attrs
import torch
from torch import Tensor

from energycomp.components import Gaussian
from energycomp.errors import InputError
from energycomp.sampling import Composer
from energycomp.seeds import as_generator
from energycomp_clevr.objects import Objects, has_place
from energycomp_datasets.clevr.geometry import CAMERA_POSITION, camera_basis, project
from energycomp_samplers import constraint
from energycomp_samplers.smc import SMC
from energycomp_scenes.layouts import layout_prior
from energycomp_scenes.relations import DIRECTIONS, HEIGHTS, KINDS, OPPOSITE, PHRASES, Formula, ground_of

SPREAD, FIELD, EDGE = 1.7, 2.9, 0.08  # of places: scene units, half the side of CLEVR's square, share of the picture
CLEAR = 0.5  # scene units by which relations hold
APART = (0.21, 0.28)  # shares of the picture, across and down, between objects
PARTICLES, STEPS, TRIES = 512, 40, 3
HALF = math.log(0.5)
KIND = rf"(?:is |stands )?(?P<kind>{'|'.join(PHRASES)})\b"
TOKEN = re.compile(rf"\s*(?:{KIND}|(?P<word>[^\W\d]\w*)|(?P<mark>[()]))", re.IGNORECASE)
NAMED = re.compile(r"\s*([^\W\d]\w*)\s*:\s*(.*\S)\s*", re.DOTALL)
EXAMPLE = "'a: red cube; b: blue sphere; a left of b; not (a behind b)'"
RESERVED = ("and", "or", "not")


@attrs.frozen
class SceneGraph:
    """Objects by name, and what must hold of them.

    Args:
        objects: the description of each, as the conditioner of `clevr` reads it, with a place or without.
        relations: formulas that must all hold.

    >>> graph = scene("a: red cube; b: blue sphere; a left of b; not (a behind b or a near b)")
    >>> graph.demands
    (a left of b, not a behind b, not a near b)
    """

    objects: Mapping[str, str]
    relations: tuple[Formula, ...] = ()

    def __attrs_post_init__(self) -> None:
        if not self.objects:
            raise InputError(f"got a scene without objects; expected some, such as {EXAMPLE}")
        for formula in self.relations:
            for name in sorted(formula.names - self.objects.keys()):
                known = ", ".join(self.objects)
                raise InputError(f"got the name {name!r}; expected one of {known}; describe it, as in '{name}: object'")
        self._check_orders()

    @property
    def index(self) -> dict[str, int]:
        """The place of each name among the objects."""
        return {name: k for k, name in enumerate(self.objects)}

    @property
    def demands(self) -> tuple[Formula, ...]:
        """What must hold, one after another: relations, denied ones, and those that leave a choice."""
        return tuple(one for formula in self.relations for one in formula.demands())

    def holds(self, ground: Tensor) -> Tensor:
        """Whether all relations hold, (N,), of objects at places (N, K, 2) of `ground_of`."""
        return torch.stack(
            [torch.ones(len(ground), dtype=torch.bool), *(one.holds(ground, self.index) for one in self.relations)]
        ).all(0)

    def _check_orders(self) -> None:
        """Raises for demands along one direction that contradict each other."""
        for kind in DIRECTIONS:
            before: dict[str, set[str]] = {}
            for one in self.demands:
                inner, denied = (one.parts[0], True) if one.op == "not" else (one, False)
                if not isinstance(inner, Formula) or inner.op not in (kind, OPPOSITE[kind]):
                    continue
                first, second = map(str, inner.parts)
                forward = (inner.op == kind) != denied
                before.setdefault(second if forward else first, set()).add(first if forward else second)
            try:
                TopologicalSorter(before).prepare()
            except CycleError as error:
                pairs = pairwise(error.args[1])
                circle = ", ".join(f"{first} is {kind} {second}" for first, second in pairs)
                got = f"got relations by which {circle}"
                raise InputError(f"{got}; expected an order without a circle; leave one of them out") from error


def scene(text: str) -> SceneGraph:
    """A scene graph as a text: objects, `NAME: DESCRIPTION`, and relations of them, with semicolons between.

    Relations are "left of", "right of", "in front of", "behind", "near" and "in the same row as"; "and", "or", "not"
    and parentheses join them.

    Raises:
        InputError: a word that is not understood, a name without a description, or demands that contradict each other.

    >>> scene("a: cube; b: sphere; (a left of b or a behind b) and a near b").relations
    ((a left of b or a behind b) and a near b,)
    """
    objects: dict[str, str] = {}
    relations = []
    for part in filter(str.strip, re.split(r"[;\n]", text)):
        if (named := NAMED.fullmatch(part)) is None:
            relations.append(_Parser(part).formula())
            continue
        name, described = named.groups()
        if name in objects or name in RESERVED:
            raise InputError(f"got the name {name!r} in {text!r}; expected one that is not in use; choose another")
        objects[name] = described
    return SceneGraph(objects, tuple(relations))


class _Parser:
    """Formula := Choice; Choice := All ("or" All)*; All := One ("and" One)*; One := "not" One | (Choice) | a KIND b."""

    def __init__(self, text: str) -> None:
        self.text = text.strip()
        self.at = 0
        self.tokens = []
        place = 0
        while place < len(self.text):
            found = TOKEN.match(self.text, place)
            if found is None:
                raise self._error(self.text[place:].split()[0])
            place = found.end()
            self.tokens.append((str(found.lastgroup), found.group(str(found.lastgroup))))

    def formula(self) -> Formula:
        made = self._joined("or")
        if self.at < len(self.tokens):
            raise self._error(self.tokens[self.at][1])
        return made

    def _joined(self, op: str) -> Formula:
        parts = [self._one() if op == "and" else self._joined("and")]
        while self._takes(op):
            parts.append(self._one() if op == "and" else self._joined("and"))
        return parts[0] if len(parts) == 1 else Formula(op, tuple(parts))

    def _one(self) -> Formula:
        if self._takes("not"):
            return ~self._one()
        if self._takes("("):
            inner = self._joined("or")
            if not self._takes(")"):
                raise self._error("no ')'")
            return inner
        first, kind, second = self._next("word"), self._next("kind"), self._next("word")
        if first == second:
            raise InputError(f"got {first!r} in a relation to itself in {self.text!r}; expected two objects")
        return Formula(PHRASES[kind.lower()], (first, second))

    def _takes(self, text: str) -> bool:
        taken = self.at < len(self.tokens) and self.tokens[self.at][1].lower() == text
        self.at += taken
        return taken

    def _next(self, group: str) -> str:
        if self.at >= len(self.tokens) or self.tokens[self.at][0] != group or self.tokens[self.at][1] in RESERVED:
            raise self._error(self.tokens[self.at][1] if self.at < len(self.tokens) else "the end")
        self.at += 1
        return self.tokens[self.at - 1][1]

    def _error(self, got: str) -> InputError:
        kinds = ", ".join(KINDS)
        return InputError(
            f"got {got!r} in {self.text!r}; expected NAME RELATION NAME, with one of {kinds}; see {EXAMPLE}"
        )


def placed(
    graph: SceneGraph,
    n: int = 1,
    *,
    objects: Objects = Objects(),  # noqa: B008 - frozen
    generator: int | torch.Generator | None = None,
) -> Tensor:
    """Values (n, K, *V) of the objects of a graph, with places that satisfy it.

    Places that a description has are kept as they are.

    Args:
        graph: objects and relations.
        n: how many times they are placed.
        objects: the conditioner that reads the descriptions, such as that of a model with turns.
        generator: or a seed.

    Raises:
        InputError: a description that is not understood; no place was found where all holds, with what failed most
            often.

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
    """The places of K objects, as 2 K numbers.

    Args:
        graph: what must hold.
        known: (K, *V), values of the conditioner.
        given: (K,), which of their places are given.
    """

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
        mean, variance = torch.where(at, ground_of(self.known), 0.0), torch.where(at, 1e-4, SPREAD**2)
        return Gaussian(
            mean.flatten(), variance.expand(-1, 2).flatten(), name="places", sample_shape=(2 * len(at),), space="ground"
        )

    def values(self, numbers: Tensor) -> Tensor:
        """Values (N, K, *V) of numbers (N, 2 K)."""
        places = torch.where(self.given[:, None], self.known[:, :2], self._seen(numbers.unflatten(1, (-1, 2))))
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

    def _seen(self, ground: Tensor) -> Tensor:
        """Places in the picture (N, K, 2)."""
        heights = torch.tensor(HEIGHTS)[self.known[:, 2].long()].expand(len(ground), -1)
        return project(torch.cat([_turned(ground), heights[..., None]], dim=2), torch.tensor(CAMERA_POSITION))

    def _outside(self, ground: Tensor, values: Tensor) -> Tensor:
        """How far objects whose places are not given are out of CLEVR's square and of the picture, (N, K)."""
        beyond = (_turned(ground).abs() - FIELD).clamp(min=0).square().sum(2)
        edge = ((values[..., :2] - 0.5).abs() - (0.5 - EDGE)).clamp(min=0).square().sum(2)
        return (20 * beyond + 2e4 * edge) * ~self.given


def _turned(ground: Tensor) -> Tensor:
    """The scene's x and y of places to the right and away."""
    right, _, forward = camera_basis(torch.tensor(CAMERA_POSITION))
    return ground[..., :1] * right[:2] + ground[..., 1:] * torch.nn.functional.normalize(forward[:2], dim=0)
