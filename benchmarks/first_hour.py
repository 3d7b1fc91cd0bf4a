"""Run 40 commands and snippets of a newcomer's first hour, right and wrong ones, and print what each printed.

python benchmarks/first_hour.py [--only TEXT] [--quick]

For each: the exit code, the seconds of the clock, the longest time without a byte on the terminal, and the last lines.
Commands and snippets run in a pseudo-terminal, so that they show what a person sees, and in a temporary folder. A wrong
one must end with one line that says what to do. The script ends with exit code 1 where anything printed a traceback,
where a right one fails, or where a wrong one works.
"""

from __future__ import annotations

import argparse
import os
import pty
import re
import shlex
import subprocess
import sys
import tempfile
import termios
import time
from pathlib import Path

import attrs

CLI = [sys.executable, "-m", "energycomp"]
LOAD = "import energycomp\nfrom energycomp import Composer\nmodel = energycomp.load('clevr')\n"
BOTH = "composer = Composer([model(0.3, 0.5), model(0.7, 0.6)])\n"
FAST = "num_inference_steps=5, generator=0"
# (right, what is run): a command, or a snippet of Python after "py:". Later ones read what earlier ones write.
STEPS: list[tuple[bool, str]] = [
    (True, "--help"),
    (True, "--version"),
    (True, "sample --help"),
    (True, "plugins"),
    (True, "env"),
    (True, "sample clevr 0.3,0.5 0.7,0.6 --steps 10 -o scene.png"),
    (True, "sample clevr 0.3,0.5 --steps 5 -o scene.jpg"),
    (True, "sample clevr 0.3,0.5 -n 3 --steps 5 -o many/scene.webp"),
    (True, "sample clevr 0.3,0.5 -n 4 --grid --steps 5 -o grid.png"),
    (True, "sample clevr 0.3,0.5 --not 0.7,0.6 --steps 5 -o without.png --json"),
    (True, "sample faces smiling --steps 5 -o face.png"),
    (True, "sample clevr 'large red metal cube at 0.3,0.45' --steps 5 -o red.png"),
    (False, "sample clver 0.3,0.5"),
    (True, "sample clevr --steps 5"),
    (False, "sample clevr 3"),
    (False, "sample clevr 3,5"),
    (False, "sample clevr red"),
    (False, "sample clevr 0.3,0.5 -o scene.gif"),
    (False, "sample clevr 0.3,0.5 -n 4 --grid -o grid.jpg"),
    (False, "sample clevr 0.3,0.5 --sampler Eular"),
    (False, "sample clevr 0.3,0.5 --sampler smcc"),
    (False, "sample clevr 0.3,0.5 --device gpu"),
    (False, "sample"),
    (False, "smaple clevr"),
    (True, "data clevr -n 2 -o pics"),
    (False, "data clevr -n 2 -o pics"),
    (True, "infer clevr scene.png -o read"),
    (True, "infer clevr pics -o read2"),
    (False, "infer clevr nothing.png"),
    (False, "infer clevr grid.png"),
    (False, "infer slots scene.png"),
    (True, "decompose decomp scene.png -o strip.png"),
    (True, f"py:{LOAD}{BOTH}images = composer.sample(2, {FAST}); print(images)"),
    (True, f"py:{LOAD}{BOTH}print(composer.sample({FAST}, return_dict=True).images)"),
    (False, f"py:{LOAD}{BOTH}composer.sample('2')"),
    (False, f"py:{LOAD}{BOTH}composer.sample(1, generator='0')"),
    (True, "py:import energycomp; print(energycomp.infer('scene.png', 'clevr', solver='pursuit', generator=0).count)"),
    (False, "py:import energycomp; energycomp.infer('scene.png', 'clver')"),
    (False, "py:import energycomp; energycomp.infer('nothing.png', 'clevr')"),
    (False, f"py:{LOAD}print(model(3, 5))"),
]
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")  # colours and movements of the cursor
SLOW = ("infer clevr", "decompose", "py:import energycomp; print")


@attrs.frozen
class Run:
    """What a process printed, and how long it was silent."""

    code: int
    seconds: float
    silent: float
    text: str


def main() -> None:
    """Prints a section for each step, and a summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="steps that contain this text")
    parser.add_argument("--quick", action="store_true", help="leave out what takes more than half a minute")
    options = parser.parse_args()
    steps = [step for step in STEPS if options.only in step[1] and not (options.quick and step[1].startswith(SLOW))]
    failed: list[str] = []
    silences: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        for right, step in steps:
            run = _run(step, Path(folder))
            snippet = step.startswith("py:")
            problem = _problem(run, right=right, snippet=snippet)
            silences.append(run.silent)
            title = step.removeprefix(f"py:{LOAD}").removeprefix("py:") if snippet else f"energycomp {step}"
            print(f"## {title}\n{'right' if right else 'wrong'}: exit code {run.code}, {run.seconds:.1f} s, "
                  f"silent for {run.silent:.1f} s at most{problem and f'; FAILED: {problem}'}")  # fmt: skip
            print("\n".join(f"    {line[:150]}" for line in run.text.splitlines()[-4:]), flush=True)
            if problem:
                failed.append(title)
    for kind, snippet in {"commands": False, "snippets of Python": True}.items():
        times = [silent for silent, (_, step) in zip(silences, steps, strict=True) if step.startswith("py:") == snippet]
        over, most = sum(silent > 1.0 for silent in times), max(times, default=0.0)
        print(f"\n{len(times)} {kind}; {over} were silent for over 1 s, at most {most:.1f} s", end="")
    print(f"\n{len(steps)} steps, {len(failed)} failed")
    sys.exit(1 if failed else 0)


def _problem(run: Run, *, right: bool, snippet: bool) -> str:
    traceback = "Traceback (most recent call last)" in run.text
    if traceback and (right or not snippet):
        return "a traceback"
    if right != (run.code == 0):
        return "a right one must work, a wrong one must not"
    # Python prints a traceback of any error of a snippet: its last line must be one of ours.
    if traceback and not run.text.splitlines()[-1].startswith("energycomp.errors."):
        return "a raw error"
    return ""


def _run(step: str, folder: Path) -> Run:
    command = [sys.executable, "-c", step[3:]] if step.startswith("py:") else [*CLI, *shlex.split(step)]
    terminal, end = pty.openpty()
    termios.tcsetwinsize(end, (40, 120))
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "TERM": "xterm", "COLUMNS": "120"}
    started = last = time.perf_counter()
    silent, parts = 0.0, []
    with subprocess.Popen(  # noqa: S603 - commands of this file
        command, cwd=folder, env=environment, stdin=end, stdout=end, stderr=end, start_new_session=True
    ) as process:
        os.close(end)
        while True:
            try:
                part = os.read(terminal, 65536)
            except OSError:  # the end of a terminal without a process (Linux)
                part = b""
            now = time.perf_counter()
            silent, last = max(silent, now - last), now
            if not part:
                break
            parts.append(part)
    os.close(terminal)
    text = CONTROL.sub("", b"".join(parts).decode(errors="replace")).replace("\r\n", "\n").replace("\r", "\n")
    return Run(process.returncode, time.perf_counter() - started, silent, text.strip())


if __name__ == "__main__":
    main()
