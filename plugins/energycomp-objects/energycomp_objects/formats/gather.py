"""Labels of any format, brought to marked photos: pictures are found and measured, marks checked."""

from __future__ import annotations

import difflib
import os
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

import attrs
from PIL import ExifTags

from energycomp.errors import EnergycompWarning, InputError
from energycomp.images.read import open_header
from energycomp_objects.formats.files import ALIASES, CATEGORY, SOLE, Labels, LabelSet
from energycomp_objects.formats.marks import Mark, MarkedPhoto, MarkedPhotos

DIGITS = 6  # of shares, as YOLO files have them: a hundredth of a pixel of 10,000. All formats keep them
ROUNDING = 0.5  # pixels that a box may reach over the edge of a picture: files round their numbers
FAR = 2.0  # shares of a picture; what is larger was meant in pixels
TURNED = (5, 6, 7, 8)  # EXIF orientations that swap width and height

OUTSIDE = "marks outside the picture, which are left out"
CLIPPED = "marks over the edge of the picture, which are cut off there"
DUPLICATE = "marks of the same place and attributes, which are taken once"
FLAT = "marks with a side of 0, which are left out"


def gather(labels: LabelSet, schema: Mapping[str, Sequence[str]] | None = None) -> MarkedPhotos:
    """The photos that a source labels, in its order, and one warning for each kind of thing that was changed.

    Raises:
        InputError: no picture, missing pictures, one twice or outside its folder, one that cannot be opened, that is
            not as large as the source says, or a value that the schema does not have.
    """
    if not labels.labels:
        raise InputError(f"got {labels.source} without a picture; expected at least one; name another file or folder")
    paths = _find_pictures(labels)
    notes = Counter(labels.notes)
    photos = []
    for path, of_picture in zip(paths, labels.labels, strict=True):
        size = _measure(path, of_picture)
        marks: dict[tuple[object, ...], Mark] = {}
        for raw in of_picture.marks:
            mark = None if raw is None else _place(raw, of_picture, size, notes)
            if raw is None:
                notes[FLAT] += 1
            elif mark is not None:
                key = (mark.x, mark.y, mark.width, mark.height, *sorted(mark.attributes.items()))
                notes[DUPLICATE] += key in marks
                marks[key] = mark
        photos.append(MarkedPhoto(path, size, tuple(marks.values())))
    for note, count in notes.items():
        if count:
            warnings.warn(f"{labels.source} has {note}: {count}", EnergycompWarning, stacklevel=3)
    photos = _rename_category(photos, (SOLE,) if schema is None else schema.get(CATEGORY, ()))
    if schema is None:
        return MarkedPhotos(tuple(photos), _values_of(photos, labels.kinds))
    return _with_schema(labels.source, photos, schema)


def _find_pictures(labels: LabelSet) -> list[Path]:
    """The path of each picture; raises `InputError` for names that leave the folder, twins and missing pictures."""
    paths: dict[Path, str] = {}
    for one in labels.labels:
        for name in (PurePosixPath(one.name), PureWindowsPath(one.name)):
            if name.is_absolute() or name.drive or ".." in name.parts or not name.name or "\0" in one.name:
                raise InputError(
                    f"got {one.where} with the picture {one.name!r}; expected a name inside of {labels.folder}, "
                    "without '..'; move the picture there"
                )
        path = labels.folder / one.name
        if path in paths:
            raise InputError(
                f"got {one.where} with the picture {one.name}, which {paths[path]} has, too; expected each picture "
                "once; join the two"
            )
        paths[path] = one.where
    missing = [path for path in paths if not os.path.isfile(path)]  # noqa: PTH113 - a name may be too long for pathlib
    if missing:
        shown = ", ".join(str(path.relative_to(labels.folder)) for path in missing[:3])
        raise InputError(
            f"got {labels.source} with {len(missing)} of {len(paths)} pictures missing: {shown}"
            f"{', ...' if len(missing) > 3 else ''}; expected them in {labels.folder}; add them or remove their labels"
        )
    return list(paths)


def _measure(path: Path, labels: Labels) -> tuple[int, int]:
    """The upright size of a picture file; only of PNG, whose EXIF may come last, are the pixels decoded."""
    with open_header(path) as image:
        turned = image.getexif().get(ExifTags.Base.Orientation) in TURNED
        size = image.size[::-1] if turned else image.size
    if labels.size is not None and labels.size != size:
        reason = ", which EXIF turns," if turned and labels.size == size[::-1] else ""
        raise InputError(
            f"got {labels.where} with a picture of {'x'.join(map(str, labels.size))} pixels, and {path.name}"
            f"{reason} of {size[0]}x{size[1]}; expected marks of the upright picture; label it again"
        )
    return size


def _place(mark: Mark, labels: Labels, size: tuple[int, int], notes: Counter[str]) -> Mark | None:
    """A mark in shares, rounded, and cut off at the edges; None where nothing of it is in the picture."""
    ranges = ((mark.x, mark.width or 0.0, size[0]), (mark.y, mark.height or 0.0, size[1]))
    if not labels.pixels and any(max(abs(middle), side) > FAR for middle, side, _ in ranges):
        raise InputError(
            f"got {labels.where} with a mark at {mark.x:g}, {mark.y:g}; expected shares of the picture, from 0 to 1; "
            "divide pixels by its width and height"
        )
    places: list[tuple[float, float]] = []
    cut = False
    for middle, side, pixels in ranges:
        # The range of the mark along one axis, in shares, and what of it is in the picture.
        unit = pixels if labels.pixels else 1
        low, high = (middle - side / 2) / unit, (middle + side / 2) / unit
        low_inside, high_inside = min(max(low, 0.0), 1.0), min(max(high, 0.0), 1.0)
        slack = ROUNDING / pixels
        if high < -slack or low > 1 + slack or (side > 0 and high_inside - low_inside < 10**-DIGITS):
            notes[OUTSIDE] += 1
            return None
        # Cut off what is over the edge by more than rounding; points may be used as indices, and are brought inside.
        is_over = low < -slack or high > 1 + slack
        if is_over or side == 0:
            low, high = low_inside, high_inside
        cut |= is_over
        places.append((round((low + high) / 2, DIGITS), round(high - low, DIGITS)))
    notes[CLIPPED] += cut
    (x, width), (y, height) = places
    if mark.width is None:
        return Mark(x, y, attributes=mark.attributes)
    return Mark(x, y, width, height, mark.attributes)


def _change_attributes(
    photos: list[MarkedPhoto], change: Callable[[dict[str, str]], dict[str, str]]
) -> list[MarkedPhoto]:
    changed = []
    for photo in photos:
        marks = tuple(attrs.evolve(mark, attributes=change(mark.attributes)) for mark in photo.marks)
        changed.append(attrs.evolve(photo, marks=marks))
    return changed


def _with_schema(source: Path, photos: list[MarkedPhoto], schema: Mapping[str, Sequence[str]]) -> MarkedPhotos:
    """Keeps the attributes that a schema names; raises `InputError` for values that it does not have."""
    kept = _change_attributes(photos, lambda own: {name: own[name] for name in schema if name in own})
    unknown: Counter[tuple[str, str]] = Counter()
    for photo in kept:
        for mark in photo.marks:
            unknown.update(pair for pair in mark.attributes.items() if pair[1] not in schema[pair[0]])
    if unknown:
        (name, value), count = unknown.most_common(1)[0]
        close = difflib.get_close_matches(value, schema[name], 1)
        raise InputError(
            f"got {source} with {len(unknown)} unknown values, such as {name} {value!r} of {count} marks; expected "
            f"one of {', '.join(schema[name])}{f' (did you mean {close[0]}?)' if close else ''}; rename or remove them"
        )
    return MarkedPhotos(tuple(kept), {name: tuple(values) for name, values in schema.items()})


def _rename_category(photos: list[MarkedPhoto], kinds: Sequence[str]) -> list[MarkedPhoto]:
    """Renames another name of the category; marks of a source without any attribute get one, if it is a known kind."""
    names = {name for photo in photos for mark in photo.marks for name in mark.attributes}
    aliases = names.intersection(ALIASES)
    if not names and SOLE in kinds:
        return _change_attributes(photos, lambda _: {CATEGORY: SOLE})
    if CATEGORY in names or len(aliases) != 1:
        return photos
    return _change_attributes(
        photos, lambda own: {CATEGORY if name in aliases else name: value for name, value in own.items()}
    )


def _values_of(photos: list[MarkedPhoto], kinds: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The values of each attribute that occur, by name; categories alone in the order of the source."""
    values: dict[str, set[str]] = {}
    for photo in photos:
        for mark in photo.marks:
            for name, value in mark.attributes.items():
                values.setdefault(name, set()).add(value)
    if values.keys() == {CATEGORY}:
        first = [kind for kind in kinds if kind in values[CATEGORY]]
        return {CATEGORY: tuple(dict.fromkeys([*first, *sorted(values[CATEGORY])]))}
    return {name: tuple(sorted(values[name])) for name in sorted(values)}
