"""Seconds per image alone and beside busy processes, by threads and by processes.

python benchmarks/speed/busy_machine.py [-n 20] [--model clevr-places] [--count 3-5] [--beside 0,1,4,8]
                                         [--ways "2 threads,2 processes"] [--seed 0]

Reads n rendered images by `energycomp infer`: in one process with two threads whose barriers spin or sleep
(OMP_WAIT_POLICY), and in two processes with one thread each (--workers 2). Busy processes count in a loop. The seconds
of a run with no image to read, which are those of loading, are subtracted.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

THREADS = 2
WAYS: dict[str, tuple[list[str], dict[str, str]]] = {
    "2 spinning threads": (["--workers", "1"], {"OMP_NUM_THREADS": str(THREADS), "OMP_WAIT_POLICY": "active"}),
    "2 threads": (["--workers", "1"], {"OMP_NUM_THREADS": str(THREADS)}),
    "1 thread": (["--workers", "1"], {"OMP_NUM_THREADS": "1"}),
    "2 processes": (["--workers", str(THREADS)], {}),
}


@contextmanager
def busy(processes: int) -> Iterator[None]:
    """So many processes that each keep a core busy."""
    running = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def seconds_of(command: Sequence[str], environment: dict[str, str]) -> float:
    plain = {name: value for name, value in os.environ.items() if not name.startswith("OMP_")}
    started = time.perf_counter()
    subprocess.run(command, env={**plain, **environment}, check=True, capture_output=True)  # noqa: S603
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=20, help="number of images")
    parser.add_argument("--model", default="clevr-places")
    parser.add_argument("--count", default="3-5")
    parser.add_argument("--beside", default="0,1,4,8", help="numbers of busy processes")
    parser.add_argument("--ways", default=",".join(WAYS), help="ways of reading, by name")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    numbers = [int(number) for number in options.beside.split(",")]
    energycomp = [sys.executable, "-m", "energycomp"]
    with tempfile.TemporaryDirectory() as name:
        images = Path(name) / "scenes"
        made = ["data", "clevr", "-n", str(options.n), "--objects", options.count, "--seed", str(options.seed)]
        subprocess.run([*energycomp, *made, "-o", str(images)], check=True, capture_output=True)  # noqa: S603
        read = [*energycomp, "infer", options.model, str(images), "--count", options.count, "--quiet"]
        print(f"{options.model}, {options.n} images, {os.cpu_count()} cores, seconds per image beside busy processes")
        print(f"| way | {' | '.join(map(str, numbers))} |\n| --- |{' --- |' * len(numbers)}")
        for way in options.ways.split(","):
            arguments, environment = WAYS[way]
            cells = []
            for number in numbers:
                with busy(number):
                    loading = seconds_of([*read, "--shard", f"{options.n + 1}/{options.n + 1}"], environment)
                    whole = seconds_of([*read, *arguments], environment)
                cells.append(f"{(whole - loading) / options.n:.2f}")
            print(f"| {way} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
