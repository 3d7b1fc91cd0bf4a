"""The images of `energycomp batch`: read in this process, or in several that each load the model."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs

from energycomp.errors import InputError, OutOfDistributionError
from energycomp.progress import counting
from energycomp_batch.pool import LostError
from energycomp_cli import failure, kind_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from energycomp.models import Model
    from energycomp.progress import Bar
    from energycomp_batch.inputs import Inputs
    from energycomp_batch.shards import Shard
    from energycomp_cli import Answer, Answers, ImageReader, Item

    ReadAll = Callable[[Iterable[Answer]], Iterable[tuple[Answer, dict[str, Any] | LostError]]]  # as `Pool.run`


def make_reader(reader: ImageReader) -> Callable[[Answer], dict[str, Any]]:
    """What a process of a pool begins with: the function that reads an image."""
    return partial(read, reader, reader.load())


def read(reader: ImageReader, model: Model, answer: Answer) -> dict[str, Any]:
    """The record of an image, after its files are written; one with `failed` where it is refused."""
    try:
        return reader.complete(model, answer)
    except InputError as error:
        return failure(str(answer), error)


def record_of(answer: Answer, record: dict[str, Any] | LostError) -> dict[str, Any]:
    """The record that a pool gives, or the failure of an image whose process ended each time."""
    return {"image": str(answer), "failed": str(record)} if isinstance(record, LostError) else record


@attrs.define(eq=False)
class Images:
    """The images of a shard: those without a known answer are read, and all are shown in their order."""

    inputs: Inputs
    own: Shard
    reader: ImageReader
    answers: Answers  # the known ones, and what keeps the others
    show: Callable[[Item, dict[str, Any]], object]  # called with each image and its record
    counts: Counter[str] = attrs.field(
        factory=Counter, init=False
    )  # `total` over all shards, `shown`, `failed` and `unknown`
    _waiting: dict[int, tuple[Item, dict[str, Any]]] = attrs.field(factory=dict, init=False)  # after one in work

    def read(self, run: ReadAll) -> Counter[str]:
        """Reads the images with what gives answers with their records; returns the numbers of images."""
        expected = self.inputs.expected()
        total = expected and len(self.own.of(expected))
        with counting("reading", total, unit="image", leave=not self.inputs.single) as bar:
            for answer, given in run(self._incomplete(bar)):
                record = record_of(answer, given)
                if answer.known is None:
                    self.answers.keep(record)
                self._put(answer.index, answer.item, record, bar)
        return self.counts

    def _incomplete(self, bar: Bar) -> Iterator[Answer]:
        """Yields the answers that are to be read or drawn; the others are shown at once."""
        named = self.reader.folder is not None
        for path in self.inputs.files.values() if named else ():  # all shards give the same names
            self.answers.names.stem_of(path)
        for place, item in enumerate(self.inputs):
            self.counts["total"] += 1
            index, other = divmod(place + 1 - self.own.index, self.own.total)
            if other:
                continue
            answer = self.answers.of(item, named=named, index=index)
            if answer.known is not None and self.reader.is_complete(answer):
                self._put(index, item, answer.known, bar)
            else:
                yield answer

    def _put(self, index: int, item: Item, record: dict[str, Any], bar: Bar) -> None:
        """Shows the record of an image, once those of all images before it are shown."""
        if "failed" in record:
            kind = kind_of(record)
            if self.inputs.single:
                raise (OutOfDistributionError if kind == "unknown" else InputError)(record["failed"])
            self.counts[kind] += 1
        self._waiting[index] = (attrs.evolve(item, content=None), record)
        while (ready := self._waiting.pop(self.counts["shown"], None)) is not None:
            self.show(*ready)
            self.counts["shown"] += 1
            bar.advance()
