"""`energycomp batch --engine ray` on two nodes of this machine: kills, a million rows, and beside local processes.

python benchmarks/robustness/many_images.py kills [-n 2000] [--kills 10] [--seed 0] [-o DIR]
python benchmarks/robustness/many_images.py rows [-n 1000000] [--part 1000]
python benchmarks/robustness/many_images.py engines [-n 300] [--model clevr-places]

`kills` ends workers, a node and the driver at random moments, repeats the command, and compares with one process; the
same DIR continues it. `rows` has a model that answers at once. Each prints JSON. Needs Linux and `pip install
'energycomp-batch[test]'`.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from threading import Event, Thread
from typing import Any, Self

import pyarrow as pa
from pyarrow import parquet

from benchmarks.common.instant import Instant, add_node, image_files, instant_count, processes_below, two_nodes
from benchmarks.common.options import parser
from energycomp_batch.cluster import Cluster
from energycomp_batch.inputs import Inputs
from energycomp_batch.parts import Parts

DEADLY = 3  # images that end their process
WAIT = 0.1  # seconds for each image while others are killed


def drive(address: str, images: str, out: str, part: int, wait: float) -> None:
    """The driver: what `energycomp batch --engine ray` does, with another model."""
    parts = Parts(Path(out), {"wait": wait})
    for event in Cluster(address, 2, part).read(Inputs.of([images]), Instant(wait), parts):
        print(json.dumps(event), flush=True)
    print(json.dumps({"cpu": time.process_time()}), flush=True)


def driver(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, __file__, "drive", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603 - our own


class Watch:
    """Memory and CPU of all processes that are started in the block, also by each other, once a second."""

    def __init__(self) -> None:
        self.memory: list[tuple[float, int]] = []  # moments, and bytes, of which shared pages count once
        self._seconds: dict[int, float] = {}  # of CPU, for each process also after its end
        self._before = 0.0
        self._ended = Event()
        self._thread = Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._start = time.monotonic()
        self._sample()
        self._before = self.cpu_seconds()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def moment(self) -> float:
        return time.monotonic() - self._start

    def cpu_seconds(self) -> float:
        """Of user and system, in the block until now."""
        return sum(self._seconds.values()) - self._before

    def _run(self) -> None:
        while not self._ended.wait(1.0):
            self._sample()

    def _sample(self) -> None:
        memory = 0
        for pid in processes_below({os.getpid()}):
            try:
                ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
                self._seconds[pid] = sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")
                smaps = Path(f"/proc/{pid}/smaps_rollup").read_text()
                memory += int(smaps.partition("\nPss:")[2].split()[0]) << 10
            except (OSError, IndexError):  # it has ended
                continue
        self.memory.append((self.moment(), memory))


def kills(n: int, number: int, seed: int, folder: Path) -> dict[str, Any]:
    """Kills at random moments, and the same command again after each kill of the driver."""
    choose = random.Random(seed)  # noqa: S311 - which process is killed
    images, out, log = folder / "images", folder / "found", folder / "killed"
    images.mkdir(exist_ok=True)
    for index, content in enumerate(image_files(n)):
        (images / f"{'deadly' if index < DEADLY else ''}{index:06d}.png").write_bytes(content)
    done = log.read_text().splitlines() if log.exists() else []  # by a run that was ended
    parts = len(list(out.glob("part-*")))  # when something was killed last
    start = time.monotonic()
    with two_nodes() as made:
        running = driver(made.address, images, out, 10, WAIT)
        while running.poll() is None or running.returncode != 0:
            if running.poll() is not None:
                running = driver(made.address, images, out, 10, WAIT)
            if len(done) == number:
                running.communicate()
                continue
            if len(list(out.glob("part-*"))) == parts:  # what was killed before has not started again
                time.sleep(0.1)
                continue
            time.sleep(choose.uniform(2, 10))
            kind = choose.choice(["image process", "actor", "actor", "node", "driver"])
            lines = {"image process": "spawn_main", "actor": "MapWorker"}
            if kind in lines:
                raylets = {node.all_processes["raylet"][0].process.pid for node in made.list_all_nodes()}
                victims = [pid for pid, line in processes_below(raylets).items() if lines[kind] in line]
                if not victims:
                    continue
                os.kill(choose.choice(victims), signal.SIGKILL)
            elif kind == "node":
                made.remove_node(next(iter(made.worker_nodes)), allow_graceful=False)
                add_node(made)
            else:
                running.kill()
                running.wait()
            done.append(kind)
            parts = len(list(out.glob("part-*")))
            log.write_text("".join(f"{one}\n" for one in done))
            print(f"{time.monotonic() - start:.0f} s, {parts} parts: killed {kind}", file=sys.stderr, flush=True)
    rows = [row for part in out.glob("part-*.parquet") for row in parquet.read_table(part).to_pylist()]
    wanted = {str(path): instant_count(path.read_bytes()) for path in images.iterdir() if "deadly" not in path.name}
    failed = [row["image"] for part in out.glob("_failed/*") for row in parquet.read_table(part).to_pylist()]
    return {
        "images": n, "kills": {kind: done.count(kind) for kind in done}, "rows": len(rows),
        "once": len({row["image"] for row in rows}) == len(rows) == len(wanted),
        "equal": {row["image"]: row["count"] for row in rows} == wanted, "failed": len(set(failed)),
        "failed_named": all("deadly" in name for name in failed),
    }  # fmt: skip


def rows(n: int, part: int, folder: Path) -> dict[str, Any]:
    """Rows of Parquet files through a model that answers at once."""
    content, out = list(image_files(1000)), folder / "found"
    (folder / "images").mkdir()
    each = min(n, 10_000)
    for first in range(0, n, each):
        table = pa.table({"image": [content[index % 1000] for index in range(first, min(n, first + each))]})
        parquet.write_table(table, folder / f"images/{first:09d}.parquet", row_group_size=1000)
    with two_nodes() as made, Watch() as watch:
        running = driver(made.address, folder / "images", out, part, 0)
        printed = [(watch.moment(), json.loads(line)) for line in running.stdout or ()]
        took = watch.moment()
    sizes = [path.stat().st_size for path in out.glob("part-*.parquet")]
    (begun, first), *_, (_, last) = printed
    ends = [begun + (took - begun) * third / 3 for third in (1, 2, 3)]
    thirds = [max(memory for moment, memory in watch.memory if moment <= end) >> 20 for end in ends]
    return {
        "rows": sum(parquet.read_metadata(path).num_rows for path in out.glob("part-*.parquet")),
        "seconds_to_first_part": round(begun, 1), "rows_per_second": round((n - first["images"]) / (took - begun)),
        "memory_mib": thirds[-1], "memory_mib_until_thirds": thirds, "files": len(sizes),
        "mean_kib": round(sum(sizes) / len(sizes) / 1024, 1),
        "cpu_seconds": round(watch.cpu_seconds(), 1), "cpu_seconds_of_driver": round(last["cpu"], 1),
    }  # fmt: skip


class Counted:
    """A command that prints a line of JSON for an image or a part, and how many images it has answered."""

    def __init__(self, command: list[str]) -> None:
        self.images = 0
        self.first = Event()
        self._start = time.monotonic()
        self.lines: list[tuple[float, int]] = []  # seconds, and images until then
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603 - our own
        self._thread = Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        for line in self.process.stdout or ():
            self.images += json.loads(line).get("images", 1)
            self.lines.append((time.monotonic() - self._start, self.images))
            self.first.set()

    def seconds_per_image(self, since: int) -> float:
        """From one line to the last one, so that parts may end at any moment."""
        (begun, first), *_, (ended, last) = self.lines[since:]
        return (ended - begun) / (last - first)

    def end(self) -> None:
        self.process.terminate()
        self._thread.join()
        self.process.wait()


def engines(n: int, model: str, folder: Path) -> dict[str, Any]:
    """The seconds of an image, of two actors and of two local processes, side by side, once both have begun.

    So what else the machine does slows both down.
    """
    images = folder / "images"
    images.mkdir()
    if model == "tiny":
        from energycomp.models import save_pretrained
        from energycomp.testing import tiny_model

        model = str(folder / "model")
        save_pretrained(tiny_model(solver="pursuit"), model)
    for index, content in enumerate(image_files(n, side=64)):
        (images / f"{index:06d}.png").write_bytes(content)
    command = [sys.executable, "-m", "energycomp", "batch", model, str(images), "--count", "0-1", "--json"]
    options = {"ray": ["--engine", "ray", "--concurrency", "2"], "local": ["--workers", "2"]}
    running: dict[str, Counted] = {}
    for name, more in options.items():
        running[name] = Counted([*command, "-o", str(folder / f"{name}.parquet"), *more])
        while not running[name].first.wait(1.0):
            if running[name].process.poll() is not None:
                raise SystemExit(f"{name} answered nothing")
    begun = {name: len(one.lines) - 1 for name, one in running.items()}
    while all(one.images < n and one.process.poll() is None for one in running.values()):
        time.sleep(0.1)
    took = {name: round(one.seconds_per_image(begun[name]), 4) for name, one in running.items()}
    for one in running.values():
        one.end()
    starts = {name: round(one.lines[0][0], 1) for name, one in running.items()}
    read = {name: one.images for name, one in running.items()}
    return {"seconds_per_image": took, "ratio": took["ray"] / took["local"], "images": read, "seconds_to_first": starts}


def main() -> None:
    if sys.argv[1:2] == ["drive"]:
        address, images, out, part, wait = sys.argv[2:]
        drive(address, images, out, int(part), float(wait))
        return
    made = parser(__doc__, n=0, kills=(10, "how often something is killed"), part=1000, seed=0, out=None)
    made.add_argument("what", choices=["kills", "rows", "engines"])
    made.add_argument("--model", default="clevr-places", help="of engines; tiny is one that is not trained")
    options = made.parse_args()
    with nullcontext(options.out) if options.out else tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.mkdir(exist_ok=True)
        if options.what == "kills":
            found = kills(options.n or 2000, options.kills, options.seed, folder)
        elif options.what == "rows":
            found = rows(options.n or 1_000_000, options.part, folder)
        else:
            found = engines(options.n or 300, options.model, folder)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
