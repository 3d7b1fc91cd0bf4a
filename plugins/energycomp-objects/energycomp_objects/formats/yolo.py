"""YOLO's folders: `images/`, `labels/` with a text file a picture, and `data.yaml` with the `names` of the classes.

A line is `class x y width height`, the centre and the size in shares of the upright picture; a size of 0 0 is a point.
A picture without a text file has no objects. A folder of a split is read as `images/train` or as `train`, with
`data.yaml` at most two folders above. The name of a class that has several attributes is that of `class_name`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from energycomp.errors import InputError, first_line
from energycomp.images import FORMATS
from energycomp_objects.formats.files import (
    CATEGORY,
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

FILE = "data.yaml"
MAX_YAML_BYTES = 1_000_000
LISTS = ("classes.txt", "labels.txt")  # names of classes, which some tools put beside the labels


def find(path: Path) -> list[Path]:
    root = path if path.is_dir() else path.parent
    is_named = path.is_dir() or path.suffix in {".yaml", ".yml"}
    return [path] if is_named and _label_folder(root).is_dir() and _find_yaml(path) is not None else []


def read(path: Path, images: Path | None) -> LabelSet:
    root = path if path.is_dir() else path.parent
    folder = _label_folder(root)
    if images is None:
        images = root / "images" if folder == root / "labels" else root
    classes = _read_classes(_find_yaml(path) or root / FILE)
    pictures: dict[Path, str] = {}
    for file in sorted(images.rglob("[!.]*")):
        if file.suffix.lower() in FORMATS and file.is_file():
            name = file.relative_to(images)
            text = name.with_suffix(".txt")
            if text in pictures:
                raise InputError(f"got {images} with {pictures[text]} and {name}; expected one picture for {text}")
            pictures[text] = name.as_posix()
    for file in sorted(folder.rglob("[!.]*.txt")):
        if file.name not in LISTS:  # the picture of a text file without one is reported as missing
            name = file.relative_to(folder)
            pictures.setdefault(name, name.with_suffix(".jpg").as_posix())
    labels = [Labels(name, text.as_posix(), _read_lines(folder / text, classes)) for text, name in pictures.items()]
    return LabelSet(path, images, labels, [attributes.get(CATEGORY, "") for attributes in classes.values()])


def _label_folder(root: Path) -> Path:
    """The folder of labels: in the root, or beside the folder `images` that the root is or lies in."""
    parts = list(root.absolute().parts)
    if (root / "labels").is_dir() or "images" not in parts:
        return root / "labels"
    parts[len(parts) - 1 - parts[::-1].index("images")] = "labels"
    return Path(*parts)


def _find_yaml(path: Path) -> Path | None:
    if path.is_file():
        return path
    absolute = path.absolute()
    files = [folder / FILE for folder in (absolute, *absolute.parents[:2])]
    return next((file for file in files if file.is_file()), None)


def _read_classes(file: Path) -> dict[int, dict[str, str]]:
    """The attributes of each class by its number."""
    import yaml

    text = read_text(file, MAX_YAML_BYTES)
    try:
        content = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"got {file}, which is no YAML ({first_line(error)}); correct it") from error
    names = content.get("names") if isinstance(content, dict) else None
    classes = dict(enumerate(names)) if isinstance(names, list) else names
    # Aliases of YAML make a short text a huge list, which `str` would write out.
    if not isinstance(classes, dict) or not all(
        type(number) is int and isinstance(name, str | int) for number, name in classes.items()
    ):
        raise InputError(f"got {file} without names; expected the names of the classes, such as 'names: [cat, dog]'")
    return {number: attributes_of(str(name)) for number, name in classes.items()}


def _read_lines(file: Path, classes: dict[int, dict[str, str]]) -> tuple[Mark | None, ...]:
    marks = []
    for number, line in enumerate(read_text(file).split("\n") if file.exists() else (), start=1):
        words = line.split()
        if not words:
            continue
        where = f"{file.name}, line {number},"
        if len(words) != 5:
            raise InputError(f"got {where} with {len(words)} numbers; expected class, x, y, width and height")
        kind = as_number(words[0], where)
        if kind not in classes:
            raise InputError(f"got {where} with the class {words[0]}; expected one of those that {FILE} names; add it")
        marks.append(make_mark(where, words[1:], classes[int(kind)]))
    return tuple(marks)


def write(photos: MarkedPhotos, names: Sequence[str], path: Path) -> None:
    import yaml

    known = photos.attributes.get(CATEGORY, ()) if len(photos.attributes) == 1 else ()
    classes = {class_name({CATEGORY: value}): number for number, value in enumerate(known)}
    for photo, file in zip(photos, files_of(path / "labels", names, ".txt"), strict=True):
        lines = []
        for mark in photo.marks:
            number = classes.setdefault(class_name(mark.attributes), len(classes))
            box = (mark.x, mark.y, mark.width or 0.0, mark.height or 0.0)
            lines.append(" ".join([str(number), *map(format_number, box)]) + "\n")
        write_text(file, "".join(lines))
    content = {"train": "images", "val": "images", "names": dict(enumerate(classes))}
    write_text(path / FILE, yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
