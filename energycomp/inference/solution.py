"""What a solver returns, what it shows of itself, and what a solver is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import attrs
import torch
from PIL import Image
from torch import Tensor

from energycomp.components.conditioning import groups_of, mixed_of
from energycomp.errors import InputError
from energycomp.images import (
    as_picture,
    as_text,
    framed,
    grid,
    heat,
    html,
    open_window,
    overlay,
    png,
    rich_table,
    save_image,
    table_cells,
)
from energycomp.images.draw import SIDE
from energycomp.images.process import ImageProcessor
from energycomp.inference.problem import Problem
from energycomp.inference.quadratic import QuadraticForm
from energycomp.models.model import Model

NOTEBOOK = 320  # px, the shorter side of an image in a notebook
MAX_SIDE = 1024  # px of an image that is kept
JUDGED = ("certainty", "gain", "probability")  # of a component, beside its description
VERDICTS = ((0.9, "sure"), (0.6, "likely"))
OUT_OF_DISTRIBUTION = 0.01  # typicality below which an image is out of distribution: the rate of false alarms


@attrs.frozen(eq=False)
class View:
    """An image and its components in words and numbers. It holds no model, so that it is small and can be pickled.

    Args:
        image: the part of the image that the model sees, at most 1024 px a side; None for data that are no image.
        components, runner_up: as the conditioner describes them, JSON data; None for no other answer.
        attributes: the names of the attributes whose certainty is known, see `Solution.certainty`.
        noun: what a component is, "object" or "attribute", as the conditioner has it.

    >>> View(None, ({"x": 0.25, "y": 0.5}, {"x": 0.5, "y": 0.5})).places
    [(0.25, 0.5), (0.5, 0.5)]
    >>> View(None, ("a red cube",)).rows
    [{'value': 'a red cube'}]
    """

    image: Image.Image | None
    components: tuple[Any, ...]
    runner_up: tuple[Any, ...] | None = None
    attributes: tuple[str, ...] = ()
    noun: str = "object"

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One row per component: what the conditioner says by name, or as `value`."""
        return [as_row(one) for one in self.components]

    @property
    def places(self) -> list[tuple[float, float]]:
        """Where the components are, (x, y) in [0, 1]; none unless each of them says so."""
        places = [(row.get("x"), row.get("y")) for row in self.rows]
        known = all(isinstance(v, int | float) and math.isfinite(v) for place in places for v in place)
        return [(float(x), float(y)) for x, y in places] if known else []  # type: ignore[arg-type]

    def picture(self, *, side: int = SIDE) -> Image.Image:
        """The image with a numbered ring at each place, enlarged so that its shorter side has `side` px or more.

        Raises:
            InputError: there is no image.
        """
        if self.image is None:
            raise InputError("got a result without its image; expected one of `infer`; use energycomp.images.overlay")
        return overlay(self.image, self.places, side=side)


def as_row(described: Any) -> dict[str, Any]:
    """What a conditioner says of a value, as an object of JSON."""
    return dict(described) if isinstance(described, Mapping) else {"value": described}


@attrs.frozen(eq=False, repr=False)
class Solution:
    """An answer, with its error and how it compares to the runner-up. A notebook shows its image and its table.

    Args:
        conditions: values (K, *V).
        count: K.
        error: mean error J over the draws on which it was evaluated.
        stderr: standard error of that mean; 1.96 of them are half a 95 % interval, for few draws, too, see `as_normal`.
        rows: network rows spent.
        runner_up: the best other answer (K', *V), or None.
        difference: mean paired difference J(runner_up) - J(answer) on draws that selected neither; with a prior, of
            `Problem.with_prior` in the place of J, by which the p-value is that of the posterior, too.
        difference_stderr: its standard error, likewise.
        p_value: the probability of a difference at least as large on other draws, if both answers had the same expected
            error. It is not the probability that the runner-up is right, and says nothing about answers that were not
            searched.
        trace: what a plot of the search needs, lists of numbers by name.
        fit: share of the unconditional error that the answer explains, negative where it leaves more; None for the
            empty answer, and where the model has no unconditional prediction. This and what follows `infer` fills in.
        typicality: share of held-out images of as many components that leave errors at least as unusual, see
            `energycomp.models.Calibration`; None for a model without calibration.
        out_of_distribution: whether the typicality is below `OUT_OF_DISTRIBUTION`.
        component_gain: (K,) how much the error rises without each component, or None; of the solver.
        probability: (K,) the posterior of each component's value, softmax(-beta E) over all answers with E of
            `Problem.energies`, or None where the model has no inverse temperature; of the solver.
        certainty: (K, A) the posterior of the word of each attribute, of a conditioner with attributes that may be left
            open; NaN where the model has no inverse temperature. None for any other.
        words: (K, n_1 + ... + n_A) the posterior of all words of all attributes, of which `certainty` has the greatest.
        sure: the probability that the whole answer is right, count and words, as it was on held-out images; None where
            the model has no such fit.
        missing: (x, y) where a component may be missing or wrong: there the error is unusual, and in all it is not.
        at_count_limit: whether the count is an end of the range that was searched: the true one may be beyond it.
        view: the image, and the components as the conditioner describes them.
        share: (K,) how much the error rises without each component, as a share of the unconditional error that all of
            them explain, on the draws of `fit` and None where that is. They sum to 1 where components are seen apart.

    >>> Solution(torch.zeros(2, 2), 2, error=1.5, stderr=0.1, rows=64)
    Solution(2 components, error 1.5 ± 0.1, 64 network evaluations)
    """

    conditions: Tensor
    count: int
    error: float
    stderr: float
    rows: int
    runner_up: Tensor | None = None
    difference: float | None = None
    difference_stderr: float | None = None
    p_value: float | None = None
    trace: Mapping[str, Sequence[float]] = attrs.field(factory=dict)
    fit: float | None = None
    typicality: float | None = None
    out_of_distribution: bool = False
    component_gain: Tensor | None = None
    probability: Tensor | None = None
    at_count_limit: bool = False
    certainty: Tensor | None = None
    words: Tensor | None = None
    view: View | None = None
    share: Tensor | None = None
    sure: float | None = None
    missing: tuple[float, float] | None = None
    _maps: Tensor | None = None
    _form: QuadraticForm | None = None

    def maps(self) -> Tensor:
        """Which pixels each component explains, (K, H, W) at the model's size: the error without it minus the error.

        With r the scaled residual eps - eps_hat of the composition, and r_k that of the composition without component
        k, the map is the mean over draws of r_k^2 - r^2, summed over channels. Of all pixels it sums to the gain of
        the component, and is negative where the others explain more without it. The image's own edges sharpen it
        (`energycomp.images.guided`), and maps of latents are enlarged before; data that are no images have maps of
        their own shape (K, *shape). They cost no network evaluation: the draws are those of `fit`.

        Raises:
            InputError: no components, an answer that is not of `infer` or `explain`, or the only component of a model
                without an unconditional prediction.
        """
        if self._maps is None:
            raise InputError(
                f"got {self!r} without maps; expected components that `infer` found, or that `explain` was given, at "
                "least two where the model has no unconditional prediction"
            )
        return self._maps

    @property
    def unsupported(self) -> tuple[int, ...]:
        """The components (indices) without which the error does not rise: the image does not hold them.

        >>> Solution(torch.zeros(2, 2), 2, 1.0, 0.1, 0, component_gain=torch.tensor([3.0, -0.5])).unsupported
        (1,)
        """
        gains = [] if self.component_gain is None else self.component_gain.tolist()
        return tuple(k for k, gain in enumerate(gains) if gain <= 0)

    @property
    def trusted(self) -> bool:
        """Whether the image is one that the model knows: numbers of an answer to another one mean nothing."""
        return not self.out_of_distribution

    @property
    def verdict(self) -> str | None:
        """`sure` in a word: "sure" from 0.9 on, "likely" from 0.6 on, or "unsure"; "not trusted" of unknown images.

        >>> Solution(torch.zeros(0, 2), 0, 1.0, 0.1, 0, sure=0.97).verdict
        'sure'
        """
        if not self.trusted:
            return "not trusted"
        if self.sure is None:
            return None
        return next((word for least, word in VERDICTS if self.sure >= least), "unsure")

    @property
    def warnings(self) -> tuple[str, ...]:
        """Reasons not to trust the answer, one sentence each; none does not mean that it is right."""
        found = []
        if self.out_of_distribution:
            share = (
                "" if self.typicality is None else f": about {self.typicality:.1%} of held-out images leave such errors"
            )
            found.append(f"the image is out of distribution{share}; do not trust the answer")
        if self.missing is not None:
            x, y = self.missing
            found.append(
                f"an object may be missing or wrong near {x:.2f}, {y:.2f}: much of the image is unexplained there"
            )
        if self.at_count_limit:
            end = "at the end of the range that was searched"
            found.append(f"the count {self.count} is {end}; search a larger range (count=)")
        if self.unsupported:
            numbers = ", ".join(str(k + 1) for k in self.unsupported)
            found.append(f"the error does not rise without component {numbers}; the image may hold fewer")
        return tuple(found)

    @property
    def image(self) -> Image.Image | None:
        """The part of the image that the model sees, at most 1024 px a side; None for data that are no image."""
        return None if self.view is None else self.view.image

    def table(self) -> list[dict[str, Any]]:
        """One row per component, JSON data: what the conditioner says of it, its certainty, gain and probability.

        `print(solution)` prints the rows. Numbers that JSON does not have are None.

        >>> Solution(torch.ones(1, 2), 1, 1.5, 0.1, 64, component_gain=torch.tensor([2.5])).table()
        [{'value': [1.0, 1.0], 'gain': 2.5}]
        """
        view = self.view or View(None, ())
        shown = view.components if len(view.components) == len(self.conditions) else self.conditions.tolist()
        rows = list(map(as_row, shown))
        if view.attributes and self.certainty is not None and not bool(self.certainty.isnan().any()):
            for row, sure in zip(rows, self.certainty.tolist(), strict=True):
                row["certainty"] = dict(zip(view.attributes, sure, strict=True))
        for name, numbers in (("gain", self.component_gain), ("probability", self.probability)):
            for row, number in zip(rows, [] if numbers is None else numbers.tolist(), strict=numbers is not None):
                row[name] = _finite(number)
        return rows

    def record(self) -> dict[str, Any]:
        """The answer as JSON data, as `energycomp infer --json` prints it."""
        rival = self.view.runner_up if self.view is not None else None
        if rival is None and self.runner_up is not None:
            rival = tuple(self.runner_up.tolist())
        return {
            "count": self.count,
            "noun": View(None, ()).noun if self.view is None else self.view.noun,
            "sure": _finite(self.sure),
            "verdict": self.verdict,
            "trusted": self.trusted,
            "objects": self.table(),
            "fit": _finite(self.fit),
            "error": _finite(self.error),
            "stderr": _finite(self.stderr),
            "runner_up": None if rival is None else list(map(as_row, rival)),
            "p_value": _finite(self.p_value),
            "typicality": _finite(self.typicality),
            "out_of_distribution": self.out_of_distribution,
            "at_count_limit": self.at_count_limit,
            "unsupported": list(self.unsupported),
            "warnings": list(self.warnings),
            "rows": self.rows,
        }

    def picture(self, *, maps: bool = False, side: int = SIDE) -> Image.Image:
        """See `View.picture`; raises `InputError` without an image, which `infer` keeps, and a solver does not.

        Args:
            maps: the image beside the map of each component, over the image in grey, with its name and its share.
            side: least length in px of the shorter side of the image, or of each of them.
        """
        view = self.view or View(None, ())
        marked = view.picture(side=side)
        if not maps or view.image is None:
            return marked
        grey = framed(view.image, side=side).convert("L").convert("RGB")
        shown = [Image.blend(grey, heat(one.clamp(min=0), grey.size), 0.7) for one in self.maps()]
        shares = [""] * self.count if self.share is None else [f": {share:.0%}" for share in self.share.tolist()]
        rows = zip(view.rows, shares, strict=True)
        return grid(
            [marked, *shown], captions=["", *(f"{k} {_name(row)}{share}" for k, (row, share) in enumerate(rows, 1))]
        )

    def show(self) -> None:
        """Opens the marked image in a window; raises `InputError` where there is no image, or nothing shows it."""
        open_window(self.picture())

    def save(self, path: str | Path) -> None:
        """Writes the marked image as a PNG, JPEG or WebP file, by the end of its name; raises as `save_image` does."""
        save_image(self.picture(), path)

    def __repr__(self) -> str:
        noun = "component" if self.count == 1 else "components"
        parts = [f"{self.count} {noun}", f"error {self.error:.4g} ± {self.stderr:.2g}"]
        parts += [] if self.typicality is None else [f"typicality {self.typicality:.2g}"]
        parts.append(f"{self.rows:,} network evaluations")
        number = len(self.warnings)
        parts += [f"{number} warning{'' if number == 1 else 's'}"] if number else []
        return f"Solution({', '.join(parts)})"

    def __str__(self) -> str:
        record, warnings = self.record(), [f"warning: {one}" for one in self.warnings]
        return answer_text(record["objects"], answer_line(record), *warnings, noun=record["noun"], trusted=self.trusted)

    def _repr_html_(self) -> str:
        return html(str(self), None if self.image is None else self.picture(side=NOTEBOOK))

    def _repr_png_(self) -> bytes | None:
        return None if self.image is None else png(self.picture(side=NOTEBOOK))


def _name(row: Mapping[str, Any]) -> str:
    """What a conditioner says of a value, in one line: its words, then its numbers."""
    numbers = [f"{part:.2f}" for part in row.values() if isinstance(part, float)]
    return " ".join([*(str(part) for part in row.values() if not isinstance(part, float)), *numbers])


def view_of(model: Model, values: Tensor, *, image: Any = None, runner_up: Tensor | None = None) -> View:
    """The view of values (K, *V) of a model's conditioner.

    Args:
        image: one image, as `ImageProcessor` takes it; what is none is left out.
        runner_up: values of the best other answer.

    >>> import torch
    >>> from energycomp.testing import tinted_model
    >>> model = tinted_model()
    >>> view_of(model, model.conditioner.parse(0.25, 0.5, tint="red")).components
    ({'x': 0.25, 'y': 0.5, 'tint': 'red'},)
    """
    mixed = mixed_of(model.conditioner)
    others = None if runner_up is None else _described(model, runner_up)
    attributes = () if mixed is None else tuple(mixed.attributes)
    noun = "attribute" if groups_of(model.conditioner) else "object"
    return View(_frame(model, image), _described(model, values), others, attributes, noun)


def _described(model: Model, values: Tensor) -> tuple[Any, ...]:
    try:
        return tuple(model.conditioner.describe(value) for value in values)
    except Exception:  # a conditioner of a plugin; an answer is not lost because nothing describes it
        return tuple(values.tolist())


def _frame(model: Model, image: Any) -> Image.Image | None:
    """The part of the image that the model sees; None for data that are no image."""
    if not isinstance(model.processor, ImageProcessor):
        return None
    single = image[0] if isinstance(image, Sequence) and not isinstance(image, str) and len(image) == 1 else image
    try:
        frame = model.processor.frame(as_picture(single))
    except InputError:
        return None
    frame = model.shown(frame)
    frame.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS)
    return frame


def _finite(value: float | None) -> float | None:
    """JSON has no infinity, which is the standard error of a single draw."""
    return value if value is not None and math.isfinite(value) else None


def answer_cells(
    objects: Sequence[Mapping[str, Any]], noun: str = "object", *, trusted: bool = True
) -> tuple[list[str], list[list[str]]]:
    """The table of the objects of a record, as columns and texts; objects are numbered, attributes have a name.

    Args:
        noun: what they are, see `View`.
        trusted: whether the image is one that the model knows; else the numbers that judge objects are left out.

    >>> answer_cells([{"x": 0.5, "y": 0.25, "gain": 2.5}])
    (['#', 'x', 'y', 'gain'], [['1', '0.5', '0.25', '2.5']])
    """
    if not trusted:
        objects = [{name: "-" if name in JUDGED else value for name, value in one.items()} for one in objects]
    columns, cells = table_cells(objects)
    if noun == "attribute":
        return columns, cells
    return ["#", *columns], [[str(number), *row] for number, row in enumerate(cells, start=1)]


def answer_text(objects: Sequence[Mapping[str, Any]], *lines: str, noun: str = "object", trusted: bool = True) -> str:
    """The table of objects, and lines below it."""
    columns, cells = answer_cells(objects, noun, trusted=trusted)
    return "\n".join([*([as_text(rich_table(columns, cells))] if cells else []), *lines])


def answer_line(record: Mapping[str, Any]) -> str:
    """The line below the table of a record: the count, and how sure the answer is, in a word and a number.

    Without that number, how typical the image is, and the next best answer.
    """
    noun = record.get("noun", "object")  # a line of an earlier version has none
    parts = [f"{record['count']} {noun}{'' if record['count'] == 1 else 's'}"]
    if record.get("verdict") == "not trusted":
        return f"{parts[0]}, not trusted"
    if record.get("sure") is not None:
        return f"{parts[0]}, {record['verdict']} {record['sure']:.2f}"
    if record.get("typicality") is not None:
        parts.append(f"typicality {record['typicality']:.2g}")
    elif record["fit"] is not None:
        parts.append(f"fit {record['fit']:.3f}")
    if record["p_value"] is not None:
        parts.append(f"next best answer of {len(record['runner_up'] or ())}: p = {record['p_value']:.2g}")
    return ", ".join(parts)


@runtime_checkable
class Solver(Protocol):
    """Finds the values that explain an image best.

    `needs`, a class attribute, states the slots that it takes; `infer` checks it before any row is spent: "finite"
    (values are listed), "continuous", "differentiable" (continuous, for gradient descent) or None (any). Its options
    are the arguments of its constructor, all with default values. `energycomp_lab.checks.check_solver` checks a solver.
    """

    @property
    def needs(self) -> str | None: ...

    def solve(self, problem: Problem, *, generator: torch.Generator | None = None) -> Solution:
        """The best answer found; all random numbers come from the generator.

        A `Solution` needs its first five fields, and a runner-up the comparison by `energycomp.inference.paired`.
        Errors are those on draws that did not select the answer; `rows` is `problem.rows`.
        """


@runtime_checkable
class ReadsLast(Protocol):
    """A conditioner that reads what is left open otherwise (`MixedSupport.unread`), once all else is known."""

    def read_last(self, problem: Problem, values: Tensor, generator: torch.Generator | None, /) -> Tensor:
        """Values (K, *V) of a problem with what `infer` left open."""


@runtime_checkable
class HasSceneRecords(Protocol):
    """A data source with a file format for the objects of an image."""

    def scene_record(self, conditions: Sequence[Mapping[str, Any]], name: str) -> Mapping[str, Any]:
        """The record of the image `name` as JSON; the conditions are as in `Example`. Raises `InputError`."""
