"""Answers and records of images in a folder, by one process or several, that a later run continues."""

from __future__ import annotations

import json
import re
from array import array
from contextlib import ExitStack
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import attrs

from energycomp.cli.files import RESULTS, check_folder, make_folder
from energycomp.cli.lines import PLACE_BITS, Lines, append_line, claimed, records_of
from energycomp.cli.shards import Shard, shards_of
from energycomp.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from PIL import Image

    from energycomp.cli.inputs import Picture
    from energycomp.models import Model

EVALUATION = "evaluation.jsonl"  # the records of `energycomp evaluate`, by image
REDRAWN = "-redrawn"  # ends the name of the file of an image beside samples of its components
FORMATS = (".jsonl", ".parquet", ".csv")  # of a file of answers


@attrs.frozen
class Output:
    """Where -o says that answers go.

    Args:
        lines: the file of JSON lines from which an interrupted run continues.
        folder: of the marked images; None where none are written.
        table: Parquet or CSV file that is written when all images are read; None for none.
    """

    lines: Path
    folder: Path | None = None
    table: Path | None = None

    @classmethod
    def of(cls, path: Path) -> Output:
        """A folder, or a file in it with one of the ends of `FORMATS`; the folder may be missing.

        >>> Output.of(Path("found.csv")).lines.name
        'found.jsonl'
        """
        from energycomp.batch.tables import require

        if path.suffix.lower() not in FORMATS or path.is_dir():
            check_folder(path, "-o")
            return cls(path / RESULTS, folder=path)
        check_folder(path.parent, "-o", path=path)
        if path.suffix.lower() == ".jsonl":
            return cls(path)
        require(path)
        return cls(path.with_suffix(".jsonl"), table=path)

    @property
    def files(self) -> list[Path]:
        """The file of a process that reads everything, then those of shards."""
        return [self.lines, *shards_of(self.lines.parent, self.lines.name)]

    def __str__(self) -> str:
        return str(self.folder or self.table or self.lines)


class Results:
    """The answers in a file of JSON lines: one line per image and settings; the last such line counts.

    An image is identified by its path and content, the settings by the options of the command and the model's weights.
    Each shard appends to a file of its own, and takes the answers in all files as known.

    Args:
        model: the model that reads the images.
        output: where the answers are kept; None keeps none.
        settings: what the answers depend on, as JSON.
        shard: the part of the images that this process reads.

    Raises:
        InputError: another process writes the same file.
    """

    def __init__(
        self, model: Model, output: Output | None, settings: dict[str, Any], shard: Shard | None = None
    ) -> None:
        self.model, self._output, self._shard = model, output, shard or Shard()
        self.folder = None if output is None else output.folder
        self.settings = {**settings, "fingerprint": model_fingerprint(model)}
        self._lines: Lines | None = None
        self._owners: dict[int, int] = {}  # hashes, of the names of marked images and of the images
        self._claim = ExitStack()

    def __enter__(self) -> Self:
        """Reads which answers are known; until the end of the block no other process may write the same file."""
        from energycomp.files import remove_stale

        if self._output is None:
            return self
        folder = make_folder(self._output.lines.parent, "-o")
        self.file = folder / self._shard.file(self._output.lines.name)
        with ExitStack() as claim:
            claim.enter_context(claimed(self.file))
            if self.folder is not None and self._shard.total == 1 and len(self._output.files) == 1:
                remove_stale(self.folder)
            self._lines = Lines(self._output.files, key=_key, seen=self._own if self.folder is not None else None)
            self._claim = claim.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._claim.close()

    def head(self, picture: Picture) -> dict[str, Any]:
        """What identifies the answer for an image; raises `InputError` for an unreadable file."""
        return {"image": picture.key, "sha256": picture.digest(), "settings": self.settings}

    def known(self, head: dict[str, Any]) -> dict[str, Any] | None:
        """The line of an image that was read under these settings."""
        return None if self._lines is None else self._lines.get(_key(head))

    def keep(self, record: dict[str, Any]) -> None:
        """Appends the answer for an image to the file of this process."""
        if self._output is not None:
            append_line(self.file, record)

    def names(self, paths: Iterable[Path]) -> dict[Path, str]:
        """Names for the marked images of some paths, by path: with a number where another image has the name of theirs.

        They depend on all paths and on the answers in the folder, so that shards with the same paths choose the same
        names. A path that is left out, as most are, has its own name. The name of a table is a folder of its rows.
        """
        if self.folder is None:
            return {}
        return {path: name for path in paths if (name := self._free_name(path)) != path.stem}

    def _own(self, record: dict[str, Any]) -> None:
        image, name = str(record.get("image")), record.get("name") or Path(record.get("picture") or "").stem
        if "/" in name:  # a row of a table
            image, name = image.rpartition("#")[0], name.partition("/")[0]
        if name:
            self._owners[hash(name)] = hash(image)

    def _free_name(self, path: Path) -> str:
        owner, name, number = hash(str(path.resolve())), path.stem, 1
        while any(self._owners.get(hash(one), owner) != owner for one in _alike(name)):
            number += 1
            name = f"{path.stem}-{number}"
        self._owners[hash(name)] = owner
        return name


def write_marked(model: Model, folder: Path, name: str, image: Image.Image, answer: dict[str, Any]) -> str | None:
    """Writes the image with a ring at each component; returns its name, or None where components have no places."""
    from energycomp.images import save_image
    from energycomp.inference import View

    view = View(model.processor.frame(image), tuple(answer["objects"]))
    if len(view.places) != answer["count"]:
        return None
    save_image(view.picture(), folder / f"{name}.png")
    return f"{name}.png"


def merge_results(output: Output) -> tuple[int, int]:
    """Makes one file of lines, sorted by image, of the files of all shards; returns its lines and the files it took.

    Of several lines for one image and settings the last is kept. The files of the shards are removed once it is whole.

    Raises:
        InputError: there are no results, or a process still writes one of the files.
    """
    from energycomp.files import atomic_file, remove_stale

    files = output.files
    if not any(file.exists() for file in files):
        raise InputError(f"got {output}, without results; expected the -o of energycomp infer")
    with ExitStack() as stack:
        for file in files:
            stack.enter_context(claimed(file))
        if output.folder is not None:
            remove_stale(output.folder)
        images, keys, places = [], array("q"), array("Q")  # of each line
        for number, file in enumerate(files):
            for place, record in records_of(file):
                images.append(_order(str(record.get("image"))))
                keys.append(hash(_key(record)))
                places.append(number << PLACE_BITS | place)
        streams, count = [stack.enter_context(file.open("rb")) for file in files], 0
        with atomic_file(output.lines) as temporary, temporary.open("wb") as merged:
            for _, lines in groupby(sorted(range(len(images)), key=images.__getitem__), key=images.__getitem__):
                last = {keys[line]: line for line in lines}
                for line in sorted(last.values()):
                    stream = streams[places[line] >> PLACE_BITS]
                    stream.seek(places[line] & ((1 << PLACE_BITS) - 1))
                    merged.write(stream.readline())
                count += len(last)
        for file in files[1:]:
            file.unlink()
    return count, len(files)


def _order(image: str) -> str:
    """Sorts files by the parts of their paths, and the rows of a table by their number.

    >>> sorted(["a.tar#10", "a.tar#9", "a/b", "a-b"], key=_order)
    ['a/b', 'a-b', 'a.tar#9', 'a.tar#10']
    """
    found = re.fullmatch(r"(.*)#0*(\d*)([^#/]*)", image)
    path, number, rest = found.groups() if found else (image, "", "")
    row = f"\0\0{len(number):03d}{number}{rest}" if found else ""
    return path.replace("/", "\0") + row


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
        if file == self.file and len(lines) == 1 and lines[0].get("settings") != self._settings:
            file.write_bytes(b"")  # a run that was refused before its first image
            lines = []
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


def _alike(name: str) -> list[str]:
    """The names whose files would be those of this name: with and without the end of a redrawn image."""
    return [name, f"{name}{REDRAWN}", *([name.removesuffix(REDRAWN)] if name.endswith(REDRAWN) else [])]


def _key(record: dict[str, Any]) -> str:
    return json.dumps([record.get(part) for part in ("image", "sha256", "settings")], sort_keys=True)
