"""The command line of a benchmark."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

PATHS = {"cache", "out", "records", "weights"}
HELP = {
    "model": "registered name or folder",
    "models": "registered names or folders",
    "data": "as `energycomp evaluate` takes it",
    "n": "images",
    "out": "folder of the results; a run that was stopped goes on there",
}


def parser(description: str | None, **given: Any) -> argparse.ArgumentParser:
    """A parser of options, each given by its default, or by its default, help, and maybe choices.

    A list takes several values, False makes a flag, and an option without a default (None) is a path, as `out` is.

    >>> chosen = parser(None, n=(60, "scenes"), models=["clevr"], true_places=False, image=None).parse_args(["-n", "2"])
    >>> chosen.n, chosen.models, chosen.true_places, chosen.image
    (2, ['clevr'], False, None)
    """
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in given.items():
        default, text, choices = (*value, None, None)[:3] if isinstance(value, tuple) else (value, HELP.get(name), None)
        flags = [f"-{name}"] if len(name) == 1 else [f"--{name.replace('_', '-')}"]
        flags = ["-o", "--out"] if name == "out" else flags
        if default is False:
            made.add_argument(*flags, action="store_true", help=text)
        else:
            several = isinstance(default, list)
            kind = type(default[0] if several else default)
            kind = Path if default is None or (name in PATHS and not several) else kind
            nargs = "+" if several else None
            made.add_argument(*flags, type=kind, default=default, nargs=nargs, help=text, choices=choices)
    return made
