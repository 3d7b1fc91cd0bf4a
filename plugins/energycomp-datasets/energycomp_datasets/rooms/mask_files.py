"""Readers of images with masks in one .npz or .h5 file, the form into which users convert the Multi-Object Datasets."""

from __future__ import annotations

import math
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch

from energycomp.errors import InputError
from energycomp_lab.evaluation import Example

SPEC = re.compile(r"(.+\.(npz|h5|hdf5))(?::([0-9]{1,2}))?", re.IGNORECASE)
IMAGES = ("image", "images", "imgs")
MASKS = ("mask", "masks")
ROOMS = "objectsroom"  # in a file's name, without what separates words
ROOMS_BACKGROUND = 4  # entities: sky, floor and walls of ObjectsRoom
BACKGROUND = 1  # the ground of the others
MOST_BYTES = 2_000_000_000  # of images and masks that are in memory at once
MOST_SIDE = 1024
MOST_ENTITIES = 64
CHUNK = 256  # images that are read at once
DAMAGED = (OSError, EOFError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error)


@attrs.frozen
class MaskFile:
    """A file of scenes, and how many of the entities that come first in it are background, which is no object."""

    path: Path
    background: int


def mask_file(spec: str | Path) -> MaskFile | None:
    """The file of "scenes.npz", "scenes.h5" or "scenes.npz:4"; None for other names.

    The number is that of background entities. The default is 4 if the name contains "objects_room" in any spelling, and
    1 otherwise, as in Multi-dSprites, Tetrominoes and CLEVR with masks.

    >>> [mask_file(name).background for name in ("clevr.h5", "Objects-Room_train.npz", "own.npz:0")]
    [1, 4, 0]
    """
    found = SPEC.fullmatch(str(spec))
    if found is None:
        return None
    path, _, number = found.groups()
    if number:
        return MaskFile(Path(path), int(number))
    is_of_rooms = ROOMS in re.sub(r"[^a-z]", "", Path(path).stem.lower())
    return MaskFile(Path(path), ROOMS_BACKGROUND if is_of_rooms else BACKGROUND)


def examples_in(file: MaskFile, *, count: int) -> Sequence[Example]:
    """The first `count` images of a file with the masks (K, H, W) of their objects.

    Entities without a pixel are padding or hidden, and are left out; `visibility` is not needed.

    Raises:
        InputError: no such file, no such arrays, arrays that do not fit each other, or more than 2 GB of them.
    """
    with _open(file.path) as arrays:
        images = _images(file.path, arrays)
        masks = _masks(file.path, arrays)
        _check_pair(file, images, masks)
        count = min(count, images.shape[0])
        most = MOST_BYTES // (images.row + masks.row)
        if count > most:
            raise InputError(f"got {count} images of {file.path}, over 2 GB; expected {most} at most; use -n {most}")
        pixels, shown = images.read(0, count), masks.read(0, count)
    shown = shown.reshape(shown.shape[:4])[:, file.background :] != 0
    name = file.path.name
    return [
        Example(image, name=f"{name} {index}", masks=torch.from_numpy(some[some.any((1, 2))]))
        for index, (image, some) in enumerate(zip(pixels, shown, strict=True))
    ]


def images_in(path: Path, *, most: int) -> Iterator[np.ndarray[Any, Any]]:
    """The first `most` images of a file, (n, H, W, 3) uint8, some at a time; it needs no masks.

    Raises:
        InputError: no such file, or no such array.
    """
    with _open(path) as arrays:
        images = _images(path, arrays)
        chunk = min(CHUNK, max(1, MOST_BYTES // images.row))
        most = min(most, images.shape[0])
        for start in range(0, most, chunk):
            yield images.read(start, min(start + chunk, most))


@attrs.frozen(eq=False)
class _Array:
    """An array in a file, of which nothing but shape and type is in memory."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    read: Callable[[int, int], np.ndarray[Any, Any]]

    @property
    def row(self) -> int:
        """Bytes of what belongs to one image."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize


@attrs.frozen(eq=False)
class _Arrays:
    """An opened file."""

    path: Path
    names: Sequence[str]
    array: Callable[[str], _Array]


@contextmanager
def _open(path: Path) -> Iterator[_Arrays]:
    """Errors while a file is open are raised as `InputError`."""
    if not path.is_file():
        raise InputError(f"got {path}, which is no file; expected an .npz or .h5 file with images; check the path")
    try:
        with ExitStack() as stack:
            yield _npz(path, stack) if path.suffix.lower() == ".npz" else _h5(path, stack)
    except InputError:
        raise
    except DAMAGED as error:
        raise InputError(
            f"got {path}, which cannot be read ({error}); expected a whole file; convert or fetch it again"
        ) from error


def _npz(path: Path, stack: ExitStack) -> _Arrays:
    """Rows are read as bytes, never as objects, so that nothing is unpickled."""
    archive = stack.enter_context(zipfile.ZipFile(path))

    def array(name: str) -> _Array:
        stream = stack.enter_context(archive.open(f"{name}.npy"))
        version = np.lib.format.read_magic(stream)
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = header(stream)
        if fortran and len(shape) > 1:
            raise InputError(f"got {name} of {path} in Fortran order; expected C order; use np.ascontiguousarray")
        offset = stream.tell()
        row = math.prod(shape[1:]) * dtype.itemsize

        def rows(start: int, stop: int) -> np.ndarray[Any, Any]:
            stream.seek(offset + start * row)
            return np.frombuffer(bytearray(stream.read((stop - start) * row)), dtype).reshape(stop - start, *shape[1:])

        return _Array(shape, dtype, rows)

    return _Arrays(path, [name[:-4] for name in archive.namelist() if name.endswith(".npy")], array)


def _h5(path: Path, stack: ExitStack) -> _Arrays:
    """Data that lies in other files is not followed."""
    try:
        import h5py  # an optional dependency
    except ImportError as error:
        raise InputError(f"got {path}; expected h5py, which reads such files; pip install h5py") from error
    file = stack.enter_context(h5py.File(path, "r"))

    def array(name: str) -> _Array:
        found = file[name] if isinstance(file.get(name, getlink=True), h5py.HardLink) else None
        if not isinstance(found, h5py.Dataset) or found.is_virtual or found.external is not None:
            raise InputError(f"got {name} of {path}, which is no array of this file; expected one; copy it")
        return _Array(tuple(found.shape or ()), found.dtype, lambda start, stop: found[start:stop])

    return _Arrays(path, list(file), array)


def _array(path: Path, arrays: _Arrays, names: Sequence[str]) -> tuple[str, _Array]:
    known = arrays.names
    for name in names:
        if name in known:
            return name, arrays.array(name)
    listed = ", ".join(sorted(known)[:8]) or "nothing"
    raise InputError(f"got {path} with {listed}; expected an array {' or '.join(names)}; rename the one there is")


def _images(path: Path, arrays: _Arrays) -> _Array:
    name, found = _array(path, arrays, IMAGES)
    shape = found.shape
    legal = len(shape) == 4 and shape[3] == 3 and min(shape) >= 1 and max(shape[1:]) <= MOST_SIDE
    if found.dtype != np.uint8 or not legal:
        raise InputError(
            f"got {name} of {path}, {found.dtype} {shape}; expected uint8 (N, H, W, 3), at least one image, "
            f"of at most {MOST_SIDE} pixels a side"
        )
    return found


def _masks(path: Path, arrays: _Arrays) -> _Array:
    name, found = _array(path, arrays, MASKS)
    shape = found.shape
    legal = (len(shape) == 4 or (len(shape) == 5 and shape[4] == 1)) and 1 <= shape[1] <= MOST_ENTITIES
    if found.dtype not in (np.uint8, np.bool_) or not legal:
        raise InputError(
            f"got {name} of {path}, {found.dtype} {shape}; expected uint8 or bool (N, K, H, W) or (N, K, H, W, 1), "
            f"K at most {MOST_ENTITIES}"
        )
    return found


def _check_pair(file: MaskFile, images: _Array, masks: _Array) -> None:
    (count, *size), (other, entities, *other_size) = images.shape[:3], masks.shape[:4]
    if (count, size) != (other, other_size):
        raise InputError(
            f"got {file.path} with images {images.shape} and masks {masks.shape}; expected as many, of one size"
        )
    if file.background > entities:
        raise InputError(
            f"got {file.background} background entities of {file.path}, which has {entities}; expected at most as "
            f"many; write {file.path}:1"
        )
