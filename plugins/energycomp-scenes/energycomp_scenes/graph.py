"""Scene graphs: described objects, and relations of them that must hold."""

from __future__ import annotations

import re
from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise

import attrs
import torch
from torch import Tensor

from energycomp.errors import InputError
from energycomp_scenes.relations import DIRECTIONS, KINDS, OPPOSITE, PHRASES, Formula

KIND = rf"(?:is |stands )?(?P<kind>{'|'.join(PHRASES)})\b"
TOKEN = re.compile(rf"\s*(?:{KIND}|(?P<word>[^\W\d]\w*)|(?P<mark>[()]))", re.IGNORECASE)
NAMED = re.compile(r"\s*([^\W\d]\w*)\s*:\s*(.*\S)\s*", re.DOTALL)
EXAMPLE = "'a: red cube; b: blue sphere; a left of b; not (a behind b)'"
RESERVED = ("and", "or", "not")


@attrs.frozen
class SceneGraph:
    """Objects by name, and what must hold of them.

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
        made = self._join("or")
        if self.at < len(self.tokens):
            raise self._error(self.tokens[self.at][1])
        return made

    def _join(self, op: str) -> Formula:
        parts = [self._one() if op == "and" else self._join("and")]
        while self._takes(op):
            parts.append(self._one() if op == "and" else self._join("and"))
        return parts[0] if len(parts) == 1 else Formula(op, tuple(parts))

    def _one(self) -> Formula:
        if self._takes("not"):
            return ~self._one()
        if self._takes("("):
            inner = self._join("or")
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
