"""CelebA's layout: images in `img_align_celeba/`, their attributes as -1 and 1 in `list_attr_celeba.txt`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path

import attrs
import torch
from torch import Tensor

from energycomp.errors import InputError
from energycomp.files import atomic_file
from energycomp_datasets.faces.avatars import ATTRIBUTES

PICTURES = "img_align_celeba"
TABLE = "list_attr_celeba.txt"


@attrs.frozen(eq=False)
class FaceRecord:
    """An image file and the values (K,) of its attributes: 2 k + (0 or 1) for attribute k."""

    path: Path
    values: Tensor


def column(attribute: str) -> tuple[str, int]:
    """CelebA's name of an attribute, and the number that stands for yes.

    >>> column("black_hair"), column("beard")
    (('Black_Hair', 1), ('No_Beard', -1))
    """
    if attribute == "beard":
        return "No_Beard", -1
    return "_".join(part.capitalize() for part in attribute.split("_")), 1


def attributes_of(folder: str | Path) -> tuple[str, ...]:
    """The attributes of a folder's table under our names: "Black_Hair" as black_hair, "No_Beard" also as beard."""
    _, names, _ = _table(folder)
    return tuple(dict.fromkeys(["beard"] * ("No_Beard" in names) + [name.lower() for name in names]))


def read(folder: str | Path, attributes: Sequence[str] = ATTRIBUTES, *, most: int | None = None) -> list[FaceRecord]:
    r"""The records of a folder as CelebA is downloaded, or one that `energycomp data faces` wrote.

    Args:
        folder: holds the table and the folder of images, itself or in `celeba/`.
        attributes: whose values are read, by the table's names or ours; those that the table lacks are left out.

    Raises:
        InputError: no table, none of these attributes in it, or a line that is not a file name and -1 or 1s.
    """
    root, names, lines = _table(folder)
    places = {name.casefold(): place for place, name in enumerate(names)}
    titles = [(2 * k, *column(attribute)) for k, attribute in enumerate(attributes)]
    known = [(base, places[title.casefold()], yes) for base, title, yes in titles if title.casefold() in places]
    if not known:
        raise InputError(
            f"got {root / TABLE} with the columns {', '.join(names[:5])}...; expected some of {', '.join(attributes)}"
        )
    records = []
    for number, line in enumerate(islice(filter(str.strip, lines), most), start=3):
        name, *fields = line.split()
        if len(fields) != len(names) or not set(fields) <= {"-1", "1"} or Path(name).name != name:
            raise InputError(f"got line {number} of {root / TABLE}: {line[:60]!r}; expected a file name and -1 or 1s")
        values = torch.tensor([base + (int(fields[place]) == yes) for base, place, yes in known])
        records.append(FaceRecord(root / PICTURES / name, values))
    return records


def _table(folder: str | Path) -> tuple[Path, list[str], list[str]]:
    """The folder that holds the table, the names of its columns, and its other lines."""
    root = Path(folder)
    root = root / "celeba" if (root / "celeba" / TABLE).is_file() else root
    try:
        _, header, *lines = (root / TABLE).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise InputError(
            f"got {folder} without a {TABLE} that can be read; expected CelebA's layout; pass the folder that holds it "
            f"and {PICTURES}/, or make one: energycomp data faces"
        ) from error
    return root, header.split(), lines


def write_table(folder: Path, rows: Iterable[tuple[str, list[int]]]) -> None:
    """Writes the table: names of image files and their attributes (0 or 1, in the order of `ATTRIBUTES`)."""
    columns = [column(attribute) for attribute in ATTRIBUTES]
    lines = []
    for name, labels in rows:
        signs = [str(yes if label else -yes) for label, (_, yes) in zip(labels, columns, strict=True)]
        lines.append(" ".join([name, *signs]))
    text = "\n".join([str(len(lines)), " ".join(title for title, _ in columns), *lines]) + "\n"
    with atomic_file(folder / TABLE) as temporary:
        Path(temporary).write_text(text, encoding="utf-8")
