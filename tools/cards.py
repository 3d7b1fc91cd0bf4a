"""Writes the model card of every model that ships: README.md beside its weights, from plugins/*/cards/NAME.toml.

`python tools/cards.py` writes them, and `--check` says whether they are as they would be written. The figures of a card
are those of the documentation.
"""

from __future__ import annotations

import argparse
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import energycomp
from energycomp_lab.evaluation import Result, card

ROOT = Path(__file__).parents[1]
PAGES = "https://github.com/energycomp/energycomp/blob/main/"


def cards() -> Iterator[tuple[Path, str]]:
    """The file of each card, and what it should say."""
    for path in sorted(ROOT.glob("plugins/*/cards/*.toml")):
        facts = tomllib.loads(path.read_text(encoding="utf-8"))
        package = path.parents[1] / path.parents[1].name.replace("-", "_")
        results = [Result(**{**entry, "page": PAGES + entry["page"]}) for entry in facts.pop("results")]
        file = package / facts.pop("folder") / "README.md"
        facts["summary"] = " ".join(facts["summary"].split())
        yield file, card(energycomp.load(path.stem), source=path.stem, results=results, **facts)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 where a card differs")
    check = parser.parse_args(arguments).check
    differs = [(file, text) for file, text in cards() if not file.exists() or file.read_text(encoding="utf-8") != text]
    for file, text in differs:
        if not check:
            file.write_text(text, encoding="utf-8")
        print(f"{'differs' if check else 'written'}: {file.relative_to(ROOT)}")
    return int(check and bool(differs))


if __name__ == "__main__":
    sys.exit(main())
