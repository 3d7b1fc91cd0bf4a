"""`energycomp lint`: a network and clean samples in, what is wrong with how it was wrapped out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from energycomp.errors import InputError, first_line
from energycomp.progress import working
from energycomp_cli import AsJson, image_files, loading, print_json

CAPTIONS = "metadata.jsonl"
OF_READING = ("reading", "out of distribution")  # findings for those who read images with the model


def lint(
    network: Annotated[
        str,
        typer.Argument(
            metavar="NETWORK",
            help="What is checked: a folder of diffusers, a .safetensors file, package.module:function, or a model.",
        ),
    ],
    samples: Annotated[
        Path,
        typer.Argument(
            metavar="SAMPLES",
            help="Clean samples, 8 at least and better 64: a folder of images, in subfolders that name their labels or "
            "with the column text of a metadata.jsonl, or a .safetensors file of samples and labels.",
        ),
    ],
    recipe: Annotated[
        Path | None,
        typer.Option(help="What adopt() is told of a .safetensors file, in TOML; by default the .toml beside it."),
    ] = None,
    evaluations: Annotated[
        int, typer.Option(min=100, help="Network evaluations, about; several times as many where something is wrong.")
    ] = 1000,
    seed: Annotated[int, typer.Option(help="Seed of the noise.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Check whether a network is wrapped as it was trained: what it predicts, schedule, clock, range, latents, labels.

    ```sh
    energycomp lint FOLDER photos/
    ```

    Noise is added to clean samples, which shows whether it is predicted without bias, and whether another option would
    predict it better. Nothing is downloaded. The table names the line to change; the exit code is 1 if something is
    wrong. A .safetensors file needs a recipe:

    ```toml
    network = "diffusers:UNet2DModel"
    arguments = { sample_size = 28, in_channels = 1, out_channels = 1 }
    shape = [1, 28, 28]
    predicts = "eps"
    process = "linear"
    ```
    """
    given, labels = _read(samples)
    with loading(network):
        import attrs

        from energycomp_adopt.checks.check import check_adoption
        from energycomp_adopt.opened import in_folder, open_model

        model = open_model(network, recipe)
    with working("energycomp: predicting noise ..."):
        adoption = check_adoption(model, given, labels, evaluations=evaluations, seed=seed)
    if (Path(network) / "scheduler").is_dir():  # of diffusers, whose lines are those of its configs
        kept = [one for one in adoption.findings if one.what not in OF_READING]
        findings = tuple(attrs.evolve(one, change=in_folder(one.change)) for one in kept)
        adoption = attrs.evolve(adoption, findings=findings)
    if as_json:
        print_json([attrs.asdict(one) for one in adoption.findings])
    else:
        typer.echo(str(adoption))
    if not adoption.ok:
        raise typer.Exit(1)


def _read(path: Path) -> tuple[list[Any], list[Any] | None]:
    """Reads samples and labels, if there are some: the tensors of a file, or images and what names them."""
    from energycomp.files import read_tensors

    if path.suffix != ".safetensors":
        files = list(image_files([path]).values())
        if (path / CAPTIONS).is_file():
            texts = _captions(path / CAPTIONS)
            if missing := [file.name for file in files if file.relative_to(path).as_posix() not in texts]:
                raise InputError(f"got {missing[0]} without a line in {path / CAPTIONS}; expected one; add it")
            return [*map(str, files)], [texts[file.relative_to(path).as_posix()] for file in files]
        labels = [file.parent.name for file in files]
        return [*map(str, files)], None if any(file.parent == path for file in files) else labels
    tensors = read_tensors(path)
    if "samples" not in tensors:
        raise InputError(f"got {path} with {sorted(tensors)}; expected the tensors samples and labels; rename them")
    return [*tensors["samples"]], tensors["labels"].tolist() if "labels" in tensors else None


def _captions(file: Path) -> dict[str, str]:
    """The text of each picture, by its name."""
    try:
        lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
        return {str(line["file_name"]): str(line["text"]) for line in lines}
    except (KeyError, TypeError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(
            f"got {file} ({first_line(error)}); expected a line of JSON for each picture, with file_name and text"
        ) from error
