"""Every image once, by two processes however they are started, and after kills at random.

python benchmarks/robustness/shards.py [-n 2000] [--kills 5] [--seed 0]

Two processes of `energycomp infer` read n small images with a tiny model: by --shard in two shells, by torchrun, by
accelerate launch, and as two workers of one process. The merged results are compared with those of one process, byte by
byte. Then each way is killed at random times and repeated: nothing may be there twice, and nothing lost.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from energycomp.models import save_pretrained
from energycomp.testing import tiny_model

SIDE = 16  # px
RUN = ["-m", "energycomp"]
TWO = {
    "torchrun": [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "0", *RUN],
    "accelerate": [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", *RUN],
}


def ways(arguments: Sequence[str]) -> dict[str, list[list[str]]]:
    """The commands of each way, which run at the same time."""
    alone = [sys.executable, *RUN, *arguments]
    return {
        "two shells": [[*alone, "--workers", "1", "--shard", f"{number}/2"] for number in (1, 2)],
        **{name: [[*launcher, *arguments, "--workers", "1"]] for name, launcher in TWO.items()},
        "two workers": [[*alone, "--workers", "2"]],
    }


def run(commands: Sequence[Sequence[str]], log: Path, *, kill_after: float | None = None) -> float:
    """Runs commands at the same time, and kills all their processes after some seconds; returns the seconds."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "ACCELERATE_USE_CPU": "true"}
    started = time.perf_counter()
    with log.open("a") as said:
        running = [
            subprocess.Popen(one, stdout=said, stderr=said, env=environment, start_new_session=True)  # noqa: S603
            for one in commands
        ]
        for process in running:
            try:
                process.wait(None if kill_after is None else max(0.0, kill_after + started - time.perf_counter()))
            except subprocess.TimeoutExpired:
                for other in running:
                    _kill(other.pid)
                process.wait()
    return time.perf_counter() - started


def _kill(group: int) -> None:
    """Kills a process and all that it started, those of torchrun in sessions of their own too."""
    children = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True)  # noqa: S607
    parents = {int(pid): int(parent) for pid, parent in map(str.split, children.stdout.splitlines())}
    found = {group}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    for pid in found:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def merged(out: Path) -> bytes:
    """The results of all files of a folder, merged."""
    subprocess.run([sys.executable, *RUN, "merge", str(out)], check=True, capture_output=True)  # noqa: S603
    return (out / "results.jsonl").read_bytes()


def lines_in(out: Path) -> list[str]:
    """The images of all complete lines of a folder, before they are merged."""
    texts = [file.read_bytes() for file in out.glob("results*.jsonl")]
    return [json.loads(line)["image"] for text in texts for line in text[: text.rfind(b"\n") + 1].splitlines()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=2000, help="number of images")
    parser.add_argument("--kills", type=int, default=5, help="of each way")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    draw, noise = random.Random(options.seed), np.random.default_rng(options.seed)  # noqa: S311
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_pretrained(tiny_model(solver="pursuit", draws=2), folder / "model")
        (folder / "images").mkdir()
        for number in range(options.n):
            pixels = noise.integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "images" / f"{number:06}.png")
        command = ["infer", str(folder / "model"), str(folder / "images"), "--count", "0-1", "--quiet", "-o"]
        log = folder / "log.txt"
        seconds = run([[sys.executable, *RUN, *command, str(folder / "one"), "--workers", "1"]], log)
        expected = merged(folder / "one")
        print(f"{options.n} images, seed {options.seed}; one process: {seconds:.1f} s")
        print("| way | seconds | same as one process | kills | twice | lost | same after kills |")
        print("| --- | --- | --- | --- | --- | --- | --- |")
        for number, way in enumerate(ways([])):
            out, struck = folder / f"way-{number}", folder / f"struck-{number}"
            taken = run(ways([*command, str(out)])[way], log)
            same = merged(out) == expected
            for _ in range(options.kills):
                run(ways([*command, str(struck)])[way], log, kill_after=draw.uniform(0.2, 0.9) * taken)
            run(ways([*command, str(struck)])[way], log)
            read = lines_in(struck)
            twice, lost = len(read) - len(set(read)), options.n - len(set(read))
            after = merged(struck) == expected
            print(f"| {way} | {taken:.1f} | {same} | {options.kills} | {twice} | {lost} | {after} |", flush=True)


if __name__ == "__main__":
    main()
