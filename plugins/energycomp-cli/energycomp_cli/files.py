"""What a command writes: PNG files and folders, checked before any work."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING

from energycomp.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

RESULTS = "results.jsonl"  # marks a folder that `energycomp infer` wrote
SETTINGS = "_settings.json"  # marks a folder of Parquet files that `energycomp batch` wrote


def check_png(path: Path, option: str = "-o", *, formats: Sequence[str] = (".png",)) -> None:
    """Raises `InputError` where no PNG, or file of these formats, can be written, before any work; creates nothing."""
    kind = "a PNG file" if len(formats) == 1 else "a PNG, JPEG or WebP file"
    try:
        if path.is_dir():
            raise InputError(f"got {option} {path}, a folder; expected {kind}, such as {path / 'image.png'}")
        if path.suffix.lower() not in formats:
            example = path.with_suffix(".png") if path.stem[:1].isalnum() else "image.png"
            raise InputError(f"got {option} {path}; expected the name of {kind}, such as {example}")
    except OSError as error:  # such as too long a name
        raise InputError(f"got {option} {path}, which cannot be a file ({error.strerror}); choose another") from error
    check_folder(path.parent, option, path=path, expected=f"{kind} in a folder that can be written")


def check_folder(
    folder: Path, option: str, *, path: Path | None = None, expected: str = "a folder that can be written"
) -> None:
    """Raises `InputError` where a folder cannot be made or written, before any work; creates nothing.

    Args:
        path: what the option names; the folder when left out.
    """
    known = folder.absolute()
    try:
        known = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
        reason = None if known.is_dir() and os.access(known, os.W_OK) else f"{known} is not"
        if reason is None:
            with TemporaryFile(dir=known):  # some file systems, such as /proc, only refuse the file itself
                pass
    except OSError as error:
        reason = f"{known} is not" if known.is_dir() else error.strerror
    if reason is not None:
        raise InputError(f"got {option} {path or folder}; expected {expected}; {reason}")


def make_folder(folder: Path, option: str) -> Path:
    """Makes the folder and its parents where they are missing; raises `InputError` where that fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"got {option} {folder}; expected a folder that can be written; {error.strerror}") from error
    return folder


def result_files(lines: Path) -> list[Path]:
    """The file of a process that reads everything, then those of the shards of energycomp batch and evaluate."""
    return [lines, *sorted(lines.parent.glob(f"{lines.stem}-[0-9]*-of-[0-9]*{lines.suffix}"))]
