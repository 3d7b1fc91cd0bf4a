"""`energycomp batch --engine ray`: Ray Data reads images, actors answer them, and each batch is a Parquet part."""

from __future__ import annotations

import json
import os
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from energycomp.errors import EnergycompError, InputError, first_line
from energycomp_batch.batch_image import BatchImage
from energycomp_batch.inputs import Inputs, holds_many
from energycomp_batch.parts import has_key, key_of
from energycomp_batch.places import place_of
from energycomp_batch.pool import Pool
from energycomp_batch.work import ReadTask, record_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from energycomp_batch.parts import Parts

    Make = Callable[[], Callable[[ReadTask], dict[str, Any]]]

OLDEST = (2, 49)  # version of Ray
MOST = 200  # images in a part, if nothing else is asked for
SHARES = 16  # parts for each actor, so that all end at about the same time
COUNTED = 1000  # tables and movies whose images are counted before they are read
READERS = 8  # actors for each task that reads files
BLOCK = 2**20  # bytes of images that wait as one object; Ray's own blocks of 128 MiB would be hours of work
SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0", "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_DATA_LOG_LEVEL": "ERROR",
}  # fmt: skip
ALONE = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}  # Ray listens on the loopback address only


@contextmanager
def connected(address: str | None) -> Iterator[Any]:
    """Ray, connected to the cluster of an address for the block, unless it was before; None starts it here.

    Raises:
        InputError: Ray is not installed or too old, or there is no such cluster.
    """
    for name, value in {**SETTINGS, **({} if address else ALONE)}.items():
        os.environ.setdefault(name, value)
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise InputError(
            "got --engine ray without Ray Data; expected the package ray; pip install 'energycomp-batch[ray]'"
        ) from error
    if tuple(map(int, ray.__version__.split(".")[:2])) < OLDEST:
        raise InputError(f"got Ray {ray.__version__}; expected {OLDEST[0]}.{OLDEST[1]} or later; pip install -U ray")
    if ray.is_initialized():
        yield ray
        return
    try:
        own = {} if address else {"include_dashboard": False}
        ray.init(address, log_to_driver=False, logging_level="ERROR", **own)
    except Exception as error:  # ConnectionError, RuntimeError for another version, and others
        raise InputError(
            f"got --address {address}, to which Ray does not connect ({first_line(error)[:200]}); expected the address "
            "of a running cluster with this version of Ray and Python; start one by `ray start --head`"
        ) from error
    try:
        yield ray
    finally:
        ray.shutdown()


@attrs.frozen
class Cluster:
    """How Ray is used.

    Args:
        address: of a cluster, or auto for the one that runs here; None starts Ray on this machine.
        concurrency: number of actors, each with one core or GPU; all of the cluster when left out.
        part: images in a part, which is what a stop loses at most of each actor's work.
        gpu: whether each actor holds a GPU.
        bars: whether Ray shows its progress.
    """

    address: str | None = None
    concurrency: int | None = None
    part: int | None = None
    gpu: bool = False
    bars: bool = False

    def read(self, inputs: Inputs, make: Make, parts: Parts) -> Iterator[dict[str, Any]]:
        """Reads the images whose answers are not known, and writes theirs; yields what was done, a part at a time.

        An image whose process ends twice is a failure. An actor that ends, as with its machine, is replaced; a part
        that it has written is not read again.

        Args:
            make: called in a process beside each actor; returns the function from an image to its record.
            parts: where records go; its known answers are left out.

        Yields:
            dicts of `part` (a name), `images` and `failed` (records).

        Raises:
            InputError: the cluster or the parts cannot be used, or what `make` or the writing of a part raised.
        """
        with connected(self.address) as ray:
            known = ray.put(parts.known_keys())
            actors = self.concurrency or max(1, int(ray.cluster_resources().get("GPU" if self.gpu else "CPU", 1)))
            size = self.part or _size(inputs, actors)
            context = ray.data.DataContext.get_current()
            context.target_max_block_size, context.enable_progress_bars = BLOCK, self.bars
            context.print_on_execution_start = False
            read = ray.data.from_arrow(list(_blocks(inputs, size))).map_batches(
                _rows,
                batch_size=None,
                batch_format="pyarrow",
                fn_args=(inputs.column, known, size),
                num_cpus=0,  # actors may hold all cores
                compute=ray.data.TaskPoolStrategy(size=max(1, actors // READERS)),
            )
            done = read.map_batches(
                _Actor,
                batch_size=size,
                batch_format="pyarrow",
                fn_constructor_args=(make, attrs.evolve(parts), str(Path.cwd())),
                compute=ray.data.ActorPoolStrategy(size=actors),
                num_cpus=0 if self.gpu else 1,
                num_gpus=1 if self.gpu else 0,
            )
            for row in done.iter_rows():
                if row["error"]:
                    raise InputError(row["error"])
                yield {"part": row["part"], "images": row["images"], "failed": json.loads(row["failed"])}


def _size(inputs: Inputs, actors: int) -> int:
    """Images in a part: few files in a long run, and several parts for each actor in a short one."""
    expected = inputs.expected() if sum(map(holds_many, inputs.files)) <= COUNTED else None
    return MOST if expected is None else max(1, min(MOST, expected // (SHARES * actors)))


def _blocks(inputs: Inputs, size: int) -> Iterator[Any]:
    """Where the images are, as what one task reads: a table or a movie, or several files."""
    import pyarrow as pa

    tables = [[str(path)] for path in inputs.files if holds_many(path)]
    files = [str(path) for path in inputs.files if not holds_many(path)]
    for block in [*(files[first : first + size] for first in range(0, len(files), size)), *tables]:
        yield pa.table({"place": block})


def _rows(block: Any, column: str | None, known: Any, size: int) -> Iterator[Any]:
    """The images of files and tables that are not known, as rows of a table, while they are read."""
    import pyarrow as pa
    import ray

    keys, rows, taken = ray.get(known), [], 0
    places = [place_of(place) for place in block["place"].to_pylist()]
    schema = pa.schema([(name, pa.string()) for name in ("place", "row", "problem")] + [("content", pa.binary())])
    for picture in Inputs(dict(zip(places, places, strict=True)), column):
        if picture.problem is None and has_key(keys, key_of(picture.key, picture.digest())):
            continue
        row = (str(picture.source), picture.row, picture.problem, picture.content)
        rows.append(dict(zip(schema.names, row, strict=True)))
        taken += len(picture.content)
        if len(rows) >= size or taken >= BLOCK:
            yield pa.Table.from_pylist(rows, schema=schema)
            rows, taken = [], 0
    yield pa.Table.from_pylist(rows, schema=schema)


class _Actor:
    """Answers images in a process beside its own, which may end with an image, and writes their part."""

    def __init__(self, make: Make, parts: Parts, folder: str) -> None:
        with suppress(OSError):  # a model may be given by a relative path
            os.chdir(folder)
        vars(sys.modules["__main__"]).pop("__file__", None)  # the process beside this one need not import Ray
        self._parts, self._pool = parts, Pool(make, 1)
        self._pool.__enter__()

    def __call__(self, batch: Any) -> dict[str, list[Any]]:
        tasks: list[ReadTask] = []
        for row in batch.to_pylist():
            picture = BatchImage(place_of(row["place"]), row["row"], row["content"], row["problem"])
            tasks.append(ReadTask(len(tasks), picture, self._parts.head(picture.key, picture.digest()), picture.name))
        name = self._parts.name([f"{task.head['image']} {task.head['sha256']}" for task in tasks])
        records, error = [], ""
        try:
            if tasks and not self._parts.has(name):
                found = sorted(self._pool.run(tasks), key=lambda pair: pair[0].index)
                records = [record_of(task, answer) for task, answer in found]
                self._parts.write(name, records)
        except EnergycompError as raised:  # the driver raises it without Ray's traceback
            error = str(raised)
        failed = json.dumps([record for record in records if "failed" in record])
        return {"part": [name], "images": [len(tasks)], "failed": [failed], "error": [error]}
