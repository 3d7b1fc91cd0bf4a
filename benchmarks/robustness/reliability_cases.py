"""What reliability.py does to a run, and what must hold afterwards; a case returns where it struck and what broke."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from reliability_checks import (
    FINAL,
    gap,
    hear,
    kill,
    log,
    lost,
    refused,
    resumed,
    rows,
    seconds_of,
    start,
    stray,
    whole,
)
from reliability_run import EVERY, KEEP, SAMPLES, STEPS

LAUNCH = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_machines", "1", "--num_processes",
          "2", "--main_process_port", "0", "--mixed_precision", "no", "--dynamo_backend", "no"]  # fmt: skip
SAVES = STEPS // EVERY
TEMPORARY = r"\.checkpoint-\d+\.safetensors\.tmp-\w+"
# where: (operation as in reliability_run.announce, how many of them a run has, whether it is held there)
PLACES = {
    "writing the file": (rf"open {TEMPORARY} new$", SAVES, False),
    "before the file is synced": (rf"open {TEMPORARY}$", SAVES, True),
    "before the rename": (rf"os\.rename {TEMPORARY} checkpoint-", SAVES, True),
    "pruning an old checkpoint": (r"os\.remove checkpoint-", SAVES - KEEP, True),
    "replacing a damaged checkpoint": (rf"os\.rename {TEMPORARY} {FINAL}", 1, True),
}

Result = dict[str, Any]
Case = Callable[[Path, Path, random.Random, int], Result]


# Kills


def wait(process: subprocess.Popen[str], out: Path, draw: random.Random, seconds: float) -> None:
    """Until a random moment of a run of so many seconds; it counts saves, since a busy machine takes longer."""
    hear(process, "start")
    saves = draw.randrange(SAVES)
    while len(log(out)) < saves and process.poll() is None:
        time.sleep(0.001)
    time.sleep(draw.uniform(0, seconds / SAVES))


def strike_any(out: Path, draw: random.Random, seconds: float) -> str:
    """Starts the run, which takes so many seconds, and kills it at a random moment; where that was."""
    while True:
        wait(process := start(out), out, draw, seconds)
        if kill(process):
            return "happened to be inside a save" if stray(out) else "between saves"
        shutil.rmtree(out)


def strike_save(out: Path, draw: random.Random, place: str, *, nth: int | None = None) -> bool:
    """Starts the run and kills it at a place of its nth save, or of one that is drawn; whether it got there."""
    pattern, count, hold = PLACES[place]
    process = start(out, RELIABILITY_AT=pattern, RELIABILITY_NTH=nth or draw.randint(1, count), RELIABILITY_HOLD=hold)
    hear(process, "here")
    time.sleep(0 if hold else draw.uniform(0, 0.005))
    return kill(process) and (hold or bool(stray(out)))


def kill_any(undisturbed: Path, scratch: Path, draw: random.Random, _number: int) -> Result:
    """Kill -9 at a random moment of the training."""
    where = strike_any(out := scratch / "run", draw, seconds_of(undisturbed))
    newest = max(whole(out)[0], default=0)
    return {"where": where, "newest": newest, "problems": [*lost(out), *resumed(undisturbed, out)]}


def kill_save(undisturbed: Path, scratch: Path, draw: random.Random, number: int) -> Result:
    """Kill -9 inside a save, at each of PLACES in turn."""
    out, where = scratch / "run", list(PLACES)[number % len(PLACES)]
    swap = where.startswith("replacing")
    while True:
        if swap:  # an older file of that name is there only where a damaged one was passed over
            shutil.copytree(undisturbed, out)
            damage(out / FINAL, draw)
        if strike_save(out, draw, where):
            break
        shutil.rmtree(out)
    left = stray(out)
    return {"where": where, "left": left, "problems": [*lost(out, damaged=int(swap)), *resumed(undisturbed, out)]}


def damage(file: Path, draw: random.Random) -> None:
    """Flips a bit."""
    content = bytearray(file.read_bytes())
    content[draw.randrange(len(content))] ^= 1
    file.write_bytes(content)


# Disks: in a user and mount namespace of their own


def full_disk(undisturbed: Path, scratch: Path, draw: random.Random, number: int) -> Result:
    """A disk with room for less than three checkpoints, or one that something else fills at a random moment."""
    disk, out, seconds = scratch / "disk", scratch / "disk" / "run", seconds_of(undisturbed)
    size = (undisturbed / FINAL).stat().st_size
    small = number % 2 == 0
    mount(disk, f"size={draw.randint(4096, int(2.9 * size)) if small else 64 << 20}")
    while True:
        process = start(out)
        if not small:
            wait(process, out, draw, seconds)
            with suppress(OSError), (disk / "filler").open("wb", buffering=0) as filler:
                while True:
                    filler.write(bytes(4096))
        failed, problems = refused(process)
        if failed or small:
            break
        (disk / "filler").unlink()
        shutil.rmtree(out)
    problems += [*lost(out), *(f"stray: {name}" for name in stray(out))]
    (disk / "filler").unlink(missing_ok=True)
    mount(disk, f"remount,size={64 << 20}")
    where = "too small a disk" if small else "filled while it runs"
    return {"where": where, "problems": [*problems, *resumed(undisturbed, out)]}


def read_only(undisturbed: Path, scratch: Path, draw: random.Random, number: int) -> Result:
    """A disk that is read-only at the first start, when the run goes on, or from a random moment on."""
    disk, out, seconds = scratch / "disk", scratch / "disk" / "run", seconds_of(undisturbed)
    where = ["from a moment on", "at the first start", "when it goes on"][number % 3]
    mount(disk, f"size={64 << 20}")
    while True:
        if where == "when it goes on":
            strike_any(out, draw, seconds)
        if where != "from a moment on":
            mount(disk, "remount,ro")
        process = start(out)
        if where == "from a moment on":
            wait(process, out, draw, seconds)
            while not mount(disk, "remount,ro", check=False) and process.poll() is None:
                time.sleep(0.001)  # refused while a file is open for writing
        failed, problems = refused(process)
        problems += lost(out)
        mount(disk, "remount,rw")
        if failed:
            return {"where": where, "problems": [*problems, *resumed(undisturbed, out)]}
        shutil.rmtree(out)


def mount(disk: Path, options: str, *, check: bool = True) -> bool:
    """Mounts a tmpfs on the folder, or changes the one there."""
    disk.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", options, "none", str(disk)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if check and done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr}")
    return done.returncode == 0


# Two processes


def two_processes(undisturbed: Path, scratch: Path, _draw: random.Random, _number: int) -> Result:
    """`accelerate launch` with two gloo processes against one process at the same global batch."""
    output, errors = (process := start(scratch / "run", launch=LAUNCH)).communicate()
    if process.returncode:
        return {"where": "accelerate launch", "problems": [errors]}
    shares = rows(output)
    share = SAMPLES // len(shares)
    epochs = [
        sorted(row for rows in shares for row in rows[first : first + share])
        for first in range(0, len(shares[0]), share)
    ]
    problems = [f"{len(shares)} processes"] if len(shares) != 2 else []
    problems += [f"epoch {i}: {epoch}" for i, epoch in enumerate(epochs) if epoch != list(range(SAMPLES))]
    largest = gap(scratch / "run", undisturbed)
    problems += [f"weights differ by {largest}"] if largest > 1e-6 else []
    return {"where": "accelerate launch", "largest_difference": largest, "epochs": len(epochs), "problems": problems}


def strike_rank(out: Path, draw: random.Random, *, launched: bool) -> tuple[float, list[str]]:
    """Kill -9 of one of two ranks, with or without a launcher to notice: seconds until the rest ended, and problems."""
    if launched:
        runs = [start(out, launch=LAUNCH)] * 2
    else:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            world = {"WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1"}
            world["MASTER_PORT"] = free.getsockname()[1]
        runs = [start(out, RANK=rank, LOCAL_RANK=rank, **world) for rank in range(2)]
    ranks = [int(hear(run, "start") or 0) for run in runs]
    while not whole(out)[0]:
        time.sleep(0.05)
    time.sleep(draw.uniform(0, 0.5))
    victim = draw.randrange(2)
    os.kill(ranks[victim], signal.SIGKILL)
    started, problems = time.perf_counter(), list[str]()
    try:
        runs[1 - victim].communicate(timeout=60)
    except subprocess.TimeoutExpired:
        problems.append("still there after 60 s")
        os.kill(ranks[1 - victim], signal.SIGKILL)
    seconds = round(time.perf_counter() - started, 2)
    for run in runs:
        run.wait()
    problems += [f"rank {rank} lives" for rank in ranks if Path(f"/proc/{rank}").exists()]
    return seconds, problems + (["ends with 0"] if runs[1 - victim].returncode == 0 else [])


def kill_rank(undisturbed: Path, scratch: Path, draw: random.Random, number: int) -> Result:
    """Kill -9 of one of two ranks, under `accelerate launch` and without a launcher in turn."""
    launched, out = number % 2 == 0, scratch / "run"
    seconds, problems = strike_rank(out, draw, launched=launched)
    problems += [*lost(out), *resumed(undisturbed, out, launch=LAUNCH)]
    return {"where": "accelerate launch" if launched else "no launcher", "seconds": seconds, "problems": problems}


CASES: dict[str, Case] = {
    "kill -9 at a random moment": kill_any,
    "kill -9 inside a save": kill_save,
    "full disk": full_disk,
    "read-only disk": read_only,
    "two processes": two_processes,
    "kill -9 of one of two ranks": kill_rank,
}
