"""What a command reads: image files, frames of movies and rows of tables, one after another."""

from __future__ import annotations

import hashlib
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import typer

from energycomp.errors import InputError
from energycomp_cli.files import RESULTS, SETTINGS, result_files
from energycomp_cli.output import TABLES, read_numbers

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence, Set as AbstractSet

    from PIL import Image
    from torch import Tensor

    from energycomp.models import Model


@attrs.frozen(eq=False)
class Item:
    """What is read, and what identifies it.

    Args:
        source: path of the image, or of its movie or table; energycomp-batch has URLs, too.
        row: what identifies it in a movie or a table, such as its number; None for a file that is one image.
        content: the bytes of an image file, or the row of numbers; None for a file that is opened later.
        problem: why there is nothing to read.
    """

    source: Any
    row: str | None = None
    content: bytes | Tensor | None = attrs.field(default=None, repr=False)
    problem: str | None = None

    def __str__(self) -> str:
        return self._with_row(self.source)

    def _with_row(self, source: object) -> str:
        return str(source) if self.row is None else f"{source}#{self.row}"

    @property
    def name(self) -> str:
        """The name of the file, and the row."""
        return self._with_row(self.source.name)

    @property
    def key(self) -> str:
        """What identifies it on this machine."""
        return self._with_row(self.source.resolve())

    @property
    def sha256(self) -> str:
        """Of what is read; raises `InputError` where it cannot be read."""
        if self.problem is not None:
            return sha256_of(b"")
        if self.content is None:
            return sha256_of(self.source)
        return sha256_of(self.content if isinstance(self.content, bytes) else self.content.numpy().tobytes())

    def open(self) -> Any:
        """An image or a row of numbers, after a warning of what is not kept of a file.

        Raises:
            InputError: there is none, or it cannot be decoded.
        """
        from energycomp.images import decode_image

        if self.problem is not None:
            raise InputError(self.problem)
        if isinstance(self.content, bytes):
            return decode_image(self.content, str(self), single=True)
        return read_image(self.source) if self.content is None else self.content


def items_of(files: Iterable[Path], model: Model) -> tuple[int, Iterator[Item]]:
    """How many items files hold for a model of images or of numbers, and these one after another."""
    from energycomp.images import frame_count, is_movie

    total = 0
    sources: list[Iterable[Item]] = []
    for path in files:
        count = 1
        source: Iterable[Item] = [Item(path)]
        if path.suffix.lower() in TABLES:
            rows = read_numbers(path, model)
            count = len(rows)
            source = [Item(path, str(number), row) for number, row in enumerate(rows, start=1)]
        elif is_movie(path):
            try:
                count = frame_count(path)
                source = frames(path)
            except InputError as error:
                source = [Item(path, problem=str(error))]
        total += count
        sources.append(source)
    return total, chain.from_iterable(sources)


def frames(path: Path, source: Any = None) -> Iterator[Item]:
    """Yields the frames of a movie, from "#0". One that breaks off ends with a frame that cannot be read.

    Args:
        source: where the movie is from, if the path is that of a copy.
    """
    from energycomp.images import frames_of, png

    source = source or path
    number = 0
    try:
        for frame in frames_of(path):
            yield Item(source, str(number), png(frame))
            number += 1
    except InputError as error:
        yield Item(source, str(number), problem=str(error).replace(str(path), str(source)))


def read_image(path: Path, *, written: bool = False) -> Image.Image:
    """Opens the one image of a file, after a warning on stderr of what is not kept of it.

    Args:
        written: whether an image of the same kind is written, which has 8 bits a channel and no transparency.
    """
    from energycomp.images import lost, open_image
    from energycomp.progress import over_bar

    image = open_image(path, single=True)
    notes = lost(path)
    if not written:
        notes.pop("depth", None)  # no model has more
    elif notes.keys() & {"depth", "transparency"}:
        notes["written"] = "what is written has 8 bits a channel and no transparency"
    if notes:
        with over_bar():
            typer.echo(f"energycomp: warning: {path}: {'; '.join(notes.values())}", err=True)
    return image


def image_files(
    paths: Sequence[Path], *, without: Path | None = None, suffixes: AbstractSet[str] | None = None
) -> dict[Path, Path]:
    """The image files of all paths, each once, under its resolved path, and with its first name.

    Those of a folder, and of the folders in it, are sorted by name. Left out are hidden ones, links to folders, and
    folders of results inside it (with results.jsonl, or that of a shard, or _settings.json).

    Args:
        without: a file or folder inside a folder that is left out, such as that of the results.
        suffixes: of the files that are taken from folders; those of images when left out.
    """
    from energycomp.images import FORMATS, check_no_address

    files: dict[Path, Path] = {}
    suffixes = FORMATS.keys() if suffixes is None else suffixes
    for path in paths:
        try:
            is_folder = path.is_dir()
            is_file = path.is_file()
        except OSError:  # too long a name
            is_folder = is_file = False
        if not (is_folder or is_file):
            check_no_address(path)
            raise InputError(f"got {path}, which does not exist; expected an image or a folder of images")
        inside = [path]
        if is_folder:
            try:
                inside = sorted(_inside(path, without and without.resolve(), suffixes))
            except OSError as error:
                raise InputError(
                    f"got {path}, in which {error.filename} cannot be read ({error.strerror}); check its permissions, "
                    "or name the folders in it"
                ) from error
            if not inside:
                raise InputError(f"got {path} without an image in it; expected PNG or JPEG files; name another folder")
        for file in inside:
            files.setdefault(file.resolve(), file)
    return files


def _inside(folder: Path, without: Path | None, suffixes: AbstractSet[str]) -> Iterator[Path]:
    for entry in folder.iterdir():
        if entry.name.startswith("."):
            continue
        if entry.is_dir() and not entry.is_symlink():
            results = [entry / SETTINGS, *result_files(entry / RESULTS)]
            if entry.resolve() != without and not any(file.exists() for file in results):
                yield from _inside(entry, without, suffixes)
        elif entry.suffix.lower() in suffixes and entry.resolve() != without:
            yield entry


def check_any_image(files: Iterable[Path]) -> None:
    """Raises `InputError` where no file is an image by its first bytes; movies and tables are not opened."""
    from energycomp.images import FORMATS, is_movie, lost

    first = None
    for path in files:
        if path.suffix.lower() in TABLES or is_movie(path):
            return
        try:
            lost(path)
        except InputError as error:
            first = first or error
        else:
            return
    if first is not None:
        formats = ", ".join(dict.fromkeys(FORMATS.values()))
        raise InputError(f"{first}; the formats are {formats}, and MP4 with energycomp[mp4]")


def count_skipped(paths: Sequence[Path], files: Mapping[Path, Path]) -> int:
    """Counts the files directly in the folders that were named which are no images by the ends of their names."""
    folders = [path for path in paths if path.is_dir()]
    inside = [entry for folder in folders for entry in folder.iterdir() if not entry.name.startswith(".")]
    return sum(entry.is_file() and entry.resolve() not in files for entry in inside)


def sha256_of(path: Path | bytes) -> str:
    """sha256 of an image file, or of the bytes of a row; raises `InputError` where it cannot be read."""
    if isinstance(path, bytes):
        return hashlib.sha256(path).hexdigest()
    try:
        if path.exists() and not path.is_file():
            raise InputError(f"got {path}, which is no regular file; expected an image file")
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise InputError(
            f"got {path}, which cannot be read ({error.strerror}); check its path and permissions"
        ) from error
