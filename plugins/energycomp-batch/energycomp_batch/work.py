"""The images of `energycomp batch`: read in this process, or in several that each load the model."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs

from energycomp.errors import InputError, OutOfDistributionError
from energycomp.progress import counting
from energycomp_batch.pool import LostError
from energycomp_cli import failure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from energycomp.models import Model
    from energycomp.progress import Bar
    from energycomp_batch.inputs import Inputs
    from energycomp_batch.shards import Shard
    from energycomp_cli import ImageReader, Item, Kept

    ReadAll = Callable[[Iterable["ReadTask"]], Iterable[tuple["ReadTask", dict[str, Any] | LostError]]]  # as `Pool.run`


@attrs.frozen
class ReadTask:
    """An image that is to be read, or whose answer is `known` and is to be drawn."""

    index: int
    item: Item
    head: dict[str, Any]
    name: str
    known: dict[str, Any] | None = None

    def __str__(self) -> str:
        return str(self.item)


def reading(reader: ImageReader) -> Callable[[ReadTask], dict[str, Any]]:
    """What a process of a pool begins with: the function that reads an image."""
    return partial(read, reader, reader.load())


def read(reader: ImageReader, model: Model, task: ReadTask) -> dict[str, Any]:
    """The record of an image, after its files are written; one with `failed` where it is refused."""
    try:
        image = task.item.open()
        if task.known is None:
            return reader.read(model, image, task.head, task.name)
    except InputError as error:
        return failure(str(task), error)
    reader.redrawn(model, image, task.known)
    return task.known


def record_of(task: ReadTask, answer: dict[str, Any] | LostError) -> dict[str, Any]:
    """The answer of a pool, or the failure of an image whose process ended each time."""
    return {"image": str(task), "failed": str(answer)} if isinstance(answer, LostError) else answer


@attrs.define(eq=False)
class Images:
    """The images of a shard: those without a known answer are read, and all are shown in their order."""

    inputs: Inputs
    own: Shard
    reader: ImageReader
    kept: Kept | None  # the known answers, and what keeps the others
    show: Callable[[Item, dict[str, Any]], object]  # called with each image and its record
    counts: Counter[str] = attrs.field(
        factory=Counter, init=False
    )  # `total` over all shards, `shown`, `failed` and `unknown`
    _waiting: dict[int, tuple[Item, dict[str, Any]]] = attrs.field(factory=dict, init=False)  # after one in work

    def read(self, run: ReadAll) -> Counter[str]:
        """Reads the images with what gives tasks with their answers; returns the numbers of images."""
        expected = self.inputs.expected()
        total = expected and len(self.own.of(expected))
        with counting("reading", total, unit="image", leave=not self.inputs.single) as bar:
            for task, answer in run(self._tasks(bar)):
                record = record_of(task, answer)
                if self.kept is not None and task.known is None:
                    self.kept.keep(record)
                self._put(task.index, task.item, record, bar)
        return self.counts

    def _tasks(self, bar: Bar) -> Iterator[ReadTask]:
        """The images that are to be read or drawn; the others are shown at once."""
        names: dict[Any, str] = {}
        if self.kept is not None and self.reader.folder is not None:
            names = {path: self.kept.names.of(path) for path in self.inputs.files.values()}
        for place, item in enumerate(self.inputs):
            self.counts["total"] += 1
            index, other = divmod(place + 1 - self.own.index, self.own.total)
            if other:
                continue
            head = {"image": item.key}
            known = None
            if self.kept is not None and item.problem is None:
                head = item.head(self.kept.settings)
                known = self.kept.known(head)
                if known is not None and known.get("out_of_distribution") and not self.reader.anyway:
                    known = None  # kept by a run with --anyway
            if known is None or self.reader.lacks(known):
                yield ReadTask(index, item, head, item.file_name(names.get(item.source, item.source.stem)), known)
            else:
                self._put(index, item, known, bar)

    def _put(self, index: int, item: Item, record: dict[str, Any], bar: Bar) -> None:
        """Shows the record of an image, once those of all images before it are shown."""
        if "failed" in record:
            is_unknown = "out_of_distribution" in record
            if self.inputs.single:
                raise (OutOfDistributionError if is_unknown else InputError)(record["failed"])
            self.counts["unknown" if is_unknown else "failed"] += 1
        self._waiting[index] = (attrs.evolve(item, content=None), record)
        while (ready := self._waiting.pop(self.counts["shown"], None)) is not None:
            self.show(*ready)
            self.counts["shown"] += 1
            bar.advance()
