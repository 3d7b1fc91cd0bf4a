"""How reliability_run.py is started, and what must hold after it was disturbed; a check returns a list of problems."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from reliability_run import BATCH, KEEP, STEPS

from energycomp.errors import CheckpointError
from energycomp.files import read_tensors
from energycomp_lab.training import ema_weights

RUN = Path(__file__).with_name("reliability_run.py")
FINAL = f"checkpoint-{STEPS:06d}.safetensors"


def start(out: Path, *, launch: list[str] | None = None, **environment: object) -> subprocess.Popen[str]:
    """The command of a run; the same one goes on with it."""
    command = [*(launch or [sys.executable]), str(RUN), str(out)]
    plain = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONWARNINGS": "ignore"}
    given = {name: str(value) for name, value in environment.items()}
    return subprocess.Popen(  # noqa: S603
        command, env={**os.environ, **plain, **given}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def hear(process: subprocess.Popen[str], word: str) -> str | None:
    """The rest of the next line of output that starts with the word; None if the run ends without."""
    for line in process.stdout or ():
        if line.split()[:1] == [word]:
            return line.removeprefix(word).strip()
    return None


def rows(output: str) -> list[list[int]]:
    """What each process of a run that ended trained on."""
    # Not by lines: gloo writes to the same stream, and processes share it.
    return [json.loads(found) for found in re.findall(r"rows (\[[0-9, ]*\])", output)]


def kill(process: subprocess.Popen[str]) -> bool:
    """Kill -9; whether the run was still going on."""
    process.kill()
    process.communicate()
    return process.returncode == -signal.SIGKILL


def seconds_of(undisturbed: Path) -> float:
    """About how long the undisturbed run trained and saved: a bound of random moments."""
    return 1.3 * float(json.loads((undisturbed / "log.jsonl").read_text().splitlines()[-1])["seconds"])


# What must hold


def whole(out: Path) -> tuple[list[int], list[str]]:
    """Steps of the checkpoints that verify, and the names of those that do not."""
    steps, damaged = [], []
    for path in sorted(out.glob("checkpoint-*")):
        try:
            ema_weights(path)  # reads and verifies all of it
            steps.append(int(path.stem.removeprefix("checkpoint-")))
        except CheckpointError:
            damaged.append(path.name)
    return steps, damaged


def log(out: Path) -> list[dict[str, Any]]:
    """The lines of the log but for the clock; a run that is killed may leave half a line."""
    lines = []
    with suppress(FileNotFoundError, ValueError):
        for line in (out / "log.jsonl").read_text().splitlines():
            lines.append({**json.loads(line), "seconds": 0})  # noqa: PERF401
    return lines


def stray(out: Path) -> list[str]:
    """Temporary names."""
    return sorted(path.name for path in out.rglob(".*"))


def lost(out: Path, *, damaged: int = 0) -> list[str]:
    """Problems of what a stopped run left: any damaged checkpoint, or fewer than it had completed and kept.

    Its log has a line more than it has completed checkpoints, or as many. `damaged`: those that the case damaged.
    """
    steps, broken = whole(out)
    completed = [line["step"] for line in log(out)[:-1]]
    problems = [f"damaged: {', '.join(broken)}"] if len(broken) > damaged else []
    if len(steps) < min(KEEP - damaged, len(completed)) or max(steps, default=0) < max(completed, default=0):
        problems.append(f"completed {completed[-KEEP:]}, left {steps}")
    return problems


def resumed(undisturbed: Path, out: Path, *, launch: list[str] | None = None) -> list[str]:
    """Problems of the same command started again: to end as the undisturbed run, from the newest checkpoint."""
    newest = max(whole(out)[0], default=0)
    output, errors = (process := start(out, launch=launch)).communicate()
    if process.returncode:
        return [f"started again, it ends with {process.returncode}: {errors}"]
    steps = sum(map(len, rows(output))) / BATCH
    checks = {
        "weights, averages or moments differ": gap(out, undisturbed) == 0,
        f"stray: {stray(out)}": not stray(out),
        f"checkpoints: {whole(out)}": whole(out) == whole(undisturbed),
        f"took {steps} steps from {newest}": steps == STEPS - newest,
        "the log differs": log(out) == log(undisturbed),
    }
    return [problem for problem, holds in checks.items() if not holds]


def gap(out: Path, undisturbed: Path) -> float:
    """The largest difference of any weight, average or moment of two runs; infinite where they hold others."""
    ours, theirs = (read_tensors(folder / FINAL) for folder in (out, undisturbed))
    if ours.keys() != theirs.keys():
        return float("inf")
    return max(float((ours[name].double() - theirs[name].double()).abs().max()) for name in theirs)


def refused(process: subprocess.Popen[str]) -> tuple[bool, list[str]]:
    """Whether the run failed at all, and problems of how it said so: one line, exit code 2, no traceback."""
    _, errors = process.communicate()
    clean = process.returncode == 2 and errors.startswith("energycomp: Cannot ") and errors.count("\n") == 1
    return process.returncode != 0, [] if clean else [f"ends with {process.returncode}: {errors}"]
