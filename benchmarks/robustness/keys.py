"""Memory and CPU seconds of an interrupted run that continues with many known answers, and of merging them.

python benchmarks/robustness/keys.py [-n 1000000] [--known 1000]

Writes a results file of n lines, as `energycomp infer -o` writes them, and opens it as that command does when it
continues: once for a file of answers, and once for a folder, where the names of the marked images are kept, too. Then
it looks up some answers. The last row is `energycomp merge` of that file. Each runs in a process of its own, whose peak
memory above the loaded model is printed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.common.memory import reset_peak, resident
from energycomp.cli.results import Output, Results, merge_results
from energycomp.testing import tiny_model

SETTINGS: dict[str, Any] = {"model": "tiny", "solver": "pursuit", "counts": [3, 5], "seed": 0}


def head(number: int, settings: dict[str, Any]) -> dict[str, Any]:
    """What identifies the answer for an image."""
    return {"image": f"/data/images/{number:07d}.png", "sha256": f"{number:064x}", "settings": settings}


def write(file: Path, count: int) -> None:
    """A results file of so many images with three objects each."""
    settings = Results(tiny_model(), None, SETTINGS).settings
    answer = {
        "count": 3,
        "objects": [{"x": 0.25, "y": 0.5, "gain": 1.5, "probability": 1.0}] * 3,
        **dict.fromkeys(("fit", "error", "stderr", "p_value", "typicality"), 0.123456789),
        "runner_up": [{"x": 0.25, "y": 0.5}] * 3,
        "out_of_distribution": False,
        "warnings": [],
        "rows": 958,
    }
    with file.open("w") as lines:
        for number in range(count):
            name = f"{number:07d}"
            record = {**head(number, settings), **answer, "picture": f"{name}.png", "name": name}
            lines.write(json.dumps(record) + "\n")


def resume(out: Path, count: int, known: int) -> dict[str, float]:
    """Opens the results as `energycomp infer` does, and looks up `known` answers."""
    results = Results(tiny_model(), Output.of(out), SETTINGS)
    heads = [head(number, results.settings) for number in range(0, count, max(1, count // known))]
    reset_peak()
    before, started = resident(), time.process_time()
    with results:
        opened = time.process_time()
        if any(results.known(one) is None for one in heads):
            raise SystemExit("an answer is lost")
        looked = time.process_time()
    return {
        "MB": (resident(peak=True) - before) / 1e6,
        "seconds": opened - started,
        "ms per answer": 1e3 * (looked - opened) / len(heads),
    }


def merge(out: Path, count: int) -> dict[str, float]:
    """Merges the results as `energycomp merge` does."""
    reset_peak()
    before, started = resident(), time.process_time()
    if merge_results(Output.of(out))[0] != count:
        raise SystemExit("an answer is lost")
    return {"MB": (resident(peak=True) - before) / 1e6, "seconds": time.process_time() - started}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=1_000_000, help="number of lines")
    parser.add_argument("--known", type=int, default=1000, help="number of answers that are looked up")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--merge", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child is not None:
        merged = partial(merge, options.child, options.n)
        print(json.dumps(merged() if options.merge else resume(options.child, options.n, options.known)))
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "results.jsonl"
        write(file, options.n)
        print(f"{options.n:,} lines, {file.stat().st_size / 1e6:,.0f} MB on disk")
        print("| -o | MB of memory | CPU seconds | ms per known answer |\n| --- | --- | --- | --- |")
        ways = (("results.jsonl", file, []), ("a folder", Path(folder), []), ("merge", file, ["--merge"]))
        for name, out, further in ways:
            command = [sys.executable, "-m", "benchmarks.robustness.keys", "-n", str(options.n)]
            command += ["--known", str(options.known), "--child", str(out), *further]
            done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603 - ours
            found = json.loads(done.stdout)
            each = f"{found['ms per answer']:.2f}" if "ms per answer" in found else ""
            print(f"| {name} | {found['MB']:.0f} | {found['seconds']:.1f} | {each} |")


if __name__ == "__main__":
    main()
