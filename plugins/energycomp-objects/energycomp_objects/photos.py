"""Which marked photos a model learns from, and which are kept back to choose its weights and to fit its odds."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs
import torch
import typer
from torch import Tensor

from energycomp.errors import InputError
from energycomp_objects.conditioner import Objects
from energycomp_objects.formats import MarkedPhoto, MarkedPhotos, has_labels, read_marks

KEPT = 0.15  # share of the photos that are kept back
FEW = 8  # photos, of which none is kept back
ENOUGH = 20  # photos, of which `LEAST_KEPT` at least are
LEAST_KEPT = 5
SPLITS = ("val", "valid", "validation")


@attrs.frozen
class TrainingPhotos:
    """The photos of a training.

    Args:
        train, held: that it learns from, and that are kept back; without a copy of one in the other.
        source: whose photos are kept back, without a path.
    """

    train: MarkedPhotos
    held: MarkedPhotos
    source: str


def choose_photos(
    data: Path,
    format: str | None = None,  # noqa: A002 - as of `read_marks`
    *,
    schema: Mapping[str, Sequence[str]] | None = None,
    kept: int | None = None,
    validation: Path | None = None,
) -> TrainingPhotos:
    """Reads photos, and keeps some back for validation.

    A split named val, valid or validation beside one named train serves, as COCO, YOLO and Roboflow lay them out.
    Without it, a share of 0.15 is drawn by a fixed seed: 5 at least of 20 or more, and none of fewer than 8.

    Args:
        kept: how many of the training photos are kept back in their place; 0 for none.
        validation: the photos that are taken in their place.
    """
    if kept is not None and validation is not None:
        raise InputError(f"got kept={kept} and validation={validation}; expected one of them; leave the other out")
    train_path, split_path = find_splits(data, format)
    photos = drop_points(read_marks(train_path, format, schema=schema))
    apart = validation or (split_path if kept is None else None)
    if apart is None:
        photos = drop_copies(photos)
        count = count_kept(len(photos)) if kept is None else kept
        train, held = split(photos, count)
        return TrainingPhotos(train, held, f"{count} of {len(photos)} photos of `{data.name}`, drawn at random")
    held = drop_copies(drop_points(read_marks(apart, format, schema=photos.attributes)))
    train = drop_copies(photos, beside=held)
    if not train:
        raise InputError(
            f"got {apart} with all photos of {train_path}; expected others; give photos that are kept back"
        )
    name = apart.stem if apart.parent == Path() else f"{apart.parent.name}/{apart.stem}"
    return TrainingPhotos(train, held, f"the {len(held)} photos of `{name}`")


def find_splits(data: Path, format: str | None = None) -> tuple[Path, Path | None]:  # noqa: A002
    """The labels to train on in a folder, and those of its validation split, where there is one.

    >>> find_splits(Path("no/such/folder"))
    (...Path('no/such/folder'), None)
    """
    folders = [folder / "train" for folder in (data, data / "images")]
    files = sorted((data / "annotations").glob("*train*.json"))
    for train in (*folders, *files):
        if not has_labels(train, format):
            continue
        apart = [train.with_name(train.name.replace("train", name)) for name in SPLITS]
        held = next((path for path in apart if has_labels(path, format)), None)
        if held is not None or not has_labels(data, format):
            return train, held
    return data, None


def count_kept(count: int) -> int:
    """How many of so many photos are kept back.

    >>> [count_kept(count) for count in (7, 8, 19, 20, 40, 200)]
    [0, 1, 3, 5, 6, 30]
    """
    if count < FEW:
        return 0
    return max(LEAST_KEPT if count >= ENOUGH else 1, round(KEPT * count))


def drop_copies(photos: MarkedPhotos, beside: Sequence[MarkedPhoto] = ()) -> MarkedPhotos:
    """The photos without those whose file is, byte by byte, that of an earlier one or of one beside them."""
    sizes = Counter(photo.path.stat().st_size for photo in (*beside, *photos))
    names: dict[str, str] = {}
    own = []
    for index, photo in enumerate((*beside, *photos)):
        if sizes[photo.path.stat().st_size] > 1:
            digest = hashlib.sha256(photo.path.read_bytes()).hexdigest()
            if index >= len(beside) and digest in names:
                where = "validation" if names[digest] in {one.path.name for one in beside} else "the photos"
                typer.echo(f"{photo.path.name} is left out: the same picture is {names[digest]} of {where}")
                continue
            names.setdefault(digest, photo.path.name)
        if index >= len(beside):
            own.append(photo)
    return attrs.evolve(photos, photos=tuple(own))


def split(photos: MarkedPhotos, kept: int) -> tuple[MarkedPhotos, MarkedPhotos]:
    """Photos to train on, and so many that are kept back, drawn by a fixed seed; more keep the same ones back, too."""
    if not 0 <= kept < len(photos):
        raise InputError(f"got {kept} photos to keep back of {len(photos)}; expected fewer; lower kept, or mark more")
    order = torch.randperm(len(photos), generator=torch.Generator().manual_seed(0)).tolist()
    back = set(order[:kept])
    parts = [tuple(p for k, p in enumerate(photos) if (k in back) == is_back) for is_back in (False, True)]
    return attrs.evolve(photos, photos=parts[0]), attrs.evolve(photos, photos=parts[1])


def drop_points(photos: MarkedPhotos) -> MarkedPhotos:
    """The photos without marks that have no size, where most marks have one."""
    sized = [mark.width is not None for photo in photos for mark in photo.marks]
    if sum(sized) * 2 < len(sized):
        return photos
    kept = [attrs.evolve(p, marks=tuple(mark for mark in p.marks if mark.width is not None)) for p in photos]
    return attrs.evolve(photos, photos=tuple(kept))


def values_of(photo: MarkedPhoto, conditioner: Objects) -> Tensor:
    """The objects (K, V) of a photo; what its marks do not say is left open."""
    rows = []
    for mark in photo.marks:
        numbers = [mark.x, mark.y, mark.width or 0.0, mark.height or 0.0][: conditioner.length]
        codes = [
            1 + words.index(mark.attributes[name]) if name in mark.attributes else 0
            for name, words in conditioner.attributes.items()
        ]
        rows.append([*numbers, *codes])
    return torch.tensor(rows, dtype=torch.float32).reshape(-1, *conditioner.value_shape)
