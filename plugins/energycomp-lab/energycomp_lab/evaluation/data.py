"""Data sources: images with what is known of them, which `energycomp data` writes and `energycomp evaluate` reads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, overload, runtime_checkable

import attrs
import torch
from torch import Tensor

from energycomp.components import Conditioner, groups_of, mixed_of, random_values, value_of
from energycomp.decomposition import Decomposer
from energycomp.errors import InputError
from energycomp.images import ImageProcessor
from energycomp.models import Model
from energycomp.plugins import find, names

if TYPE_CHECKING:
    from torchmetrics import MetricCollection

    from energycomp_lab.evaluation.report import Scores


def _all(given: Iterable[Any] | None) -> tuple[Any, ...] | None:
    return None if given is None else tuple(given)


@attrs.frozen(eq=False)
class Example:
    """An image and what is known of it; None stands for what the data source does not know.

    Args:
        image: what `ImageProcessor` takes: a tensor (3, H, W) in [-1, 1], an array, a file.
        name: used in messages.
        conditions: one per component, as the conditioner's `describe` gives it and its `parse` takes it, such as
            {"x": 0.3, "y": 0.4}, {"attribute": "smiling", "value": "yes"} or {"concept": "cat"}.
        masks: of the objects, (K, H, W) bool; (0, 1, 1) where there are no objects.
        factors: of the whole image, (F,) numbers.

    >>> Example(torch.zeros(3, 8, 8), conditions=[{"x": 0.3, "y": 0.4}]).conditions
    ({'x': 0.3, 'y': 0.4},)
    """

    image: Any
    name: str = attrs.field(default="", kw_only=True)
    conditions: tuple[Any, ...] | None = attrs.field(default=None, kw_only=True, converter=_all)
    masks: Tensor | None = attrs.field(default=None, kw_only=True)
    factors: Tensor | None = attrs.field(default=None, kw_only=True)


@attrs.frozen
class Generated(Sequence[Example]):
    """Examples that are computed on access.

    Args:
        number: of examples.
        make: returns the example of an index; the same at every call.

    >>> blank = Generated(3, lambda k: Example(None, name=f"scene {k}"))
    >>> len(blank), blank[-1].name, [example.name for example in blank[:2]]
    (3, 'scene 2', ['scene 0', 'scene 1'])
    """

    number: int
    make: Callable[[int], Example]

    def __len__(self) -> int:
        return self.number

    @overload
    def __getitem__(self, index: int) -> Example: ...

    @overload
    def __getitem__(self, index: slice) -> list[Example]: ...

    def __getitem__(self, index: int | slice) -> Example | list[Example]:
        if isinstance(index, slice):
            return [self.make(k) for k in range(*index.indices(self.number))]
        return self.make(range(self.number)[index])


class DataSource(Protocol):
    """The data of a plugin: examples for evaluation, and files for training.

    Optional abilities are `HasConcepts`, `HasSizes`, `HasSceneScores` and `HasTask`.
    `energycomp_lab.checks.check_dataset` checks a source.

    >>> from energycomp.plugins import find
    >>> clevr = find("datasets", "clevr")()
    >>> [len(example.conditions) for example in clevr.examples("synthetic:3", count=2, seed=0)]  # objects of two images
    [3, 3]
    """

    def examples(self, spec: str, *, count: int, seed: int) -> Sequence[Example]:
        """At most `count` examples, for `energycomp evaluate --data SPEC -n COUNT --seed SEED`.

        Args:
            spec: "synthetic" or "synthetic:..." for images that are drawn, or the path of a folder.
            count: the greatest number of examples.
            seed: decides every random number: the same seed gives the same images. Draw training images with others.

        Raises:
            InputError: a folder that cannot be read.
        """
        ...

    def write(self, folder: Path, *, count: int, seed: int, options: str, progress: Callable[[int], None]) -> None:
        """Writes `count` examples that `examples(str(folder), ...)` reads, for `energycomp data NAME`.

        Args:
            folder: exists and is empty.
            count: number of examples.
            seed: as of `examples`.
            options: the text of `--objects`, "" by default.
            progress: called with the number of images after each of them.
        """
        ...

    def metrics(self) -> MetricCollection:
        """Metrics whose `update` takes two lists with one tensor per image: first what was found, then what is true.

        The tensors are values (K, *V) of the conditioner, masks (K, H, W), or latents (K, D) and factors (1, F).
        A metric gets an interval if its states are sums. One whose `update` names a third argument, `probability`, gets
        the posterior (K,) of each found value, or None.
        """
        ...


@runtime_checkable
class HasConcepts(Protocol):
    """A data source of images of concepts, for models that are conditioned on text.

    >>> from energycomp.plugins import find
    >>> [isinstance(find("datasets", name)(), HasConcepts) for name in ("text", "clevr")]
    [True, False]
    """

    def concepts(self, spec: str) -> Sequence[str]:
        """The concepts that the images of a spec show, among which a model searches."""
        ...


@runtime_checkable
class HasSizes(Protocol):
    """A data source that draws images of any size.

    >>> from energycomp.plugins import find
    >>> [isinstance(find("datasets", name)(), HasSizes) for name in ("clevr", "faces")]
    [True, False]
    """

    def at(self, size: tuple[int, int]) -> DataSource:
        """The source of images of a size (width, height), that of the model which is evaluated."""
        ...


@runtime_checkable
class HasRenderer(Protocol):
    """A data source whose scenes an external program renders, such as Blender.

    >>> from energycomp.plugins import find
    >>> [isinstance(find("datasets", name)(), HasRenderer) for name in ("clevr", "faces")]  # --renderer blender
    [True, False]
    """

    def render(
        self,
        folder: Path,
        *,
        count: int,
        seed: int,
        options: str,
        assets: Path | None,
        progress: Callable[[int], None],
        spread: Callable[..., Iterable[Any]] | None = None,
    ) -> None:
        """Writes `count` images into a folder; `spread(items, make)` maps work over other machines."""
        ...


@runtime_checkable
class HasSceneScores(Protocol):
    """A data source that scores scenes which a model samples without conditions.

    >>> from energycomp.plugins import find
    >>> [isinstance(find("datasets", name)(), HasSceneScores) for name in ("slots", "clevr")]
    [True, False]
    """

    def scene_scores(self, decomposer: Decomposer, *, count: int, seed: int) -> Mapping[str, float]:
        """Scores of `count` images of `decomposer.sample(n, generator=...)`."""
        ...


@runtime_checkable
class Task(Protocol):
    """One way to evaluate a model: what is asked of it, and how the answers are scored.

    Attributes:
        solver: name of what answers, in the report.
    """

    solver: str

    @property
    def scores(self) -> list[Scores]:
        """Metrics, with an interval each."""

    def true(self, example: Example) -> Tensor:
        """What the answer to an example is compared with."""

    def answer(self, example: Example, true: Tensor, generator: torch.Generator, /) -> tuple[Any, dict[str, Any]]:
        """The result of an example, and JSON data for its record, among them `rows`: the network evaluations."""

    def score(self, true: Tensor, image: Tensor, record: Mapping[str, Any], /) -> None:
        """Adds a record to the scores: of the record alone, so that an interrupted run gives the same report."""


class Exam(Task, Protocol):
    """A task that comes with its examples."""

    def examples(self, spec: str, *, count: int, seed: int) -> Sequence[Example]:
        """What is asked, as of `DataSource`."""
        ...


@runtime_checkable
class HasTask(Protocol):
    """A data source that asks a model something else than to read its images, such as to draw what it says.

    >>> from energycomp.plugins import find
    >>> [isinstance(find("datasets", name)(), HasTask) for name in ("skills", "clevr")]
    [True, False]
    """

    def task(self, model: Model) -> Exam:
        """What is asked."""
        ...


def dataset_of(model: Model) -> str:
    """The longest registered name of a dataset that is the model's, or is it up to a "-"; the model's where none fits.

    >>> from energycomp.models import load
    >>> dataset_of(load("clevr-places")), dataset_of(load("slots-sprites"))
    ('clevr', 'slots-sprites')
    """
    fits = [name for name in names("datasets") if f"{model.name}-".startswith(f"{name}-")]
    return max(fits, key=len, default=model.name)


def source_of(name: str, model: Model) -> DataSource:
    """The registered source of a name, which draws images of the model's size where it can.

    Raises:
        NotFoundError: an unknown name.

    >>> from energycomp.testing import tiny_model
    >>> source_of("clevr", tiny_model()).size
    (16, 16)
    """
    source: DataSource = find("datasets", name)()
    if isinstance(source, HasSizes) and isinstance(model.processor, ImageProcessor):
        return source.at(model.processor.size[::-1])
    return source


def true_values(example: Example, conditioner: Conditioner) -> Tensor:
    """The conditions of an example as values (K, *V) of a conditioner.

    Attributes that the conditioner does not have are left out. Their names may differ in case.

    Raises:
        InputError: an example without conditions, or with conditions that the conditioner does not take.

    >>> from energycomp.testing import tiny_model
    >>> true_values(Example(None, conditions=[(0.25, 0.5)]), tiny_model().conditioner)
    tensor([[0.2500, 0.5000]])
    """
    if example.conditions is None:
        raise InputError(
            f"got {example.name or 'an example'} without conditions; expected those of its components; use a dataset "
            "whose examples have conditions, or a model that decomposes images"
        )
    conditions = example.conditions
    known = [conditioner.describe(group[0]) for group in groups_of(conditioner) or ()]
    if known and conditions and all(isinstance(one, Mapping) and "attribute" in one for one in (*known, *conditions)):
        conditions = _of_attributes(example, [one["attribute"] for one in known])
    elif mixed_of(conditioner) is None:
        conditions = _without_attributes(conditions, conditioner)
    try:
        values = [value_of(conditioner, condition) for condition in conditions]
    except InputError as error:
        raise InputError(
            f"got {example.name} with the conditions {list(conditions)}, which {type(conditioner).__name__} does not "
            f"take ({error}); expected the arguments of its parse; use a dataset of the model"
        ) from error
    return torch.cat(values) if values else torch.zeros(0, *conditioner.value_shape)


def _without_attributes(conditions: tuple[Any, ...], conditioner: Conditioner) -> tuple[Any, ...]:
    """The numbers of a continuous conditioner: {"x": 0.3, "y": 0.4} of an object with a colour."""
    if conditioner.support.is_discrete or not all(isinstance(one, Mapping) for one in conditions):
        return conditions
    shown = conditioner.describe(random_values(conditioner, 1, generator=0)[0])
    if not isinstance(shown, Mapping):
        return conditions
    return tuple({name: one[name] for name in one if name in shown} for one in conditions)


def _of_attributes(example: Example, attributes: Sequence[str]) -> tuple[Mapping[str, Any], ...]:
    """The conditions on these attributes, under these names."""
    known = {name.casefold(): name for name in attributes}
    given = {str(condition["attribute"]).casefold(): condition for condition in example.conditions or ()}
    chosen = tuple({**given[name], "attribute": known[name]} for name in known if name in given)
    if not chosen:
        raise InputError(
            f"got {example.name} with the attributes {', '.join(given)}, and a model of {', '.join(attributes)}; "
            "expected some in common; use other data, or another model"
        )
    return chosen
