"""Data sources, which `energycomp data` writes and `energycomp evaluate` reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from energycomp.images import ImageProcessor
from energycomp.models import Model
from energycomp.plugins import find, names
from energycomp_lab.evaluation.data import Example

if TYPE_CHECKING:
    from torchmetrics import MetricCollection

    from energycomp_lab.evaluation.report import Scores

Ability = Literal["at", "concepts", "render", "scene_scores", "task"]


class DataSource(Protocol):
    """The data of a plugin: examples for evaluation, and files for training.

    `energycomp_lab.checks.check_dataset` checks a source. It may have further members, see `source_ability`:

    - `concepts(spec) -> Sequence[str]`, for models of text: the concepts that the images of a spec show, among which a
      model searches.
    - `at(size) -> DataSource`: the source of images of a size (width, height), that of the model which is evaluated.
    - `scene_scores(decomposer, *, count, seed) -> Mapping[str, float]`: scores of `count` images of
      `decomposer.sample(n, generator=...)`, which a model samples without conditions.
    - `task(model) -> Exam`: what a model is asked in place of reading images, such as to draw what it says.
    - `render(folder, *, count, seed, options, assets, progress, spread=None)`, for `--renderer blender`: writes images
      that an external program renders; `spread(items, make)` maps work over other machines.

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
        the posterior (K,) of each found value, or None. One whose `update` names `record` gets JSON data of each image:
        "true" and "conditions", all of their values, and "trace" and "counts" of the `Solution`.
        """
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


def source_ability(source: DataSource, name: Ability) -> Any:
    """A member that a data source may have, see `DataSource`; None where it has none."""
    return getattr(source, name, None)


def dataset_of(model: Model) -> str:
    """The longest registered name of a dataset that is the model's, or is it up to a "-"; the model's where none fits.

    >>> from energycomp.models import load
    >>> dataset_of(load("clevr-places")), dataset_of(load("slots-sprites"))
    ('clevr', 'slots-sprites')
    """
    fits = [name for name in names("datasets") if f"{model.name}-".startswith(f"{name}-")]
    return max(fits, key=len, default=model.name)


def source_of(name: str, model: Model) -> DataSource:
    """Makes the registered source of a name, which draws images of the model's size where it can.

    Raises:
        NotFoundError: an unknown name.
    """
    source: DataSource = find("datasets", name)()
    at: Callable[..., DataSource] | None = source_ability(source, "at")
    return source if at is None or not isinstance(model.processor, ImageProcessor) else at(model.processor.size[::-1])
