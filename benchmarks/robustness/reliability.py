"""Is anything lost? Kills, full disks and read-only folders for a training run, and two processes against one.

python benchmarks/robustness/reliability.py [--kills 20] [--save-kills 10] [--full-disks 10] [--read-only 10] [--seed 0]

Run it again to go on: `cases.jsonl` in the folder of `-o` has what is done. Full and read-only disks are real ones, a
tmpfs of each case in its own user and mount namespace (Linux, `unshare`); no root is needed.
"""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from reliability_cases import CASES
from reliability_checks import start

from benchmarks.common.options import parser
from energycomp_cli import append_line, read_lines

NAMESPACE = ["unshare", "--user", "--map-root-user", "--mount"]
MOUNTING = ("full disk", "read-only disk")


def main() -> int:
    """Runs what is not done yet and writes the table; 1 if a case was not as promised."""
    made = parser(
        __doc__, kills=(20, "kill -9 at a random moment"), save_kills=(10, "kill -9 inside a save"), full_disks=10,
        read_only=10, ranks=(4, "kill -9 of one of two ranks"), seed=0, jobs=(2, "cases at a time"),
        out="runs/reliability",
    )  # fmt: skip
    made.add_argument("--case", nargs=2, metavar=("KIND", "NUMBER"), help="run one case and print it as JSON")
    options = made.parse_args()
    if options.case:
        print(json.dumps(run(options.case[0], int(options.case[1]), options.seed, options.out)))
        return 0
    counts = (options.kills, options.save_kills, options.full_disks, options.read_only, 1, options.ranks)
    wanted = [(kind, number) for kind, count in zip(CASES, counts, strict=True) for number in range(count)]
    options.out.mkdir(parents=True, exist_ok=True)
    log = options.out / "cases.jsonl"
    done = {(case["kind"], case["number"]) for case in read_lines(log) if case["seed"] == options.seed}
    _, errors = (process := start(options.out / "undisturbed")).communicate()
    if process.returncode:
        raise SystemExit(f"The undisturbed run ends with {process.returncode}: {errors}")
    with ThreadPoolExecutor(options.jobs) as pool:
        missing = [case for case in wanted if case not in done]
        futures = [pool.submit(apart, kind, number, options.seed, options.out) for kind, number in missing]
        for future in as_completed(futures):
            append_line(log, future.result())
            print(json.dumps(future.result()), flush=True)
    cases = [case for case in read_lines(log) if case["seed"] == options.seed]
    text = table([case for case in cases if (case["kind"], case["number"]) in wanted])
    (options.out / "table.md").write_text(text)
    print(text)
    return int(any(case["problems"] for case in cases))


def apart(kind: str, number: int, seed: int, out: Path) -> dict[str, Any]:
    """A case in a process of its own, and in a namespace of its own where it mounts a disk."""
    command = [sys.executable, __file__, "--case", kind, str(number), "--seed", str(seed), "-o", str(out)]
    command = [*NAMESPACE, *command] if kind in MOUNTING else command
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    try:
        return dict(json.loads(done.stdout))
    except ValueError:
        return {"kind": kind, "number": number, "seed": seed, "where": "", "problems": [f"no result: {done.stderr}"]}


def run(kind: str, number: int, seed: int, out: Path) -> dict[str, Any]:
    """One case in a scratch folder: where it struck, and each promise that was broken."""
    scratch = Path(tempfile.mkdtemp(prefix="reliability-"))
    try:
        draw = random.Random(f"{seed} {kind} {number}")  # noqa: S311
        result = CASES[kind](out / "undisturbed", scratch, draw, number)
    finally:
        if (scratch / "disk").is_mount():
            subprocess.run(["umount", "--lazy", scratch / "disk"], check=False)  # noqa: S603, S607
        shutil.rmtree(scratch, ignore_errors=True)
    return {"kind": kind, "number": number, "seed": seed, **result}


def table(cases: list[dict[str, Any]]) -> str:
    """A row for each kind and place: how often it was tried, and how often all promises were kept."""
    places: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for case in sorted(cases, key=lambda case: (list(CASES).index(case["kind"]), case["where"])):
        places.setdefault((case["kind"], case["where"]), []).append(case)
    lines = ["| what happens | where | cases | as promised | seconds at most |", "| --- | --- | --- | --- | --- |"]
    for (kind, where), group in places.items():
        kept = sum(not case["problems"] for case in group)
        seconds = max((case["seconds"] for case in group if "seconds" in case), default="")
        lines.append(f"| {kind} | {where} | {len(group)} | {kept} | {seconds} |")
    broken = [f"- {case['kind']} {case['number']}: {'; '.join(case['problems'])}" for case in cases if case["problems"]]
    return "\n".join([*lines, "", *broken]) + "\n"


if __name__ == "__main__":
    sys.exit(main())
