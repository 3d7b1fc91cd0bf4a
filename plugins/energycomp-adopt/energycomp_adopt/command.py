"""`energycomp check-adoption`: an adopted model and clean samples in, what is wrong with its options out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from energycomp.errors import InputError
from energycomp.progress import working
from energycomp_cli import AsJson, ModelName, image_files, loading, print_json


def check_adoption(
    model: ModelName,
    samples: Annotated[
        Path,
        typer.Argument(
            metavar="SAMPLES",
            help="Clean samples: a folder of images, in subfolders that name their labels, or a .safetensors file of "
            "samples and labels.",
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Check whether a network was adopted as it was trained.

    ```sh
    energycomp check-adoption FOLDER photos/
    ```

    The exit code is 1 if something is wrong. The table says what to change.
    """
    with loading(model):
        import attrs

        from energycomp.models import load
        from energycomp_adopt import check_adoption as check

        loaded = load(model)
    given, labels = _read(samples)
    with working("energycomp: predicting noise ..."):
        adoption = check(loaded, given, labels)
    if as_json:
        print_json([attrs.asdict(one) for one in adoption.findings])
    else:
        typer.echo(str(adoption))
    if not adoption.ok:
        raise typer.Exit(1)


def _read(path: Path) -> tuple[list[Any], list[Any] | None]:
    """Reads samples and labels, if there are some: the tensors of a file, or images and the names of their folders."""
    from energycomp.files import read_tensors

    if path.suffix != ".safetensors":
        files = list(image_files([path]).values())
        labels = [file.parent.name for file in files]
        return [*map(str, files)], None if any(file.parent == path for file in files) else labels
    tensors = read_tensors(path)
    if "samples" not in tensors:
        raise InputError(f"got {path} with {sorted(tensors)}; expected the tensors samples and labels; rename them")
    return [*tensors["samples"]], tensors["labels"].tolist() if "labels" in tensors else None
