"""Reads and writes marked photos in the formats that tools for labels have."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import attrs

from energycomp.errors import InputError
from energycomp.files import atomic_file
from energycomp_objects.formats import imagefolder
from energycomp_objects.formats.files import LabelSet
from energycomp_objects.formats.gather import gather
from energycomp_objects.formats.marks import MarkedPhotos


@attrs.frozen
class Format:
    """A format of labels.

    Args:
        find: the file or folder of labels that a path means; None where it holds none of this format.
        read: the labels of what `find` gave, of pictures in a folder of their own or where the format has them.
        write: the labels of photos, under names relative to the folder of pictures, to a path.
        images: the folder of pictures below that of the labels.
    """

    find: Callable[[Path], Path | None]
    read: Callable[[Path, Path | None], LabelSet]
    write: Callable[[MarkedPhotos, Sequence[str], Path], None]
    images: str = ""


FORMATS = {
    "imagefolder": Format(imagefolder.find, imagefolder.read, imagefolder.write),
}


def read_marks(
    path: str | Path,
    format: str | None = None,  # noqa: A002 - as in Pillow
    *,
    schema: Mapping[str, Sequence[str]] | None = None,
    images: str | Path | None = None,
) -> MarkedPhotos:
    """Reads photos with marks from a folder or a file of labels.

    Args:
        format: imagefolder, coco, yolo, voc or csv; seen from the files when left out.
        schema: the attributes that are read, and the values that they may have; what occurs when left out.
        images: the folder of the pictures, where it is not the one that the format has.

    Raises:
        InputError: labels that cannot be read, or that do not fit their pictures; see `gather`.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"got {path}, which does not exist; expected a folder or a file of labels; check the path")
    known = FORMATS if format is None else {format: _format_of(format)}
    sources = {name: source for name, one in known.items() if (source := one.find(path)) is not None}
    if not sources:
        inside = sorted(path.iterdir()) if path.is_dir() else []
        splits = [entry.name for entry in inside if entry.is_dir() and any(one.find(entry) for one in known.values())]
        hint = f"name one of the folders in it: {', '.join(splits)}" if splits else "check the path"
        raise InputError(f"got {path} without labels; expected those of {', '.join(known)}; {hint}")
    if len(sources) > 1:
        raise InputError(
            f"got {path} with labels of {' and '.join(sources)}; expected one; name the format or the file"
        )
    [(name, source)] = sources.items()
    return gather(known[name].read(source, None if images is None else Path(images)), schema)


def write_marks(
    photos: MarkedPhotos,
    path: str | Path,
    format: str,  # noqa: A002 - as in Pillow
    *,
    copy: bool = False,
) -> None:
    """Writes the labels of photos; each file is whole, or as it was.

    Pictures are named relative to `path` where all of them lie below it, else relative to the folder that holds all:
    then `read_marks(path, images=folder)` reads them, or the pictures are copied.

    Args:
        copy: copies the pictures beside the labels, too.

    Raises:
        InputError: no photo, or an unknown format.
        CheckpointError: a file cannot be written.
    """
    chosen = _format_of(format)
    if not photos:
        raise InputError("got no photo; expected at least one to write")
    path = Path(path)
    folder = (path if not path.suffix or path.is_dir() else path.parent) / chosen.images
    names = _relative_names([photo.path for photo in photos], folder)
    if copy:
        for photo, name in zip(photos, names, strict=True):
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if not (target.exists() and target.samefile(photo.path)):
                with atomic_file(target) as temporary:
                    shutil.copyfile(photo.path, temporary)
    chosen.write(photos, names, path)


def _format_of(name: str) -> Format:
    if name not in FORMATS:
        raise InputError(f"got the format {name!r}; expected one of {', '.join(FORMATS)}")
    return FORMATS[name]


def _relative_names(paths: Sequence[Path], folder: Path) -> list[str]:
    resolved = [path.absolute() for path in paths]
    base = folder.absolute()
    if not all(path.is_relative_to(base) for path in resolved):
        base = Path(os.path.commonpath([path.parent for path in resolved]))
    return [path.relative_to(base).as_posix() for path in resolved]
