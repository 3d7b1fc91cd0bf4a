"""The images of `energycomp batch`: read in this process, or in several that each load the model."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import attrs

from energycomp.errors import InputError
from energycomp.progress import counting
from energycomp_batch.pool import Lost

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from energycomp.cli import ImageReader
    from energycomp.models import Model
    from energycomp.progress import Bar
    from energycomp_batch.batch_image import BatchImage
    from energycomp_batch.inputs import Inputs
    from energycomp_batch.parts import Parts
    from energycomp_batch.pool import Pool
    from energycomp_batch.results import Results
    from energycomp_batch.shards import Shard


@attrs.frozen
class ReadTask:
    """An image that is to be read, or whose answer is `known` and is to be drawn."""

    index: int
    picture: BatchImage
    head: dict[str, Any]
    name: str
    known: dict[str, Any] | None = None

    def __str__(self) -> str:
        return str(self.picture)


@attrs.frozen
class ReadWorker:
    """What each process of a pool makes its function of, which reads an image."""

    reader: ImageReader

    def __call__(self) -> Callable[[ReadTask], dict[str, Any]]:
        return partial(read, self.reader, self.reader.load())


def read(reader: ImageReader, model: Model, task: ReadTask) -> dict[str, Any]:
    """The record of an image, after its files are written; one with `failed` where it cannot be opened."""
    try:
        image = task.picture.open()
    except InputError as error:
        return {"image": str(task), "failed": str(error)}
    if task.known is None:
        return reader.read(model, image, task.head, task.name)
    reader.redrawn(model, image, task.known)
    return task.known


def record_of(task: ReadTask, answer: dict[str, Any] | Lost) -> dict[str, Any]:
    """The answer of a pool, or the failure of an image whose process ended each time."""
    return {"image": str(task), "failed": f"{task}: {answer.reason}"} if isinstance(answer, Lost) else answer


@attrs.define(eq=False)
class Images:
    """The images that a process, or a pool of them, reads; they are shown in their order.

    Args:
        inputs: all images.
        shard: the part of them that is read.
        reader: how they are read.
        results: the known answers, and what keeps the others; None keeps none.
        show: called with each image and its record.
    """

    inputs: Inputs
    shard: Shard
    reader: ImageReader
    results: Results | Parts | None
    show: Callable[[BatchImage, dict[str, Any]], object]
    total: int = attrs.field(default=0, init=False)  # over all shards
    shown: int = attrs.field(default=0, init=False)
    failed: int = attrs.field(default=0, init=False)
    _waiting: dict[int, tuple[BatchImage, dict[str, Any]]] = attrs.field(factory=dict, init=False)  # after one in work

    def read(self, model: Model, pool: Pool[ReadTask, dict[str, Any]] | None) -> None:
        """Reads the images without a known answer, and shows all."""
        expected = self.inputs.expected()
        total = expected and len(self.shard.of(expected))
        with counting("reading", total, unit="image", leave=not self.inputs.single) as bar:
            tasks = self._tasks(bar)
            alone = ((task, read(self.reader, model, task)) for task in tasks)
            for task, answer in alone if pool is None else pool.run(tasks):
                record = record_of(task, answer)
                if self.results is not None and task.known is None:
                    self.results.keep(record)
                self._put(task.index, task.picture, record, bar)

    def _tasks(self, bar: Bar) -> Iterator[ReadTask]:
        """The images that are to be read or drawn; the others are shown at once."""
        sources = self.inputs.files.values() if self.results is not None and self.reader.folder is not None else ()
        names = {path: name for path in sources if (name := self.results.names.of(path)) != path.stem}  # type: ignore[union-attr]
        index = 0
        for picture in self.inputs:
            self.total += 1
            if (self.total - self.shard.index) % self.shard.total:
                continue
            head, known = {"image": picture.key}, None
            if self.results is not None and picture.problem is None:
                head = picture.head(self.results.settings)
                known = self.results.known(head)
            if known is None or self.reader.lacks(known):
                name = names.get(picture.source, picture.source.stem)
                name = name if picture.row is None else f"{name}/{picture.row_name}"
                yield ReadTask(index, picture, head, name, known)
            else:
                self._put(index, picture, known, bar)
            index += 1

    def _put(self, index: int, picture: BatchImage, record: dict[str, Any], bar: Bar) -> None:
        """Shows the record of an image, once those of all images before it are shown."""
        if "failed" in record:
            if self.inputs.single:
                raise InputError(record["failed"])
            self.failed += 1
        self._waiting[index] = (attrs.evolve(picture, content=b""), record)
        while (ready := self._waiting.pop(self.shown, None)) is not None:
            self.show(*ready)
            self.shown += 1
            bar.advance()
