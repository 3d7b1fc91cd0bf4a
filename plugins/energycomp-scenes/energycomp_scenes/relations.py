"""Relations of objects: formulas over named objects, as truth values and as energies of places.

Notation: variable -> symbol
    ground      (N, K, 2), where objects stand, in scene units: g_1 to the right and g_2 away from the viewer
    margin      m(a, b), how clearly a relation holds of two objects, in scene units: it holds where m > 0
    clear       c, the margin that is asked for

CLEVR's relations are those of places on the ground, along the directions of the camera (Johnson et al., 2017). A
relation is a factor of two places, of energy -log sigmoid((m - c) / SOFT). `&` adds energies, `|` takes a mixture, and
`~` turns margins around, so that what is denied is clearly not so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping

import attrs
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from energycomp_datasets.clevr.geometry import CAMERA_POSITION, HALF_HEIGHT, HALF_WIDTH, camera_basis
from energycomp_datasets.clevr.scenes import SIZES

SOFT = 0.1  # scene units
NEAR = 2.0  # scene units: the greatest distance of near places
ROW = 0.8  # scene units: the greatest depth between places in a row
HEIGHTS = (sum(SIZES.values()) / 2, *SIZES.values())  # of centres, of an open size, of a small and of a large object


@attrs.frozen
class Kind:
    """All that a relation is: scene graphs, questions and the listed relations of an image take it from here.

    Args:
        margin: m(a, b) of places (..., 2).
        opposite: the relation of b to a, along one direction; None where a and b may be exchanged.
        programs: its word in the programs of CLEVR; its name when left out.
        phrases: other ways to write it.
    """

    margin: Callable[[Tensor, Tensor], Tensor]
    opposite: str | None = None
    programs: str | None = None
    phrases: tuple[str, ...] = ()


KINDS: dict[str, Kind] = {
    "left of": Kind(lambda a, b: b[..., 0] - a[..., 0], "right of", "left", ("to the left of",)),
    "right of": Kind(lambda a, b: a[..., 0] - b[..., 0], "left of", "right", ("to the right of",)),
    "in front of": Kind(lambda a, b: b[..., 1] - a[..., 1], "behind", "front"),
    "behind": Kind(lambda a, b: a[..., 1] - b[..., 1], "in front of"),
    "near": Kind(lambda a, b: NEAR - (a - b).norm(dim=-1)),
    "in the same row as": Kind(lambda a, b: ROW - (a - b)[..., 1].abs()),
}
OPPOSITE = {name: kind.opposite for name, kind in KINDS.items() if kind.opposite is not None}
_names = list(KINDS)
DIRECTIONS = tuple(name for name, other in OPPOSITE.items() if _names.index(name) < _names.index(other))
SHOWN = tuple(name for name in KINDS if name in DIRECTIONS or name not in OPPOSITE)  # the others are their contraries
# What a person writes, and the relation that it names. Longer phrases come first: one may begin as a shorter one does.
_phrases = [(phrase, name) for name, kind in KINDS.items() for phrase in (name, *kind.phrases)]
PHRASES = dict(sorted(_phrases, key=lambda pair: -len(pair[0])))


def ground_of(values: Tensor, camera: Tensor | None = None) -> Tensor:
    """Where objects stand, (..., 2) in scene units, to the right of the origin and behind it as the camera sees them.

    Args:
        values: (..., 2) or more: x and y in [0, 1], and the code of the size, 0 for an open one.
        camera: (3,) where it stands; CLEVR's usual place when left out.

    >>> left, right = ground_of(torch.tensor([[0.5, 0.5, 0.0], [0.7, 0.5, 0.0]]))
    >>> (right - left).round(decimals=2)
    tensor([1.8600, -0.0000])
    """
    eye = torch.tensor(CAMERA_POSITION, device=values.device) if camera is None else camera
    basis = camera_basis(eye).to(values)
    x, y = (2 * values[..., :1] - 1) * HALF_WIDTH, (1 - 2 * values[..., 1:2]) * HALF_HEIGHT
    size = values[..., 2].long() if values.shape[-1] > 2 else torch.zeros_like(values[..., 0]).long()
    direction = basis[2] + x * basis[0] + y * basis[1]
    height = torch.tensor(HEIGHTS, device=values.device)[size]
    points = eye + ((height - eye[2]) / direction[..., 2].clamp(max=-0.05))[..., None] * direction
    flat = torch.nn.functional.normalize(basis[2, :2], dim=0)
    return torch.stack([points[..., :2] @ basis[0, :2], points[..., :2] @ flat], dim=-1)


@attrs.frozen
class Formula:
    """Relations of named objects: one, or several that `&`, `|` and `~` join."""

    op: str  # "and", "or", "not", or one of KINDS
    parts: tuple[Formula | str, ...]

    def __and__(self, other: Formula) -> Formula:
        return Formula("and", (self, other)) if isinstance(other, Formula) else NotImplemented  # type: ignore[redundant-expr]

    def __or__(self, other: Formula) -> Formula:
        return Formula("or", (self, other)) if isinstance(other, Formula) else NotImplemented  # type: ignore[redundant-expr]

    def __invert__(self) -> Formula:
        return Formula("not", (self,))

    def __repr__(self) -> str:
        if self.op in KINDS:
            return f"{self.parts[0]} {self.op} {self.parts[1]}"
        inner = [f"({one!r})" if one.op in {"and", "or"} - {self.op} else f"{one!r}" for one in self._formulas]
        return f"not {inner[0]}" if self.op == "not" else f" {self.op} ".join(inner)

    @property
    def _formulas(self) -> tuple[Formula, ...]:
        return tuple(one for one in self.parts if isinstance(one, Formula))

    @property
    def names(self) -> set[str]:
        """Of the objects."""
        own = {one for one in self.parts if isinstance(one, str)}
        return own.union(*(one.names for one in self._formulas))

    def demands(self, *, denied: bool = False) -> Iterator[Formula]:
        """The parts that must all hold, one after another; those of `not (a or b)` are `not a` and `not b`.

        >>> list((left_of("a", "b") & ~(behind("a", "b") | near("a", "b"))).demands())
        [a left of b, not a behind b, not a near b]
        """
        if self.op == "not":
            yield from self._formulas[0].demands(denied=not denied)
        elif self.op == ("or" if denied else "and"):
            for one in self._formulas:
                yield from one.demands(denied=denied)
        else:
            yield ~self if denied else self

    def log_probability(
        self, ground: Tensor, index: Mapping[str, int], *, clear: float = 0.0, denied: bool = False
    ) -> Tensor:
        """log p, (N,), that it holds, or not, of objects at places (N, K, 2) by the margin `clear`; differentiable.

        >>> ground = torch.tensor([[[-1.0, 0.0], [1.0, 2.0]], [[1.0, 0.0], [-1.0, 2.0]]])  # a is left, then right
        >>> left_of("a", "b").log_probability(ground, {"a": 0, "b": 1}).exp().round(decimals=3)
        tensor([1., 0.])
        """
        if self.op == "not":
            return self._formulas[0].log_probability(ground, index, clear=clear, denied=not denied)
        if self.op not in KINDS:
            inner = [one.log_probability(ground, index, clear=clear, denied=denied) for one in self._formulas]
            if (self.op == "and") != denied:
                return torch.stack(inner).sum(0)
            return torch.logsumexp(torch.stack(inner), 0) - math.log(len(inner))
        margin = self.margin(ground, index)
        return logsigmoid(((-margin if denied else margin) - clear) / SOFT)

    def margin(self, ground: Tensor, index: Mapping[str, int]) -> Tensor:
        """Of one relation, (N,): how clearly it holds, in scene units."""
        first, second = (ground[:, index[str(name)]] for name in self.parts)
        return KINDS[self.op].margin(first, second)

    def holds(self, ground: Tensor, index: Mapping[str, int]) -> Tensor:
        """Whether it holds, (N,), of objects at places (N, K, 2)."""
        if self.op == "not":
            return ~self._formulas[0].holds(ground, index)
        if self.op in KINDS:
            return self.margin(ground, index) > 0
        found = torch.stack([one.holds(ground, index) for one in self._formulas])
        return found.all(0) if self.op == "and" else found.any(0)


def _relation(kind: str) -> Callable[[str, str], Formula]:
    def relation(a: str, b: str) -> Formula:
        return Formula(kind, (a, b))

    relation.__doc__ = f"The relation that object a is {kind} object b; both are names."
    return relation


left_of = _relation("left of")
right_of = _relation("right of")
in_front_of = _relation("in front of")
behind = _relation("behind")
near = _relation("near")
in_row_with = _relation("in the same row as")
