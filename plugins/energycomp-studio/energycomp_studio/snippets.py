"""The Python and shell lines that make the same image as the page."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from energycomp.models import Model
from energycomp_studio.pictures import SIDE
from energycomp_studio.scene import Changes, Draft, Item, text_of, value, weighted_text
from energycomp_studio.settings import Settings


def python_lines(scene: Draft, model: Model, source: str, settings: Settings) -> str:
    """Writes a script that makes the image.

    >>> from energycomp.testing import bumps_model
    >>> scene = Draft((Item({"x": 0.2, "y": 0.3}), Item({"x": 0.5, "y": 0.5}, weight=2.0, negated=True)))
    >>> print(python_lines(scene, bumps_model(), "bumps", Settings()))
    import energycomp
    <BLANKLINE>
    model = energycomp.load("bumps")
    scene = model(0.2, 0.3) & ~(2.0 * model(0.5, 0.5))
    image = energycomp.Composer(scene).sample(generator=0)[0]
    model.shown(image, side=320).save("scene.png")
    """
    given = {"generator": settings.seed, **settings.given(model)}
    options = ", ".join(f"{name}={_quote(option)}" for name, option in given.items())
    made = _expression(scene, model)
    shown = f"model.shown(image, side={SIDE})"
    if settings.size is not None:
        texts = ", ".join(_quote(weighted_text(item, model)) for item in scene.items)
        made = f"model.conditioner.widened(model, [{texts}], {settings.size}, {settings.seed})"
        shown = f"framed(image, {model.defaults.aspect}, side={SIDE})"
    return "\n".join([
        "import energycomp",
        *(["from energycomp.images import framed"] if settings.size else []),
        "",
        f"model = energycomp.load({_quote(source)})",
        f"scene = {made}",
        f"image = energycomp.Composer(scene).sample({options})[0]",
        f'{shown}.save("scene.png")',
    ])  # fmt: skip


def _expression(scene: Draft, model: Model) -> str:
    """Writes the composition in Python: `&` under the rule product, a composer of a list under any other."""
    if not scene.items:
        return "model.unconditional"
    alternatives = scene.alternatives
    parts = [[_part(item, model) for item in items] for items in alternatives]
    if model.denoiser.rule != "product":
        return " | ".join(f"energycomp.Composer([{', '.join(part)}])" for part in parts)
    several = len(alternatives) > 1
    return " | ".join(f"({' & '.join(part)})" if several and len(part) > 1 else " & ".join(part) for part in parts)


def _part(item: Item, model: Model) -> str:
    call = f"model({_arguments(item, model)})"
    weighted = call if item.weight == 1 else f"{item.weight} * {call}"
    if not item.negated:
        return weighted
    return f"~{weighted}" if weighted == call else f"~({weighted})"


def _arguments(item: Item, model: Model) -> str:
    """Writes the arguments of `model(...)`, as its conditioner describes the value."""
    given: Any = dict(item.given)
    if given.keys() == {"text"}:
        given = model.conditioner.describe(value(item, model)[0])
        if isinstance(given, Mapping) and given.keys() <= {"prompt", "concept"}:
            return _quote(str(item.given["text"]))
    if isinstance(given, Mapping):
        place = [repr(given[name]) for name in ("x", "y") if name in given]
        named = [f"{name}={_quote(field)}" for name, field in given.items() if name not in ("x", "y") and field != ""]
        return ", ".join([*place, *named])
    listed = given if isinstance(given, list) else [given]
    return ", ".join(_quote(one) for one in listed)


def _quote(field: Any) -> str:
    """Quotes a string in double quotes, as the formatter of Python code does."""
    if not isinstance(field, str):
        return repr(field)
    plain = repr(field)
    return f'"{plain[1:-1]}"' if plain[0] == "'" and '"' not in plain else plain


def shell_line(scene: Draft, model: Model, source: str, settings: Settings) -> str:
    """The command that makes the image; a comment where the command line has no way to say it.

    >>> from energycomp.testing import bumps_model
    >>> scene = Draft((Item({"x": 0.2, "y": 0.3}), Item({"x": 0.5, "y": 0.5}, weight=2.0, negated=True)))
    >>> shell_line(scene, bumps_model(), "bumps", Settings())
    "energycomp sample bumps 0.2,0.3 --not '0.5,0.5 * 2.0' --seed 0 -o scene.png"
    """
    if len(scene.alternatives) > 1:
        return "# the command line has no |, use the Python lines"
    items = scene.alternatives[0] if scene.items else ()
    words = ["energycomp", "sample", source]
    words += ["--canvas", settings.canvas] if settings.canvas else []
    for item in items:
        words += ["--not"] * item.negated + [weighted_text(item, model)]
    for name, option in settings.given(model).items():
        words += ["--steps" if name == "num_inference_steps" else "--sampler", str(option)]
    return shlex.join([*words, "--seed", str(settings.seed), "-o", "scene.png"])


def edit_shell(found: Changes, model: Model, source: str, settings: Settings) -> str:
    """The command that edits the image that was read; its objects count from 1."""
    words = ["energycomp", "edit", source, "scene.png"]
    for number, item in found.move.items():
        words += ["--move", f"{number + 1}:{text_of(item, model)}"]
    for number in found.remove:
        words += ["--remove", str(number + 1)]
    for item in found.add:
        words += ["--add", text_of(item, model)]
    words += [] if settings.steps is None else ["--steps", str(settings.steps)]
    return shlex.join([*words, "--seed", str(settings.seed), "-o", "edited.png"])


def edit_python(found: Changes, model: Model, source: str, settings: Settings) -> str:
    """A script that edits the image that was read."""
    moved = ", ".join(f"{k}: {_write_mapping(item, model)}" for k, item in found.move.items())
    added = ", ".join(_write_mapping(item, model) for item in found.add)
    arguments = [f"move={{{moved}}}"] if found.move else []
    arguments += [f"remove={list(found.remove)}"] if found.remove else []
    arguments += [f"add=[{added}]"] if found.add else []
    arguments += [] if settings.steps is None else [f"num_inference_steps={settings.steps}"]
    arguments += [f"generator={settings.seed}"]
    return "\n".join([
        "import energycomp",
        "import energycomp_edit",
        "",
        f"model = energycomp.load({_quote(source)})",
        f'edited = energycomp_edit.edit("scene.png", model, {", ".join(arguments)})',
        'edited.image.save("edited.png")',
    ])  # fmt: skip


def _write_mapping(item: Item, model: Model) -> str:
    """Writes what `edit` takes for the value of an item."""
    fields = {name: field for name, field in item.given.items() if field != ""}
    if fields.keys() == {"text"} or fields.keys() == {"x", "y"}:
        return f"[{_arguments(item, model)}]"
    return "{" + ", ".join(f"{_quote(name)}: {_quote(field)}" for name, field in fields.items()) + "}"
