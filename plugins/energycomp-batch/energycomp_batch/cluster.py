"""Work on a Ray cluster: images are read by Ray Data, actors answer them, and each batch is a Parquet part."""

from __future__ import annotations

import json
import os
import pickle
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import attrs
import typer

from energycomp.errors import EnergycompError, InputError, first_line
from energycomp_batch.inputs import Inputs, holds_many, part_size
from energycomp_batch.parts import BLOCK, Parts, split_unread
from energycomp_batch.places import place_of
from energycomp_batch.pool import LostError, Pool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    Make = Callable[[], Callable[[Any], Any]]  # called in each process; returns the function from an item to its answer

OLDEST = (2, 49)  # version of Ray
READERS = 8  # actors for each task that reads files
# Of a core for each actor. Ray fills a machine up to half before it takes the next one: so each core has one actor, and
# those of a lost machine find room. Halves of GPUs it would give in pairs.
CORE = 0.5
# Actors that one after another may end while they start, as with their machine, before the work ends. Ray's own 0 would
# end it with the first.
DEATHS = 20
SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0", "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_DATA_LOG_LEVEL": "CRITICAL",
}  # fmt: skip
# Ray that is started here listens on the loopback address only, and its processes give way no more than local ones.
ALONE = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_worker_niceness": "0"}

Engine = Annotated[
    Literal["local", "ray"],
    typer.Option(help="local: processes of this machine; ray: actors of a Ray cluster."),
]
Address = Annotated[
    str | None,
    typer.Option(
        help="Address of a Ray cluster, such as head:6379, or auto for the one that runs on this machine.",
        show_default="Ray is started on this machine",
    ),
]
Concurrency = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Number of Ray's actors, each of which holds a model.",
        show_default="one per core, or GPU, of the cluster",
    ),
]


def cluster_of(
    engine: str, address: str | None, concurrency: int | None, part: int | None = None, gpu: bool = False, **local: Any
) -> Cluster | None:
    """Makes the cluster of --engine ray; None for the local engine. Raises `InputError` for an option of the other
    engine.

    Args:
        local: options that only the local engine has; None, False or "" where they are not given.
    """
    on_ray = engine == "ray"
    for name, value in (local if on_ray else {"address": address, "concurrency": concurrency, "part": part}).items():
        if value:
            raise InputError(f"got --{name} {'with' if on_ray else 'without'} --engine ray; leave it out")
    return Cluster(address, concurrency, part, gpu) if on_ray else None


@contextmanager
def connect_ray(address: str | None) -> Iterator[Any]:
    """Connects Ray to the cluster of an address for the block, unless it was before; None starts it here."""
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
        if address is None:
            raise InputError(
                f"got --engine ray, which does not start on this machine ({first_line(error)[:200]}); expected a "
                "core and 2 GiB of memory that are free; repeat the command, or leave --engine out"
            ) from error
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
    """

    address: str | None = None
    concurrency: int | None = None
    part: int | None = None
    gpu: bool = False

    def read(self, inputs: Inputs, make: Make, parts: Parts, *, bars: bool = False) -> Iterator[dict[str, Any]]:
        """Reads the images whose answers are not known, and writes theirs; yields what was done, a part at a time.

        An image whose process ends twice is a failure. An actor that ends, as with its machine, is replaced; a part
        that it has written is not read again.

        Args:
            make: called in a process beside each actor; returns the function from an `Answer` to its record.
            parts: where records go; its known answers are left out.

        Yields:
            dicts of `part` (a name), `images` and `failed` (records).

        Raises:
            InputError: Ray is not installed or too old, there is no such cluster, the parts cannot be used, or what
                `make` or the writing of a part raised; the work on the cluster ended.
        """
        with connect_ray(self.address) as ray:
            known = ray.put(parts.known_keys())
            actors = self._actors(ray)
            size = self.part or part_size(inputs, actors)
            rows = ray.data.from_arrow(list(_blocks(inputs, size))).map_batches(
                _rows,
                batch_size=None,
                batch_format="pyarrow",
                fn_args=(inputs.column, known, size),
                num_cpus=0,  # actors may hold all cores
                compute=ray.data.TaskPoolStrategy(size=max(1, actors // READERS)),
            )
            yield from self._over(ray, rows, make, parts.answered, size, bars)

    def map(self, items: Iterable[Any], make: Make) -> Iterator[Any]:
        """The answers to items, which can be pickled, as they come; answers are JSON data. Raises as `read` does."""
        with connect_ray(self.address) as ray:
            blocks = [_pack([item]) for item in items]
            if blocks:
                yield from self._over(ray, ray.data.from_arrow(blocks), make, _first_answer, 1)

    def _actors(self, ray: Any) -> int:
        return self.concurrency or max(1, int(ray.cluster_resources().get("GPU" if self.gpu else "CPU", 1)))

    def _over(
        self, ray: Any, data: Any, make: Make, finish: Callable[..., Any], size: int, bars: bool = False
    ) -> Iterator[Any]:
        """Applies `finish` to each batch of packed items, in actors."""
        context = ray.data.DataContext.get_current()
        context.target_max_block_size = BLOCK
        context.enable_progress_bars = bars
        context.print_on_execution_start = False
        context.max_consecutive_actor_init_deaths = DEATHS
        done = data.map_batches(
            _Actor,
            batch_size=size,
            batch_format="pyarrow",
            fn_constructor_args=(make, finish, str(Path.cwd())),
            compute=ray.data.ActorPoolStrategy(size=self._actors(ray)),
            num_cpus=0 if self.gpu else CORE,
            num_gpus=1 if self.gpu else 0,
        )
        with one_line(ray):
            for row in done.iter_rows():
                if row["error"]:
                    raise InputError(row["error"])
                yield json.loads(row["answer"])


@contextmanager
def one_line(ray: Any) -> Iterator[None]:
    """Turns what ends the work on a cluster into an `InputError` of one line; our own code keeps its traceback."""
    errors = ray.exceptions
    try:
        yield
    except errors.RayError as error:
        reason = str(error).strip().splitlines()[-1].strip()
        in_our_code = isinstance(error, errors.RayTaskError | errors.UserCodeException)
        if in_our_code and "ModuleNotFoundError" not in str(error):
            raise
        raise InputError(
            f"got a Ray cluster on which the work ended ({reason[:200]}); expected machines with the same packages as "
            "here and free memory; repeat the command to continue"
        ) from error


def _pack(items: list[Any]) -> Any:
    import pyarrow as pa

    return pa.table({"item": pa.array(map(pickle.dumps, items), pa.binary())})


def _blocks(inputs: Inputs, size: int) -> Iterator[Any]:
    """Yields where the images are, as what one task reads: a table or a movie, or several files."""
    import pyarrow as pa

    tables = [[str(path)] for path in inputs.files if holds_many(path)]
    files = [str(path) for path in inputs.files if not holds_many(path)]
    for block in [*(files[first : first + size] for first in range(0, len(files), size)), *tables]:
        yield pa.table({"place": block})


def _rows(block: Any, column: str | None, known: Any, size: int) -> Iterator[Any]:
    """Yields the images of files and tables that are not known, in tables of some each, while they are read."""
    import ray

    places = [place_of(place, found=True) for place in block["place"].to_pylist()]
    for items in split_unread(Inputs(dict(zip(places, places, strict=True)), column), ray.get(known), size):
        yield _pack(items)
    yield _pack([])  # where all are known, a block has the column, too


class _Actor:
    """Answers items in a process beside its own, which may end with an item, and finishes their batch."""

    def __init__(self, make: Make, finish: Callable[..., Any], folder: str) -> None:
        with suppress(OSError):  # a model may be given by a relative path
            os.chdir(folder)
        vars(sys.modules["__main__"]).pop("__file__", None)  # the process beside this one need not import Ray
        self._finish = finish
        self._pool = Pool(make, 1)

    def __call__(self, batch: Any) -> dict[str, list[Any]]:
        answer, error = None, ""
        try:
            answer = self._finish(list(map(pickle.loads, batch["item"].to_pylist())), self._pool.run)
        except EnergycompError as raised:  # the driver raises it without Ray's traceback
            error = str(raised)
        return {"answer": [json.dumps(answer)], "error": [error]}


def _first_answer(items: list[Any], run: Callable[..., Any]) -> Any:
    ((_, answer),) = run(items)
    if isinstance(answer, LostError):
        raise answer
    return answer
