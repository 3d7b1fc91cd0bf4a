"""`energycomp sample`: components in, images of their composition out."""

from __future__ import annotations

import re
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from energycomp.cli.files import sample_files
from energycomp.cli.options import (
    MODELS_OWN,
    SHOWN,
    AsJson,
    Device,
    ModelName,
    Not,
    Options,
    Raw,
    Seed,
    Steps,
    load_model,
    loading,
    parse_options,
    registered,
)
from energycomp.cli.output import best_lines, best_record, print_report, print_warnings, run_line, run_record
from energycomp.errors import InputError

if TYPE_CHECKING:
    from energycomp.models import Model
    from energycomp.sampling import Composer

SEPARATOR = "/"  # between compositions
ATTRIBUTES = "attributes"  # the guidance that changes components, and not their composition
CELL = 128  # px, the least shorter side of an image in a grid
WHOLE_SCENES = {"model", "n", "out", "raw", "as_grid", "seed", "device", "option", "as_json"}  # what they take


def sample(
    context: typer.Context,
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
    n: Annotated[int, typer.Option("-n", min=1, max=10_000, help="Number of samples, of each composition.")] = 1,
    best_of: Annotated[
        int,
        typer.Option(
            "--best-of",
            min=1,
            help="Maximum number of samples drawn for each one kept, until all kept ones show every component.",
        ),
    ] = 1,
    out: Annotated[
        Path,
        typer.Option(
            "-o", "--out", help="PNG, JPEG or WebP file to write; several samples go to NAME-1.png, NAME-2.png, ..."
        ),
    ] = Path("sample.png"),
    raw: Raw = False,
    as_grid: Annotated[bool, typer.Option("--grid", help="Write all samples to one image, in rows.")] = False,
    guidance: Annotated[
        str | None,
        typer.Option(
            help="Name of a guidance: cfg, interval, rescale, apg, zero-star, or attributes, which draws attributes "
            "more strongly.",
            show_default=MODELS_OWN,
            autocompletion=registered("guidances"),
        ),
    ] = None,
    guidance_scale: Annotated[
        float | None, typer.Option(help="Scale of the guidance, or of cfg.", show_default=MODELS_OWN)
    ] = None,
    steps: Steps = None,
    scheduler: Annotated[
        str | None,
        typer.Option(
            help="Name of a diffusers scheduler, for example EulerDiscreteScheduler.", show_default=MODELS_OWN
        ),
    ] = None,
    sampler: Annotated[
        str | None,
        typer.Option(
            help="Name of a registered sampler, for example smc, in place of a scheduler.",
            show_default="scheduler",
            autocompletion=registered("samplers"),
        ),
    ] = None,
    precision: Annotated[
        Literal["no", "bf16"], typer.Option(help="Mixed precision of the networks; bf16 is faster.")
    ] = "no",
    seed: Seed = 0,
    device: Device = "cpu",
    option: Options = None,
    as_json: AsJson = False,
) -> None:
    """Compose components and sample images of the composition.

    ```sh
    energycomp sample clevr "0.3,0.5" "0.7,0.6" -o scene.png
    energycomp sample clevr "0.3,0.5" "0.7,0.6" -n 16 --grid -o grid.png
    energycomp sample clevr "red cube" "small metal sphere" -o scene.png
    energycomp sample clevr "0.3,0.5" --not "0.7,0.6" --sampler rejection -o without.png
    energycomp sample clevr "0.3,0.5" "0.7,0.6" -n 2 --best-of 4 -o best.png
    energycomp sample faces smiling "black_hair=false" -o face.png
    energycomp sample text "a red cube @ left half" "a blue sphere @ right half" -o halves.png
    energycomp sample text "a red cube @ 0-0.4" "a blue sphere @ 0.4-1" -o first.png
    energycomp sample text "a red cube" "a blue sphere" --guidance apg --guidance-scale 5 -o guided.png
    energycomp sample text "a red cube" / "a blue sphere" "a green cube" / "a blue cylinder" -o sets.png
    energycomp sample text "a photo of a dog * 7.5" --not "rain * 2" --option model=FOLDER -o dog.png
    ```

    A COMPONENT is written as the model reads it: coordinates, a label, a prompt, or words of an object, whose place is
    chosen where it has none. Behind it may stand its weight,
    `* NUMBER`, and where and when it counts: `@ REGION`, `@ FROM-TO` or `@ REGION, FROM-TO`. A region is left half,
    right half, top half, bottom half, a box x0,y0,x1,y1 in [0, 1], or an image file as a mask. FROM-TO is a share of
    the sampling trajectory: 0 is noise, and 1 is the end. Without components, the unconditional prediction is sampled.

    Several compositions, with / between them, are sampled in one batch: a component of --not is in each of them.
    --guidance moves the prediction of the whole composition away from the unconditional one; the weight of its
    components is 1 where they have none. rescale, apg and zero-star keep high scales from saturating colours, and cost
    as much as cfg. A model that generates whole scenes takes no components. Each sample is written to its own file,
    which `infer` and `edit` can read. --json adds the report of the sampler: costs, effective sample sizes, warnings.
    """
    sets, negated = _compositions(components or []), negated or []
    files = sample_files(out, n * len(sets), as_grid)
    guidance = guidance or (None if guidance_scale is None else "cfg")
    with loading(model):
        from energycomp.decomposition import sampler_of
        from energycomp.images import save_samples

        _check(sets, negated, best_of, sampler=sampler, scheduler=scheduler, guidance=guidance, scale=guidance_scale)
        loaded = load_model(model, device, **parse_options(option))
    report: dict[str, Any] = {}
    lines: list[str] = []
    if (whole_scenes := sampler_of(loaded)) is not None:
        _refuse(context, model)
        images = _scenes(whole_scenes, n, seed)
    else:
        weight = None if guidance in (None, ATTRIBUTES) else 1.0
        composers = _composed(loaded, sets, negated, weight, seed)
        options = {
            "scheduler": scheduler,
            "sampler": sampler,
            "num_inference_steps": steps,
            "mixed_precision": precision,
            "generator": seed,
            **_guided(guidance, guidance_scale, loaded),
        }
        images, report, lines = _sampled(composers, n * len(sets), best_of, loaded, options)
    if not raw:
        images = [loaded.shown(image, side=CELL if as_grid else SHOWN) for image in images]
    save_samples(images, files)
    names = [str(file) for file in files]
    report = {**({"path": names[0]} if len(names) == 1 else {"paths": names}), **report, "n": len(images), "seed": seed}
    print_report(report, [*lines, *names], as_json)


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


def _check(
    sets: list[list[str]],
    negated: list[str],
    best_of: int,
    *,
    sampler: str | None,
    scheduler: str | None,
    guidance: str | None,
    scale: float | None,
) -> None:
    """Refuses what does not depend on the model before it is loaded, which may take minutes."""
    from energycomp.components import Weight, weighted
    from energycomp.plugins import find
    from energycomp.sampling import LinearGuidance

    varying = [text for text in chain(*sets, negated) if isinstance(weighted(text).place, Weight)]
    if best_of > 1 and (len(sets) > 1 or varying):
        what = f"the component {varying[0]!r}" if varying else "several compositions"
        raise InputError(
            f"got --best-of with {what}; expected one composition whose weights are numbers, which is all that a "
            "ranking takes; leave --best-of out"
        )
    if sampler is not None and scheduler is not None:
        raise InputError("got --sampler and --scheduler; expected one of them; leave one out")
    if sampler is not None:
        find("samplers", sampler)
    if guidance is not None and re.fullmatch(r"[\d.]+", guidance):
        raise InputError(
            f"got --guidance {guidance}; expected a name, as in --guidance attributes --guidance-scale {guidance}"
        )
    made = guidance and find("guidances", guidance)(**({} if scale is None else {"scale": scale}))
    if made and sampler is not None and not isinstance(made, LinearGuidance):
        raise InputError(
            f"got --guidance {guidance} with --sampler {sampler}, which needs a density at every noise level; expected "
            "cfg, interval or attributes, which are compositions; give one of them, or leave --sampler out"
        )


def _refuse(context: typer.Context, model: str) -> None:
    """Raises for what a model of whole scenes does not take."""
    given = [
        parameter.opts[0] if parameter.opts[0].startswith("-") else "COMPONENT"
        for parameter in context.command.params
        if parameter.name not in WHOLE_SCENES
        and str(context.get_parameter_source(parameter.name or "")).endswith("COMMANDLINE")
    ]
    if given:
        raise InputError(f"got {', '.join(given)} with {model}, which generates whole scenes; leave them out")


def _scenes(own: Any, n: int, seed: int) -> list[Any]:
    import torch

    from energycomp.images import to_output

    images: list[Any] = to_output(own(n, generator=torch.Generator().manual_seed(seed)), "pil")
    return images


def _composed(
    model: Model, sets: list[list[str]], negated: list[str], weight: float | None, seed: int
) -> list[Composer]:
    """A composer for each list of components; `weight` is that of components without one, None for the model's."""
    from energycomp.sampling import Composer

    ruled_out = [~model.read(text, weight=weight) for text in negated]  # the same in all, which then share its cost
    parts = [[*model.scene(*texts, weight=weight, generator=seed), *ruled_out] for texts in sets]
    return [Composer(each or model.unconditional) for each in parts]


def _guided(name: str | None, scale: float | None, model: Model) -> dict[str, Any]:
    """The guidance as keywords of `Composer.sample`; the scale is that of the model where none is given."""
    from energycomp.components import mixed_of

    if name is None:
        return {}
    own = model.defaults.attribute_guidance if name == ATTRIBUTES else model.defaults.guidance_scale
    scale = own if scale is None else scale
    if mixed_of(model.conditioner) is None if name == ATTRIBUTES else scale == 1.0:
        raise InputError(
            f"got --guidance {name} with {model.name} at the scale {scale:g}, which changes nothing; expected a "
            f"--guidance-scale such as 2.0, and for {ATTRIBUTES} a model whose components have some; change it"
        )
    return {"guidance": name, "guidance_scale": scale}


def _sampled(
    composers: list[Composer], n: int, best_of: int, model: Model, options: dict[str, Any]
) -> tuple[list[Any], dict[str, Any], list[str]]:
    """Samples, or the best of several, and what is reported of them as JSON and as lines."""
    from energycomp.components import per_sample
    from energycomp.inference import sample_best
    from energycomp.sampling import Composer

    runs: list[Any] = []
    lines = [repr(composer.composition) for composer in composers]
    report: dict[str, Any] = {"composition": lines[0]} if len(lines) == 1 else {"compositions": [*lines]}
    if "guidance" in options:
        report |= {name: options[name] for name in ("guidance", "guidance_scale")}
        lines.append(f"guidance {options['guidance']}, scale {options['guidance_scale']:g}")
    composer = composers[0] if len(composers) == 1 else Composer(per_sample(composers))
    if best_of == 1:
        images = composer.sample(n, report=runs.append, **options)
        print_warnings(runs)
        return images, {**report, "report": run_record(runs[0])}, [*lines, run_line(runs[0])]
    best = sample_best(composer, n, best_of=best_of, until_complete=True, model=model, report=runs.append, **options)
    print_warnings(runs)
    record = {"best_of": best_of, **best_record(best), "reports": [*map(run_record, runs)]}
    return best.images, {**report, "best_of": record}, [*lines, *best_lines(best)]
