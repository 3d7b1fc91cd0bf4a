"""`energycomp sample`: components in, images of their composition out."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from energycomp.cli.files import sample_files, save_samples
from energycomp.cli.guidance import (
    GuidanceScale,
    Guided,
    attribute_strength,
    component_sets,
    guidance_record,
    guided_by,
    read_guidance,
)
from energycomp.cli.options import (
    MODELS_OWN,
    AsJson,
    Device,
    Dtype,
    ModelName,
    Options,
    Seed,
    Source,
    Steps,
    load_model,
    loading,
    model_options,
    read_component,
    takes_words,
)
from energycomp.cli.output import print_report
from energycomp.cli.sampled import sampled
from energycomp.cli.weights import From, Numbers, Regions, Until, check_ranked, component_weights
from energycomp.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from energycomp.components import AnyWeight, Composition
    from energycomp.denoisers import Conditional
    from energycomp.models import Model
    from energycomp.sampling import Composer


def sample(
    model: ModelName,
    components: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="COMPONENT",
            help="Components to compose: 0.3,0.5 or smiling or 'a red cube'. A / separates compositions, each of which "
            "is sampled.",
        ),
    ] = None,
    negated: Annotated[
        list[str] | None,
        typer.Option("--not", metavar="COMPONENT", help="Component that images should not show. Repeatable."),
    ] = None,
    weight: Numbers = None,
    region: Regions = None,
    start: From = None,
    until: Until = None,
    n: Annotated[int, typer.Option("-n", min=1, max=10_000, help="Number of samples, of each composition.")] = 1,
    guidance: Guided = None,
    guidance_scale: GuidanceScale = None,
    best_of: Annotated[
        int, typer.Option("--best-of", min=1, help="Number of samples drawn for each one kept, by `energycomp rank`.")
    ] = 1,
    until_complete: Annotated[
        bool,
        typer.Option("--until-complete", help="With --best-of: stop once every kept sample shows every component."),
    ] = False,
    out: Annotated[
        Path,
        typer.Option(
            "-o", "--out", help="PNG, JPEG or WebP file to write; several samples go to NAME-1.png, NAME-2.png, ..."
        ),
    ] = Path("sample.png"),
    as_grid: Annotated[bool, typer.Option("--grid", help="Write all samples to one image, in rows.")] = False,
    show: Annotated[bool, typer.Option("--show", help="Open the images in the viewer of the system.")] = False,
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
            help="Name of a registered sampler, for example smc, in place of a scheduler.", show_default="scheduler"
        ),
    ] = None,
    with_report: Annotated[
        bool, typer.Option("--report", help="Print the sampler's report: costs, effective sample sizes, warnings.")
    ] = False,
    precision: Annotated[
        Literal["no", "bf16"], typer.Option(help="Mixed precision of the networks; bf16 is faster.")
    ] = "no",
    seed: Seed = 0,
    device: Device = "cpu",
    preset: Annotated[str | None, typer.Option(help="Preset of a registered model.")] = None,
    option: Options = None,
    at: Annotated[list[str] | None, typer.Option("--at", hidden=True, help="Alias of COMPONENT.")] = None,
    stated: Annotated[list[str] | None, typer.Option("--with", hidden=True, help="Alias of COMPONENT.")] = None,
    without: Annotated[
        list[str] | None, typer.Option("--without", hidden=True, help="Alias of COMPONENT=false.")
    ] = None,
    source: Source = None,
    dtype: Dtype = None,
    as_json: AsJson = False,
) -> None:
    """Compose components and sample images of the composition.

    energycomp sample clevr "0.3,0.5" "0.7,0.6" -o scene.png

    energycomp sample clevr "0.3,0.5" "0.7,0.6" -n 16 --grid -o grid.png

    energycomp sample clevr "0.3,0.5" "0.7,0.6" -o scene.jpg --show

    energycomp sample clevr "0.3,0.5" --not "0.7,0.6" --sampler rejection -o without.png

    energycomp sample clevr "0.3,0.5" "0.7,0.6" -n 2 --best-of 4 -o best.png

    energycomp sample faces smiling "black_hair=false" -o face.png

    energycomp sample text "a red cube" "a blue sphere" -o both.png

    energycomp sample text "a red cube" "a blue sphere" --region "left half" --region "right half" -o halves.png

    energycomp sample text "a red cube" "a blue sphere" --until 0.4 --until 1 --from 0 --from 0.4 -o first.png

    energycomp sample text "a red cube" "a blue sphere" --guidance apg --guidance-scale 5 -o guided.png

    energycomp sample text "a red cube" / "a blue sphere" "a green cube" / "a blue cylinder" -o sets.png

    energycomp sample clevr "0.3,0.5" "0.7,0.6" -n 16 --sampler smc --report -o scene.png

    energycomp sample text "a photo of a dog" --not rain --weight 7.5 --weight 2 --option model=FOLDER -o dog.png

    A COMPONENT is written as the model reads it: coordinates, a label, or a prompt. Weights, regions and parts of the
    trajectory are given in the order of the components. Without components, the unconditional prediction is sampled.
    Several compositions, with / between them, are sampled in one batch: a component of --not is in each of them.
    --guidance NAME moves the prediction of the whole composition away from the unconditional one; its components have
    the weight 1 then. rescale, apg and zero-star keep high scales from saturating colours, and cost as much as cfg.
    A model that generates whole scenes takes no components. Each sample is written to its own file, which `infer` and
    `edit` can read.
    """
    if until_complete and best_of == 1:
        raise InputError("got --until-complete without --best-of; expected the most samples for each, as --best-of 4")
    attributes, guided = read_guidance(guidance, guidance_scale)
    if attributes is not None and (best_of > 1 or sampler):
        raise InputError(
            "got --guidance with --best-of or --sampler, which take components as they are; leave --guidance out"
        )
    sets = component_sets(components, others=bool(at or stated or without))
    n *= len(sets)
    files = sample_files(out, n, as_grid)
    given = {
        "the component": [text for texts in sets for text in texts],
        "--at": at,
        "--with": stated,
        "--without": [f"{name}=false" for name in without or []],
    }
    count = sum(len(texts or []) for texts in [*given.values(), negated])
    with loading(model):
        from energycomp.decomposition import sampler_of

        # What does not depend on the model is refused before it is loaded, which may take minutes.
        _check_method(sampler, scheduler, guided)
        parts = component_weights(count, weight, region, start, until)
        if best_of > 1:
            check_ranked(parts, sets=len(sets))
        loaded = load_model(model, device, **model_options(option, preset=preset, model=source, dtype=dtype))
    report: dict[str, Any]
    notes: list[str] = []
    if sampler_of(loaded) is not None:
        unused = {**given, "--not": negated, "--weight": weight, "--steps": steps, "--scheduler": scheduler}
        unused |= {"--region": region, "--from": start, "--until": until}
        unused |= {"--precision": precision != "no", "--best-of": best_of > 1}
        unused |= {"--sampler": sampler, "--report": with_report, "--guidance": guidance is not None}
        unused |= {"--guidance-scale": guidance_scale is not None}
        _refuse([name for name, value in unused.items() if value], model)
        images, report = _whole_scenes(loaded, n, seed), {}
    else:
        if takes_words(loaded) and (used := [name for name in ("--at", "--with", "--without") if given[name]]):
            raise InputError(f"got {used[0]} with {model}; expected one prompt for each component, without {used[0]}")
        strength = attribute_strength(
            loaded, attributes, plain=best_of > 1 or sampler is not None or guided is not None
        )
        leaves, ruled_out = _read(loaded, given, strength), _read(loaded, {"--not": negated})
        default = loaded.defaults.guidance_scale if guided is None else 1.0
        weights = [place * (default if number is None else number) for number, place in parts]
        composers = _compose(
            loaded, leaves, ruled_out, weights, [len(leaves)] if len(sets) == 1 else [len(texts) for texts in sets]
        )
        guided_options = {} if guided is None else guided_by(guided, guidance_scale, loaded)
        options: dict[str, Any] = {
            **_method(sampler, scheduler, loaded),
            **guided_options,
            "generator": _generator(seed),
            "num_inference_steps": steps or loaded.defaults.num_inference_steps,
            "mixed_precision": precision,
        }
        images, report, notes = sampled(composers, n, (best_of, until_complete), loaded, options, with_report)
        record, lines = guidance_record(guided_options, attributes)
        report, notes = {**report, **record}, [*notes, *lines]
    save_samples(images, files)
    if show:
        for file in files:
            typer.launch(str(file))
    names = [str(file) for file in files]
    written = {"path": names[0]} if len(names) == 1 else {"paths": names}
    print_report({**written, **report, "n": n, "seed": seed}, [*notes, *names], as_json)


def _generator(seed: int) -> Any:
    import torch

    return torch.Generator().manual_seed(seed)


def _check_method(sampler: str | None, scheduler: str | None, guidance: str | None) -> None:
    """Raises for names that no plugin registers, and for options that exclude each other."""
    from energycomp.plugins import find
    from energycomp.sampling import LinearGuidance

    if sampler is not None and scheduler is not None:
        raise InputError("got --sampler and --scheduler; expected one of them; leave one out")
    if sampler is not None:
        find("samplers", sampler)
    if guidance is not None and not isinstance(find("guidances", guidance)(), LinearGuidance) and sampler is not None:
        raise InputError(
            f"got --guidance {guidance} with --sampler {sampler}, which needs a density at every noise level; expected "
            "'cfg', which is a composition; give --guidance cfg, or leave --sampler out"
        )


def _method(sampler: str | None, scheduler: str | None, model: Model) -> dict[str, Any]:
    """The sampler, or the scheduler of the plain loop, as keywords of `Composer.sample`."""
    from energycomp.plugins import find

    if sampler is None:
        return {"scheduler": scheduler or model.defaults.scheduler}
    return {"sampler": find("samplers", sampler)(), "scheduler": None}


def _refuse(options: list[str], model: str) -> None:
    if options:
        raise InputError(f"got {', '.join(options)} with {model}, which generates whole scenes; leave them out")


def _whole_scenes(model: Model, n: int, seed: int) -> list[Any]:
    from energycomp.decomposition import sampler_of
    from energycomp.images import to_output

    own: Any = sampler_of(model)
    images: list[Any] = to_output(own(n, generator=_generator(seed)), "pil")
    return images


def _read(
    model: Model, texts: Mapping[str, list[str] | None], guidance: float = 1.0
) -> list[Conditional | Composition]:
    return [read_component(model, text, option, guidance) for option, given in texts.items() for text in given or []]


def _compose(
    model: Model, leaves: list[Any], negated: list[Any], weights: Sequence[AnyWeight], sizes: Sequence[int]
) -> list[Composer]:
    """The composition of each sample; the components of each come one after another."""
    from energycomp.sampling import Composer

    parts: list[Any] = [w * leaf for w, leaf in zip(weights, leaves, strict=False)]
    ruled_out: list[Any] = [~(w * leaf) for w, leaf in zip(weights[len(leaves) :], negated, strict=True)]
    remaining = iter(parts)
    each = [[*islice(remaining, size), *ruled_out] for size in sizes]
    return [Composer(own) if own else Composer(model.unconditional) for own in each]
