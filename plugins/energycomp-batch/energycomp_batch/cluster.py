"""Work on a Ray cluster: images are read by Ray Data, actors answer them, and each batch is a Parquet part."""

from __future__ import annotations

import json
import os
import pickle
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from energycomp.errors import EnergycompError, InputError, first_line
from energycomp_batch.inputs import Inputs, holds_many
from energycomp_batch.parts import has_key, key_of
from energycomp_batch.places import place_of
from energycomp_batch.pool import Lost, Pool
from energycomp_batch.work import ReadTask, record_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from energycomp_batch.parts import Parts

    Make = Callable[[], Callable[[Any], Any]]  # called in each process; returns the function from an item to its answer

OLDEST = (2, 49)  # version of Ray
MOST = 200  # images in a part, if nothing else is asked for
SHARES = 16  # parts for each actor, so that all end at about the same time
COUNTED = 1000  # tables and movies whose images are counted before they are read
READERS = 8  # actors for each task that reads files
BLOCK = 2**20  # bytes of images that wait as one object; Ray's own blocks of 128 MiB would be hours of work
# Of a core for each actor. Ray fills a machine up to half before it takes the next one: so each core has one actor, and
# those of a lost machine find room. Halves of GPUs it would give in pairs.
CORE = 0.5
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
        concurrency: number of actors, one per core or GPU of the cluster when left out.
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
            make: called in a process beside each actor; returns the function from a `ReadTask` to its record.
            parts: where records go; its known answers are left out.

        Yields:
            dicts of `part` (a name), `images` and `failed` (records).

        Raises:
            InputError: the cluster or the parts cannot be used, or what `make` or the writing of a part raised.
        """
        with connected(self.address) as ray:
            known, actors = ray.put(parts.known_keys()), self._actors(ray)
            size = self.part or _size(inputs, actors)
            rows = ray.data.from_arrow(list(_blocks(inputs, size))).map_batches(
                _rows,
                batch_size=None,
                batch_format="pyarrow",
                fn_args=(inputs.column, known, size),
                num_cpus=0,  # actors may hold all cores
                compute=ray.data.TaskPoolStrategy(size=max(1, actors // READERS)),
            )
            yield from self._over(ray, rows, make, _PartWriter(attrs.evolve(parts)), size)

    def map(self, items: Iterable[Any], make: Make) -> Iterator[Any]:
        """The answers to items, as they come; the answers are JSON data.

        Args:
            items: what can be pickled.
            make: as in `read`, from an item to its answer.

        Raises:
            InputError: as in `read`; or an item whose process ended twice.
        """
        with connected(self.address) as ray:
            blocks = [_packed([item]) for item in items]
            if blocks:
                yield from self._over(ray, ray.data.from_arrow(blocks), make, _first_answer, 1)

    def _actors(self, ray: Any) -> int:
        return self.concurrency or max(1, int(ray.cluster_resources().get("GPU" if self.gpu else "CPU", 1)))

    def _over(self, ray: Any, data: Any, make: Make, finish: Callable[..., Any], size: int) -> Iterator[Any]:
        """What `finish` makes of each batch of packed items, in actors."""
        context, actors = ray.data.DataContext.get_current(), self._actors(ray)
        context.target_max_block_size, context.enable_progress_bars = BLOCK, self.bars
        context.print_on_execution_start = False
        done = data.map_batches(
            _Actor,
            batch_size=size,
            batch_format="pyarrow",
            fn_constructor_args=(make, finish, str(Path.cwd())),
            compute=ray.data.ActorPoolStrategy(size=actors),
            num_cpus=0 if self.gpu else CORE,
            num_gpus=1 if self.gpu else 0,
        )
        for row in done.iter_rows():
            if row["error"]:
                raise InputError(row["error"])
            yield json.loads(row["answer"])


def _packed(items: list[Any]) -> Any:
    """A table of items, of any type."""
    import pyarrow as pa

    return pa.table({"item": pa.array(map(pickle.dumps, items), pa.binary())})


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
    """The images of files and tables that are not known, in tables of some each, while they are read."""
    import ray

    keys, waiting, taken = ray.get(known), [], 0
    places = [place_of(place) for place in block["place"].to_pylist()]
    for picture in Inputs(dict(zip(places, places, strict=True)), column):
        if picture.problem is None and has_key(keys, key_of(picture.head({}))):
            continue
        waiting.append(picture)
        taken += len(picture.content)
        if len(waiting) >= size or taken >= BLOCK:
            yield _packed(waiting)
            waiting, taken = [], 0
    yield _packed(waiting)


class _Actor:
    """Answers items in a process beside its own, which may end with an item, and finishes their batch."""

    def __init__(self, make: Make, finish: Callable[..., Any], folder: str) -> None:
        with suppress(OSError):  # a model may be given by a relative path
            os.chdir(folder)
        vars(sys.modules["__main__"]).pop("__file__", None)  # the process beside this one need not import Ray
        self._finish, self._pool = finish, Pool(make, 1)
        self._pool.__enter__()

    def __call__(self, batch: Any) -> dict[str, list[Any]]:
        answer, error = None, ""
        try:
            answer = self._finish(list(map(pickle.loads, batch["item"].to_pylist())), self._pool.run)
        except EnergycompError as raised:  # the driver raises it without Ray's traceback
            error = str(raised)
        return {"answer": [json.dumps(answer)], "error": [error]}


@attrs.frozen
class _PartWriter:
    """Reads images and writes their part, unless it is there: then an earlier actor has ended after it was written."""

    parts: Parts

    def __call__(self, pictures: list[Any], run: Callable[..., Any]) -> dict[str, Any]:
        heads = [picture.head(self.parts.settings) for picture in pictures]
        tasks = [ReadTask(index, picture, heads[index], picture.name) for index, picture in enumerate(pictures)]
        name, records = self.parts.name([f"{head['image']} {head['sha256']}" for head in heads]), []
        if tasks and not self.parts.has(name):
            found = sorted(run(tasks), key=lambda pair: pair[0].index)
            records = [record_of(task, answer) for task, answer in found]
            self.parts.write(name, records)
        return {"part": name, "images": len(tasks), "failed": [one for one in records if "failed" in one]}


def _first_answer(items: list[Any], run: Callable[..., Any]) -> Any:
    """The answer to one item."""
    ((item, answer),) = run(items)
    if isinstance(answer, Lost):
        raise InputError(f"got {item}, at which {answer.reason}; expected more memory for each process")
    return answer
