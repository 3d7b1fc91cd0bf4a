"""Measure the start of a command: CPU seconds and seconds of the clock until the first network evaluation.

python benchmarks/speed/first_pixel.py [--tree FOLDER] [-n 5] [-- sample clevr "0.3,0.5" "0.7,0.6"]

Each run is a new process. `--tree` measures another checkout of energycomp, such as that of an earlier commit. Also
measures `import energycomp` and `energycomp --help`, of which the whole process counts.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.common.measure import table

COMMAND = ["sample", "clevr", "0.3,0.5", "0.7,0.6"]
# Imports the two modules that the command would import later, and stops the process at its first network evaluation.
FIRST = """
import json, os, resource, sys, time
from energycomp.cli import main
from energycomp.sampling.target import Target
def stop(*args, **kwargs):
    spent = resource.getrusage(resource.RUSAGE_SELF)
    heavy = sorted({"torch._dynamo", "torchvision", "torchmetrics", "scipy", "transformers"} & sys.modules.keys())
    clock = time.time() - float(os.environ["STARTED"])
    sys.stderr.flush()
    print(json.dumps({"cpu": spent.ru_utime + spent.ru_stime, "clock": clock, "heavy": heavy}), flush=True)
    os._exit(0)
Target.compose = Target.predict = stop
main()
"""
WHOLE = """
import json, os, resource, sys, time
try:
    {code}
except SystemExit:
    pass
spent = resource.getrusage(resource.RUSAGE_SELF)
clock = time.time() - float(os.environ["STARTED"])
print(json.dumps({{"cpu": spent.ru_utime + spent.ru_stime, "clock": clock, "heavy": []}}))
"""
NOTE = "Medians; of the first two the whole process. CPU s is user and system time of all threads."
HELP = "from energycomp.cli import main; sys.argv = ['energycomp', '--help']; main()"


def main() -> None:
    """Prints the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tree", type=Path, default=Path(__file__).resolve().parents[2], help="checkout to measure")
    parser.add_argument("-n", type=int, default=5, help="runs, after one that is not counted")
    parser.add_argument("command", nargs="*", default=COMMAND, help="arguments of energycomp")
    options = parser.parse_args()
    cases = {
        "import energycomp": (WHOLE.format(code="import energycomp"), []),
        "energycomp --help": (WHOLE.format(code=HELP), []),
        f"energycomp {' '.join(options.command)}": (FIRST, options.command),
    }
    rows = []
    for name, (code, arguments) in cases.items():
        runs = [_measured(options.tree, code, arguments) for _ in range(1 + options.n)][1:]
        cpu, clock = ([float(run[key]) for run in runs] for key in ("cpu", "clock"))
        spread = f"{min(cpu):.2f} to {max(cpu):.2f}"
        rows.append(
            [
                name,
                f"{statistics.median(cpu):.2f}",
                spread,
                f"{statistics.median(clock):.2f}",
                ", ".join(runs[0]["heavy"]),
            ]
        )
    print(table(["until the first network evaluation", "CPU s", "range", "clock s", "heavy packages"], rows, NOTE))


def _measured(tree: Path, code: str, arguments: list[str]) -> dict[str, Any]:
    paths = [str(tree), *map(str, sorted((tree / "plugins").iterdir()))]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "STARTED": repr(time.time())}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", code, *arguments]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)  # noqa: S603 - its own code
    if done.returncode:
        raise SystemExit(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    main()
