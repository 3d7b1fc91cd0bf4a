"""What the image of a scene says about itself, and the scene of an image that says it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from energycomp import Composer
from energycomp.components import Weight, ability, read_value, weighted
from energycomp.errors import EnergycompError, InputError
from energycomp.images import formula_text
from energycomp.models import Model
from energycomp.seeds import as_generator
from energycomp_cli import made_by
from energycomp_studio.forms import form_of
from energycomp_studio.scene import Draft, Item, compose_scene, scene_of, value, weighted_text
from energycomp_studio.settings import Settings

PAGE = {"not", "steps", "sampler", "canvas"}  # options that the page has, too
OTHER_FILE = {"n", "grid", "best-of", "raw", "device", "precision"}  # options that leave the scene as it is


def formula_of_scene(scene: Draft, model: Model, source: str, settings: Settings) -> dict[str, Any] | None:
    """The formula of a scene's image: that of the command that draws it, or the scene itself where there is none.

    None where the command line cannot read a component, or for more than a formula may hold: the image is shown all
    the same.
    """
    try:
        made = _formula(scene, model, source, settings)
        formula_text(made)
    except EnergycompError:
        return None
    return made


def _formula(scene: Draft, model: Model, source: str, settings: Settings) -> dict[str, Any]:
    given = settings.given(model)
    options: dict[str, Any] = {} if settings.canvas is None else {"canvas": settings.canvas}
    for name, option in given.items():
        options["steps" if name == "num_inference_steps" else "sampler"] = option
    if len(scene.alternatives) > 1:  # the command line has no |
        made = made_by("studio", source, model, [], options, settings.seed)
        return {**made, "scene": scene.as_json()["items"], "composition": repr(compose_scene(scene, model, settings))}
    items = scene.alternatives[0] if scene.items else ()
    texts = [weighted_text(item, model) for item in items if not item.negated]
    negated = [weighted_text(item, model) for item in items if item.negated]
    if settings.size is None:
        parts = [*model.scene(*texts, generator=settings.seed), *(~model.read(text) for text in negated)]
        composer = Composer(parts or model.unconditional)
    else:
        composer = Composer(compose_scene(scene, model, settings))
    options = {**({"not": negated} if negated else {}), **options}
    composition = repr(composer.composition)
    return made_by("sample", source, model, texts, options, settings.seed, composition=composition)


def model_in(formula: Mapping[str, Any], known: Collection[str]) -> str:
    """The model of a formula, as the studio knows it. Raises `InputError` for one that is not among them: a file loads
    none by itself.
    """
    named = formula.get("model")
    for name in known:
        if named == (Path(name).resolve().name if "fingerprint" in formula else name):
            return name
    raise InputError(
        f"got an image of the model {named!r}; expected one of {', '.join(known)}; start the studio with that model, "
        "as in energycomp studio FOLDER"
    )


def scene_in(formula: Mapping[str, Any], model: Model) -> tuple[Draft, Settings, str | None]:
    """The scene, its settings, and the scheduler or sampler of a formula. Raises `InputError` for what the page has no
    field for.
    """
    options = formula.get("options", {})
    arguments = formula.get("arguments", [])
    if formula.get("command") not in ("sample", "studio") or not isinstance(options, Mapping):
        raise InputError(
            f"got an image of the command {formula.get('command')!r}; expected one of sample or of the studio"
        )
    if others := sorted(map(str, options.keys() - PAGE - OTHER_FILE)):
        raise InputError(
            f"got an image that was drawn with --{others[0]}, which the page does not have; expected one without; use "
            "the command that energycomp show prints"
        )
    negated = options.get("not", [])
    if not all(
        isinstance(texts, list) and all(isinstance(one, str) for one in texts) for texts in (arguments, negated)
    ):
        raise InputError("got an image with a damaged formula; expected components as texts")
    seed: Any = formula.get("seed")  # which the settings check
    settings = Settings(seed, options.get("steps"), canvas=options.get("canvas"))
    if "scene" in formula:
        return scene_of({"items": formula["scene"]}), settings, options.get("sampler")
    items = [*_items(arguments, model, settings.seed), *_items(negated, model, None)]
    scene = [{**item, "negated": k >= len(arguments)} for k, item in enumerate(items)]
    return scene_of({"items": scene}), settings, options.get("sampler")


def _items(texts: list[str], model: Model, seed: int | None) -> list[dict[str, Any]]:
    """Reads components of the command line as items of the page."""
    found = [weighted(text) for text in texts]
    if any(isinstance(one.place, Weight) for one in found) or "/" in texts:
        raise InputError(
            "got an image with a region, a share of the trajectory or several compositions, which the page does not "
            "have; expected one without; use the command that energycomp show prints"
        )
    placed = [one.text for one in found]
    if seed is not None and (place := ability(model.conditioner, "placed")) is not None:
        placed = place(placed, as_generator(seed))
    own = model.defaults.guidance_scale
    weights = [own if one.number is None else one.number for one in found]
    return [
        {"given": _read_fields(text, model), "weight": weight} for text, weight in zip(placed, weights, strict=True)
    ]


def _read_fields(text: str, model: Model) -> dict[str, Any]:
    """Reads the fields of a component; numbers as short as they are the same."""
    if form_of(model).kind == "texts":
        return {"text": text}
    wanted = read_value(model.conditioner, text)
    described = model.conditioner.describe(wanted[0])
    fields = {name: float(f"{one:.6g}") if isinstance(one, float) else one for name, one in described.items()}
    if not value(Item(fields), model).equal(wanted):
        raise InputError(f"got the component {text!r}, which has no fields on the page; use the command line")
    return fields
