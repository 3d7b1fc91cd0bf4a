"""Where -o says that answers go, and what writes them: a registered writer, to a file or to stdout."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import attrs

from energycomp.errors import EnergycompError, InputError, PluginError
from energycomp.files import atomic_file
from energycomp.plugins import find, names
from energycomp.progress import over_bar
from energycomp_cli.files import RESULTS, check_folder, make_folder

LINES = ".jsonl"
FILES = {".json", ".txt", ".tsv", ".xlsx", ".xml", ".html", ".npy", ".png", ".jpg", ".jpeg", ".webp", ".gif", ".mp4"}
Write = Callable[[Mapping[str, Any]], object]


@attrs.frozen
class Output:
    """Where the answers of images go.

    Args:
        lines: the file of JSON lines from which an interrupted run continues; None keeps none.
        folder: of the marked images; None where none are written.
        table: the file that a writer makes of all answers, once all images are read; None for none.
        writer: the name of the writer, of the table, or of stdout where there is none; None where nothing is written.
    """

    lines: Path | None = None
    folder: Path | None = None
    table: Path | None = None
    writer: str | None = None

    @classmethod
    def of(cls, path: Path | None, writer: str | None = None) -> Output:
        """What -o and --format say; nothing is created.

        A path that ends in .jsonl, or in the name of a writer, is a file. With a writer any path with an end is one.
        All others are folders, which may be missing.

        Raises:
            InputError: a path that cannot be written, or that ends in the name of another writer, or as a file of which
                no writer is known.
            NotFoundError: no working plugin registers the writer.

        >>> Output.of(Path("found.coco")).lines.name, Output.of(Path("found.json"), "coco").table.name
        ('found.jsonl', 'found.json')
        """
        if writer is not None:
            find("writers", writer)
        if path is None:
            return cls(writer=writer)
        end = path.suffix.lower()
        of_name = end[1:] if end[1:] in names("writers") else None
        if end in FILES and not (writer or of_name or path.is_dir()):
            ends = ", ".join([LINES, *(f".{name}" for name in names("writers"))])
            raise InputError(
                f"got -o {path}; expected a folder, such as -o out, or a file that ends in {ends}; with --format, "
                f"such as --format coco, {path.name} is written"
            )
        if path.is_dir() or not (end == LINES or of_name or (writer and end)):
            check_folder(path, "-o")
            return cls(path / RESULTS, folder=path, writer=writer)
        check_folder(path.parent, "-o", path=path)
        if end == LINES:
            return cls(path, writer=writer)
        if writer is not None and of_name not in (None, writer):
            raise InputError(f"got --format {writer} and -o {path}; expected a file of another name, or a folder")
        return cls(path.with_suffix(LINES), table=path, writer=writer or of_name)

    @property
    def printed(self) -> bool:
        """Whether the writer writes to stdout."""
        return self.writer is not None and self.table is None

    @contextmanager
    def open(self) -> Iterator[Write | None]:
        """What takes the record of each image, as `energycomp.plugins.Add.writer` says; None where nothing is written.

        A file is there, whole, when the block ends without an error; else what was there is as it was.

        Raises:
            CheckpointError: the file cannot be written.
            PluginError: the writer fails, with an error that is not ours.
        """
        if self.writer is None:
            yield None
        elif self.table is None:
            with _open_writer(self.writer, sys.stdout.buffer) as write:

                def write_over_bar(record: Mapping[str, Any]) -> None:
                    with over_bar():
                        sys.stdout.flush()
                        write(record)
                        sys.stdout.buffer.flush()

                yield write_over_bar
        else:
            make_folder(self.table.parent, "-o")
            with ExitStack() as stack:
                temporary = stack.enter_context(atomic_file(self.table))
                file = stack.enter_context(temporary.open("wb"))
                yield stack.enter_context(_open_writer(self.writer, file))

    def __str__(self) -> str:
        return str(self.folder or self.table or self.lines)


@contextmanager
def _open_writer(name: str, file: BinaryIO) -> Iterator[Write]:
    """Opens a writer of a file; its errors name it, and those of the block, such as Ctrl-C, reach it."""
    with ExitStack() as stack:
        with _name_writer(name):
            write = stack.enter_context(find("writers", name)(file))

        def write_or_blame(record: Mapping[str, Any]) -> None:
            with _name_writer(name):
                write(record)

        yield write_or_blame
        with _name_writer(name):
            stack.pop_all().close()


@contextmanager
def _name_writer(name: str) -> Iterator[None]:
    try:
        yield
    except (EnergycompError, OSError):  # bad input, and a full disk, have errors of their own
        raise
    except Exception as error:
        raise PluginError(
            f"Got {type(error).__name__} from the writer {name!r}: {error}. Expected it to write every record. Report "
            "it to its authors, whom `energycomp plugins` lists, or choose another --format."
        ) from error
