"""What `energycomp lint` is given, as a model: a folder of diffusers, weights with a recipe, a function, a model.

No code of a folder runs, and nothing is downloaded: classes are those of a fixed table, or in a recipe those of an
installed package, and weights are safetensors. A function is of the person who names it, and may be in the working
folder.
"""

from __future__ import annotations

import importlib
import json
import re
import sys
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs
from torch import nn

from energycomp.errors import InputError, NotFoundError, first_line
from energycomp.models import Model, VAECodec, load, load_weights, on_meta, read_weights
from energycomp_adopt.adapter import Call
from energycomp_adopt.adopting import adopt
from energycomp_adopt.process import name_process

CONFIG = "config.json"
SCHEDULER = "scheduler/scheduler_config.json"
SCALED = '"beta_schedule": "scaled_linear", "beta_start"'
NETWORKS = ("unet", "transformer")  # the folders in which pipelines have them
CLASSES = ("UNet2DModel", "DiTTransformer2DModel")  # whose conditions are labels, if they have any
FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
MAX_BYTES = 1_000_000  # of a config

IN_FOLDER: dict[str, str] = {  # what `adopt` is told, and the line of a folder of diffusers that says it
    "predicts='eps'": f'"prediction_type": "epsilon" in {SCHEDULER}',
    "predicts='x0'": f'"prediction_type": "sample" in {SCHEDULER}',
    "predicts='v'": f'"prediction_type": "v_prediction" in {SCHEDULER}',
    "process='linear'": f'"beta_schedule": "linear", "beta_start": 0.0001, "beta_end": 0.02 in {SCHEDULER}',
    "process='scaled linear'": f'{SCALED}: 0.0001, "beta_end": 0.02 in {SCHEDULER}',
    "process='stable diffusion'": f'{SCALED}: 0.00085, "beta_end": 0.012 in {SCHEDULER}',
    "process='cosine'": f'"beta_schedule": "squaredcos_cap_v2" in {SCHEDULER}',
    "predicts='flow'": f'"_class_name": "FlowMatchEulerDiscreteScheduler" in {SCHEDULER}',
}
SCALING = re.compile(r"scaling_factor=([^\s,]+)(?:, shift_factor=(\S+))?")


def open_model(source: str, recipe: Path | None = None) -> Model:
    """The model of what is to be checked.

    Args:
        source: a folder of a pipeline or a network of diffusers; a `.safetensors` file; `package.module:function`,
            which makes a model by `adopt`; or whatever `energycomp.load` takes.
        recipe: a TOML file of what `adopt` is told of the weights in a file; by default it lies beside them.

    Raises:
        InputError: a class that is not known here, a recipe that says too little, a function that makes no model.
        NotFoundError: a file or folder that is missing.
        CheckpointError: weights that do not fit.
    """
    path = Path(source)
    if FUNCTION.fullmatch(source) and not path.exists():
        return _by_function(source)
    if path.suffix == ".safetensors" or recipe is not None:
        return _by_recipe(path, path.with_suffix(".toml") if recipe is None else recipe)
    if path.is_dir() and (folder := _network_in(path)) is not None:
        return _in_folder(path, folder)
    return load(source)


def in_folder(change: str) -> str:
    """A change of `adopt` as the line of a folder of diffusers that says it; as it is where no file does.

    >>> in_folder("predicts='v'")
    '"prediction_type": "v_prediction" in scheduler/scheduler_config.json'
    """
    if scaled := SCALING.fullmatch(change):
        shift = f', "shift_factor": {scaled[2]}' if scaled[2] else ""
        return f'"scaling_factor": {scaled[1]}{shift} in vae/config.json'
    lines = [IN_FOLDER.get(part, part) for part in change.split(", ")]
    return " and ".join(dict.fromkeys(lines)) if any(part in IN_FOLDER for part in change.split(", ")) else change


def _by_function(source: str) -> Model:
    module, _, name = source.partition(":")
    try:
        if (here := str(Path.cwd())) not in sys.path:  # as `python -m` does
            sys.path.insert(0, here)
        made = getattr(importlib.import_module(module), name)()
    except (ImportError, AttributeError, TypeError) as error:
        raise InputError(
            f"got {source}, which cannot be called ({first_line(error)}); expected package.module:function of a "
            "function without arguments that returns what adopt() makes"
        ) from error
    if not isinstance(made, Model):
        raise InputError(f"got a {type(made).__name__} of {source}; expected a model; return what adopt() makes")
    return made


def _by_recipe(weights: Path, recipe: Path) -> Model:
    """A network by the class that a recipe names, with the weights of a file, adopted as the recipe says."""
    if not recipe.is_file():
        raise NotFoundError(
            f"got {weights.name} without {recipe.name}; expected a recipe of what adopt() is told, such as:\n"
            'network = "diffusers:UNet2DModel"\narguments = { sample_size = 28, in_channels = 1, out_channels = 1 }\n'
            'shape = [1, 28, 28]\npredicts = "eps"\nprocess = "linear"'
        )
    try:
        said = tomllib.loads(recipe.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"got {recipe}, which is no TOML ({first_line(error)}); correct it") from error
    name = said.pop("network", "")
    arguments = said.pop("arguments", {})
    if (
        not isinstance(name, str)
        or not FUNCTION.fullmatch(name)
        or not isinstance(arguments, dict)
        or "shape" not in said
    ):
        raise InputError(
            f"got {recipe} with network = {name!r:.60}; expected network = 'package:Class', arguments = {{...}} and "
            "shape = [C, H, W]; add them"
        )
    module, _, cls = name.partition(":")
    try:
        make = getattr(importlib.import_module(module), cls)
    except (ImportError, AttributeError) as error:
        raise InputError(f"got network = {name!r} in {recipe} ({first_line(error)}); install or correct it") from error
    if not isinstance(make, type) or not issubclass(make, nn.Module):  # a recipe may be of the same hand as the weights
        raise InputError(f"got network = {name!r} in {recipe}; expected a class of torch.nn.Module; correct it")
    try:
        network = _fill(lambda: make(**arguments), weights)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"got arguments in {recipe} ({first_line(error)}); expected those of {name}") from error
    for bounds in ("process", "data_range"):
        if isinstance(said.get(bounds), list):
            said[bounds] = tuple(said[bounds])
    try:
        return adopt(network, **said)
    except TypeError as error:
        raise InputError(f"got {recipe} ({first_line(error)}); expected keywords of adopt(); correct them") from error


def _fill(make: Callable[[], Any], weights: Path) -> Any:
    """A network with the weights of a file or folder, whose sizes are compared before memory is taken."""
    tensors = read_weights(weights)
    with on_meta(tensors, str(weights)):
        make()
    network = make()
    load_weights(network, tensors, str(weights))
    return network.eval()


def _network_in(folder: Path) -> Path | None:
    """The folder of a network of `CLASSES`, which may be the folder itself; None for any other."""
    for part in (folder, *(folder / name for name in NETWORKS)):
        if (part / CONFIG).is_file() and _read_config(part / CONFIG).get("_class_name") in CLASSES:
            return part
    return None


def _read_config(file: Path) -> Mapping[str, Any]:
    try:
        if file.stat().st_size > MAX_BYTES:
            raise InputError(f"got {file} of {file.stat().st_size:,} bytes; expected at most {MAX_BYTES:,}")
        found = json.loads(file.read_text(encoding="utf-8"))
    except (RecursionError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"got {file}, which is no JSON ({first_line(error)}); download it again") from error
    if not isinstance(found, dict):
        raise InputError(f"got {file} with a {type(found).__name__}; expected an object; download it again")
    return found


def _in_folder(folder: Path, part: Path) -> Model:
    """A network of labels, or of no conditions, in a folder of diffusers, as its configs say that it was trained."""
    import diffusers

    config = dict(_read_config(part / CONFIG))
    cls = getattr(diffusers, config["_class_name"])
    try:
        network = _fill(lambda: cls.from_config(config), part)
    except (TypeError, ValueError) as error:
        raise InputError(f"got {part / CONFIG} ({first_line(error)}); expected that of a {cls.__name__}") from error
    options = {"call": _calls_at(1), **_said_of_process(folder)}
    vae = folder / "vae"
    side = network.config.sample_size
    sides = side if isinstance(side, list | tuple) else [side, side]
    if len(sides) != 2 or not all(type(each) is int and each > 0 for each in sides):
        raise InputError(f"got sample_size {side!r:.40} in {part / CONFIG}; expected height and width; add them")
    height, width = sides
    if cls.__name__ == "DiTTransformer2DModel":
        labels = network.config.num_embeds_ada_norm
        options |= {"classes": labels, "null": labels}
    elif (labels := network.config.num_class_embeds) is not None:
        options |= {"classes": labels}
    codec = VAECodec.read(str(vae), image_size=8 * max(height, width)) if vae.is_dir() else None
    if codec is not None:
        codec = attrs.evolve(codec, image_size=(height * codec.reduction, width * codec.reduction)).holding(codec.vae)
        options |= {"codec": codec}
    return adopt(network, shape=(network.config.in_channels, height, width), name=folder.name, **options)


def _calls_at(times: float) -> Call:
    """Calls a network of `CLASSES`, which is told so many times t; labels are None for one without conditions."""
    return lambda net, x, t, c: net(x, times * t, class_labels=c)


def _said_of_process(folder: Path) -> dict[str, Any]:
    """What the scheduler of a folder says to `adopt`; without one, noise of linear betas, as diffusers has it."""
    import diffusers

    file = folder / SCHEDULER
    config = dict(_read_config(file)) if file.is_file() else {"_class_name": "DDPMScheduler"}
    name = str(config.get("_class_name"))
    if name.startswith("FlowMatch"):
        return {"predicts": "flow", "process": "flow", "call": _calls_at(1000)}
    if name.startswith("EDM"):
        ends = (config.get("sigma_min", 0.002), config.get("sigma_max", 80.0))
        return {"predicts": "edm", "process": ends, "sigma_data": config.get("sigma_data", 0.5)}
    if name.startswith("ScoreSde"):
        ends = (config.get("sigma_min", 0.01), config.get("sigma_max", 1348.0))
        return {"predicts": "score", "process": ends}
    cls = getattr(diffusers, name, None)
    try:
        alphas = cls.from_config(config).alphas_cumprod  # type: ignore[union-attr] # None has no such name, which is told
    except (AttributeError, TypeError, ValueError, NotImplementedError) as error:
        raise InputError(
            f"got {file} of a {name:.60} ({first_line(error)}); expected the scheduler of its training, such as "
            "DDPMScheduler; put that there"
        ) from error
    kinds = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}
    kind = config.get("prediction_type", "epsilon")
    if kind not in kinds:
        raise InputError(f"got prediction_type {kind!r} in {file}; expected one of {', '.join(kinds)}; correct it")
    return {"predicts": kinds[kind], "process": name_process(alphas)}
