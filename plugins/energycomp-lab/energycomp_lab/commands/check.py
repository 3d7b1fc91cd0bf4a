"""The check of a plugin in a separate process, so that a plugin that hangs or ends the process is reported, too."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer

from energycomp.errors import NotFoundError
from energycomp.plugins import listing
from energycomp_cli import AsJson, print_json, print_table

LIMIT = 600.0  # seconds
CHILD = "import sys; from energycomp_lab.commands.check import _check; _check(*sys.argv[1:])"
DONE = "done"


def check(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of a plugin or distribution.")],
    as_json: AsJson = False,
) -> None:
    """Check a plugin.

    ```sh
    energycomp check energycomp-clevr
    ```

    Runs everything that the plugin registers, in a separate process, for at most 10 minutes; usually it takes seconds.
    """
    checks = check_in_process(name)
    if as_json:
        print_json(checks)
    else:
        _print_checks(checks)
    if any(check["passed"] is False for check in checks):
        raise typer.Exit(1)


def check_in_process(name: str) -> list[dict[str, Any]]:
    """Runs `energycomp_lab.checks.check_plugin` in a process of its own; the fields of each `Check`. Raises
    `NotFoundError` where none has that name.
    """
    infos = listing()
    if not any(info.is_named(name) for info in infos):
        raise NotFoundError(f"No plugin named {name!r} is installed. Installed: {', '.join(map(str, infos))}.")
    with TemporaryDirectory() as folder:
        file = Path(folder) / "checks.jsonl"  # not stdout, which a plugin may write to
        file.touch()
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        command = [sys.executable, "-c", CHILD, name, str(file)]
        try:
            done = subprocess.run(command, env=environment, stdout=2, timeout=LIMIT, check=False)  # noqa: S603 - to stderr
            reason = f"it ended the process, with exit code {done.returncode}"
        except subprocess.TimeoutExpired:
            reason = f"it did not end within {LIMIT:g} s"
        lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    checks = {line["what"]: line for line in lines if line != DONE}  # a result replaces the line of its start
    if lines[-1:] != [DONE]:
        what = next(reversed(checks), "import")
        checks[what] = {"what": what, "passed": False, "reason": reason, "seconds": 0.0}
    return list(checks.values())


def _check(name: str, file: str) -> None:
    """Runs in the separate process; writes a line when a check starts, and one with its result."""
    listing(load=True)  # before torch is imported: otherwise a plugin that imports it goes unnoticed
    import attrs

    from energycomp_lab.checks import check_plugin

    with Path(file).open("a", buffering=1, encoding="utf-8") as lines:
        check_plugin(name, progress=True, report=lambda check: print(json.dumps(attrs.asdict(check)), file=lines))
        print(json.dumps(DONE), file=lines)


def _print_checks(checks: Sequence[Mapping[str, Any]]) -> None:
    from rich.text import Text

    words = {True: ("passed", "green"), False: ("failed", "red"), None: ("not checked", "dim")}
    rows = [
        (check["what"], Text(*words[check["passed"]]), f"{check['seconds']:.1f}", check["reason"]) for check in checks
    ]
    print_table(["check", "result", "seconds", "reason"], rows)
