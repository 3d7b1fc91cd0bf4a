"""The layout of CLEVRTex (Karazija et al., 2021): `<chunk>/CLEVRTEX_<variant>_000000.png` beside a record each."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from energycomp.errors import InputError
from energycomp_datasets.clevr.records import SceneRecord, centres

FRAME = (320, 240)  # (width, height) px, the frame of `pixel_coords` whatever the stored image's size
NAME = re.compile(r"CLEVRTEX_[A-Za-z]+_[0-9]{6}\.(png|json)")  # not the masks, CLEVRTEX_full_000000_flat.png
DEPTH = 2  # a chunk, a variant's folder of chunks, or the folder that holds the variants
MAX_BYTES = 1_000_000  # of a record, official ones take some 10,000
MAX_OBJECTS = 64  # official scenes hold 3 to 10


def images(folder: Path) -> list[Path]:
    """The images of a chunk `0`, of a variant `clevrtex_full` or of a folder of variants."""
    patterns = ("*/" * depth + "CLEVRTEX_*" for depth in range(DEPTH + 1))
    found = (path for pattern in patterns for path in folder.glob(pattern))
    return sorted({path.with_suffix(".png") for path in found if NAME.fullmatch(path.name)}, key=lambda path: path.name)


def scenes(files: list[Path]) -> Iterator[SceneRecord]:
    """The records of the images `files`, read one after another.

    The record of an image is the JSON file of its name, in the same folder; file names inside it are not followed.
    Coordinates are shares of the whole frame, as the thesis takes them, not of the 192x192 crop that others cut out.
    Raises `InputError` for a missing image, and for a missing or malformed record.
    """
    for path in files:
        if not path.is_file():
            raise InputError(f"got no image {path}; expected one beside its record; unpack CLEVRTex again")
        file = path.with_suffix(".json")
        try:
            yield _record(path, _parse(file))
        except (OSError, ValueError, OverflowError, KeyError, TypeError, RecursionError) as error:
            raise InputError(
                f"got {file} with {type(error).__name__}: {error}; expected the record of {path.name}; "
                "unpack CLEVRTex again"
            ) from error


def _parse(file: Path) -> Any:
    if not file.is_file():
        raise ValueError("no such file")
    with file.open("rb") as stream:
        text = stream.read(MAX_BYTES + 1)
    if len(text) > MAX_BYTES:
        raise ValueError(f"more than {MAX_BYTES:,} bytes")
    return json.loads(text)


def _record(path: Path, content: Any) -> SceneRecord:
    entries = content["objects"]
    if not isinstance(entries, list) or len(entries) > MAX_OBJECTS:
        raise ValueError(f"objects that are no list of at most {MAX_OBJECTS}")
    coordinates = centres(entries, FRAME)
    if not bool(((coordinates >= 0) & (coordinates <= 1)).all()):  # NaN is neither
        raise ValueError("pixel_coords outside of the frame of 320x240")
    return SceneRecord(path=path, coordinates=coordinates, count=len(coordinates))
