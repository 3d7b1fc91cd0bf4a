"""`energycomp train`: runs a recipe and stores the model that it trains."""

from __future__ import annotations

import os
import shlex
import sys
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import attrs
import typer

from energycomp.errors import InputError
from energycomp.files import cache_folder
from energycomp_cli import Seed, check_folder, load_model, make_folder, parse_options

if TYPE_CHECKING:
    from collections.abc import Callable

    from PIL import Image

    from energycomp.models import Model
    from energycomp_lab.training import FitResult, Trainable

RECIPES_OWN = "the recipe's"  # shown as the default where a recipe has one
COMMON = ("data", "init", "preset", "cache")  # arguments of every recipe
SETTINGS = {"batch_size", "micro_batches", "save_every", "sample_every", "log_with"}  # fields of FitConfig
LEAST_MINUTES = 0.01
SAMPLE_EVERY = 1000  # steps
SIDE = 128  # px, the least side of an image in a grid of samples


def train(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of a registered recipe, such as clevr.")],
    out: Annotated[
        Path | None,
        typer.Option(
            "-o", "--out", help="Folder of the run, with checkpoints, samples and the model.", show_default="runs/NAME"
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Folder of images, or data file, to train on.", show_default=RECIPES_OWN),
    ] = None,
    init: Annotated[str | None, typer.Option(help="Model to start from: registered name, folder or hub id.")] = None,
    resume_from: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE",
            help="Run to continue from its newest checkpoint, or model whose weights to start from: folder or hub id.",
        ),
    ] = None,
    preset: Annotated[
        str, typer.Option(help="Preset of the recipe: default, or paper, the sizes of the thesis.")
    ] = "default",
    steps: Annotated[int | None, typer.Option(min=1, help="Number of optimizer steps.", show_default=RECIPES_OWN)] = (
        None
    ),
    minutes: Annotated[
        float | None,
        typer.Option(
            min=LEAST_MINUTES,
            help="Time that the training may take, about, in place of --steps: a few steps are timed at the start.",
            show_default="no limit",
        ),
    ] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak learning rate.", show_default=RECIPES_OWN)] = None,
    precision: Annotated[
        Literal["no", "bf16"] | None,
        typer.Option(help="Mixed precision of the networks; bf16 is faster.", show_default=RECIPES_OWN),
    ] = None,
    half: Annotated[bool, typer.Option("--half", help="Store the weights as float16, which halves the file.")] = False,
    threads: Annotated[int | None, typer.Option(min=1, help="Number of CPU threads.", show_default="all cores")] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="Argument of the recipe, for example vae=FOLDER, or of the training: batch_size, micro_batches (parts "
            "of a batch, for gradient accumulation), save_every and sample_every (steps between checkpoints and "
            "between grids of samples; 0 for no grids), and log_with=tensorboard or other trackers of accelerate, with "
            "commas between them. Repeatable.",
        ),
    ] = None,
    seed: Seed = 0,
) -> None:
    """Train a model, on your own images or on those of the recipe.

    ```sh
    energycomp train clevr --data scenes --init clevr --steps 2000 -o runs/mine
    energycomp infer runs/mine/model image.png
    energycomp train objects --data photos --minutes 60 -o runs/photos
    energycomp train proposals --init runs/mine/model --data scenes -o runs/fast
    energycomp train clevr --resume-from owner/run -o runs/mine --option log_with=tensorboard
    ```

    Run the same command again to continue after Ctrl-C or a crash; with --minutes it goes on with the number of steps
    that it began with. The averaged weights are stored in OUT/model, and grids of samples in OUT/samples. A tracker
    receives the loss, the learning rate, images and network evaluations per second, and the grids; those of TensorBoard
    are in OUT/energycomp. Generated data are cached in the folder ENERGYCOMP_CACHE, by default ~/.cache/energycomp.
    """
    import torch

    from energycomp.images import is_picture
    from energycomp.models import Model
    from energycomp.plugins import find
    from energycomp_lab.training.trackers import tracker_names

    given = parse_options(option, taken=COMMON)
    training: dict[str, Any] = {name: _read_setting(name, given.pop(name)) for name in SETTINGS & given.keys()}
    tracker_names(training.get("log_with"))
    if init is not None and resume_from is not None:
        raise InputError("got --init and --resume-from; expected one of them, since both say where to start")
    if steps is not None and minutes is not None:
        raise InputError("got --steps and --minutes; expected one of them, since both say how long to train")
    if data is not None and not any(map(os.path.exists, (data, data.parent / data.name.partition(":")[0]))):
        raise InputError(
            f"got --data {data}, which does not exist; expected a folder of data, or a file where the recipe {name} "
            "reads one; check the path"
        )
    if threads is not None:
        torch.set_num_threads(threads)
    factory = find("recipes", name)
    folder = out or Path("runs") / name
    check_folder(folder, "-o")
    start = _start(init, resume_from, folder)
    try:
        recipe = factory(data=data, init=start, preset=preset, cache=cache_folder(), **given)
    except InputError as error:
        parameters = signature(factory).parameters.values()
        own = [each.name for each in parameters if each.kind is each.KEYWORD_ONLY and each.name not in COMMON]
        if own and any(repr(name) in str(error) for name in given.keys() - set(own)):
            raise InputError(f"{error}; the recipe itself has {', '.join(own)}") from error
        raise
    chosen = {
        "seed": seed,
        "steps": steps,
        "minutes": minutes,
        "learning_rate": learning_rate,
        "mixed_precision": precision,
    }
    sample_every = training.pop("sample_every", SAMPLE_EVERY)
    if sample_every and isinstance(recipe.model, Model) and is_picture(recipe.model.processor.sample_shape):
        training |= {"sample_every": sample_every, "on_sample": _sampler(recipe.model, folder / "samples")}
    make_folder(folder, "-o")
    options = {key: value for key, value in chosen.items() if value is not None}
    _run(recipe, folder, {**options, **training}, half=half)


def _read_setting(name: str, text: str) -> int | str:
    """Reads a setting of the training: a whole number, or names of trackers."""
    if name == "log_with":
        return text
    if not text.isdecimal():
        raise InputError(f"got --option {name}={text}; expected a whole number, such as {name}=8")
    return int(text)


def _start(init: str | None, resume_from: str | None, folder: Path) -> Model | None:
    """Loads the model to start from; checkpoints to continue from are copied to the folder of the run instead."""
    from energycomp_lab.training.resume import copy_checkpoints

    if resume_from is not None and copy_checkpoints(resume_from, folder):
        return None
    source = init or resume_from
    return None if source is None else load_model(source, "cpu")


def _run(recipe: Trainable, folder: Path, options: dict[str, Any], *, half: bool) -> None:
    """Trains, then process 0 stores the averaged weights as a model."""
    import torch
    from accelerate import PartialState

    from energycomp.decomposition import takes_apart
    from energycomp.files import remove_stale
    from energycomp.models import Model, load_weights

    try:
        result = recipe.run(folder, **options)
    except KeyboardInterrupt:
        if PartialState().is_main_process:
            typer.echo(_how_to_go_on(folder, PartialState().num_processes), err=True)
        raise
    if not PartialState().is_main_process:
        return
    remove_stale(folder / "samples")
    model = recipe.model.to("cpu")
    load_weights(model.trained, result.ema_state, str(result.checkpoint))
    kept: dict[str, Any] = {}
    if result.finished is not None:
        kept = {"extra": result.finished.documents}
        if result.finished.calibration is not None:
            model = attrs.evolve(model, defaults=attrs.evolve(model.defaults, calibration=result.finished.calibration))
    model.save_pretrained(folder / "model", dtype=torch.float16 if half else None, **kept)
    best = result.standing.step if result.standing is not None else result.step
    of_step = f", weights of step {best:,}" if best != result.step else ""
    typer.echo(
        f"{result.step:,} steps, loss {result.loss:.4g}{_describe_speed(result)}{of_step}, model in {folder / 'model'}"
    )
    if not isinstance(model, Model):
        return
    use = "decompose" if takes_apart(model) else "infer"
    typer.echo(f"energycomp {use} {folder / 'model'} IMAGE -o {'out' if use == 'infer' else 'strip.png'}")


def _describe_speed(result: FitResult) -> str:
    units = {"images_per_second": "images/s", "rows_per_second": "network evaluations/s"}
    return "".join(
        f", {result.throughput[name]:.3g} {unit}" for name, unit in units.items() if result.throughput.get(name)
    )


def _how_to_go_on(folder: Path, processes: int) -> str:
    from energycomp_lab.training.checkpoint import newest_checkpoint

    parts = [path for path in (folder, *folder.glob("*/")) if newest_checkpoint(path)]
    parts.sort(key=lambda path: path.stat().st_mtime)
    newest = newest_checkpoint(parts[-1]) if parts else None  # a recipe of several runs has a folder for each
    saved = f"{newest} is saved" if newest else f"no checkpoint is in {folder} yet"
    command = "" if processes > 1 else f": {shlex.join(['energycomp', *sys.argv[1:]])}"
    return f"energycomp: {saved}; run the same command again to go on{command}"


def _sampler(model: Model, folder: Path) -> Callable[[Any, int], Image.Image]:
    """Makes a function that writes a grid of samples, a row per composition, from the same noise every time."""
    import torch

    from energycomp.components import random_values
    from energycomp.decomposition import sampler_of
    from energycomp.images import grid, save_image, to_output
    from energycomp.sampling import Composer

    own = sampler_of(model)

    def on_sample(_module: Any, step: int) -> Image.Image:
        generator = torch.Generator().manual_seed(0)
        images = []
        columns = 4
        names = None
        if own is not None:
            images = to_output(own(4 * columns, generator=generator), "pil")
        else:
            counts = (0, 1, 3, 5) if model.denoiser.rule == "product" else (1, 3, 5)
            names = [f"{count} component{'' if count == 1 else 's'}" for count in counts]
            for count in counts:
                composer = Composer(model.compose(random_values(model.conditioner, count, generator=generator)))
                images += composer.sample(
                    columns,
                    generator=generator,
                    scheduler="ddim",
                    num_inference_steps=20,
                    progress=False,
                    report=lambda _: None,  # the grid shows what becomes of more components than the model knows
                )
        picture = grid(images, columns, side=SIDE, names=names)
        save_image(picture, folder / f"step-{step:06d}.png", cells=len(images))
        return picture

    return on_sample
