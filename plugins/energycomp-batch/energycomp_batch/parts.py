"""Answers as rows of CSV and Parquet files, and as Parquet parts in a folder or a bucket, which a run continues."""

from __future__ import annotations

import io
import json
import math
from contextlib import contextmanager
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, BinaryIO

import attrs

from energycomp.errors import CheckpointError, InputError, first_line
from energycomp.files import atomic_file, remove_stale
from energycomp_batch.places import is_url, name_errors, place_of
from energycomp_batch.work import record_of
from energycomp_cli import SETTINGS, Answer, Names, check_folder, identify, make_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    import numpy as np

    from energycomp_batch.work import ReadAll
    from energycomp_cli import Item

    Write = Callable[[Mapping[str, Any]], object]

NUMBERS = ("sure", "fit", "error", "stderr", "p_value", "typicality")  # columns of floats, NaN where there is none
TEXTS = ("objects", "runner_up")  # columns of JSON
FLAGS = ("trusted", "out_of_distribution")
COLUMNS = ("count", *NUMBERS, *FLAGS, *TEXTS, "warnings", "rows", "failed")
NONE: dict[str, Any] = {"count": -1, "objects": [], "runner_up": None, "rows": -1}
FAILED = "_failed"  # readers of Parquet folders leave out what begins with _
ROWS = 1000  # of a Parquet file that are written at once
BLOCK = 2**20  # bytes of images that wait as one object; Ray's own blocks of 128 MiB would be hours of work


def columns_of(record: Mapping[str, Any]) -> dict[str, Any]:
    r"""Writes the record of an answer as values of `COLUMNS`, whose types do not depend on the answer."""
    numbers = {name: math.nan if record.get(name) is None else float(record[name]) for name in NUMBERS}
    texts = {"warnings": plain("\n".join(record.get("warnings", ()))), "failed": plain(record.get("failed", ""))}
    flags = {name: bool(record.get(name)) for name in FLAGS}
    row = {**NONE, **record, **numbers, **texts, **flags}
    return {name: json.dumps(row[name]) if name in TEXTS else row[name] for name in COLUMNS}


@contextmanager
def _writer(make: Callable[..., Any], file: BinaryIO, together: int) -> Iterator[Write]:
    """Opens a writer of pyarrow, which gets so many rows together."""
    import pyarrow as pa

    kinds = {"count": pa.int64(), "rows": pa.int64(), **dict.fromkeys(FLAGS, pa.bool_())}
    kinds |= dict.fromkeys(NUMBERS, pa.float64())
    names = ("image", "sha256", *COLUMNS, "settings")
    schema = pa.schema([(name, kinds.get(name, pa.string())) for name in names])
    rows: list[dict[str, Any]] = []
    with make(file, schema) as writer:

        def write(record: Mapping[str, Any]) -> None:
            settings = json.dumps(record["settings"]) if "settings" in record else ""
            head = {"image": plain(record.get("image", "")), "sha256": record.get("sha256", ""), "settings": settings}
            rows.append({**head, **columns_of(record)})
            if len(rows) == together:
                flush()

        def flush() -> None:
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))
            rows.clear()

        yield write
        flush()


def csv_writer(file: BinaryIO) -> AbstractContextManager[Write]:
    """Opens a writer of CSV, see `energycomp.plugins.Add.writer`: a row for each image."""
    from pyarrow import csv

    return _writer(csv.CSVWriter, file, 1)


def parquet_writer(file: BinaryIO) -> AbstractContextManager[Write]:
    """A writer of Parquet, see `energycomp.plugins.Add.writer`. Memory holds a thousand rows."""
    from pyarrow import parquet

    return _writer(parquet.ParquetWriter, file, ROWS)


def parts_folder(out: str | None, writer: str | None = None, *, on_ray: bool) -> Any:
    """The path or URL of -o where answers go to parts, as they do with Ray or for a URL; None where they do not."""
    if on_ray and out is None:
        raise InputError("got --engine ray without -o; expected a folder or a URL for Parquet parts, such as -o found")
    place = None if out is None else place_of(out)
    if place is None or not (on_ray or is_url(place)):
        return None
    if writer is not None:
        raise InputError(f"got --format {writer} and -o {place}, a folder of Parquet parts; leave --format out")
    if is_url(place):
        return place
    check_folder(place, "-o")
    return place.absolute()  # processes of Ray are in other folders


def plain(text: str) -> str:
    """Escapes what is no text: the names of files may hold any bytes."""
    return text.encode(errors="backslashreplace").decode()


def key_of(head: dict[str, Any]) -> int:
    """64 bits for an image: of 10^9 known answers, one meets those of a new image with probability 5e-11."""
    return int.from_bytes(blake2b(f"{plain(head['image'])}\0{head['sha256']}".encode(), digest_size=8).digest(), "big")


def split_unread(items: Iterable[Item], known: np.ndarray, size: int) -> Iterator[list[Item]]:
    """Yields the images whose keys are not among the known ones, in lists of `size`, or of less if they are large."""
    import numpy as np

    waiting: list[Item] = []
    taken = 0
    for item in items:
        if item.problem is None:
            key = np.uint64(key_of(identify(item, {})))
            place = np.searchsorted(known, key)
            if place < len(known) and known[place] == key:
                continue
        waiting.append(item)
        taken += len(item.content) if isinstance(item.content, bytes) else 0
        if len(waiting) == size or taken >= BLOCK:
            yield waiting
            waiting = []
            taken = 0
    if waiting:
        yield waiting


@attrs.frozen
class Parts:
    """Parquet files with the columns of `parquet_writer`, and the same of the images that failed in the folder _failed.

    A part is named after its images, and is there as a whole or not at all. So one that is written again, by a worker
    that took over from another, replaces the first.
    """

    folder: Any  # a path or a URL
    settings: dict[str, Any]  # what the answers depend on, as JSON
    alone: bool = True  # no other process writes there, so that what is left of earlier ones can be removed

    def known_keys(self) -> np.ndarray:
        """Reads the sorted keys of the known answers, (N,) uint64, and checks the settings. Raises `InputError` where
        the folder cannot be reached, or holds something else.
        """
        import numpy as np
        from pyarrow import parquet

        found = [np.empty(0, dtype=np.uint64)]
        with name_errors(self.folder):
            if is_url(self.folder):
                self.folder.fs.invalidate_cache()
            else:
                remove_stale(make_folder(self.folder, "-o"))
            self._check_settings()
            for file in (self.folder / FAILED).glob("*.parquet") if self.alone else ():
                file.unlink()
            for file in self.folder.glob("*.parquet"):
                with file.open("rb") as stream:
                    part = parquet.read_table(stream, columns=["image", "sha256"])
                found.append(np.array(list(map(key_of, part.to_pylist())), dtype=np.uint64))
        return np.sort(np.concatenate(found))

    def _check_settings(self) -> None:
        """Writes the settings to a new folder, or compares them with those in it."""
        file = self.folder / SETTINGS
        held = sorted(path.name for path in self.folder.iterdir()) if self.folder.exists() else []
        held = [name for name in held if not name.startswith(".")]
        if not held:
            _put(file, json.dumps(self.settings, indent=2).encode())
        elif SETTINGS in held:
            Names(file, self.settings).see({"settings": json.loads(file.read_bytes())})
        else:
            raise InputError(
                f"got -o {self.folder}, which holds {held[0]} and no {SETTINGS}; expected a new folder, or one of "
                "Parquet parts; name another"
            )

    def answered(self, items: Sequence[Item], run: ReadAll) -> dict[str, Any]:
        """Reads images and writes their part, unless it is there: then an earlier actor has ended after it was written.

        Returns:
            `part` (a name), `images` and `failed` (records).

        Raises:
            CheckpointError: the part cannot be written.
        """
        answers = [Answer(item, identify(item, self.settings), index=index) for index, item in enumerate(items)]
        images = plain("\n".join(f"{answer.head['image']} {answer.head['sha256']}" for answer in answers))
        name = f"part-{blake2b(images.encode(), digest_size=12).hexdigest()}.parquet"
        records: list[dict[str, Any]] = []
        with name_errors(self.folder):
            done = (self.folder / name).exists()
        if not done:
            given = sorted(run(answers), key=lambda pair: pair[0].index)
            records = [record_of(answer, record) for answer, record in given]
        failed = [record for record in records if "failed" in record]
        read = [record for record in records if "failed" not in record]
        for place, rows in ((self.folder / FAILED / name, failed), (self.folder / name, read)):  # so that none is lost
            content = io.BytesIO()
            with parquet_writer(content) as write:
                for row in rows:
                    write(row)
            if rows:
                _put(place, content.getvalue())
        return {"part": name, "images": len(items), "failed": failed}


def _put(place: Any, content: bytes) -> None:
    if not is_url(place):
        make_folder(place.parent, "-o")
        with atomic_file(place) as temporary:
            temporary.write_bytes(content)
        return
    try:
        place.write_bytes(content)
    except Exception as error:  # file systems of fsspec raise anything
        raise CheckpointError(
            f"Cannot write {place}: {type(error).__name__}: {first_line(error)[:200]}. Check the rights to it, and the "
            "free space; repeat the command to continue."
        ) from error
