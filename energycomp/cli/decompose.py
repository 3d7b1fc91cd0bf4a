"""`energycomp decompose`, `recombine` and `add`: pictures into parts, and parts of several pictures into one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from energycomp.cli.options import AsJson, Device, ModelName, Seed, load_model, make_folder
from energycomp.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from energycomp.decomposition import Decomposer, Decomposition
    from energycomp.models import Model

__all__ = ["add", "check_out", "decompose", "open_pictures", "print_report", "recombine", "save_png"]

FOREIGN = 0.5  # of a picture's variance: where parts explain less, the model has not learned such pictures
PLAIN = 1e-2  # variance of brightness in [-1, 1] below which a picture is one colour

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
    which pixels belong to which part. A picture of which they explain little is unlike those that the model learned.
    """
    import torch

    from energycomp.decomposition import decompose as run
    from energycomp.viz import strip

    check_out(out)
    pictures, loaded, decomposer = open_pictures(images, model, device)
    batch = loaded.processor(pictures)
    found = run(batch, decomposer, generator=torch.Generator().manual_seed(seed), num_inference_steps=steps)
    make_folder(out.parent, "-o")
    save_png(strip(batch, found.parts.whole, found.parts.images, found.parts.masks), out)
    errors = (found.parts.whole.cpu() - batch).square().flatten(1).mean(1).tolist()
    entries: list[dict[str, Any]] = [
        {
            "image": str(path),
            "error": error,
            "explained": _explained(batch[index], error),
            "parts": _shares(found, index),
        }
        for index, (path, error) in enumerate(zip(images, errors, strict=True))
    ]
    for entry in entries:
        share = entry["explained"]
        if share is not None and share < FOREIGN:
            typer.echo(
                f"{entry['image']}: parts explain {max(100 * share, 0):.0f} % of the picture, which seems to be of "
                f"another kind than those that {loaded.name} learned; train on yours: "
                f"energycomp train {_recipe(loaded)} --data FOLDER",
                err=True,
            )
    report = {"path": str(out), "images": entries, "rows": found.spent.rows, "seed": seed}
    lines = [
        f"{entry['image']}: {len(entry['parts'])} parts, mean squared error {entry['error']:.3g}" for entry in entries
    ]
    print_report(report, [*lines, str(out)], as_json)


def _recipe(model: Model) -> str:
    """The recipe that trains models such as this one: the one of its name, without the world's."""
    from energycomp.plugins import names

    known = [name for name in names("recipes") if model.name.startswith(name)]
    return max(known, key=len, default="decomp")


def _explained(picture: Tensor, error: float) -> float | None:
    """1 less the squared error over the variance of the picture's pixels; None for a plain colour that comes out."""
    variance = float((picture - picture.mean((1, 2), keepdim=True)).square().mean())
    return None if max(variance, error) < PLAIN else 1 - error / max(variance, PLAIN)


def recombine(
    model: ModelName,
    images: Images,
    take: Annotated[
        list[str],
        typer.Option(
            "--take", help="Parts of a picture, such as 0,1 or 0,1*0.5, or none. Once for each, in their order."
        ),
    ],
    out: Out = Path("recombined.png"),
    steps: Steps = None,
    seed: Seed = 0,
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """Make one picture of parts of several.

    energycomp recombine decomp a.png b.png --take 0,1 --take 2,3 -o both.png

    Parts have the numbers, from 0, in which `energycomp decompose` shows them. A factor makes one stronger or weaker.

    energycomp recombine decomp a.png b.png --take 0,1*0.5 --take none -o weaker.png
    """
    from energycomp.decomposition import recombine as choose

    chosen = [_weighted(text) for text in take]
    if len(chosen) != len(images):
        raise InputError(f"got {len(chosen)} --take for {len(images)} pictures; expected one for each, in their order")
    check_out(out)
    pictures, _, decomposer = open_pictures(images, model, device)
    sources = list(decomposer.encode(pictures).split(1))
    latents = choose(sources, [[part for part, _ in parts] for parts in chosen])
    weights = [weight for parts in chosen for _, weight in parts]
    _make(decomposer, latents, out, weights=weights, steps=steps, seed=seed, as_json=as_json)


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
    from energycomp.decomposition import add as join

    check_out(out)
    pictures, _, decomposer = open_pictures(images, model, device)
    latents = join(*decomposer.encode(pictures).split(1))
    _make(decomposer, latents, out, steps=steps, seed=seed, as_json=as_json)


def open_pictures(images: list[Path], model: str, device: str) -> tuple[list[Any], Model, Decomposer]:
    """Pictures, the model of a name, and what takes them apart with it."""
    from energycomp.decomposition import decomposer_of
    from energycomp.images import open_image

    pictures = [open_image(path) for path in images]
    loaded = load_model(model, device)
    return pictures, loaded, decomposer_of(loaded)


def _make(
    decomposer: Decomposer,
    latents: Tensor,
    out: Path,
    *,
    weights: list[float] | None = None,
    steps: int | None,
    seed: int,
    as_json: bool,
) -> None:
    import torch

    from energycomp.decomposition import DiffusionDecomposer
    from energycomp.denoisers import count_rows
    from energycomp.images import to_output

    further: dict[str, Any] = {}
    if weights is not None and any(weight != 1 for weight in weights):
        if not isinstance(decomposer, DiffusionDecomposer):
            raise InputError(
                f"got factors for a {type(decomposer).__name__}, which has none; expected parts as they are"
            )
        further["weights"] = torch.tensor(weights)
    with count_rows() as spent:
        generator = torch.Generator().manual_seed(seed)
        made = decomposer.decode(latents, generator=generator, num_inference_steps=steps, **further)
    make_folder(out.parent, "-o")
    save_png(to_output(made, "pil")[0], out)
    report = {"path": str(out), "parts": latents.shape[1], "rows": spent.rows, "seed": seed}
    print_report(report, [f"{latents.shape[1]} parts", str(out)], as_json)


def _shares(found: Decomposition, index: int) -> list[float | None]:
    """The share of the picture that each part covers; unknown without masks."""
    masks = found.parts.masks
    return [None] * found.latents.shape[1] if masks is None else masks[index].float().mean((1, 2)).tolist()


def _weighted(text: str) -> list[tuple[int, float]]:
    """Parts and what each is multiplied by, "0,2*0.5" as [(0, 1.0), (2, 0.5)]; "none" as []."""
    if text.strip() == "none":
        return []
    found = [
        re.fullmatch(r"([0-9]{1,5})(?:\*(-?[0-9]{1,4}(?:\.[0-9]{1,6})?))?", part.strip()) for part in text.split(",")
    ]
    parts = [(int(match[1]), float(match[2] or 1)) for match in found if match is not None]
    if len(parts) != len(found):
        raise InputError(f"got --take {text!r}; expected numbers of parts and commas, such as 0,2 or 0,2*0.5, or none")
    return parts


def check_out(out: Path) -> None:
    """Raises `InputError` for what cannot be a PNG."""
    if out.suffix.lower() != ".png" or out.is_dir():
        raise InputError(f"got -o {out}; expected the name of a PNG file, such as strip.png")


def save_png(picture: Any, out: Path) -> None:
    """Writes a Pillow image, or nothing at all."""
    from energycomp.files import atomic_file

    with atomic_file(out) as temporary:
        picture.save(temporary, format="PNG")


def print_report(report: dict[str, Any], lines: list[str], as_json: bool) -> None:
    """The report as JSON, or its lines."""
    import json

    typer.echo(json.dumps(report) if as_json else "\n".join(lines))
