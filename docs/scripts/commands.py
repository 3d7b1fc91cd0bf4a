"""Write the page of the command line, docs/cli.md: Typer's reference, in which what several commands share stands once.

python docs/scripts/commands.py [FILE]
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from pathlib import Path

from typer.cli import app as typer_app
from typer.testing import CliRunner

PAGE = Path(__file__).parents[1] / "cli.md"
REFERENCE = ["energycomp_cli.commands", "utils", "docs", "--name", "energycomp", "--title", "Command line"]
MANY = 2  # commands
LONG = 30  # letters of a line that is worth another place
HELP = "* `--help`: Show this message and exit."
SECTION = "## Shared arguments and options { #shared }\n\nSections of commands only name these.\n\n"


def reference() -> str:
    """What Typer writes about all commands, shortened. Usage says what is required, and defaults say the type."""
    done = CliRunner().invoke(typer_app, REFERENCE, catch_exceptions=False)
    if done.exit_code:
        raise SystemExit(done.output)
    text = re.sub(r"(?m)^(\* `.*?) <[^`]*>`: ", r"\1`: ", done.stdout).replace("  [required]\n", "\n")
    first, *commands = re.split(r"(?m)^(?=## `)", text.strip() + "\n")
    times = Counter(line for text in commands for line in re.findall(r"(?m)^\* `.*", text))
    shared = [line for line, count in times.items() if count >= MANY and len(line) > LONG and line != HELP]
    return "\n\n".join([first.strip(), SECTION + "\n".join(shared), *(short(text, shared) for text in commands)]) + "\n"


def short(text: str, shared: list[str]) -> str:
    """A section without its summary, which the list of commands has, and with the names of its shared lines."""
    title, _, _, *rest = text.splitlines()
    lines = [title, *rest]
    names = [re.sub(r"^\* `(.*?)`:.*", r"`\1`", line) for line in lines if line in shared]
    kept = "\n".join(line for line in lines if line not in (HELP, *shared))
    kept = re.sub(r"\*\*(Arguments|Options)\*\*:\n\n(?!\*)", "", kept.replace("**Usage**:\n\n", "")).strip()
    return kept + (f"\n\n[Shared](#shared): {', '.join(names)}." if names else "")


if __name__ == "__main__":
    Path(*sys.argv[1:] or [PAGE]).write_text(reference(), encoding="utf-8")
