"""Answers as Parquet parts in a folder or a bucket, with a table of failures, which a later run continues."""

from __future__ import annotations

import io
import json
import time
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Self

import attrs

from energycomp.cli import Names, check_folder, make_folder
from energycomp.errors import CheckpointError, InputError, first_line
from energycomp.files import atomic_file, remove_stale
from energycomp_batch.answers import parquet_writer
from energycomp_batch.places import is_url, place_of, reaching
from energycomp_batch.tables import require

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

SETTINGS = "_settings.json"  # readers of Parquet folders leave out what begins with _
FAILED = "_failed"
ROWS = 1000  # of a part that one process writes
EVERY = 60.0  # seconds after which it writes one with less


def parts_folder(out: str | None, writer: str | None = None, *, on_ray: bool) -> Any:
    """The path or URL of -o where answers go to parts, as they do with Ray or for a URL; None where they do not.

    Raises:
        InputError: pyarrow is not installed, there is no folder for Ray, or another format is asked for.

    >>> parts_folder("found", on_ray=False) is None
    True
    """
    if on_ray and out is None:
        raise InputError("got --engine ray without -o; expected a folder or a URL for Parquet parts, such as -o found")
    place = None if out is None else place_of(out)
    if place is None or not (on_ray or is_url(place)):
        return None
    if writer is not None:
        raise InputError(f"got --format {writer} and -o {place}, a folder of Parquet parts; leave --format out")
    require(place / "part.parquet")
    if is_url(place):
        return place
    check_folder(place, "-o")
    return place.absolute()  # processes of Ray are in other folders


def key_of(head: dict[str, Any]) -> int:
    """64 bits for an image: of 10^9 known answers, one meets those of a new image with probability 5e-11."""
    digest = blake2b(f"{head['image']}\0{head['sha256']}".encode(errors="surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big")


def has_key(known: np.ndarray, key: int) -> bool:
    """Whether a key is among the sorted ones."""
    import numpy as np

    place = int(np.searchsorted(known, np.uint64(key)))
    return place < len(known) and int(known[place]) == key


@attrs.define(eq=False)
class Parts:
    """Parquet files with the columns of `parquet_writer`, and the same of the images that failed in the folder _failed.

    A part is named after its images, and is there as a whole or not at all. So one that is written again, by a worker
    that took over from another, replaces the first.

    Args:
        folder: a path or a URL.
        settings: what the answers depend on, as JSON.
        alone: whether no other process writes there, so that what is left of earlier ones can be removed.
    """

    folder: Any
    settings: dict[str, Any]
    alone: bool = True
    _known: Any = attrs.field(default=None, init=False)
    _rows: list[dict[str, Any]] = attrs.field(factory=list, init=False)
    _since: float = attrs.field(factory=time.monotonic, init=False)

    def __enter__(self) -> Self:
        """Reads which answers are known. Images that failed are unknown: their table begins anew.

        Raises:
            InputError: the folder holds something else, or answers under other settings; it cannot be reached.
        """
        self._known = self.known_keys()
        return self

    def __exit__(self, *_: object) -> None:
        self._flush()

    def known_keys(self) -> np.ndarray:
        """The sorted keys of the known answers, (N,) uint64, 8 bytes each; checks the settings first."""
        import numpy as np
        from pyarrow import parquet

        found = [np.empty(0, dtype=np.uint64)]
        with reaching(self.folder):
            if is_url(self.folder):
                self.folder.fs.invalidate_cache()
            else:
                remove_stale(make_folder(self.folder, "-o"))
            self._check_settings()
            for file in _parquet_files(self.folder / FAILED) if self.alone else ():
                file.unlink()
            for file in _parquet_files(self.folder):
                with file.open("rb") as stream:
                    part = parquet.read_table(stream, columns=["image", "sha256"])
                found.append(np.array(list(map(key_of, part.to_pylist())), dtype=np.uint64))
        return np.sort(np.concatenate(found))

    def _check_settings(self) -> None:
        file = self.folder / SETTINGS
        held = sorted(path.name for path in self.folder.iterdir()) if self.folder.exists() else []
        held = [name for name in held if not name.startswith(".")]
        if not held:
            _put(file, json.dumps(self.settings, indent=2).encode())
        elif SETTINGS in held:
            Names(file, self.settings).see({"settings": json.loads(file.read_bytes())})
        else:
            raise InputError(
                f"got -o {self.folder}, which holds {held[0]} and no {SETTINGS}; expected a new folder, or one of "
                "Parquet parts; name another"
            )

    def known(self, head: dict[str, Any]) -> dict[str, Any] | None:
        """An empty record for an image that was read before."""
        return {} if has_key(self._known, key_of(head)) else None

    def keep(self, record: dict[str, Any]) -> None:
        """Keeps the answer for an image, which is written with others after a minute."""
        self._rows.append(record)
        if len(self._rows) >= ROWS or time.monotonic() > self._since + EVERY:
            self._flush()

    def _flush(self) -> None:
        rows, self._rows, self._since = self._rows, [], time.monotonic()
        self.write(self.name([row["image"] for row in rows]), rows)

    def name(self, images: Sequence[str]) -> str:
        """The name of the part of some images."""
        digest = blake2b("\n".join(images).encode(errors="surrogatepass"), digest_size=12)
        return f"part-{digest.hexdigest()}.parquet"

    def has(self, name: str) -> bool:
        """Whether a part is written."""
        with reaching(self.folder):
            return bool((self.folder / name).exists())

    def write(self, name: str, records: Sequence[dict[str, Any]]) -> None:
        """Writes a part, and the failures among its images first; raises `CheckpointError` where that fails."""
        failed = [record for record in records if "failed" in record]
        read = [record for record in records if "failed" not in record]
        for folder, rows in ((self.folder / FAILED, failed), (self.folder, read)):
            content = io.BytesIO()
            with parquet_writer(content) as write:
                for row in rows:
                    write(row)
            if rows:
                _put(folder / name, content.getvalue())


def _put(place: Any, content: bytes) -> None:
    """Writes a file as a whole or not at all."""
    if not is_url(place):
        make_folder(place.parent, "-o")
        with atomic_file(place) as temporary:
            temporary.write_bytes(content)
        return
    try:
        place.write_bytes(content)
    except Exception as error:  # file systems of fsspec raise anything
        raise CheckpointError(
            f"Cannot write {place}: {type(error).__name__}: {first_line(error)[:200]}. Check the rights to it, and the "
            "free space; repeat the command to continue."
        ) from error


def _parquet_files(folder: Any) -> list[Any]:
    return [path for path in folder.iterdir() if path.suffix == ".parquet"] if folder.exists() else []
