"""Where answers go, and those for images in files of JSON lines, which a later run continues."""

from __future__ import annotations

from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Self

import attrs

from energycomp.cli import RESULTS, Names, append_line, check_folder, make_folder, result_files, result_key
from energycomp.errors import InputError
from energycomp.files import atomic_file, remove_stale
from energycomp_batch.answers import WRITERS
from energycomp_batch.lines import Lines, claimed
from energycomp_batch.places import is_url
from energycomp_batch.shards import Shard
from energycomp_batch.tables import require


@attrs.frozen
class Output:
    """Where -o says that answers go.

    Args:
        lines: the file of JSON lines from which an interrupted run continues.
        folder: of the marked images; None where none are written.
        table: Parquet or CSV file that is written when all images are read; None for none.
        parts: path or URL of a folder of Parquet parts, in place of all others; None for none.
    """

    lines: Path
    folder: Path | None = None
    table: Path | None = None
    parts: Any = None

    @classmethod
    def of(cls, path: Any, *, parts: bool = False) -> Output:
        """A folder, which may be missing, or a file in it with the end of a format; `parts` as one of a URL has.

        >>> Output.of(Path("found.csv")).lines.name
        'found.jsonl'
        """
        kind = path.suffix.lower()
        if parts or is_url(path):
            require(path / "part.parquet")
            if not is_url(path):
                check_folder(path, "-o")
                path = path.absolute()  # processes of Ray are in other folders
            return cls(Path(RESULTS), parts=path)
        if kind not in {".jsonl", *WRITERS} or path.is_dir():
            check_folder(path, "-o")
            return cls(path / RESULTS, folder=path)
        check_folder(path.parent, "-o", path=path)
        require(path)
        return cls(path) if kind == ".jsonl" else cls(path.with_suffix(".jsonl"), table=path)

    @property
    def place(self) -> Any:
        """What is written: a folder, or a file."""
        return self.parts or self.folder or self.table or self.lines


class Results:
    """The answers in files of JSON lines: one line per image and settings; the last such line counts.

    An image is identified by its path and content, the settings by the options of the command and the model's weights.
    Each shard appends to a file of its own, and takes the answers in all files as known. A process that reads
    everything takes the files of shards that have ended into its own.

    Args:
        lines: the file of a process that reads everything; its folder is made where it is missing.
        settings: what the answers depend on, as JSON.
        shard: the part of the images that this process reads.

    Raises:
        InputError: another process writes the same file, or it holds answers under other settings.
    """

    def __init__(self, lines: Path, settings: dict[str, Any], shard: Shard | None = None) -> None:
        self._all, self.file = lines, lines.with_name((shard or Shard()).file(lines.name))
        self.settings, self.names, self._claim = settings, Names(lines, settings), ExitStack()

    def __enter__(self) -> Self:
        """Reads which answers are known; until the end of the block no other process may write the same file."""
        folder = make_folder(self.file.parent, "-o")
        if self.file == self._all:
            self._take_over()
        with ExitStack() as claim:
            claim.enter_context(claimed(self.file))
            if self.file.name == RESULTS and len(result_files(self._all)) == 1:  # nobody else writes here
                remove_stale(folder)
            self._lines = Lines(result_files(self._all), result_key, seen=self.names.see)
            self._claim = claim.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._claim.close()

    def _take_over(self) -> None:
        """Makes one file of this and those of shards that nobody writes any more."""
        with claimed(self._all), ExitStack() as claims:
            ended = []
            for file in result_files(self._all)[1:]:
                with suppress(InputError):
                    claims.enter_context(claimed(file))
                    ended.append(file)
            if ended:
                lines = Lines([self._all, *ended], result_key, seen=Names(self._all, self.settings).see)
                with atomic_file(self._all) as temporary, temporary.open("wb") as merged:
                    merged.writelines(lines)
            for file in ended:
                file.unlink()

    def head(self, image: str, digest: str) -> dict[str, Any]:
        """What identifies the answer for an image of this path and sha256."""
        return {"image": image, "sha256": digest, "settings": self.settings}

    def known(self, head: dict[str, Any]) -> dict[str, Any] | None:
        """The line of an image that was read under these settings."""
        return self._lines.get(result_key(head))

    def keep(self, record: dict[str, Any]) -> None:
        """Appends the answer for an image; one that failed is read again by the next run."""
        if "failed" not in record:
            append_line(self.file, record)
