"""`energycomp decompose`, `recombine` and `add`: images into parts, and parts of several images into one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from energycomp.cli.files import check_png, open_single, save_png
from energycomp.cli.options import AsJson, Device, ModelName, Png, Seed, Steps, Views, load_model, loading, with_views
from energycomp.cli.output import print_report
from energycomp.errors import InputError
from energycomp.progress import working

if TYPE_CHECKING:
    from torch import Tensor

    from energycomp.decomposition import Decomposer, Decomposition
    from energycomp.models import Model

Images = Annotated[list[Path], typer.Argument(metavar="IMAGE", help="Image files.")]


def decompose(
    model: ModelName,
    images: Images,
    out: Png = Path("strip.png"),
    steps: Steps = None,
    views: Views = None,
    seed: Seed = 0,
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """Decompose images into parts, without labels.

    energycomp decompose decomp scene.png -o strip.png

    The PNG has two rows per image. The first shows the image, its reconstruction from all parts, and the parts alone,
    numbered from 0; the second shows the pixels of each part. The names of columns and rows are written beside them. If
    the parts explain little of an image, it is out of distribution, and a warning is printed.

    A model may search turned and mirrored views of an image for the latents that explain it best; --views 1 is faster.
    """
    check_png(out)
    with loading(model):
        import torch

        from energycomp.decomposition import EXPLAINED, explained_variance
        from energycomp.decomposition.decomposer import decompose_samples
        from energycomp.images import strip

        opened, loaded, decomposer = open_images(images, model, device, views)
    batch = loaded.processor(opened)
    generator = torch.Generator().manual_seed(seed)
    with working("energycomp: decomposing ..."):
        found = decompose_samples(batch, decomposer, generator=generator, num_inference_steps=steps)
    whole = found.parts.whole.cpu()
    cells = len(batch) * (found.parts.images.shape[1] + 2)
    figure = strip(batch, whole, found.parts.images, found.parts.masks, names=[path.stem for path in images])
    save_png(figure, out, cells=cells)
    errors = (whole - batch).square().flatten(1).mean(1).tolist()
    shares = explained_variance(batch, whole)
    entries: list[dict[str, Any]] = [
        {"image": str(path), "error": error, "explained": share, "parts": _covered(found, index)}
        for index, (path, error, share) in enumerate(zip(images, errors, shares, strict=True))
    ]
    for entry in entries:
        if entry["explained"] is not None and entry["explained"] < EXPLAINED:
            typer.echo(
                f"{entry['image']}: parts explain {max(100 * entry['explained'], 0):.0f} % of the image, which is out "
                f"of distribution for {loaded.name}; train on your own images: "
                f"energycomp train {_recipe(loaded)} --data FOLDER",
                err=True,
            )
    report = {"path": str(out), "images": entries, "rows": found.spent.rows, "seed": seed}
    lines = [
        f"{entry['image']}: {len(entry['parts'])} parts, mean squared error {entry['error']:.3g}" for entry in entries
    ]
    print_report(report, [*lines, str(out)], as_json)


def recombine(
    model: ModelName,
    images: Images,
    take: Annotated[
        list[str],
        typer.Option(
            "--take",
            metavar="PARTS",
            help="Parts of one image: 0,1 or 0,1*0.5 or none. Given once per image, in the order of the images.",
        ),
    ],
    out: Png = Path("recombined.png"),
    steps: Steps = None,
    views: Views = None,
    seed: Seed = 0,
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """Compose one image from parts of several images.

    energycomp recombine decomp a.png b.png --take 0,1 --take 2,3 -o both.png

    energycomp recombine decomp a.png b.png --take 0,1*0.5 --take none -o weaker.png

    Parts are numbered from 0, as `energycomp decompose` shows them. A factor scales the weight of a part.
    """
    chosen = [_weighted(text) for text in take]
    if len(chosen) != len(images):
        raise InputError(f"got {len(chosen)} --take for {len(images)} images; expected one for each, in their order")
    check_png(out)
    with loading(model):
        from energycomp.decomposition import recombine as choose

        opened, _, decomposer = open_images(images, model, device, views)
    sources = list(decomposer.encode(opened).split(1))
    latents = choose(sources, [[part for part, _ in parts] for parts in chosen])
    weights = [weight for parts in chosen for _, weight in parts]
    _decode(decomposer, latents, out, weights=weights, steps=steps, seed=seed, as_json=as_json)


def add(
    model: ModelName,
    images: Images,
    out: Png = Path("added.png"),
    steps: Steps = None,
    views: Views = None,
    seed: Seed = 0,
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """Compose one image from all parts of several images.

    energycomp add decomp a.png b.png -o both.png
    """
    check_png(out)
    with loading(model):
        from energycomp.decomposition import add as join

        opened, _, decomposer = open_images(images, model, device, views)
    latents = join(*decomposer.encode(opened).split(1))
    _decode(decomposer, latents, out, steps=steps, seed=seed, as_json=as_json)


def open_images(images: list[Path], model: str, device: str, views: int | None) -> tuple[list[Any], Model, Decomposer]:
    """The images of files, the model of a name, and its decomposer."""
    from energycomp.decomposition import decomposer_of

    opened = [open_single(path) for path in images]
    loaded = with_views(load_model(model, device), views)
    return opened, loaded, decomposer_of(loaded)


def _decode(
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
                f"got factors for a {type(decomposer).__name__}, which has no weights; expected parts without factors"
            )
        further["weights"] = torch.tensor(weights)
    with count_rows() as spent:
        generator = torch.Generator().manual_seed(seed)
        made = decomposer.decode(latents, generator=generator, num_inference_steps=steps, **further)
    save_png(to_output(made, "pil")[0], out)
    report = {"path": str(out), "parts": latents.shape[1], "rows": spent.rows, "seed": seed}
    print_report(report, [f"{latents.shape[1]} parts", str(out)], as_json)


def _covered(found: Decomposition, index: int) -> list[float | None]:
    """The share of the image that each part covers; None without masks."""
    masks = found.parts.masks
    return [None] * found.latents.shape[1] if masks is None else masks[index].float().mean((1, 2)).tolist()


def _recipe(model: Model) -> str:
    """The recipe that trains such models: the longest registered name that the model's name starts with."""
    from energycomp.plugins import names

    return max((name for name in names("recipes") if model.name.startswith(name)), key=len, default="RECIPE")


def _weighted(text: str) -> list[tuple[int, float]]:
    """Parts with their factors: "0,2*0.5" as [(0, 1.0), (2, 0.5)], "none" as []."""
    if text.strip() == "none":
        return []
    found = [
        re.fullmatch(r"([0-9]{1,5})(?:\*(-?[0-9]{1,4}(?:\.[0-9]{1,6})?))?", part.strip()) for part in text.split(",")
    ]
    parts = [(int(match[1]), float(match[2] or 1)) for match in found if match is not None]
    if len(parts) != len(found):
        raise InputError(f"got --take {text!r}; expected numbers of parts and commas, such as 0,2 or 0,2*0.5, or none")
    return parts
