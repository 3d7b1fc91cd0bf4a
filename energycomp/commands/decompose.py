"""`energycomp decompose`, `recombine` and `add`: pictures into parts, and parts of several pictures into one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from energycomp.commands.options import AsJson, Device, ModelName, Seed, load_model, make_folder
from energycomp.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from energycomp.decomposition import Decomposition, DiffusionDecomposer

__all__ = ["add", "decompose", "recombine"]

Out = Annotated[Path, typer.Option("-o", "--out", help="The PNG to write.")]
Steps = Annotated[int | None, typer.Option(min=1, help="Steps of the scheduler; the model's own number.")]
Images = Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Pictures.")]


def decompose(
    model: ModelName,
    images: Images,
    out: Out = Path("strip.png"),
    steps: Steps = None,
    seed: Seed = 0,
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """Take pictures apart, without being told what is in them.

    energycomp decompose decomp scene.png -o strip.png

    The strip has two rows for each picture: the picture, what its parts make together, and parts 0, 1, ... alone; and
    which pixels belong to which part.
    """
    import torch

    from energycomp.decomposition import decompose as run
    from energycomp.viz import strip

    _check_out(out)
    pictures, decomposer = _open(images, model, device)
    batch = decomposer.model.processor(pictures)
    found = run(batch, decomposer, generator=torch.Generator().manual_seed(seed), num_inference_steps=steps)
    make_folder(out.parent, "-o")
    _save(strip(batch, found.parts.whole, found.parts.images, found.parts.masks), out)
    errors = (found.parts.whole.cpu() - batch).square().flatten(1).mean(1).tolist()
    entries = [
        {"image": str(path), "error": error, "parts": _shares(found, index)}
        for index, (path, error) in enumerate(zip(images, errors, strict=True))
    ]
    report = {"path": str(out), "images": entries, "rows": found.spent.rows, "seed": seed}
    lines = [
        f"{entry['image']}: {len(entry['parts'])} parts, mean squared error {entry['error']:.3g}" for entry in entries
    ]
    _print(report, [*lines, str(out)], as_json)


def recombine(
    model: ModelName,
    images: Images,
    take: Annotated[
        list[str], typer.Option("--take", help="Parts of a picture, 0,1, or none. Once for each, in their order.")
    ],
    out: Out = Path("recombined.png"),
    steps: Steps = None,
    seed: Seed = 0,
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """Make one picture of parts of several.

    energycomp recombine decomp a.png b.png --take 0,1 --take 2,3 -o both.png

    Parts have the numbers, from 0, in which `energycomp decompose` shows them.
    """
    from energycomp.latents import recombine as choose

    chosen = [_numbers(text) for text in take]
    if len(chosen) != len(images):
        raise InputError(f"got {len(chosen)} --take for {len(images)} pictures; expected one for each, in their order")
    _check_out(out)
    pictures, decomposer = _open(images, model, device)
    sources = list(decomposer.encode(pictures).split(1))
    _make(decomposer, choose(sources, chosen), out, steps=steps, seed=seed, as_json=as_json)


def add(
    model: ModelName,
    images: Images,
    out: Out = Path("added.png"),
    steps: Steps = None,
    seed: Seed = 0,
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """Make one picture of all parts of several.

    energycomp add decomp a.png b.png -o both.png
    """
    from energycomp.latents import add as join

    _check_out(out)
    pictures, decomposer = _open(images, model, device)
    latents = join(*decomposer.encode(pictures).split(1))
    _make(decomposer, latents, out, steps=steps, seed=seed, as_json=as_json)


def _open(images: list[Path], model: str, device: str) -> tuple[list[Any], DiffusionDecomposer]:
    from energycomp.decomposition import DiffusionDecomposer
    from energycomp.images import open_image

    pictures = [open_image(path) for path in images]
    return pictures, DiffusionDecomposer(load_model(model, device))


def _make(
    decomposer: DiffusionDecomposer, latents: Tensor, out: Path, *, steps: int | None, seed: int, as_json: bool
) -> None:
    import torch

    from energycomp.evaluate import count_rows
    from energycomp.images import to_output

    with count_rows() as spent:
        generator = torch.Generator().manual_seed(seed)
        made = decomposer.decode(latents, generator=generator, num_inference_steps=steps)
    make_folder(out.parent, "-o")
    _save(to_output(made, "pil")[0], out)
    report = {"path": str(out), "parts": latents.shape[1], "rows": spent.rows, "seed": seed}
    _print(report, [f"{latents.shape[1]} parts", str(out)], as_json)


def _shares(found: Decomposition, index: int) -> list[float | None]:
    """The share of the picture that each part covers; unknown without masks."""
    masks = found.parts.masks
    return [None] * found.latents.shape[1] if masks is None else masks[index].float().mean((1, 2)).tolist()


def _numbers(text: str) -> list[int]:
    """Numbers of parts, "0,2" as [0, 2]; "none" as []."""
    if text.strip() == "none":
        return []
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdecimal() and len(part) < 6 for part in parts):
        raise InputError(f"got --take {text!r}; expected numbers of parts and commas, such as 0,2, or none")
    return [int(part) for part in parts]


def _check_out(out: Path) -> None:
    if out.suffix.lower() != ".png" or out.is_dir():
        raise InputError(f"got -o {out}; expected the name of a PNG file, such as strip.png")


def _save(picture: Any, out: Path) -> None:
    from energycomp.storage import atomic_file

    with atomic_file(out) as temporary:
        picture.save(temporary, format="PNG")


def _print(report: dict[str, Any], lines: list[str], as_json: bool) -> None:
    import json

    typer.echo(json.dumps(report) if as_json else "\n".join(lines))
