"""`energycomp sample`: components in, images of their composition out."""

from __future__ import annotations

import re
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from energycomp.errors import InputError
from energycomp.plugins import find, names, not_found
from energycomp_cli.files import check_folder, check_png
from energycomp_cli.formula import NoMetadata, formula_of
from energycomp_cli.options import MODELS_OWN, SHOWN, ModelName, Not, Raw, Run, Steps, loading, registered
from energycomp_cli.output import TABLES, check_table, save_numbers
from energycomp_cli.samples import ATTRIBUTES, CELL, draw_samples, forecast_samples, save_samples

if TYPE_CHECKING:
    from energycomp.models import Model
    from energycomp.sampling import Composer

SEPARATOR = "/"  # between compositions
WHOLE_SCENES = {"model", "n", "out", "raw", "as_grid", "no_metadata"}  # what they take of the command's own


def sample(
    run: Run,
    model: ModelName,
    components: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="COMPONENT",
            help="Components to compose: 0.3,0.5 or smiling or 'a red cube * 7.5 @ left half, 0-0.4'. A / separates "
            "compositions, each of which is sampled.",
        ),
    ] = None,
    negated: Not = None,
    n: Annotated[int, typer.Option("-n", min=1, max=10_000, help="Number of samples of each composition.")] = 1,
    best_of: Annotated[
        int,
        typer.Option(
            min=1,
            help="Most samples that are drawn for each one that is kept, until all kept ones show every component.",
        ),
    ] = 1,
    out: Annotated[
        Path,
        typer.Option(
            "-o",
            "--out",
            help="PNG, JPEG or WebP file to write; several samples go to NAME-1.png, NAME-2.png, ... Samples that are "
            "numbers go to one .csv, .npy or .parquet file.",
        ),
    ] = Path("sample.png"),
    canvas: Annotated[
        str | None,
        typer.Option(
            metavar="WxH", help="Size in pixels of an image of objects that is larger than the model's: 384x128."
        ),
    ] = None,
    raw: Raw = False,
    as_grid: Annotated[bool, typer.Option("--grid", help="Write all samples to one image, in rows.")] = False,
    guidance: Annotated[
        str | None,
        typer.Option(
            metavar="NAME[=SCALE]",
            help="Guidance: cfg, interval, attributes, which draws attributes more strongly, or rescale, apg and "
            "zero-star of energycomp-samplers; with its scale, for example cfg=7.5.",
            show_default=MODELS_OWN,
            autocompletion=registered("guidances"),
        ),
    ] = None,
    steps: Steps = None,
    sampler: Annotated[
        str | None,
        typer.Option(
            help="Name of a scheduler of diffusers, for example EulerDiscreteScheduler, or of a registered sampler, "
            "for example smc.",
            show_default=MODELS_OWN,
            autocompletion=registered("samplers"),
        ),
    ] = None,
    forecast: Annotated[
        bool,
        typer.Option(
            "--forecast",
            help="Draw nothing: say whether samples will be right, and what to do if not. Needs energycomp-samplers.",
        ),
    ] = False,
    precision: Annotated[
        Literal["no", "bf16"], typer.Option(help="Mixed precision of the networks; bf16 is faster.")
    ] = "no",
    no_metadata: NoMetadata = False,
) -> None:
    """Compose components and sample images of the composition.

    ```sh
    energycomp sample clevr "red cube" "small metal sphere" -o scene.png
    energycomp sample clevr "0.3,0.5" "0.7,0.6" -n 16 --grid -o grid.png
    energycomp sample faces smiling "black_hair=false" --best-of 4 -o face.png
    energycomp sample text "a red cube @ left half" "a blue sphere * 2 @ 0-0.4" -o halves.png
    energycomp sample text "a red cube" / "a blue sphere" -o sets.png
    ```

    A COMPONENT is written as the model reads it: coordinates, a label, a prompt, or words of an object, whose place is
    chosen where it has none. Behind it may stand its weight, `* NUMBER`, and where and when it counts: `@ REGION`,
    `@ FROM-TO` or `@ REGION, FROM-TO`. A region is left half, right half, top half, bottom half, a box x0,y0,x1,y1 in
    [0, 1], or an image file as a mask. FROM-TO is a share of the trajectory: 0 is noise, and 1 is the end. Without
    components, the unconditional prediction is sampled.

    Compositions with / between them are sampled in one batch. Each sample is a file of its own, which infer and edit
    read; a PNG file says what made it, which show prints. The documentation has examples of all options.
    """
    sets = _compositions(components or [])
    negated = negated or []
    if forecast and (guidance is not None or sampler is not None or best_of > 1):
        got = "got --forecast with --guidance, --sampler or --best-of"
        raise InputError(f"{got}; expected none of them; write the scale as a weight, such as 'a red cube * 7.5'")
    if canvas is not None and (negated or best_of > 1):
        raise InputError("got --canvas with --not or --best-of; expected none of them; leave them out")
    is_table = out.suffix.lower() in TABLES
    files = [out] if is_table else _files(out, n * len(sets), as_grid)
    check_folder(out.parent, "-o", path=out)
    with loading(model):
        from energycomp.decomposition import sampler_of
        from energycomp.images import framed

        options = _options(sampler, guidance)
        _check(sets, negated, best_of)
        loaded = run.load(model, placed=[*chain(*sets)], reads={"the component": negated})
        check_table(loaded, out)
    # Samples of whole scenes, or of compositions
    report: dict[str, Any] = {}
    lines: list[str] = []
    whole_scenes = sampler_of(loaded)
    if whole_scenes is not None:
        images = _draw_scenes(run, whole_scenes, n, model)
    else:
        composers = _compose(loaded, sets, negated, options.get("guidance"), run.seed, canvas)
        if forecast:
            run.show(*forecast_samples(composers, run.seed))
            return
        options |= {"num_inference_steps": steps, "mixed_precision": precision, "generator": run.seed}
        options |= {"output_type": "np"} if is_table else {}
        images, report, lines = draw_samples(composers, n * len(sets), best_of, loaded, options)
    # A table of numbers, or images with what made them
    if is_table:
        save_numbers(images, out)
    else:
        side = CELL if as_grid else SHOWN
        if canvas is not None and not raw:  # its pixels have the shape of the model's
            images = [framed(one, loaded.defaults.aspect, side=side) for one in images]
        elif not raw:
            images = [loaded.shown(one, side=side) for one in images]
        composed = {name: report[name] for name in ("composition", "compositions") if name in report}
        formula = None if no_metadata else formula_of(run, model, loaded, components or [], **composed)
        save_samples(images, files, formula)
    names = [str(file) for file in files]
    path = {"path": names[0]} if len(names) == 1 else {"paths": names}
    run.show({**path, **report, "n": len(images)}, [*lines, *names])


def _files(out: Path, n: int, as_grid: bool) -> list[Path]:
    """The files of n samples: one for a grid, otherwise one per sample, with numbers of equal width."""
    from energycomp.images import WRITTEN

    if as_grid and n == 1:
        raise InputError("got --grid with one sample; expected several, such as -n 4; leave --grid out for one")
    if as_grid and out.suffix.lower() in set(WRITTEN) - {".png"}:
        raise InputError(f"got --grid with {out}; expected a PNG file, which says that it shows several images")
    check_png(out, formats=WRITTEN)
    if as_grid or n == 1:
        return [out]
    files = [out.with_stem(f"{out.stem}-{number:0{len(str(n))}}") for number in range(1, n + 1)]
    for file in files:
        check_png(file, formats=WRITTEN)
    return files


def _compositions(texts: list[str]) -> list[list[str]]:
    """The components of each composition, of those that "/" separates.

    >>> _compositions(["a", "/", "b", "c"]), _compositions([])
    ([['a'], ['b', 'c']], [[]])
    """
    sets: list[list[str]] = [[]]
    for text in texts:
        if text.strip() == SEPARATOR:
            sets.append([])
        else:
            sets[-1].append(text)
    if len(sets) > 1 and not all(sets):
        raise InputError(
            "got an empty composition beside a '/'; expected components before and after each '/', as in 0.3,0.5 / "
            "0.7,0.6"
        )
    return sets


def _options(sampler: str | None, guidance: str | None) -> dict[str, Any]:
    """The sampler or scheduler, the guidance and its scale, as keywords of `Composer.sample`."""
    from energycomp.sampling import check_sampled, compatible_schedulers

    options: dict[str, Any] = {}
    if sampler in names("samplers"):
        options["sampler"] = sampler
    elif sampler is not None:
        options["scheduler"] = sampler
        known = compatible_schedulers()
        if sampler.lower().removesuffix("scheduler") not in {one.lower().removesuffix("scheduler") for one in known}:
            raise not_found("samplers", sampler, [*names("samplers"), *known])
    if guidance is None:
        return options
    name, has_scale, text = guidance.partition("=")
    if has_scale or re.fullmatch(r"[\d.]+", name):
        try:
            options["guidance_scale"] = float(text)
        except ValueError as error:
            raise InputError(
                f"got --guidance {guidance}; expected a name, and its scale as a number, such as "
                f"attributes={'2.0' if has_scale else name}"
            ) from error
    guide = find("guidances", name)(**({"scale": options["guidance_scale"]} if has_scale else {}))
    if "sampler" in options:
        check_sampled(guide, name)
    return {**options, "guidance": name}


def _check(sets: list[list[str]], negated: list[str], best_of: int) -> None:
    """Refuses compositions before the model is loaded, which may take minutes."""
    from energycomp.components import Weight, weighted

    varying = [text for text in chain(*sets, negated) if isinstance(weighted(text).place, Weight)]
    if best_of > 1 and (len(sets) > 1 or varying):
        what = f"the component {varying[0]!r}" if varying else "several compositions"
        raise InputError(
            f"got --best-of with {what}; expected one composition whose weights are numbers, which is all that a "
            "ranking takes; leave --best-of out"
        )


def _draw_scenes(run: Run, own: Any, n: int, model: str) -> Any:
    """Samples of a model of whole scenes; raises for what it does not take."""
    import torch

    from energycomp.images import to_output

    given = [
        parameter.opts[0] if parameter.opts[0].startswith("-") else "COMPONENT"
        for parameter in run.command.params
        if parameter.name not in WHOLE_SCENES
        and str(run.get_parameter_source(parameter.name or "")).endswith("COMMANDLINE")
    ]
    if given:
        raise InputError(f"got {', '.join(given)} with {model}, which generates whole scenes; leave them out")
    return to_output(own(n, generator=torch.Generator().manual_seed(run.seed)), "pil")


def _compose(
    model: Model, sets: list[list[str]], negated: list[str], guidance: str | None, seed: int, canvas: str | None
) -> list[Composer]:
    """A composer for each list of components. The weight of those without one is 1 under a guidance of the whole."""
    from energycomp.components import ability
    from energycomp.sampling import Composer

    if canvas is not None:
        sides = re.fullmatch(r"(\d+)x(\d+)", canvas)
        widened = ability(model.conditioner, "widened")
        if sides is None or widened is None:
            expected = "expected WIDTHxHEIGHT in pixels, such as 384x128, and a model of objects, such as clevr"
            raise InputError(f"got --canvas {canvas} with {model.name}; {expected}")
        return [Composer(widened(model, texts, (int(sides[2]), int(sides[1])), seed)) for texts in sets]
    weight = None if guidance in (None, ATTRIBUTES) else 1.0
    ruled_out = [~model.read(text, weight=weight) for text in negated]  # the same in all, which then share its cost
    parts = [[*model.scene(*texts, weight=weight, generator=seed), *ruled_out] for texts in sets]
    return [Composer(each or model.unconditional) for each in parts]
