"""Run the tutorial from an empty folder, as a reader would: each command and each block of Python, one after another.

python docs/scripts/tutorial.py [-o docs] [--from STEP --folder FOLDER]

All of them run in one process, which imports the library once. Prints the seconds of each. Writes what they print into
the blocks of text below them in tutorial.md, the images that the page shows to images/tutorial, and the stamp of
`benchmarks.common.made` into its comment. `--from 5` begins at the fifth step, in the folder that an earlier run kept.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import re
import shlex
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from typer.testing import CliRunner

from benchmarks.common.made import made_with
from energycomp_cli import app

ROOT = Path(__file__).parents[2]
BLOCK = r"(?:<!-- not run: ([^>]+?) -->\n+)?^( *)```(console|python)\n(.*?)^ *```\n"
OUTPUT = r"(?:\s*\n```text\n(.*?)^```\n)?"  # directly below a block
SHOWN = r"\(images/tutorial/([\w.-]+)\)"
STAMP = r"<!-- made with (\S+) \w+ -->"


class Block(NamedTuple):
    """A block of a page that a reader would run."""

    language: str
    text: str
    line: int  # of its first line in the page
    reason: str  # why it is not run, or nothing


def main() -> None:
    """Runs the steps, and writes what they print and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--out", type=Path, default=ROOT / "docs")
    parser.add_argument("--from", type=int, default=1, dest="first", help="number of the first step")
    parser.add_argument("--folder", type=Path, help="folder to run in and to keep; by default a new one is removed")
    options = parser.parse_args()
    os.environ["COLUMNS"] = "100"  # of tables
    page = options.out.resolve() / "tutorial.md"
    with tempfile.TemporaryDirectory() as new:
        folder = (options.folder or Path(new)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        before, *steps = re.split(r"(?m)^(?=## )", page.read_text(encoding="utf-8"))
        began = time.perf_counter()
        for number in range(options.first - 1, len(steps)):
            with contextlib.chdir(folder):
                steps[number] = made(steps[number])
            page.write_text(before + "".join(steps), encoding="utf-8")
        print(f"{time.perf_counter() - began:6.0f} s  {time.process_time():6.0f} s of a core  all")
        page.write_text(stamped(before + "".join(steps)), encoding="utf-8")
        keep_pictures(before + "".join(steps), folder, page.parent / "images" / "tutorial")


def stamped(text: str) -> str:
    """A page whose comments on the weights that it was made with are those of today."""
    return re.sub(STAMP, lambda match: f"<!-- {made_with(match[1])} -->", text)


def made(step: str) -> str:
    """Runs the blocks of a step; returns its text with what they print now."""
    print(step.partition("\n")[0], flush=True)

    def block_made(match: re.Match[str]) -> str:
        code = match[4]
        runs = commands(code) if match[3] == "console" else [code]
        output = "".join(run(one, match[3]) for one in runs)
        if match[5] is None:
            return match[0]
        begin, end = match.start(5) - match.start(), match.end(5) - match.start()
        return match[0][:begin] + output.rstrip() + "\n" + match[0][end:]

    return re.sub(BLOCK + OUTPUT, block_made, step, flags=re.DOTALL | re.MULTILINE)


def run(code: str, language: str) -> str:
    """Runs a command or a block of Python in this process; prints its seconds and returns its output."""
    began, used = time.perf_counter(), time.process_time()
    output, complaints = in_console(code) if language == "console" else in_python(code)
    seconds = f"{time.perf_counter() - began:6.0f} s  {time.process_time() - used:6.0f} s of a core"
    warnings = [line for line in complaints.splitlines() if "arning" in line]
    print(f"{seconds}  {code.splitlines()[0][:80]}", *warnings, sep="\n", flush=True)
    return output


def in_console(command: str) -> tuple[str, str]:
    """What a command writes to its two outputs."""
    program, *arguments = shlex.split(command)
    if program != "energycomp":
        raise SystemExit(f"got {command!r}; expected a command of energycomp")
    done = CliRunner().invoke(app, arguments, prog_name="energycomp")
    if done.exit_code != 0:
        raise SystemExit(f"{command}\n{done.output}{done.exception or ''}")
    return done.stdout, done.stderr


def in_python(code: str) -> tuple[str, str]:
    """What a block of Python prints."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "tutorial.md", "exec"), {"__name__": "__main__"})  # noqa: S102 - the page is ours
    return printed.getvalue(), ""


def keep_pictures(text: str, folder: Path, out: Path) -> None:
    """Copies the images that the page shows from the folder in which they were made."""
    out.mkdir(parents=True, exist_ok=True)
    for name in dict.fromkeys(re.findall(SHOWN, text)):
        found = list(folder.rglob(name))
        if len(found) != 1:
            raise SystemExit(f"got {len(found)} files named {name}; expected one, made by a step of the page")
        shutil.copyfile(found[0], out / name)


def blocks(page: Path) -> Iterator[Block]:
    """The blocks of console and Python of a page."""
    text = page.read_text(encoding="utf-8")
    for match in re.finditer(BLOCK, text, flags=re.DOTALL | re.MULTILINE):
        code = re.sub(f"^{match[2]}", "", match[4], flags=re.MULTILINE)
        yield Block(match[3], code, text[: match.start(4)].count("\n"), match[1] or "")


def commands(text: str) -> list[str]:
    """The lines that begin with `$ `, each joined with its continuation lines, without comments."""
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    typed = [
        line[2:] for line in lines if line.startswith("$ ") and "[OPTIONS]" not in line
    ]  # of cli.md: how, not what
    return [re.sub(r"\s+# .*", "", line) for line in typed]


if __name__ == "__main__":
    main()
