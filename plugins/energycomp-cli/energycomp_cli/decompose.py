"""`energycomp decompose` and `recombine`: images into parts, and one image of parts of several."""

from __future__ import annotations

import re
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from energycomp.errors import InputError
from energycomp.plugins import names
from energycomp.progress import working
from energycomp_cli.files import check_png
from energycomp_cli.items import read_image
from energycomp_cli.options import SHOWN, ModelName, Png, Raw, Run, Steps, loading

if TYPE_CHECKING:
    from energycomp.models import Model

CHECK_STEPS = 10  # that tell how much of an image its parts explain
Images = Annotated[list[Path], typer.Argument(metavar="IMAGE", help="Image files.")]


def decompose(
    run: Run,
    model: ModelName,
    images: Images,
    out: Png = Path("strip.png"),
    steps: Steps = None,
) -> None:
    """Decompose images into parts, without labels.

    ```sh
    energycomp decompose decomp scene.png -o strip.png
    ```

    The PNG has two rows per image. The first shows the image, its reconstruction from all parts, and the parts alone,
    numbered from 0; the second shows the pixels of each part. The names of columns and rows are written beside them. If
    the parts explain little of an image, it is out of distribution, and a warning is printed.

    A model may search turned and mirrored views of an image for the latents that explain it best;
    --option views=1 is faster.
    """
    check_png(out)
    opened = [read_image(path) for path in images]
    with loading(model):
        import torch

        from energycomp.decomposition import decompose_samples, decomposer_of, explained_variance
        from energycomp.images import save_image, strip

        loaded = run.load(model)
        decomposer = decomposer_of(loaded)
    batch = loaded.processor(opened)
    generator = torch.Generator().manual_seed(run.seed)
    with working("energycomp: decomposing ..."):
        decomposition = decompose_samples(batch, decomposer, generator=generator, num_inference_steps=steps)
    parts = decomposition.parts
    whole = parts.whole.cpu()
    count = parts.images.shape[1]
    figure = strip(batch, whole, parts.images, parts.masks, names=[path.stem for path in images])
    save_image(figure, out, cells=len(batch) * (count + 2))
    errors = (whole - batch).square().flatten(1).mean(1).tolist()
    # The share of the image that each part covers; None without masks
    shares = [[None] * count] * len(images) if parts.masks is None else parts.masks.float().mean((2, 3)).tolist()
    entries = []
    lines = []
    for k, (path, explained) in enumerate(zip(images, explained_variance(batch, whole), strict=True)):
        entries.append({"image": str(path), "error": errors[k], "explained": explained, "parts": shares[k]})
        lines.append(f"{path}: {count} parts, mean squared error {errors[k]:.3g}")
        _warn(path, explained, loaded)
    run.show({"path": str(out), "images": entries, "rows": decomposition.spent.rows}, [*lines, str(out)])


def recombine(
    run: Run,
    model: ModelName,
    images: Images,
    take: Annotated[
        list[str],
        typer.Option(
            metavar="PARTS",
            help="Parts of an image: 0,1 or 0,1*0.5 or all or none. Given once for all images, or once for each.",
        ),
    ],
    out: Png = Path("recombined.png"),
    raw: Raw = False,
    steps: Steps = None,
) -> None:
    """Compose one image from parts of several images.

    ```sh
    energycomp recombine decomp a.png b.png --take 0,1 --take 2,3 -o both.png
    energycomp recombine decomp a.png b.png --take all -o all.png
    energycomp recombine decomp a.png b.png --take 0,1*0.5 --take none -o weaker.png
    ```

    Parts are numbered from 0, as `energycomp decompose` shows them. A factor scales the weight of a part. If the parts
    of an image explain little of it, it is out of distribution, and a warning is printed.
    """
    if len(take) not in (1, len(images)):
        raise InputError(f"got {len(take)} --take for {len(images)} images; expected one, or one each in their order")
    check_png(out)
    opened = [read_image(path) for path in images]
    with loading(model):
        import torch

        from energycomp.decomposition import decomposer_of, explained_variance, recombine as choose
        from energycomp.denoisers import count_rows
        from energycomp.images import save_image, to_output

        texts = take if len(take) > 1 else take * len(images)
        chosen = [_parse_parts(text) for text in texts]
        loaded = run.load(model)
        decomposer = decomposer_of(loaded)
    sources = list(decomposer.encode(opened).split(1))
    # Compare each image with all of its parts, in few steps: parts of an image of another kind are no parts of it.
    few = min(steps or CHECK_STEPS, CHECK_STEPS)
    numbers: list[list[int]] = []
    weights: list[float] = []
    for path, image, latents, parts in zip(images, opened, sources, chosen, strict=True):
        whole = decomposer.decode(latents, generator=torch.Generator().manual_seed(run.seed), num_inference_steps=few)
        _warn(path, explained_variance(loaded.processor([image]), whole.cpu())[0], loaded)
        each = dict.fromkeys(range(latents.shape[1]), 1.0).items() if parts is None else parts
        numbers.append([number for number, _ in each])
        weights += [weight for _, weight in each]
    # Decode the chosen parts together
    together = choose(sources, numbers)
    further: dict[str, Any] = {}
    if any(weight != 1 for weight in weights):
        if "weights" not in signature(decomposer.decode).parameters:
            raise InputError(
                f"got factors for a {type(decomposer).__name__}, which has no weights; expected parts without factors"
            )
        further["weights"] = torch.tensor(weights)
    with count_rows() as spent:
        generator = torch.Generator().manual_seed(run.seed)
        drawing = decomposer.decode(together, generator=generator, num_inference_steps=steps, **further)
    picture = to_output(drawing, "pil")[0]
    save_image(picture if raw else loaded.shown(picture, side=SHOWN), out)
    count = together.shape[1]
    run.show({"path": str(out), "parts": count, "rows": spent.rows}, [f"{count} parts", str(out)])


def _warn(path: Path, explained: float | None, model: Model) -> None:
    """Warns on stderr where the parts explain too little of an image, from 0 to 1."""
    from energycomp.decomposition import EXPLAINED

    if explained is not None and explained < EXPLAINED:
        # The recipe that trains such models: the longest name with which the model's name begins
        recipe = max((name for name in names("recipes") if model.name.startswith(name)), key=len, default="RECIPE")
        typer.echo(
            f"{path}: parts explain {max(100 * explained, 0):.0f} % of the image, which is out of distribution for "
            f"{model.name}; train on your own images: energycomp train {recipe} --data FOLDER",
            err=True,
        )


def _parse_parts(text: str) -> list[tuple[int, float]] | None:
    """Reads parts with their factors: "0,2*0.5" as [(0, 1.0), (2, 0.5)], "none" as [], and "all" as None."""
    from energycomp.components import weighted

    if text.strip() in ("all", "none"):
        return None if text.strip() == "all" else []
    parts = [weighted(part) for part in text.split(",")]
    if not all(re.fullmatch("[0-9]{1,5}", part.text) and part.place == 1.0 for part in parts):
        raise InputError(
            f"got --take {text!r}; expected numbers of parts and commas, such as 0,2 or 0,2*0.5, or all, or none"
        )
    return [(int(part.text), 1.0 if part.number is None else part.number) for part in parts]
