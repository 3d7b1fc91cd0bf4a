"""`energycomp sample`: conditions in, a composed picture out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from energycomp.cli.options import (
    AsJson,
    Device,
    Dtype,
    ModelName,
    Seed,
    Source,
    from_source,
    load_model,
    make_folder,
    numbers,
    takes_words,
)
from energycomp.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from energycomp.models import Model
    from energycomp.sampling import Composer

__all__ = ["sample"]

SIDE = 64  # px of a picture in a grid, at least


def sample(
    model: ModelName,
    prompts: Annotated[
        list[str] | None, typer.Argument(metavar="[PROMPT]...", help="Components of a model that takes words.")
    ] = None,
    at: Annotated[list[str] | None, typer.Option("--at", help="A component, 0.3,0.5. Once for each.")] = None,
    negated: Annotated[
        list[str] | None, typer.Option("--not", help="A component to keep away from: 0.5,0.5, or a prompt.")
    ] = None,
    labels: Annotated[
        list[str] | None, typer.Option("--with", help="An attribute, smiling or hair=red. Once for each.")
    ] = None,
    without: Annotated[list[str] | None, typer.Option("--without", help="An attribute whose value is no.")] = None,
    weight: Annotated[
        list[float] | None, typer.Option("--weight", help="Of the components: one for all, or one for each.")
    ] = None,
    n: Annotated[int, typer.Option("-n", min=1, max=10_000, help="How many samples, shown as a grid.")] = 1,
    out: Annotated[Path, typer.Option("-o", "--out", help="The PNG to write.")] = Path("sample.png"),
    steps: Annotated[int | None, typer.Option(min=1, help="Steps of the scheduler; the model's own number.")] = None,
    scheduler: Annotated[str | None, typer.Option(help="Of diffusers, such as EulerDiscreteScheduler.")] = None,
    precision: Annotated[Literal["no", "bf16"], typer.Option(help="Of the networks; bf16 is faster.")] = "no",
    seed: Seed = 0,
    device: Device = "cpu",
    preset: Annotated[str | None, typer.Option(help="A preset of a registered model.")] = None,
    source: Source = None,
    dtype: Dtype = None,
    as_json: AsJson = False,
) -> None:
    """Compose components and sample pictures of the result.

    energycomp sample clevr --at 0.3,0.5 --at 0.7,0.6 -n 4 -o scene.png

    energycomp sample clevr --at 0.3,0.5 --not 0.7,0.6 -o without.png

    energycomp sample faces --with smiling --without black_hair -o face.png

    energycomp sample text "a red cube" "a blue sphere" -o both.png

    energycomp sample text "a photo of a dog" --not rain --weight 7.5 --weight 2 --model FOLDER -o dog.png

    Weights are in the order of prompts, --at, --with, --without, --not; the model's own guidance scale where there are
    none. Without any component the model's unconditional prediction is sampled. A model that makes whole scenes of its
    own takes none.
    """
    import torch

    from energycomp.decomposition import sampler_of

    if out.suffix.lower() != ".png" or out.is_dir():
        raise InputError(f"got -o {out}; expected the name of a PNG file, such as scene.png")
    loaded = load_model(model, device, **({} if preset is None else {"preset": preset}), **from_source(source, dtype))
    own = sampler_of(loaded)
    if own is not None:
        chosen: dict[str, Any] = {
            "a prompt": prompts,
            "--at": at,
            "--not": negated,
            "--with": labels,
            "--without": without,
        }
        chosen |= {"--weight": weight, "--steps": steps, "--scheduler": scheduler, "--precision": precision != "no"}
        _whole_scenes(own, model, [name for name, value in chosen.items() if value], n, out, seed, as_json=as_json)
        return
    leaves = [_said(loaded, prompt) for prompt in prompts or []]
    leaves += [loaded(*numbers(text, "--at")) for text in at or []]
    leaves += [loaded(**_label(text)) for text in labels or []]
    leaves += [loaded(**{name: False}) for name in without or []]
    kept_away = [loaded(text) if takes_words(loaded) else loaded(*numbers(text, "--not")) for text in negated or []]
    composer = _compose(loaded, leaves, kept_away, weight or [])
    make_folder(out.parent, "-o")
    images = composer.sample(
        n,
        generator=torch.Generator().manual_seed(seed),
        num_inference_steps=steps or loaded.defaults.num_inference_steps,
        scheduler=scheduler or loaded.defaults.scheduler,
        mixed_precision=precision,
    )
    _save(images, out)
    if as_json:
        import json

        report = {"path": str(out), "composition": repr(composer.composition), "n": n, "seed": seed}
        typer.echo(json.dumps(report))
    else:
        typer.echo(f"{composer.composition!r}\n{out}")


def _whole_scenes(
    own: Callable[..., Tensor], model: str, chosen: list[str], n: int, out: Path, seed: int, *, as_json: bool
) -> None:
    import json

    import torch

    from energycomp.images import to_output

    if chosen:
        raise InputError(f"got {', '.join(chosen)} with {model}, which makes whole scenes of its own; leave them out")
    images = to_output(own(n, generator=torch.Generator().manual_seed(seed)), "pil")
    make_folder(out.parent, "-o")
    _save(images, out)
    typer.echo(json.dumps({"path": str(out), "n": n, "seed": seed}) if as_json else str(out))


def _label(text: str) -> dict[str, Any]:
    """`smiling` as smiling=True, `hair=red` as hair="red"."""
    name, equals, value = text.partition("=")
    return {name: value if equals else True}


def _said(model: Model, prompt: str) -> Any:
    if not takes_words(model):
        raise InputError(
            f"got the prompt {prompt!r} for {model.name}, whose components are not said in words; expected --at or "
            "--with, or a model of text"
        )
    return model(prompt)


def _compose(model: Model, leaves: list[Any], kept_away: list[Any], weight: list[float]) -> Composer:
    from energycomp.sampling import Composer

    count = len(leaves) + len(kept_away)
    if len(weight) not in (0, 1, count):
        raise InputError(
            f"got {len(weight)} --weight for {count} components; expected one for all, or one for each, --not last"
        )
    weights = weight if len(weight) > 1 else (weight or [model.defaults.guidance_scale]) * count
    numbers(",".join(map(str, weights)) or "0", "--weight")
    parts: list[Any] = [w * leaf for w, leaf in zip(weights, leaves, strict=False)]
    parts += [~(w * leaf) for w, leaf in zip(weights[len(leaves) :], kept_away, strict=True)]
    return Composer(parts) if parts else Composer(model.unconditional)


def _save(images: list[Any], out: Path) -> None:
    from energycomp.files import atomic_file
    from energycomp.viz import grid

    picture = images[0] if len(images) == 1 else grid(images, side=SIDE)
    with atomic_file(out) as temporary:
        picture.save(temporary, format="PNG")
