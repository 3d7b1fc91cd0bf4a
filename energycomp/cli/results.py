"""Answers for images in a file of JSON lines, which a later run continues, and the names of the images' files."""

from __future__ import annotations

import hashlib
import json
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

from energycomp.cli.files import RESULTS, make_folder, result_files
from energycomp.cli.lines import append_line, claimed, records_of
from energycomp.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

REDRAWN = "-redrawn"  # ends the name of the file of an image beside samples of its components


class Known(Protocol):
    """The last answer for each key."""

    def get(self, key: str, /) -> dict[str, Any] | None:
        """None where there is none."""


class Results:
    """The answers in files of JSON lines: one line per image and settings; the last such line counts.

    An image is identified by its path and content, the settings by the options of the command and the model's weights.
    What the shards of `energycomp batch` have written is known, too.

    Args:
        file: is written; its folder is made where it is missing.
        settings: what the answers depend on, as JSON.
        known: gives the answers of all files, and calls what it is given with each; a dict in memory when left out.

    Raises:
        InputError: another process writes the same file, or it holds answers under other settings.
    """

    def __init__(
        self,
        file: Path,
        settings: dict[str, Any],
        known: Callable[[Callable[[dict[str, Any]], object]], Known] | None = None,
    ) -> None:
        self.file, self.settings, self.names = file, settings, Names()
        self._read, self._claim = known or self._in_memory, ExitStack()

    def __enter__(self) -> Self:
        """Reads which answers are known; until the end of the block no other process may write the same file."""
        from energycomp.files import remove_stale

        folder = make_folder(self.file.parent, "-o")
        with ExitStack() as claim:
            claim.enter_context(claimed(self.file))
            if self.file.name == RESULTS and len(result_files(self.file)) == 1:  # nobody else writes here
                remove_stale(folder)
            self._known = self._read(self._see)
            self._claim = claim.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._claim.close()

    def _in_memory(self, seen: Callable[[dict[str, Any]], object]) -> Known:
        found: dict[str, dict[str, Any]] = {}
        for file in result_files(self.file):
            for _, record in records_of(file):
                seen(record)
                found[result_key(record)] = record
        return found

    def _see(self, record: dict[str, Any]) -> None:
        kept, own = (json.loads(json.dumps(one)) for one in (record.get("settings", self.settings), self.settings))
        if kept != own:
            name = next(name for name in {**own, **kept} if kept.get(name) != own.get(name))
            raise InputError(
                f"got -o {self.file.parent}, which holds answers with {name} {kept.get(name)!r}, and not "
                f"{own.get(name)!r}; expected the same options, or another folder, since images would be overwritten"
            )
        self.names.see(record)

    def head(self, image: str, digest: str) -> dict[str, Any]:
        """What identifies the answer for an image of this path and sha256."""
        return {"image": image, "sha256": digest, "settings": self.settings}

    def known(self, head: dict[str, Any]) -> dict[str, Any] | None:
        """The line of an image that was read under these settings."""
        return self._known.get(result_key(head))

    def keep(self, record: dict[str, Any]) -> None:
        """Appends the answer for an image."""
        append_line(self.file, record)


class Names:
    """Names for the files of images in a folder: with a number where another image has the name.

    >>> names = Names()
    >>> names.see({"image": "/elsewhere/one.png", "name": "one"})
    >>> names.of(Path("/here/one.png")), names.of(Path("/here/two.png")), names.of(Path("/here/one.png"))
    ('one-2', 'two', 'one-2')
    """

    def __init__(self) -> None:
        self._owners: dict[str, str] = {}

    def see(self, record: dict[str, Any]) -> None:
        """The name of a record is taken by its image, or by its table if it is a row."""
        image, name = str(record.get("image")), record.get("name") or Path(record.get("picture") or "").stem
        if "/" in name:
            image, name = image.rpartition("#")[0], name.partition("/")[0]
        if name:
            self._owners[name] = image

    def of(self, path: Path) -> str:
        """A name for an image; other images do not get it any more."""
        owner, name, number = str(path.resolve()), path.stem, 1
        while any(self._owners.get(one, owner) != owner for one in _alike(name)):
            number += 1
            name = f"{path.stem}-{number}"
        self._owners[name] = owner
        return name


def _alike(name: str) -> list[str]:
    """The names whose files would be those of this name: with and without the end of a redrawn image."""
    return [name, f"{name}{REDRAWN}", *([name.removesuffix(REDRAWN)] if name.endswith(REDRAWN) else [])]


def result_key(record: dict[str, Any]) -> str:
    """What identifies an answer: image, content and settings."""
    return json.dumps([record.get(part) for part in ("image", "sha256", "settings")], sort_keys=True)


def redrawn_file(folder: Path, record: Mapping[str, Any]) -> Path:
    """The file of an image beside samples of its components."""
    name = record.get("name") or Path(record["picture"] or record["image"]).stem  # older lines have no name
    return folder / f"{name}{REDRAWN}.png"


def sha256_of(path: Path) -> str:
    """sha256 of an image file; raises `InputError` where it cannot be read."""
    try:
        if path.exists() and not path.is_file():
            raise InputError(f"got {path}, which is no regular file; expected an image file")
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise InputError(
            f"got {path}, which cannot be read ({error.strerror}); check its path and permissions"
        ) from error
