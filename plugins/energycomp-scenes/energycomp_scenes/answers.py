"""Answers to questions about an image: CLEVR's programs on the samples of a belief.

A program is a list of steps, as in CLEVR's question files: each names a function, the steps that it takes, and a word.
The answer is the most frequent one among the samples.
Sets of objects are masks (S, K) over the samples of a belief. Samples that contradict what a question takes for granted
("the red cube", where there are two) do not count: the question itself is evidence.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from energycomp.errors import InputError
from energycomp_clevr.codes import ATTRIBUTES
from energycomp_scenes.questions import program_of
from energycomp_scenes.reading import Belief
from energycomp_scenes.relations import KINDS

RELATE = {kind.programs or name: name for name, kind in KINDS.items()}  # by the word of programs
Step = Mapping[str, Any]


@attrs.frozen
class Answer:
    """An answer, and how likely it is.

    Args:
        value: a number, "yes" or "no", a word, or a list of numbers of objects; None where no sample has what the
            question takes for granted.
        probability: the share of this answer, the most frequent one, among the samples that have what is taken for
            granted.
        granted: the share of samples that have what the question takes for granted.

    >>> print(Answer("red", 0.97, 1.0))
    red (97%)
    """

    value: int | str | list[int] | None
    probability: float
    granted: float

    def __str__(self) -> str:
        if self.value is None:
            return "no answer: the picture has not what the question takes for granted"
        shown = ", ".join(map(str, self.value)) or "none" if isinstance(self.value, list) else self.value
        return f"{shown} ({self.probability:.0%})"


def answer(question: str | Sequence[Step], belief: Belief) -> Answer:
    """The answer to a question, in words as `program_of` takes them, or as a program.

    Raises:
        InputError: a question that is not understood, a step of a program that there is not, or a word that the reading
            left open.

    >>> seen = Belief(torch.tensor([[[0.0, 0.0], [2.0, 1.0]]]), torch.tensor([[[1, 2, 2, 1], [2, 3, 1, 2]]]))
    >>> print(answer("what color is the thing that is left of the sphere?", seen))
    red (100%)
    """
    program = program_of(question) if isinstance(question, str) else question
    run = _Run(belief)
    for step in program:
        run.take(step)
    if not run.made:
        raise InputError("got a program without steps; expected some, such as [{'function': 'scene', 'inputs': []}]")
    found = run.made[-1]
    granted = run.granted
    share = float(granted.float().mean())
    if not granted.any():
        return Answer(None, 0.0, share)
    # The most frequent result among the samples, and its share.
    kept = found[granted]
    if kept[0].shape == (0,):  # `unique` takes no sets of an image without objects
        return Answer([], 1.0, share)
    values, counts = kept.unique(dim=0, return_counts=True)
    best = int(counts.argmax())
    probability = float(counts[best] / len(kept))
    if kept.ndim == 2:  # sets of objects
        return Answer([k + 1 for k, is_in in enumerate(values[best].tolist()) if is_in], probability, share)
    function = str(program[-1].get("function", program[-1].get("type")))
    if function == "unique":  # a single object, by its index
        return Answer([int(values[best]) + 1], probability, share)
    return Answer(_name(function, int(values[best])), probability, share)


def _name(function: str, value: int) -> int | str:
    if function in ("count", *ATTRIBUTES):
        return value
    attribute = function.removeprefix("query_")
    return ATTRIBUTES[attribute][value - 1] if attribute in ATTRIBUTES else ("no", "yes")[value]


@attrs.define(eq=False)
class _Run:
    """The results of the steps of a program: sets (S, K), indices of single objects, numbers or truth values (S,)."""

    belief: Belief
    made: list[Tensor] = attrs.field(factory=list)
    granted: Tensor = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.granted = torch.ones(len(self.belief.codes), dtype=torch.bool)

    def take(self, step: Step) -> None:
        """Adds the result of a step; steps are as in CLEVR's files, old and new."""
        function = str(step.get("function", step.get("type")))
        given = step.get("value_inputs", step.get("side_inputs", []))
        self._check_known(function)
        try:
            inputs = [self.made[k] for k in step.get("inputs", [])]
            self.made.append(self._result(function, inputs, *given))
        except (IndexError, ValueError, TypeError, KeyError, RuntimeError) as error:
            raise InputError(f"got the step {dict(step)!r}; expected one of CLEVR's programs: {error}") from error

    def _check_known(self, function: str) -> None:
        """Raises for a step that asks for words which are open: code 0."""
        kind, _, attribute = function.partition("_")
        if kind not in ("filter", "same", "query") or attribute not in ATTRIBUTES:
            return
        if bool((self.belief.codes[..., list(ATTRIBUTES).index(attribute)] == 0).any()):
            got = f"got a question about {attribute}, which the reading left open"
            raise InputError(f"{got}; expected a reading with words; read the image with attributes=True")

    def _result(self, function: str, inputs: list[Tensor], word: str = "") -> Tensor:
        kind, _, attribute = function.partition("_")
        codes = self.belief.codes
        place = list(ATTRIBUTES).index(attribute) if attribute in ATTRIBUTES else -1
        if function == "scene":
            return torch.ones(codes.shape[:2], dtype=torch.bool)
        if kind == "filter" and place >= 0:
            return inputs[0] & (codes[..., place] == ATTRIBUTES[attribute].index(word) + 1)
        if function == "unique":
            self.granted = self.granted & (inputs[0].sum(1) == 1)
            return inputs[0].int().argmax(1) if inputs[0].shape[1] else torch.zeros(len(codes), dtype=torch.long)
        if function == "relate":
            one = self._at(self.belief.ground, inputs[0])
            related = KINDS[RELATE.get(word, word)].margin(self.belief.ground, one) > 0
            return related & (torch.arange(codes.shape[1]) != inputs[0][:, None])  # nothing is near itself
        if kind == "same" and place >= 0:
            same = codes[..., place] == self._at(codes, inputs[0])[..., place]
            return same & (torch.arange(codes.shape[1]) != inputs[0][:, None])
        if kind == "query" and place >= 0:
            return self._at(codes, inputs[0])[:, 0, place]
        if kind == "equal" and (place >= 0 or attribute == "integer"):
            return (inputs[0] == inputs[1]).long()
        simple: dict[str, Callable[..., Tensor]] = {
            "count": lambda a: a.sum(1), "exist": lambda a: a.any(1).long(), "union": torch.logical_or,
            "intersect": torch.logical_and, "less_than": lambda a, b: (a < b).long(),
            "greater_than": lambda a, b: (a > b).long(),
        }  # fmt: skip
        if function not in simple:
            raise ValueError(f"no function {function!r}")
        return simple[function](*inputs)

    @staticmethod
    def _at(of_all: Tensor, index: Tensor) -> Tensor:
        """What single objects (S,) have of (S, K, D), (S, 1, D)."""
        if not of_all.shape[1]:
            return of_all.new_zeros(len(of_all), 1, of_all.shape[2])
        return of_all.gather(1, index[:, None, None].expand(-1, 1, of_all.shape[2]))
