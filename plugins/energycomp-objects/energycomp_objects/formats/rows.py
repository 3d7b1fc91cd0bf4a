"""CSV, a row a mark: `file,x,y,w,h,label`, the centre and the size in shares of the upright picture.

`x_px`, `y_px`, `w_px` and `h_px` are in pixels. `w` and `h` may be left out, or empty, for points; a row with an empty
`x` names a picture without marks. Further columns are attributes. The CSV of the VGG Image Annotator is read, too, with
its points and rectangles. Pictures are beside the file.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from energycomp.errors import InputError
from energycomp_objects.formats.files import (
    ALIASES,
    CATEGORY,
    Labels,
    LabelSet,
    format_number,
    make_mark,
    parse_json,
    read_text,
    write_text,
)
from energycomp_objects.formats.marks import Mark, MarkedPhotos

FILE = "labels.csv"
NAMES = ("file", "file_name", "filename")  # of the column of pictures
BOX = ("x", "y", "w", "h")
SHAPES = {"point": ("cx", "cy"), "rect": ("x", "y", "width", "height")}  # of the VGG Image Annotator


def find(path: Path) -> list[Path]:
    return sorted(path.glob("[!.]*.csv")) if path.is_dir() else [path] if path.suffix == ".csv" else []


def read(file: Path, images: Path | None) -> LabelSet:
    rows = csv.DictReader(io.StringIO(read_text(file)), strict=True)
    marks: dict[str, list[Mark | None]] = {}
    try:
        header = rows.fieldnames or ()
        column = next((name for name in NAMES if name in header), None)
        is_vgg = "region_shape_attributes" in header
        unit = "_px" if "x_px" in header else ""
        if column is None or not (is_vgg or {f"x{unit}", f"y{unit}"} <= set(header)):
            raise InputError(
                f"got {file} with the columns {', '.join(header[:9]) or 'of no header'}; expected file,x,y,label, with "
                "w,h for boxes, or file,x_px,y_px,label for pixels; name them in the first line"
            )
        for row in rows:
            where = f"{file.name}, line {rows.line_num},"
            if None in row or None in row.values():
                raise InputError(f"got {where} with another number of cells than the header; correct it")
            of_picture = marks.setdefault(row[column], [])
            if is_vgg:
                of_picture.extend(_read_region(row, where))
            elif row[f"x{unit}"].strip():
                size = [row[name] for name in (f"w{unit}", f"h{unit}") if row.get(name, "").strip()]
                box = [row[f"x{unit}"], row[f"y{unit}"], *size]
                attributes = {name: row[name] for name in header if name.removesuffix("_px") not in (*BOX, column)}
                of_picture.append(make_mark(where, box, attributes))
    except csv.Error as error:
        raise InputError(f"got {file}, which is no CSV ({error}); correct it") from error
    labels = [Labels(name, f"{file.name}, {name},", tuple(of), is_vgg or bool(unit)) for name, of in marks.items()]
    return LabelSet(file, images or file.parent, labels)


def _read_region(row: Mapping[str, str], where: str) -> list[Mark | None]:
    """The mark of a row of the VGG Image Annotator; none for a picture without regions."""
    shape = parse_json(row["region_shape_attributes"], where)
    if not shape:
        return []
    names = SHAPES.get(str(shape.get("name")))
    if names is None:
        raise InputError(f"got {where} with the shape {shape.get('name')}; expected one of {', '.join(SHAPES)}")
    attributes = parse_json(row.get("region_attributes") or "{}", where)
    return [make_mark(where, [shape.get(name) for name in names], attributes, corner=True)]


def write(photos: MarkedPhotos, names: Sequence[str], path: Path) -> None:
    others = [name for name in photos.attributes if name != CATEGORY]
    kind = "label" if set(others).isdisjoint(ALIASES) else CATEGORY
    stream = io.StringIO()
    rows = csv.writer(stream, lineterminator="\n")
    rows.writerow(["file", *BOX, kind, *others])
    for photo, name in zip(photos, names, strict=True):
        for mark in photo.marks:
            sides = (mark.x, mark.y, mark.width, mark.height)
            cells = ["" if side is None else format_number(side) for side in sides]
            rows.writerow([name, *cells, *(mark.attributes.get(key, "") for key in (CATEGORY, *others))])
        if not photo.marks:
            rows.writerow([name, *[""] * (len(BOX) + 1 + len(others))])
    write_text(path if path.suffix == ".csv" else path / FILE, stream.getvalue())
