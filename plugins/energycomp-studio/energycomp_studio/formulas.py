"""What the image of a scene says about itself."""

from __future__ import annotations

from typing import Any

from energycomp import Composer
from energycomp.cli import made_by
from energycomp.errors import EnergycompError
from energycomp.images import formula_text
from energycomp.models import Model
from energycomp_studio.scene import Draft, Settings, composed, weighted_text


def formula_of_scene(scene: Draft, model: Model, source: str, settings: Settings) -> dict[str, Any] | None:
    """The formula of a scene's image: that of the command that draws it, or the scene itself where there is none.

    None where the command line cannot read a component, or for more than a formula may hold: the image is shown all
    the same.

    >>> from energycomp.testing import bumps_model
    >>> from energycomp_studio.scene import Item
    >>> made = formula_of_scene(Draft((Item({"x": 0.2, "y": 0.3}),)), bumps_model(), "bumps", Settings(3)) or {}
    >>> made["command"], made["arguments"], made["seed"], made["composition"]
    ('sample', ['0.2,0.3'], 3, 'bumps(0.2, 0.3)')
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
        return {**made, "scene": scene.as_json()["items"], "composition": repr(composed(scene, model, settings))}
    items = scene.alternatives[0] if scene.items else ()
    texts = [weighted_text(item, model) for item in items if not item.negated]
    negated = [weighted_text(item, model) for item in items if item.negated]
    if settings.size is None:
        parts = [*model.scene(*texts, generator=settings.seed), *(~model.read(text) for text in negated)]
        composer = Composer(parts or model.unconditional)
    else:
        composer = Composer(composed(scene, model, settings))
    options = {**({"not": negated} if negated else {}), **options}
    composition = repr(composer.composition)
    return made_by("sample", source, model, texts, options, settings.seed, composition=composition)
