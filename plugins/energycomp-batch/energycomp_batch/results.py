"""Answers for images in files of JSON lines, one for each process, which a later run continues."""

from __future__ import annotations

from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any, Self

from energycomp.cli import RESULTS, Names, append_line, make_folder, result_files, result_key
from energycomp.errors import InputError
from energycomp.files import atomic_file, remove_stale
from energycomp_batch.line_index import Lines, claimed
from energycomp_batch.shards import Shard

if TYPE_CHECKING:
    from pathlib import Path


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
        self._all = lines
        self.file = lines.with_name((shard or Shard()).file(lines.name))
        self.settings = settings
        self.names = Names(lines, settings)
        self._claim = ExitStack()

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
