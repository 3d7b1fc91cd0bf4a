"""A model that answers at once, images for it, and a cluster of two nodes on this machine.

Measurements of many images and the tests of `energycomp batch --engine ray` share it. The processes of Ray import it by
its name.
"""

from __future__ import annotations

import io
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import numpy as np
from PIL import Image

from energycomp_batch.cluster import ALONE, SETTINGS
from energycomp_cli import Answer

# Ray takes 127.0.0.1 for the machine's own address, and would look for the nodes there.
NODE = {"num_cpus": 1, "object_store_memory": 100_000_000, "node_ip_address": "127.0.0.2", "include_log_monitor": False}
TRIES = 5  # to start a node
VARIABLES = {
    **SETTINGS,
    **ALONE,
    "RAY_health_check_period_ms": "1000",  # a lost node is noticed after 5 s, and not 15
    "RAY_worker_register_timeout_seconds": "600",  # on a machine that others use, imports take minutes
}


@attrs.frozen
class Instant:
    """A model that answers at once; a process ends with an image whose name has `deadly` in it.

    Args:
        wait: seconds for an image.
        until: a file; nothing is answered before it is there.
    """

    wait: float = 0.0
    until: Path | None = None

    def __call__(self) -> Callable[[Answer], dict[str, Any]]:
        return self.answer

    def answer(self, task: Answer) -> dict[str, Any]:
        if "deadly" in task.item.name:
            os.kill(os.getpid(), signal.SIGKILL)
        while self.until is not None and not self.until.exists():
            time.sleep(0.05)
        time.sleep(self.wait)
        return {**task.head, "count": instant_count(task.item.content), "objects": [], "rows": 1}


def instant_count(content: Any) -> int:
    """The answer of `Instant` for the bytes of an image."""
    return sum(content) % 7


def image_files(number: int, side: int = 16) -> Iterator[bytes]:
    """PNG files of random pixels."""
    draw = np.random.default_rng(0)
    for _ in range(number):
        content = io.BytesIO()
        Image.fromarray(draw.integers(0, 255, (side, side, 3), dtype=np.uint8)).save(content, "PNG")
        yield content.getvalue()


@contextmanager
def two_nodes() -> Iterator[Any]:
    """A cluster of two nodes with one core each, on the loopback address."""
    root = str(Path(__file__).parents[2])
    os.environ.update({**VARIABLES, **os.environ, "PYTHONPATH": os.pathsep.join([root, *sys.path])})
    from ray.cluster_utils import Cluster

    made = Cluster()
    try:
        add_node(made, include_dashboard=False, no_monitor=True)
        add_node(made)
        yield made
    finally:
        made.shutdown()


def add_node(made: Any, **options: Any) -> Any:
    """Adds a node, the first of which is the head. Ray gives a start up after 30 s, too early for a busy machine."""
    before = processes_below({os.getpid()})
    for _ in range(TRIES - 1):
        try:
            return made.add_node(**NODE, **options)
        except Exception:  # Ray raises the base class
            for pid, line in processes_below({os.getpid()}).items():
                if pid not in before and line.partition("\0")[0].endswith(("/raylet", "/gcs_server")):
                    os.kill(pid, signal.SIGKILL)
    return made.add_node(**NODE, **options)


def processes_below(ancestors: set[int]) -> dict[int, str]:
    """The processes that these have started, and what those have; with their command lines."""
    known: dict[int, tuple[int, str]] = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            known[int(path.name)] = (parent, (path / "cmdline").read_text())
        except OSError:  # it has ended
            continue
    found = dict.fromkeys(ancestors, "")
    while new := {one: line for one, (parent, line) in known.items() if parent in found and one not in found}:
        found.update(new)
    return {one: line for one, line in found.items() if one not in ancestors}


def actors_of(node: Any) -> list[int]:
    """The processes of actors on a node."""
    raylet = node.all_processes["raylet"][0].process.pid
    return [one for one, line in processes_below({raylet}).items() if "MapWorker" in line]
