"""Answers and records of images in a folder, by one process or several, that a later run continues."""

from __future__ import annotations

import hashlib
import json
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from energycomp.cli.files import RESULTS, save_png
from energycomp.cli.lines import Lines, append_line, claimed, records_of
from energycomp.cli.shards import Shard, shards_of
from energycomp.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from PIL import Image

    from energycomp.models import Model

__all__ = ["REDRAWN", "Records", "Results", "merge_results", "model_fingerprint", "write_marked"]

EVALUATION = "evaluation.jsonl"  # the records of `energycomp evaluate`, by image
REDRAWN = "-redrawn"  # ends the name of the file of an image beside samples of its components


class Results:
    """The answers in a folder, in results.jsonl: one line per image and settings; the last such line counts.

    An image is identified by its path and content, the settings by the options of the command and the model's weights.
    Each shard appends to a file of its own, and takes the answers in all files as known.

    Args:
        model: the model that reads the images.
        folder: where the answers are kept; None keeps none.
        settings: what the answers depend on, as JSON.
        shard: the part of the images that this process reads.

    Raises:
        InputError: another process writes the same file.
    """

    def __init__(self, model: Model, folder: Path | None, settings: dict[str, Any], shard: Shard | None = None) -> None:
        self.model, self.folder, self._shard = model, folder, shard or Shard()
        self.settings = {**settings, "fingerprint": model_fingerprint(model)}
        self._lines: Lines | None = None
        self._owners: dict[int, int] = {}  # hashes, of the names of marked images and of the images
        self._claim = ExitStack()

    def __enter__(self) -> Self:
        """Reads which answers are known; until the end of the block no other process may write the same file."""
        from energycomp.files import remove_stale

        if self.folder is None:
            return self
        self.file = self.folder / self._shard.file(RESULTS)
        with ExitStack() as claim:
            claim.enter_context(claimed(self.file))
            if self._shard.total == 1 and not shards_of(self.folder, RESULTS):
                remove_stale(self.folder)
            self._lines = Lines(_files(self.folder), key=_key, seen=self._own)
            self._claim = claim.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._claim.close()

    def head(self, path: Path) -> dict[str, Any]:
        """What identifies the answer for an image; raises `InputError` for an unreadable file."""
        try:
            with path.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError as error:
            raise InputError(
                f"got {path}, which cannot be read ({error.strerror}); check its path and permissions"
            ) from error
        return {"image": str(path.resolve()), "sha256": digest, "settings": self.settings}

    def known(self, head: dict[str, Any]) -> dict[str, Any] | None:
        """The line of an image that was read under these settings."""
        return None if self._lines is None else self._lines.get(_key(head))

    def keep(self, record: dict[str, Any]) -> None:
        """Appends the answer for an image to the file of this process."""
        if self.folder is not None:
            append_line(self.file, record)

    def names(self, paths: Iterable[Path]) -> list[str | None]:
        """A name for the marked image of each path: its own, with a number where another image has that name.

        They depend on all paths and on the answers in the folder, so that shards with the same paths choose the same
        names. None, for most, is the file's own name.
        """
        return [None if (name := self._free_name(path)) == path.stem else name for path in paths]

    def _own(self, record: dict[str, Any]) -> None:
        if name := record.get("name") or Path(record.get("picture") or "").stem:
            self._owners[hash(name)] = hash(str(record.get("image")))

    def _free_name(self, path: Path) -> str:
        owner, name, number = hash(str(path.resolve())), path.stem, 1
        while any(self._owners.get(hash(one), owner) != owner for one in _alike(name)):
            number += 1
            name = f"{path.stem}-{number}"
        self._owners[hash(name)] = owner
        return name


def write_marked(model: Model, folder: Path, name: str, image: Image.Image, answer: dict[str, Any]) -> str | None:
    """Writes the image with a ring at each component; returns its name, or None where components have no places."""
    from energycomp.inference import View

    view = View(model.processor.frame(image), tuple(answer["objects"]))
    if len(view.places) != answer["count"]:
        return None
    save_png(view.picture(), folder / f"{name}.png")
    return f"{name}.png"


def merge_results(folder: Path) -> tuple[int, int]:
    """Makes one results.jsonl, sorted by image, of the files of all shards; returns its lines and the files it took.

    Of several lines for one image and settings the last is kept. The files of the shards are removed once it is whole.

    Raises:
        InputError: there are no results, or a process still writes one of the files.
    """
    from energycomp.files import atomic_file, remove_stale

    files = _files(folder)
    if not any(file.exists() for file in files):
        raise InputError(f"got {folder}, without results; expected the folder -o of energycomp infer")
    with ExitStack() as stack:
        for file in files:
            stack.enter_context(claimed(file))
        remove_stale(folder)
        places: dict[tuple[str, int], tuple[int, int]] = {}  # of the last line, by image and its other keys
        for number, file in enumerate(files):
            for place, record in records_of(file):
                places[str(record.get("image")), hash(_key(record))] = (number, place)
        streams = [stack.enter_context(file.open("rb")) for file in files]
        with atomic_file(folder / RESULTS) as temporary, temporary.open("wb") as merged:
            for key in sorted(places, key=lambda key: (Path(key[0]).parts, places[key])):
                number, place = places[key]
                streams[number].seek(place)
                merged.write(streams[number].readline())
        for file in files[1:]:
            file.unlink()
    return len(places), len(files)


class Records:
    """The records of an evaluation in a folder, by index: those of all files are known, one is written.

    The first line of evaluation.jsonl, and of the file of each shard, holds the settings, and each further line the
    record of one image.

    Raises:
        InputError: the folder holds an evaluation with other settings, or another process writes the same file.
    """

    def __init__(self, folder: Path, settings: dict[str, Any], shard: Shard | None = None) -> None:
        self.file = folder / (shard or Shard()).file(EVALUATION)
        self.known: dict[int, dict[str, Any]] = {}
        self._settings, self._claim = json.loads(json.dumps(settings)), ExitStack()

    def __enter__(self) -> Self:
        """Reads what is known; until the end of the block no other process may write the same file."""
        folder = self.file.parent
        with ExitStack() as claim:
            claim.enter_context(claimed(self.file))
            for file in sorted({folder / EVALUATION, self.file, *shards_of(folder, EVALUATION)}):
                self._read(file)
            self._claim = claim.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._claim.close()

    def _read(self, file: Path) -> None:
        lines = [record for _, record in records_of(file)]
        if lines and (earlier := lines[0].get("settings")) != self._settings:
            known = earlier if isinstance(earlier, dict) else {}
            differ = [name for name in {**known, **self._settings} if known.get(name) != self._settings.get(name)]
            raise InputError(
                f"got -o {file.parent}, which holds an evaluation with other settings ({', '.join(differ)}); expected "
                "the same ones; repeat that command, or name another folder"
            )
        if file == self.file and not lines:
            append_line(file, {"settings": self._settings})
        self.known |= {record["index"]: record for record in lines[1:]}

    def append(self, record: dict[str, Any]) -> None:
        """Appends the record of an image."""
        append_line(self.file, record)


def model_fingerprint(model: Model) -> str:
    """Identifies what changes an answer and is not in the settings: weights, noise schedule and defaults."""
    from energycomp.files import fingerprint

    settings = repr((model.defaults, model.processor, model.denoiser.rule))
    return fingerprint({settings: model.denoiser.alphas_cumprod, **model.trained.state_dict()})


def _files(folder: Path) -> list[Path]:
    """The file of a process that reads everything, then those of shards."""
    return [folder / RESULTS, *shards_of(folder, RESULTS)]


def _alike(name: str) -> list[str]:
    """The names whose files would be those of this name: with and without the end of a redrawn image."""
    return [name, f"{name}{REDRAWN}", *([name.removesuffix(REDRAWN)] if name.endswith(REDRAWN) else [])]


def _key(record: dict[str, Any]) -> str:
    return json.dumps([record.get(part) for part in ("image", "sha256", "settings")], sort_keys=True)
