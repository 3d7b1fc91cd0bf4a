"""The names of the files of images in a folder of results."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from energycomp.errors import InputError
from energycomp_cli.items import Item, sha256_of

if TYPE_CHECKING:
    from collections.abc import Mapping

REDRAWN = "-redrawn"  # ends the name of the file of an image beside samples of its components


class Names:
    """Names for the files of images in a folder: with a number where another image has the name."""

    def __init__(self, file: Path, settings: Mapping[str, Any]) -> None:
        self._owners: dict[str, str] = {}
        self._file = file
        self._settings = json.loads(json.dumps(settings))

    def see(self, record: dict[str, Any]) -> None:
        """Gives the name of a record to its image, or to its table if it is a row; refuses one under other settings."""
        kept = record.get("settings", self._settings)
        own = self._settings
        if kept != own:
            name = next(name for name in {**own, **kept} if kept.get(name) != own.get(name))
            raise InputError(
                f"got -o {self._file.parent}, which holds answers with {name} {kept.get(name)!r}, and not "
                f"{own.get(name)!r}; expected the same options, or another folder"
            )
        image = str(record.get("image"))
        name = record.get("name") or Path(record.get("picture") or "").stem
        if "/" in name:
            image = image.rpartition("#")[0]
            name = name.partition("/")[0]
        if name:
            self._owners[name] = image

    def of(self, item: Item) -> str:
        """Makes the name of files for an item: that of its source, and of its row, without what a path cannot have.

        >>> names = Names(Path("results.jsonl"), {})
        >>> [names.of(Item(Path("a.tar"), row)) for row in (None, "7", "cat/7")]
        ['a', 'a/7', 'a/cat-7-1b8c97']
        """
        stem = self.stem_of(item.source)
        if item.row is None:
            return stem
        name = re.sub(r"[^\w-]+", "-", item.row).strip("-")[:100] or "row"
        end = "" if name == item.row else f"-{sha256_of(item.row.encode(errors='backslashreplace'))[:6]}"
        return f"{stem}/{name}{end}"

    def stem_of(self, path: Path) -> str:
        """A name for a file; others do not get it any more."""
        owner = str(path.resolve())
        name = path.stem
        number = 1
        while any(self._owners.get(one, owner) != owner for one in _alike(name)):
            number += 1
            name = f"{path.stem}-{number}"
        self._owners[name] = owner
        return name


def _alike(name: str) -> list[str]:
    """Lists the names whose files would be those of this name: with and without the end of a redrawn image."""
    return [name, f"{name}{REDRAWN}", *([name.removesuffix(REDRAWN)] if name.endswith(REDRAWN) else [])]


def redrawn_file(folder: Path, record: Mapping[str, Any]) -> Path:
    """The file of an image beside samples of its components."""
    name = record.get("name") or Path(record["picture"] or record["image"]).stem  # older lines have no name
    return folder / f"{name}{REDRAWN}.png"
