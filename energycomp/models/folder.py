"""Models on disk: config.json, model.safetensors and a manifest of sha256 sums. Never pickle, never code."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import attrs
import torch
from torch import Tensor

from energycomp.components.condition import Condition
from energycomp.components.conditioning import Conditioner, weights_of
from energycomp.denoisers.codec import Codec
from energycomp.denoisers.denoiser import Denoiser
from energycomp.denoisers.evaluator import rows, trunk
from energycomp.errors import CheckpointError, EnergycompError, InputError
from energycomp.files import atomic_directory, read_tensors, write_tensors
from energycomp.images import ImageProcessor
from energycomp.imports import without_compiler
from energycomp.manifest import verify
from energycomp.models.defaults import Defaults
from energycomp.models.parts import FORMAT, ModelParts
from energycomp.models.proposals import FOLDER as PROPOSALS, Proposer
from energycomp.models.weights import check_fit, fill_weights, load_weights, on_meta
from energycomp.plugins import Kind
from energycomp.plugins.registry import find

M = TypeVar("M", bound=ModelParts)

Check = Callable[[str, Conditioner], object]  # of the name and the conditioner of a model, raises to refuse it

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
SCHEDULE = "alphas_cumprod"
MAX_CONFIG_BYTES = 1_000_000
MAX_WORK = 30_000_000_000  # weights times pixels of a sample: at most some seconds on one core
KINDS: dict[str, Kind] = {"network": "networks", "encoder": "encoders", "conditioner": "conditioners"}


def write(model: ModelParts, folder: str | Path, dtype: torch.dtype | None, documents: Mapping[str, str]) -> None:
    """What `Model.save_pretrained` does, with text files by name."""
    network = model.denoiser.network
    if not hasattr(network, "config"):
        raise InputError(
            f"got {model.name} with a network {type(network).__name__}, which no name rebuilds; expected one of ours; "
            "save the pipeline that it is of with its own save_pretrained, and load that folder"
        )
    config = model.config()
    weights = {k: v.to(dtype) if dtype and v.is_floating_point() else v for k, v in model.weights.items()}
    with suppress(OSError):  # which the next line reports
        Path(folder).parent.mkdir(parents=True, exist_ok=True)
    with atomic_directory(folder) as temporary:
        if (save := getattr(model.denoiser.codec, "save", None)) is not None:
            config["codec"]["config"] = save(temporary, dtype)
        if model.proposals is not None:
            model.proposals.save(temporary)
        (temporary / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
        write_tensors(temporary / WEIGHTS, {**weights, SCHEDULE: model.denoiser.alphas_cumprod.float()})
        for name, text in documents.items():
            (temporary / name).write_text(text, encoding="utf-8")


def read(make: type[M], folder: Path, check: Check | None = None) -> M:
    """The model of a folder that `write` wrote, in float32; classes are found by their registered names only."""
    verify(folder)
    config = _read_config(folder / CONFIG)
    tensors = read_tensors(folder / WEIGHTS)
    try:
        return _make_model(make, config, tensors, str(folder), check)
    except EnergycompError:
        raise
    except Exception as error:  # whatever a factory raises for arguments that it was not written for
        asked = re.search(r"unexpected keyword argument '(\w+)'$", str(error))  # Python 3.13 says itself what was meant
        known = {field.name for part in (Denoiser, Defaults, ImageProcessor) for field in attrs.fields(part)}
        why = f"{type(error).__name__}: {error}{_meant(asked[1], known) if asked else ''}"
        raise CheckpointError(
            f"got {folder / CONFIG} that does not describe a model ({why}); expected what save_pretrained writes; "
            "restore it, or update energycomp"
        ) from error


def _read_config(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise CheckpointError(f"got {path.parent} without {path.name}; expected what save_pretrained writes")
    if path.stat().st_size > MAX_CONFIG_BYTES:
        raise CheckpointError(f"got {path} of {path.stat().st_size:,} bytes; expected at most {MAX_CONFIG_BYTES:,}")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"got {path}, which is no JSON ({error}); expected what save_pretrained writes"
        ) from error
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        found = config.get("format") if isinstance(config, dict) else type(config).__name__
        wanted = f"expected {FORMAT}; update energycomp or export it again"
        raise CheckpointError(f"got {path} of format {found!r}; {wanted}")
    return config


def _make_model(
    make: type[M], config: dict[str, Any], tensors: dict[str, Tensor], source: str, check: Check | None
) -> M:
    """Built without memory, compared with config and weights, then filled with the weights."""
    schedule = tensors.pop(SCHEDULE).float()
    weights = _by_part(tensors, [part for part in KINDS if part in config])

    def build(part: str) -> Any:
        return _make_part(KINDS[part], config[part])

    def on_paper(part: str) -> Any:
        with on_meta(weights[part], source):
            made = build(part)
        module = weights_of(made) if part == "conditioner" else made
        check_fit({} if module is None else module.state_dict(), weights[part], f"the {part} of {source}")
        return made

    # The conditioner, which is checked before the seconds that a network takes
    if weights["conditioner"]:
        on_paper("conditioner")
    conditioner: Conditioner = build("conditioner")
    if check is not None:
        check(config["name"], conditioner)
    # The model, its networks without weights
    networks = {part: on_paper(part).eval() for part in weights if part != "conditioner"}
    said = {"null_trained": None, **config["denoiser"]}  # a file has to say so: its default is not taken
    given: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in said.items()}
    codec = _codec(config["codec"], Path(source))
    model = make(
        name=config["name"],
        denoiser=Denoiser(network=networks["network"], alphas_cumprod=schedule, codec=codec, **given),
        conditioner=conditioner,
        processor=_make_part("processors", config["processor"]),
        network_name=config["network"]["name"],
        conditioner_name=config["conditioner"]["name"],
        defaults=Defaults(**config["defaults"]),
        encoder=networks.get("encoder"),
        encoder_name=config["encoder"]["name"] if "encoder" in config else None,
        decomposer_name=_decomposer(config),
        proposals=Proposer(Path(source) / PROPOSALS) if (Path(source) / PROPOSALS).is_dir() else None,
    )
    # It says of itself what the file says of it, and its shapes fit
    own = json.loads(json.dumps({**model.config(), "codec": config["codec"]}))
    wrong = _find_difference(config, own)
    if wrong:
        raise CheckpointError(f"got {wrong} in {source}/{CONFIG}; expected what save_pretrained writes; restore it")
    work = sum(tensor.numel() for tensor in tensors.values()) * math.prod(given["sample_shape"][1:])
    is_large = work > MAX_WORK
    if is_large:
        with on_meta():
            _check_shapes(model)
    # The weights
    module = weights_of(conditioner)
    if module is not None:
        load_weights(module, weights["conditioner"], f"the conditioner of {source}")
        module.eval().requires_grad_(requires_grad=False)
    full = {part: fill_weights(made, partial(build, part), weights[part], source) for part, made in networks.items()}
    denoiser = attrs.evolve(model.denoiser, network=full["network"])
    model = attrs.evolve(model, denoiser=denoiser, encoder=full.get("encoder"))
    if not is_large:
        _check_shapes(model)
    return model


def _by_part(tensors: Mapping[str, Tensor], parts: Iterable[str]) -> dict[str, dict[str, Tensor]]:
    """Tensors by the part that their names begin with; those of no part are of the network."""
    found: dict[str, dict[str, Tensor]] = {part: {} for part in parts}
    for key, tensor in tensors.items():
        part, _, name = key.partition(".")
        if part in found:
            found[part][name] = tensor
        else:
            found["network"][key] = tensor
    return found


def _codec(part: Mapping[str, Any] | None, folder: Path) -> Codec | None:
    """The codec that a config names, with its files."""
    if part is None:
        return None
    codec: Codec = _make_part("codecs", part)
    opened: Codec = codec.opened(folder) if hasattr(codec, "opened") else codec
    return opened


def _make_part(kind: Kind, part: Mapping[str, Any]) -> Any:
    """What a part of a config names, made with its arguments."""
    return find(kind, part["name"])(**part["config"])


def _find_difference(given: Any, own: Any, place: str = "") -> str:
    """What a config gives that a model's own config has not, in words; what it leaves out may be a default."""
    if isinstance(given, dict) and isinstance(own, dict):
        unknown = [f"the unknown argument {key!r}{place}{_meant(key, own)}" for key in given.keys() - own.keys()]
        below = (_find_difference(given[key], own[key], f" of {key!r}{place}") for key in given.keys() & own.keys())
        return next(filter(None, (*unknown, *below)), "")
    same = given == own and isinstance(given, bool) == isinstance(own, bool)
    return "" if same else f"{place.removeprefix(' of ')} = {given!r:.80}, which is read as {own!r:.80},"


def _meant(key: str, own: Iterable[str]) -> str:
    near = get_close_matches(key, own, n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def _decomposer(config: Mapping[str, Any]) -> str | None:
    """The registered name of the model's decomposer."""
    name: Any = config.get("decomposer")
    if name is not None and not isinstance(name, str):
        raise CheckpointError(f"got the decomposer {name!r} in {CONFIG}; expected a registered name; restore it")
    if name is not None:
        find("decomposers", name)  # raises NotFoundError, which lists the registered names
    return name


def _check_shapes(model: ModelParts) -> None:
    """One row through network and encoder: samples, tokens and latents fit each other."""
    denoiser = model.denoiser
    values = tuple(model.conditioner.value_shape)
    # Some operations have no meta kernel
    with torch.no_grad(), without_compiler(), suppress(NotImplementedError):
        shared = trunk(denoiser, torch.zeros(1, *denoiser.sample_shape), torch.zeros(1))
        out = rows(denoiser, shared, Condition(torch.zeros(1, *denoiser.token_shape)), torch.zeros(1).long())
        if tuple(out.shape[1:]) != denoiser.sample_shape:
            raise CheckpointError(
                f"got a network that makes {tuple(out.shape[1:])} of samples {denoiser.sample_shape}; expected the same"
            )
        if model.encoder is not None:
            shape = tuple(model.encoder(torch.zeros(1, *denoiser.sample_shape)).shape)
            if len(shape) != 3 or shape[2:] != values:
                raise CheckpointError(
                    f"got an encoder that makes {shape} of one sample; expected (1, K, {values[-1]}), values of the "
                    "conditioner"
                )
