"""Inference that shows its intermediate answers: the map of the search, then places, then attributes."""

from __future__ import annotations

import html
import warnings
from collections.abc import Callable
from typing import Any, Literal

import attrs
import torch
from PIL import Image
from torch import Tensor

from energycomp import infer
from energycomp.components import mixed_of
from energycomp.errors import EnergycompError, InputError
from energycomp.images import data_url
from energycomp.inference import NoiseBank, OutOfDistributionWarning, Problem, QuadraticForm, Solution, Solver
from energycomp.models import Model
from energycomp.plugins import find
from energycomp_scenes import belief
from energycomp_scenes.relations import OPPOSITE
from energycomp_studio.scene import Draft, Item

MAPS = 4  # maps of the search that are shown at most
SURE = 0.95  # probability from which a relation has none beside it
GUESSED = 0.25  # share of the first gain that the next component of a guess has at least


@attrs.frozen(eq=False)
class Stage:
    """An intermediate answer: values (K, *V), or maps of the gain of one more component, (M, side, side)."""

    kind: Literal["maps", "guess", "places", "attributes"]
    values: Tensor


@attrs.frozen(eq=False)
class Reading:
    """An image that was read: the image, its answer, and the descriptions of its components."""

    picture: Image.Image
    solution: Solution
    described: tuple[dict[str, Any], ...]


@attrs.frozen(eq=False)
class _Watched:
    solver: Solver
    report: Callable[[Stage], None]

    @property
    def needs(self) -> str | None:
        return self.solver.needs

    def solve(self, problem: Problem, *, generator: torch.Generator | None = None) -> Solution:
        watched: Any = _WatchedProblem(problem, self.report)
        return self.solver.solve(watched, generator=generator)


@attrs.define(eq=False)
class _WatchedProblem:
    """A problem that reports the first dictionary of a search, and each answer of which the error is asked."""

    problem: Problem
    report: Callable[[Stage], None]
    seen: bool = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.problem, name)

    def quadratic(self, atoms: Tensor, bank: NoiseBank) -> QuadraticForm:
        form = self.problem.quadratic(atoms, bank)
        if not self.seen and self.problem.value_shape == (2,) and len(atoms) ** 0.5 % 1 == 0 and len(atoms) > 1:
            self.seen = True
            maps, chosen = _search(form, self.problem)
            self.report(Stage("maps", maps))
            self.report(Stage("guess", atoms[chosen]))
        return form

    def errors(self, values: Tensor, bank: NoiseBank) -> Tensor:
        if len(values) == 1 and values.shape[1]:
            self.report(Stage("places", values[0].detach()))
        return self.problem.errors(values, bank)


def _search(form: QuadraticForm, problem: Problem) -> tuple[Tensor, list[int]]:
    """Searches the dictionary greedily: maps of how far one more component lowers the error, and what was chosen."""
    side = round(len(form) ** 0.5)
    chosen = list[int]()
    maps = list[Tensor]()
    left = first = float(form.errors([], problem.weighting(1)).mean())
    while len(chosen) < problem.counts[1]:
        errors = form.errors_with_each(chosen, problem.weighting(len(chosen) + 1)).mean(0)
        maps.append(-errors.reshape(side, side).T)  # the lattice counts x first
        best = int(errors.argmin())
        first = left - float(errors[best]) if not chosen else first
        if left - float(errors[best]) < GUESSED * first:
            break
        left = float(errors[best])
        chosen.append(best)
    return torch.stack(maps[:MAPS]), chosen


def read(picture: Image.Image, model: Model, report: Callable[[Stage], None], *, seed: int = 0) -> Reading:
    """Reads an image, and reports intermediate answers. The answer is that of `energycomp.infer` with this seed."""
    if model.decomposer_name is not None:
        raise InputError(f"got {model.name}, which reads parts at once; use the tab Decompose")
    solver = _Watched(find("solvers", model.defaults.solver)(), report)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OutOfDistributionWarning)  # `Solution.warnings` is shown
        solution = infer(picture, model, solver=solver, generator=seed, progress=False)
    if mixed_of(model.conditioner) is not None:
        report(Stage("places", solution.conditions))
    report(Stage("attributes", solution.conditions))
    return Reading(picture, solution, describe_values(solution.conditions, model))


def describe_values(values: Tensor, model: Model) -> tuple[dict[str, Any], ...]:
    """The fields of values (K, *V); places with three decimals, and what has no fields as a text."""
    return tuple(_fields(model.conditioner.describe(value)) for value in values)


def _fields(one: Any) -> dict[str, Any]:
    if isinstance(one, dict):
        return {name: round(field, 3) if isinstance(field, float) else field for name, field in one.items()}
    listed = one if isinstance(one, list) else [one]
    return {"text": ",".join(str(number) for number in listed)}


def scene_read(fields: tuple[dict[str, Any], ...]) -> Draft:
    """The scene of components that were read; each remembers its number."""
    return Draft(tuple(Item(one, origin=k) for k, one in enumerate(fields)))


def describe_answer(reading: Reading, model: Model) -> list[dict[str, Any]]:
    """What the page shows of each component of an answer, as JSON data.

    Returns:
        For each component its fields as they were read, `given`; how certain each word is, `sure`; by how much it
        lowers the error, `gain`, or None; an image that darkens all pixels but its own, `lit`, or ""; and its
        `relations` to others, see `find_relations`.

    >>> answer = Solution(torch.tensor([[0.3, 0.4]]), 1, 1.0, 0.1, 0, component_gain=torch.tensor([3.0]))
    >>> from energycomp.testing import bumps_model
    >>> describe_answer(Reading(Image.new("RGB", (4, 4)), answer, ({"x": 0.3, "y": 0.4},)), bumps_model())
    [{'given': {'x': 0.3, 'y': 0.4}, 'sure': {}, 'gain': 3.0, 'lit': '', 'relations': []}]
    """
    solution = reading.solution
    mixed = mixed_of(model.conditioner)
    # Numbers of an image that the model does not know mean nothing, and are left out.
    worded = mixed is not None and solution.certainty is not None and solution.trusted
    words = list(mixed.attributes) if mixed is not None and worded else []
    counted = solution.component_gain if solution.trusted else None
    gains = [None] * solution.count if counted is None else counted.tolist()
    maps = darken_others(solution) or [""] * solution.count
    relations = find_relations(solution) or [[] for _ in range(solution.count)]
    found = []
    for k, given in enumerate(reading.described):
        sure = {name: float(solution.certainty[k, j]) for j, name in enumerate(words)}  # type: ignore[index]
        found.append({"given": given, "sure": sure, "gain": gains[k], "lit": maps[k], "relations": relations[k]})
    return found


def darken_others(solution: Solution) -> list[str]:
    """For each component an image that darkens the pixels that it does not explain; none for an answer without maps."""
    try:
        maps = solution.maps().clamp(min=0)
    except InputError:
        return []
    dark = (200 * (1 - (maps / maps.amax((1, 2), keepdim=True).clamp(min=1e-12)).sqrt())).byte()
    return [
        data_url(Image.merge("LA", [Image.new("L", one.shape[::-1]), Image.fromarray(one.numpy())])) for one in dark
    ]


def find_relations(solution: Solution) -> list[list[tuple[int, str]]]:
    """For each object its relations to the others, in words, with their numbers; none for what are no objects.

    >>> objects = torch.tensor([[0.3, 0.4, 1, 1, 1, 1], [0.7, 0.6, 1, 1, 1, 1.0]])
    >>> find_relations(Solution(objects, 2, 1.0, 0.1, 0))
    [[(1, 'left of, behind')], [(0, 'right of, in front of')]]
    """
    try:
        pairs = belief(solution).relations()
    except InputError:
        return []
    found: list[list[tuple[int, str]]] = [[] for _ in range(solution.count)]
    for pair in pairs:
        for one, other, turned in ((pair["a"], pair["b"], False), (pair["b"], pair["a"], True)):
            said = [
                (kind if (pair[kind] > 0.5) != turned else OPPOSITE[kind], max(pair[kind], 1 - pair[kind]))
                for kind in ("left of", "in front of")
            ]
            words = [kind if sure > SURE else f"{kind} ({sure:.0%})" for kind, sure in said]
            found[one - 1].append((other - 1, ", ".join(words)))
    return found


def questions(reading: Reading) -> list[str]:
    """Questions about the objects that were read, as examples; none where there are no objects of CLEVR."""
    try:
        belief(reading.solution)
    except EnergycompError:
        return []
    named = [(one.get("color"), one.get("shape")) for one in reading.described]
    asked = [f"how many {shape}s are there?" for _, shape in named[:1]]
    # What is called by its colour and shape must be the only one.
    alone = [f"{color} {shape}" for color, shape in named if named.count((color, shape)) == 1]
    for name in alone[-1:]:
        asked += [f"what is left of the {name}?", f"what size is the {name}?"]
    return asked


def how_sure(solution: Solution) -> str:
    """How sure an answer is, to be added to a line; nothing where the model does not say it."""
    if solution.verdict is None:
        return ""
    number = "" if solution.sure is None or not solution.trusted else f" {solution.sure:.2f}"
    return f", {solution.verdict}{number}"


def notes(solution: Solution) -> str:
    """Reasons not to trust an answer, in HTML; a foreign image is one, and makes the others needless."""
    return "".join(map(write_warning, solution.warnings))


def write_warning(text: str) -> str:
    """A line that stands out, in HTML."""
    return f"<p class='warning'>{html.escape(text[:1].upper() + text[1:])}.</p>"
