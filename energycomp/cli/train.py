"""`energycomp train`: a recipe run to a model that `energycomp infer` takes."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from energycomp.cli.options import Seed, load_model, make_folder
from energycomp.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from torch import Tensor

    from energycomp.models import Model
    from energycomp.training import Recipe

__all__ = ["train"]


def train(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A registered recipe.")],
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Folder of the run; runs/NAME.")] = None,
    data: Annotated[
        Path | None, typer.Option(help="A folder of pictures, or a file, to train on; the recipe's own.")
    ] = None,
    init: Annotated[str | None, typer.Option(help="A model to start from: a name or a folder.")] = None,
    preset: Annotated[str, typer.Option(help="Of the recipe: default, or paper.")] = "default",
    steps: Annotated[int | None, typer.Option(min=1, help="The recipe's.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="The recipe's.")] = None,
    micro_batches: Annotated[int | None, typer.Option(min=1, help="Parts of a batch; one per process.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="The recipe's.")] = None,
    precision: Annotated[Literal["no", "bf16"] | None, typer.Option(help="The recipe's.")] = None,
    save_every: Annotated[int | None, typer.Option(min=1, help="Steps between checkpoints; 500.")] = None,
    sample_every: Annotated[int, typer.Option(min=0, help="Steps between sample grids; 0 for none.")] = 1000,
    half: Annotated[bool, typer.Option("--half", help="Store the model in half precision.")] = False,
    threads: Annotated[int | None, typer.Option(min=1, help="Cores to use; all.")] = None,
    cache: Annotated[
        Path, typer.Option(envvar="ENERGYCOMP_CACHE", help="Where a recipe keeps data that it makes.")
    ] = Path("~/.cache/energycomp"),
    option: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Of the preset, such as vae=FOLDER; repeatable.")
    ] = None,
    seed: Seed = 0,
) -> None:
    """Train a model, on your own pictures or on the recipe's.

    energycomp train clevr --data scenes --init clevr --steps 2000 -o runs/mine

    energycomp infer runs/mine/model picture.png

    Run the same command again to go on after Ctrl-C or a crash. The averaged weights end up in runs/mine/model, grids
    of samples in runs/mine/samples.
    """
    import torch

    from energycomp.plugins import find

    if data is not None and not data.exists() and not data.parent.joinpath(data.name.partition(":")[0]).exists():
        raise InputError(
            f"got --data {data}, which does not exist; expected a folder such as `energycomp data {name}` writes, or a "
            "file where the recipe reads one"
        )
    if threads is not None:
        torch.set_num_threads(threads)
    factory = find("recipes", name)
    start = None if init is None else load_model(init, "cpu")
    folder = make_folder(out or Path("runs") / name, "-o")
    recipe = factory(data=data, init=start, preset=preset, cache=cache.expanduser(), **_options(option or []))
    chosen: dict[str, Any] = {
        "batch_size": batch_size,
        "micro_batches": micro_batches,
        "learning_rate": learning_rate,
        "mixed_precision": precision,
        "save_every": save_every,
    }
    options = {key: value for key, value in chosen.items() if value is not None}
    if sample_every:
        options |= {"sample_every": sample_every, "on_sample": _sampler(recipe.model, folder / "samples")}
    _run(recipe, folder, {"steps": steps or recipe.steps, "seed": seed, **options}, half=half)


def _options(pairs: list[str]) -> dict[str, str]:
    """Options of a preset: "vae=folder" as {"vae": "folder"}."""
    for pair in pairs:
        if not pair.partition("=")[0].isidentifier() or "=" not in pair:
            raise InputError(f"got --option {pair!r}; expected NAME=VALUE, such as vae=FOLDER")
    return {name: value for name, _, value in (pair.partition("=") for pair in pairs)}


def _run(recipe: Recipe, folder: Path, options: dict[str, Any], *, half: bool) -> None:
    """Trains, then process 0 stores the averaged weights as a model."""
    import torch
    from accelerate import PartialState

    from energycomp.decomposition import takes_apart
    from energycomp.files import remove_stale
    from energycomp.models import load_weights, save_pretrained

    try:
        result = recipe.fit(out=folder, **options)
    except KeyboardInterrupt:
        if PartialState().is_main_process:
            typer.echo(_how_to_go_on(folder, PartialState().num_processes), err=True)
        raise
    if not PartialState().is_main_process:
        return
    remove_stale(folder / "samples")
    model = recipe.model.to("cpu")
    load_weights(model.trained, result.ema_state, str(result.checkpoint))
    save_pretrained(model, folder / "model", dtype=torch.float16 if half else None)
    typer.echo(f"{result.step:,} steps, loss {result.loss:.4g}, model in {folder / 'model'}")
    use = "decompose" if takes_apart(model) else "infer"
    typer.echo(f"energycomp {use} {folder / 'model'} IMAGE -o {'out' if use == 'infer' else 'strip.png'}")


def _how_to_go_on(folder: Path, processes: int) -> str:
    from energycomp.training import newest_checkpoint

    parts = sorted(
        (path for path in folder.glob("*/") if newest_checkpoint(path)), key=lambda path: path.stat().st_mtime
    )
    newest = newest_checkpoint(parts[-1] if parts else folder)  # a recipe of several runs has a folder for each
    saved = f"{newest} is saved" if newest else f"no checkpoint is in {folder} yet"
    command = "" if processes > 1 else f": {shlex.join(['energycomp', *sys.argv[1:]])}"
    return f"energycomp: {saved}; run the same command again to go on{command}"


def _sampler(model: Model, folder: Path) -> Callable[[Any, int], None]:
    """Writes a grid at a step: a row for each of a few compositions, the same ones and the same noise every time.

    Of a model that makes scenes of its own, four rows of those.
    """
    import torch

    from energycomp.decomposition import sampler_of
    from energycomp.files import atomic_file
    from energycomp.images import to_output
    from energycomp.sampling import Composer
    from energycomp.viz import grid

    own = sampler_of(model)

    def on_sample(_module: Any, step: int) -> None:
        generator = torch.Generator().manual_seed(0)
        images, columns = [], 4
        if own is not None:
            images = to_output(own(4 * columns, generator=generator), "pil")
        else:
            for count in (0, 1, 3, 5) if model.denoiser.rule == "product" else (1, 3, 5):
                composer = Composer(model.compose(_values(model, count, generator)))
                images += composer.sample(
                    columns, generator=generator, num_inference_steps=20, output_type="pil", progress=False
                )
        make_folder(folder, "-o")
        with atomic_file(folder / f"step-{step:06d}.png") as temporary:
            grid(images, columns).save(temporary, format="PNG")

    return on_sample


def _values(model: Model, count: int, generator: torch.Generator) -> Tensor:
    """Legal values (count, *V) at random."""
    import torch
    from torch.distributions import transform_to

    from energycomp.components import is_finite

    conditioner: Any = model.conditioner
    if is_finite(conditioner):
        legal: Tensor = conditioner.enumerate_support()
        return legal[torch.randint(len(legal), (count,), generator=generator)]
    free = torch.randn(count, *conditioner.value_shape, generator=generator)
    values: Tensor = transform_to(conditioner.support)(free)
    return values
