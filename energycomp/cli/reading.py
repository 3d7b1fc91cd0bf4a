"""The images of `energycomp infer`: read in this process, or in several that each load the model."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from energycomp.cli.options import load_searchable, over
from energycomp.cli.output import solution_record
from energycomp.cli.results import REDRAWN, write_marked
from energycomp.errors import InputError
from energycomp.progress import Bar, counting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from energycomp.batch import Pool, Reader
    from energycomp.cli.inputs import Inputs, Picture
    from energycomp.cli.results import Results
    from energycomp.cli.shards import Shard
    from energycomp.models import Model

SAMPLES = 3  # of the components of an image
JUDGED = ("certainty", "gain", "probability")  # of a component, beside its description


@attrs.frozen
class Task:
    """An image that is to be read, or whose answer is `known` and is to be drawn."""

    index: int
    picture: Picture
    head: dict[str, Any]
    name: str
    known: dict[str, Any] | None = None

    def __str__(self) -> str:
        return str(self.picture)


@attrs.frozen
class Reading:
    """The arguments of `energycomp infer` that decide about answers and files; each process makes its reader of them.

    Args:
        source, device, options, concepts, template: of the model.
        solver, count, seed: of the search.
        folder: of the marked images; None writes none.
        redraw: whether each image is also drawn beside samples of its components.
    """

    source: str
    device: str
    options: Mapping[str, Any]
    concepts: str | None
    template: str | None
    solver: str | None
    count: Any
    seed: int
    folder: Path | None
    redraw: bool

    def reader(self) -> Reader:
        """Loads the model at the first use."""
        from energycomp.batch import Reader

        return Reader(partial(_load, self), solver=self.solver, count=self.count, seed=self.seed, device=self.device)

    def __call__(self) -> Callable[[Task], dict[str, Any]]:
        """The function that reads an image, in a process of a pool."""
        reader = self.reader()
        reader.load()
        return partial(self.read, reader)

    def read(self, reader: Reader, task: Task) -> dict[str, Any]:
        """The record of an image, after its files are written; one with `failed` where it cannot be opened."""
        try:
            image = task.picture.open()
        except InputError as error:
            return failure(task.picture, str(error))
        model, record = reader.load(), task.known
        if record is None:
            answer = solution_record(model, reader.read(image))
            record = {**task.head, **answer, "picture": None}
            if self.folder is not None:
                record["name"] = task.name
                record["picture"] = write_marked(model, self.folder, task.name, image, answer)
        if self.redraw and self.folder is not None:
            from energycomp.images import save_image

            save_image(
                _redrawn(model, image, record["objects"], self.seed), redrawn_file(self.folder, task.picture, record)
            )
        return record


@attrs.define(eq=False)
class Images:
    """The images that a process, or a pool of them, reads; they are shown in their order.

    Args:
        inputs: all images.
        shard: the part of them that is read.
        reading: how they are read.
        results: the known answers, and what keeps the others.
        show: called with each image and its record.
    """

    inputs: Inputs
    shard: Shard
    reading: Reading
    results: Results
    show: Callable[[Picture, dict[str, Any]], object]
    total: int = attrs.field(default=0, init=False)  # over all shards
    shown: int = attrs.field(default=0, init=False)
    failed: int = attrs.field(default=0, init=False)
    _waiting: dict[int, tuple[Picture, dict[str, Any]]] = attrs.field(factory=dict, init=False)  # after one in work

    def read(self, reader: Reader, pool: Pool[Task, dict[str, Any]] | None) -> None:
        """Reads the images without a known answer, and shows all."""
        expected = self.inputs.expected()
        total = expected and self.shard.size(expected)
        with counting("reading", total, unit="image", leave=not self.inputs.single) as bar:
            for task, record in self._records(reader, self._tasks(bar), pool):
                if task.known is None and "failed" not in record:
                    self.results.keep(record)
                self._put(task.index, task.picture, record, bar)

    def _tasks(self, bar: Bar) -> Iterator[Task]:
        """The images that are to be read or drawn; the others are shown at once."""
        names, folder = self.results.names(self.inputs.files.values()), self.results.folder
        for index, picture in enumerate(self._own()):
            try:
                head = self.results.head(picture)
            except InputError as error:
                self._put(index, picture, failure(picture, str(error)), bar)
                continue
            known = self.results.known(head)
            if known is None or (
                self.reading.redraw and folder is not None and not redrawn_file(folder, picture, known).exists()
            ):
                name = names.get(picture.source, picture.source.stem)
                yield Task(index, picture, head, name if picture.row is None else f"{name}/{picture.row_name}", known)
            else:
                self._put(index, picture, known, bar)

    def _own(self) -> Iterator[Picture]:
        for picture in self.inputs:
            if self.total % self.shard.total == self.shard.index - 1:
                yield picture
            self.total += 1

    def _records(
        self, reader: Reader, tasks: Iterable[Task], pool: Pool[Task, dict[str, Any]] | None
    ) -> Iterator[tuple[Task, dict[str, Any]]]:
        if pool is None:
            for task in tasks:
                yield task, self.reading.read(reader, task)
            return
        from energycomp.batch import Lost

        for task, answer in pool.run(tasks):
            yield task, failure(task.picture, answer.reason) if isinstance(answer, Lost) else answer

    def _put(self, index: int, picture: Picture, record: dict[str, Any], bar: Bar) -> None:
        """Shows the record of an image, once those of all images before it are shown."""
        if "failed" in record:
            if self.inputs.single:
                raise InputError(record["failed"])
            self.failed += 1
        self._waiting[index] = (attrs.evolve(picture, content=None), record)
        while (ready := self._waiting.pop(self.shown, None)) is not None:
            self.show(*ready)
            self.shown += 1
            bar.advance()


def failure(picture: Picture, reason: str) -> dict[str, Any]:
    """What stands for the record of an image that could not be read."""
    return {"image": str(picture), "failed": reason}


def redrawn_file(folder: Path, picture: Picture, record: Mapping[str, Any]) -> Path:
    """The file of an image beside samples of its components."""
    name = record.get("name") or Path(record["picture"] or picture.source.name).stem  # older lines have no name
    return folder / f"{name}{REDRAWN}.png"


def _load(reading: Reading) -> Model:
    model = load_searchable(reading.source, reading.device, **reading.options)
    return over(model, reading.concepts, reading.template)


def _redrawn(model: Model, image: Any, objects: list[dict[str, Any]], seed: int) -> Any:
    """An image beside three samples of the components that were found in it."""
    import torch

    from energycomp.components import value_of
    from energycomp.images import grid
    from energycomp.sampling import Composer

    described = [{name: one[name] for name in one if name not in JUDGED} for one in objects]
    values = [value_of(model.conditioner, one) for one in described]
    composed = model.compose(torch.cat(values)) if values else model.unconditional
    samples = Composer(composed).sample(SAMPLES, generator=torch.Generator().manual_seed(seed), progress=False)
    seen = model.processor.frame(image).resize(samples[0].size)
    heads = ["image", *(f"sample {number}" for number in range(1, 1 + SAMPLES))]
    return grid([seen, *samples], columns=1 + SAMPLES, side=192, heads=heads)
