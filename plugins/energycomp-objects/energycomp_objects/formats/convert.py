"""Reads and writes marked photos in the formats of tools for labels."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import attrs

from energycomp.errors import InputError
from energycomp.files import atomic_file
from energycomp_cli import make_folder
from energycomp_objects.formats import coco, imagefolder, rows, voc, yolo
from energycomp_objects.formats.files import LabelSet
from energycomp_objects.formats.gather import gather
from energycomp_objects.formats.marks import MarkedPhotos


@attrs.frozen
class Format:
    """A format of labels.

    Args:
        find: the files or folders of labels that a path means; [] where it holds none of this format.
        read: the labels of what `find` gave, with pictures in a folder of their own or where the format has them.
        write: the labels of photos, under names relative to the folder of pictures.
        images: the folder of pictures below that of the labels.
    """

    find: Callable[[Path], list[Path]]
    read: Callable[[Path, Path | None], LabelSet]
    write: Callable[[MarkedPhotos, Sequence[str], Path], None]
    images: str = ""


FORMATS = {
    "imagefolder": Format(imagefolder.find, imagefolder.read, imagefolder.write),
    "coco": Format(coco.find, coco.read, coco.write),
    "yolo": Format(yolo.find, yolo.read, yolo.write, "images"),
    "voc": Format(voc.find, voc.read, voc.write, "JPEGImages"),
    "csv": Format(rows.find, rows.read, rows.write),
}


def read_marks(
    path: str | Path,
    format: str | None = None,  # noqa: A002 - as in Pillow
    *,
    schema: Mapping[str, Sequence[str]] | None = None,
    images: str | Path | None = None,
) -> MarkedPhotos:
    r"""Reads photos with marks from a folder or a file of labels.

    Args:
        format: imagefolder, coco, yolo, voc or csv; seen from the files when left out.
        schema: the attributes that are read, and the values that they may have; those that occur when left out.
        images: the folder of the pictures, where it is not the one that the format has.

    Raises:
        InputError: labels that cannot be read, or that do not fit their pictures.

    >>> import tempfile
    >>> from PIL import Image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Image.new("RGB", (200, 100)).save(f"{folder}/a.png")
    ...     _ = Path(folder, "points.csv").write_text("file,x_px,y_px,label\na.png,50,50,RBC\n")
    ...     read_marks(folder)[0].marks
    (Mark(x=0.25, y=0.5, width=None, height=None, attributes={'category': 'RBC'}),)
    """
    path = Path(path)
    if not os.path.lexists(path):
        raise InputError(f"got {path}, which does not exist; expected a folder or a file of labels; check the path")
    known = FORMATS if format is None else {format: _format_of(format)}
    sources = _find_sources(path, format)
    if not sources:
        inside = sorted(path.iterdir()) if path.is_dir() else []
        splits = [entry.name for entry in inside if entry.is_dir() and has_labels(entry, format)]
        hint = f"name one of the folders in it: {', '.join(splits)}" if splits else "check the path"
        raise InputError(f"got {path} without labels; expected those of {', '.join(known)}; {hint}")
    if len(sources) > 1:
        names = ", ".join(source.name for _, source in sources)
        raise InputError(f"got {path} with several labels: {names}; expected one; name the format or the file")
    [(chosen, source)] = sources
    return gather(chosen.read(source, None if images is None else Path(images)), schema)


def write_marks(
    photos: MarkedPhotos,
    path: str | Path,
    format: str,  # noqa: A002 - as in Pillow
    *,
    copy: bool = False,
) -> None:
    """Writes the labels of photos to a folder, or to a .json or .csv file; each file is whole, or as it was.

    Pictures are named relative to the folder that the format has for them, where all lie below it; else relative to the
    folder that holds all, which `read_marks(path, images=folder)` then takes.

    Args:
        copy: copies the pictures beside the labels, too.

    Raises:
        InputError: no photo, one twice, an unknown format, or a folder of YOLO or VOC that has labels already.
        CheckpointError: a file cannot be written.
    """
    chosen = _format_of(format)
    if not photos:
        raise InputError("got no photo; expected at least one to write")
    path = Path(path)
    folder = (path.parent if path.suffix in {".json", ".csv"} else path) / chosen.images
    paths = [photo.path.parent.resolve() / photo.path.name for photo in photos]
    base = folder.resolve()
    if not all(one.is_relative_to(base) for one in paths):
        base = Path(os.path.commonpath([one.parent for one in paths]))
    names = [one.relative_to(base).as_posix() for one in paths]
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if twice is not None:
        raise InputError(f"got the picture {twice} twice; expected each once; join the marks of both")
    chosen.write(photos, names, path)
    for picture, name in zip(paths if copy else (), names, strict=copy):
        target = folder / name
        if target.resolve() != picture.resolve():
            make_folder(target.parent, "the folder")
            with atomic_file(target) as temporary:
                shutil.copyfile(picture, temporary)


def has_labels(path: Path, format: str | None = None) -> bool:  # noqa: A002 - as in Pillow
    """Whether a path has labels of a format, or of any; they may still be none that can be read."""
    return os.path.lexists(path) and bool(_find_sources(path, format))


def _find_sources(path: Path, name: str | None) -> list[tuple[Format, Path]]:
    known = FORMATS.values() if name is None else (_format_of(name),)
    return [(one, source) for one in known for source in one.find(path)]


def _format_of(name: str) -> Format:
    if name not in FORMATS:
        raise InputError(f"got the format {name!r}; expected one of {', '.join(FORMATS)}")
    return FORMATS[name]
