"""Pascal VOC's XML, as LabelImg writes it: a file a picture, in `Annotations/` or beside the pictures.

Pictures are in `JPEGImages/`, `images/` or beside the XML files. Boxes are those of the upright picture, in pixels from
1; `xmax` and `ymax` are the last ones inside. A `point` in the place of `bndbox` is one, as in the actions of VOC 2012.
The name of an object that has several attributes is that of `class_name`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree as ET

from energycomp.errors import InputError
from energycomp.images import FORMATS
from energycomp_objects.formats.files import (
    Labels,
    LabelSet,
    as_number,
    attributes_of,
    class_name,
    files_of,
    format_number,
    make_mark,
    read_text,
    write_text,
)
from energycomp_objects.formats.marks import Mark, MarkedPhotos

FOLDER = "Annotations"
MAX_XML_BYTES = 10_000_000


class _WithoutEntities(ET.TreeBuilder):
    """A document type could declare entities that grow without a bound, or name other files."""

    def doctype(self, *_: object) -> None:
        raise InputError("a document type, which labels do not need")


def find(path: Path) -> list[Path]:
    inside = [*path.glob("[!.]*.xml"), *path.glob(f"{FOLDER}/*")] if path.is_dir() else []
    return [path] if inside or path.suffix == ".xml" else []


def read(path: Path, images: Path | None) -> LabelSet:
    root = path if path.is_dir() else path.parent
    folder = root / FOLDER if (root / FOLDER).is_dir() else root
    if images is None:
        above = root.parent if root.name == FOLDER else root
        images = next((above / name for name in ("JPEGImages", "images") if (above / name).is_dir()), root)
    files = sorted(folder.rglob("[!.]*.xml")) if path.is_dir() else [path]
    return LabelSet(path, images, [_read_file(file, file.relative_to(folder), images) for file in files])


def _read_file(file: Path, relative: Path, images: Path) -> Labels:
    where = f"{file.name},"
    text = read_text(file, MAX_XML_BYTES)
    parser = ET.XMLParser(target=_WithoutEntities())  # noqa: S314 - refuses what could be harmful
    try:
        parser.feed(text)
        root = parser.close()
    except (ET.ParseError, InputError) as error:
        raise InputError(f"got {file}, which is no XML of labels ({error}); correct it") from error
    if root.tag != "annotation":
        raise InputError(
            f"got {where} with <{root.tag}>; expected <annotation>, as Pascal VOC has; name another format"
        )
    name = (root.findtext("filename") or "").strip()
    if not Path(name).suffix:  # some tools leave out the end of the name, or all of it
        twins = [relative.with_suffix(end).as_posix() for end in FORMATS]
        name = next((twin for twin in twins if os.path.lexists(images / twin)), name or twins[0])
    width, height = (int(as_number(root.findtext(f"size/{side}") or 0, where)) for side in ("width", "height"))
    marks = tuple(_read_object(one, where) for one in root.iter("object"))
    return Labels(name, where, marks, pixels=True, size=(width, height) if width and height else None)


def _read_object(element: ET.Element, where: str) -> Mark | None:
    attributes = attributes_of((element.findtext("name") or "").strip())
    if element.find("bndbox") is None and element.find("point") is not None:
        x, y = (as_number(element.findtext(f"point/{axis}"), where) - 0.5 for axis in "xy")
        return make_mark(where, (x, y), attributes)
    left, top, right, bottom = (
        as_number(element.findtext(f"bndbox/{side}"), where) for side in ("xmin", "ymin", "xmax", "ymax")
    )
    return make_mark(where, (left - 1, top - 1, right - left + 1, bottom - top + 1), attributes, corner=True)


def write(photos: MarkedPhotos, names: Sequence[str], path: Path) -> None:
    for photo, name, file in zip(photos, names, files_of(path / FOLDER, names, ".xml"), strict=True):
        root = ET.Element("annotation")
        _add(root, "filename", name)
        size = _add(root, "size")
        for side, value in zip(("width", "height", "depth"), (*photo.size, 3), strict=True):
            _add(size, side, str(value))
        for mark in photo.marks:
            _add_object(root, mark, photo.size)
        ET.indent(root)
        write_text(file, ET.tostring(root, encoding="unicode"))


def _add_object(root: ET.Element, mark: Mark, size: tuple[int, int]) -> None:
    one = _add(root, "object")
    _add(one, "name", class_name(mark.attributes))
    x, y = mark.x * size[0], mark.y * size[1]
    if mark.width is None or mark.height is None:
        place, values = _add(one, "point"), {"x": x + 0.5, "y": y + 0.5}
    else:
        width, height = mark.width * size[0], mark.height * size[1]
        place = _add(one, "bndbox")
        values = {"xmin": x - width / 2 + 1, "ymin": y - height / 2 + 1, "xmax": x + width / 2, "ymax": y + height / 2}
    for name, number in values.items():
        _add(place, name, format_number(number))


def _add(parent: ET.Element, name: str, text: str | None = None) -> ET.Element:
    element = ET.SubElement(parent, name)
    element.text = text
    return element
