"""What a solver returns, with what `infer` says of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import attrs
import torch
from PIL import Image
from torch import Tensor

from energycomp.errors import InputError, NotFoundError
from energycomp.images import html, open_window, png, save_image
from energycomp.images.draw import SIDE
from energycomp.inference.quadratic import QuadraticForm
from energycomp.inference.view import View, answer_line, answer_text, as_row, row_text
from energycomp.inference.windows import WindowForm

VERDICTS = ((0.9, "sure"), (0.6, "likely"))
OUT_OF_DISTRIBUTION = 0.01  # typicality below which an image is out of distribution: the rate of false alarms
NOTEBOOK = 320  # px, the shorter side of an image in a notebook


@attrs.frozen(eq=False)
class Alternative:
    """Another answer than that of a solution.

    Args:
        conditions: values (K', *V).
        behind: by how many nats it is worse, on the draws that chose it; by which error, for a model without inverse
            temperature. The runner-up of a solution was compared on draws of its own: see `Solution.p_value`.

    >>> Alternative(torch.zeros(2, 2), behind=12.5).behind
    12.5
    """

    conditions: Tensor
    behind: float


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
            `Problem.with_prior` in the place of J, by which the p-value is that of the posterior, too. Where words are
            read after the search, as after "sgd", the words of both are open in it.
        difference_stderr: its standard error, likewise.
        p_value: the probability of a difference at least as large on other draws, if both answers had the same expected
            error. It is not the probability that the runner-up is right, and says nothing about answers that were not
            searched. `sure` says how likely the whole answer is right, and may be low beside a small p-value.
        trace: what a plot of the search needs, lists of numbers by name.
        component_gain: (K,) how much the error rises without each component, or None.
        probability: (K,) the posterior of each component's value, softmax(-beta E) over all answers with E of
            `Posterior.energies`, or None where the model has no inverse temperature.
        posteriors: (K, n) for each attribute: the posterior of its words, of a conditioner with attributes that may be
            left open; NaN where the model has no inverse temperature. None for any other.
        answer_posterior: that of the whole answer, count and words, of a solver that knows it; else None. See `sure`.
        form: the quadratic form of the components on the draws that compared them, by which `infer` judges the answer
            without a further network evaluation; it is not kept.
        alternatives: the other answers that the solver ranked, the runner-up first, see `best`.
        fit: share of the unconditional error that the answer explains, negative where it leaves more; None for the
            empty answer, and where the model has no unconditional prediction. `infer` fills in this and all below.
        typicality: share of held-out images of as many components that leave errors at least as unusual, see
            `energycomp.models.Calibration`; None for a model without calibration.
        missing: (x, y) where a component may be missing or wrong: there the error is unusual, and in all it is not.
        sure: the probability that the whole answer is right, count and attributes, as it was on held-out images; None
            where the model has no such fit, and where the answer was compared with no other one.
        at_count_limit: whether the count is an end of the range that was searched: the true one may be beyond it.
        share: (K,) how much the error rises without each component, as a share of the unconditional error that all of
            them explain, on the draws of `fit` and None where that is. They sum to 1 where components are seen apart.
        pixels: what makes the maps (K, H, W) that `maps` returns.
        counts: for each word of an attribute the likeliest number of components, and the ends of a 90 % interval of it,
            where the solver knows them.
        view: the image, and the components as the conditioner describes them.

    >>> Solution(torch.zeros(2, 2), 2, error=1.5, stderr=0.1, rows=64)
    Solution(2 components, error 1.5 ± 0.1, 64 network evaluations)

    Where `infer` has described it, `repr` has the words and places of its components, and how sure it is:

    >>> view = View(components=({"x": 0.3, "y": 0.5, "color": "red", "shape": "cube"},))
    >>> Solution(torch.zeros(1, 6), 1, error=1.5, stderr=0.1, rows=64, sure=0.97, view=view)
    Solution(1 component: red cube 0.30 0.50, sure 0.97, error 1.5 ± 0.1, 64 network evaluations)
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
    component_gain: Tensor | None = None
    probability: Tensor | None = None
    posteriors: tuple[Tensor, ...] | None = None
    answer_posterior: float | None = None
    form: QuadraticForm | WindowForm | None = None
    alternatives: tuple[Alternative, ...] = ()
    fit: float | None = None
    typicality: float | None = None
    missing: tuple[float, float] | None = None
    sure: float | None = None
    at_count_limit: bool = False
    share: Tensor | None = None
    pixels: Callable[[], Tensor] | None = None
    counts: Mapping[str, tuple[int, int, int]] = attrs.field(factory=dict)
    view: View = attrs.field(factory=View)

    def best(self, n: int) -> list[Alternative]:
        """The n best answers, or as many as the solver ranked: this one, its runner-up, and others by their errors.

        >>> other = Alternative(torch.ones(1, 2), behind=3.0)
        >>> [one.behind for one in Solution(torch.zeros(1, 2), 1, 1.0, 0.1, 0, alternatives=(other,)).best(5)]
        [0.0, 3.0]
        """
        return [Alternative(self.conditions, 0.0), *self.alternatives][: max(n, 0)]

    @property
    def certainty(self) -> Tensor | None:
        """(K, A) the posterior of the word that was found of each attribute, the greatest, or None."""
        return None if self.posteriors is None else torch.stack([each.amax(1) for each in self.posteriors], dim=1)

    @property
    def out_of_distribution(self) -> bool | None:
        """Whether the typicality is below `OUT_OF_DISTRIBUTION`, and no single place explains it; None without one.

        >>> Solution(torch.zeros(0, 2), 0, 1.0, 0.1, 0, typicality=0.001).out_of_distribution
        True
        """
        if self.typicality is None:
            return None
        return self.typicality < OUT_OF_DISTRIBUTION and self.missing is None

    @property
    def trusted(self) -> bool:
        """Whether the image is not out of distribution: numbers of an answer to one that is mean nothing."""
        return not self.out_of_distribution

    @property
    def verdict(self) -> str | None:
        """`sure` in a word: "sure" from 0.9 on, "likely" from 0.6 on, or "unsure"; "not trusted" of unknown images.

        >>> Solution(torch.zeros(0, 2), 0, 1.0, 0.1, 0, sure=0.97).verdict
        'sure'
        """
        if not self.trusted:
            return "not trusted"
        return None if self.sure is None else verdict_of(self.sure)

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
        if self.pixels is None:
            raise InputError(
                f"got {self!r} without maps; expected components that `infer` found, or that `explain` was given, at "
                "least two where the model has no unconditional prediction"
            )
        return self.pixels()

    @property
    def unsupported(self) -> tuple[int, ...]:
        """The components (indices) without which the error does not rise: the image does not hold them."""
        gains = [] if self.component_gain is None else self.component_gain.tolist()
        return tuple(k for k, gain in enumerate(gains) if gain <= 0)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Reasons not to trust the answer, one sentence each; none does not mean that it is right."""
        if self.out_of_distribution:  # then no count is right
            rate = f"about {self.typicality:.1%} of held-out images leave such errors"
            return (f"the image is out of distribution: {rate}; do not trust the answer",)
        reasons: list[str] = []
        if self.missing is not None:
            x, y = self.missing
            place = f"near {x:.2f}, {y:.2f}"
            reasons.append(f"an object may be missing or wrong {place}: much of the image is unexplained there")
        if self.at_count_limit:
            end = "at the end of the range that was searched"
            reasons.append(f"the count {self.count} is {end}; search a larger range of counts")
        if self.unsupported:
            numbers = ", ".join(str(k + 1) for k in self.unsupported)
            reasons.append(f"the error does not rise without component {numbers}; the image may hold fewer")
        return tuple(reasons)

    @property
    def image(self) -> Image.Image | None:
        """The part of the image that the model sees, at most 1024 px a side; None for data that are no images."""
        return self.view.image

    @property
    def objects(self) -> list[dict[str, Any]]:
        """The components as records, see `table`."""
        return self.table()

    def to_pandas(self) -> Any:
        """The components as a `pandas.DataFrame`, a row for each; certainties have columns such as "certainty.color".

        Raises:
            NotFoundError: the package pandas is not installed.

        >>> Solution(torch.ones(1, 2), 1, 1.5, 0.1, 64, component_gain=torch.tensor([2.5])).to_pandas()
                value  gain
        0  [1.0, 1.0]   2.5
        """
        try:
            pandas = import_module("pandas")
        except ImportError as error:
            message = "got no package pandas; expected it, which energycomp does not need otherwise"
            raise NotFoundError(f"{message}; pip install pandas, or use solution.objects") from error
        return pandas.json_normalize(self.table())

    def table(self) -> list[dict[str, Any]]:
        """One row per component, JSON data: what the conditioner says of it, its certainty, gain and probability.

        `print(solution)` prints the rows. Numbers that JSON does not have are None.

        >>> Solution(torch.ones(1, 2), 1, 1.5, 0.1, 64, component_gain=torch.tensor([2.5])).table()
        [{'value': [1.0, 1.0], 'gain': 2.5}]
        """
        # What a component is, in the words of the conditioner; the value itself where nothing has described it
        described: Sequence[Any] = self.view.components
        if len(described) != len(self.conditions):
            described = self.conditions.tolist()
        rows = list(map(as_row, described))
        # How sure each of its attributes is
        if self.view.attributes and self.certainty is not None and not bool(self.certainty.isnan().any()):
            for row, sure in zip(rows, self.certainty.tolist(), strict=True):
                row["certainty"] = dict(zip(self.view.attributes, sure, strict=True))
        for name, numbers in (("gain", self.component_gain), ("probability", self.probability)):
            if numbers is not None:
                for row, number in zip(rows, numbers.tolist(), strict=True):
                    row[name] = _finite(number)
        return rows

    def record(self) -> dict[str, Any]:
        """The answer as JSON data, as `energycomp infer --json` prints it."""
        rival = self.view.runner_up
        if rival is None and self.runner_up is not None:
            rival = tuple(self.runner_up.tolist())
        return {
            "count": self.count,
            "noun": self.view.noun,
            **({"counts": {word: list(numbers) for word, numbers in self.counts.items()}} if self.counts else {}),
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
            maps: the image beside the map of each component, over the image in grey, with its name and its share;
                without the share where the image is not one that the model knows.
            side: least length in px of the shorter side of the image, or of each of them.
        """
        if not maps or self.image is None:
            return self.view.picture(side=side)
        share = None if self.share is None or not self.trusted else self.share.tolist()
        return self.view.mapped(self.maps(), share, side=side)

    def show(self) -> None:
        """Opens the marked image in a window; raises `InputError` where there is no image, or nothing shows it."""
        open_window(self.picture())

    def save(self, path: str | Path) -> None:
        """Writes the marked image as a PNG, JPEG or WebP file, by the end of its name; raises as `save_image` does."""
        save_image(self.picture(), path)

    def __repr__(self) -> str:
        noun = "component" if self.count == 1 else "components"
        parts = [f"{self.count} {noun}"]
        # What they are, where words or numbers describe them
        rows = self.view.rows if len(self.view.components) == self.count else []
        if rows and all(isinstance(each, str | float | int) for row in rows for each in row.values()):
            parts[0] += f": {'; '.join(map(row_text, rows))}"
        if self.sure is not None:
            parts.append(f"{self.verdict} {self.sure:.2f}")
        parts.append(f"error {self.error:.4g} ± {self.stderr:.2g}")
        if self.typicality is not None:
            parts.append(f"typicality {self.typicality:.2g}")
        parts.append(f"{self.rows:,} network evaluations")
        number = len(self.warnings)
        if number:
            parts.append(f"{number} warning{'' if number == 1 else 's'}")
        return f"Solution({', '.join(parts)})"

    def __str__(self) -> str:
        record = self.record()
        warnings = [f"warning: {one}" for one in self.warnings]
        return answer_text(record, answer_line(record), *warnings)

    def _repr_html_(self) -> str:
        return html(str(self), None if self.image is None else self.picture(side=NOTEBOOK))

    def _repr_png_(self) -> bytes | None:
        return None if self.image is None else png(self.picture(side=NOTEBOOK))


def verdict_of(sure: float) -> str:
    """A probability in a word, see `Solution.verdict`."""
    return next((word for least, word in VERDICTS if sure >= least), "unsure")


def _finite(value: float | None) -> float | None:
    """JSON has no infinity, which is the standard error of a single draw."""
    return value if value is not None and math.isfinite(value) else None
