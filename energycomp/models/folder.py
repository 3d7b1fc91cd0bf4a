"""Models on disk: config.json, model.safetensors and a manifest of sha256 sums. Never pickle, never code."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from copy import deepcopy
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import attrs
import torch
from torch import Tensor, nn

from energycomp.components.condition import Condition
from energycomp.components.conditioning import Conditioner, weights_of
from energycomp.denoisers.denoiser import Denoiser
from energycomp.denoisers.evaluator import rows, trunk
from energycomp.errors import CheckpointError, EnergycompError, InputError
from energycomp.files import atomic_directory, read_tensors, verify, write_tensors
from energycomp.images import ImageProcessor
from energycomp.models.codec import AUTOENCODERS, VAECodec
from energycomp.models.defaults import Defaults
from energycomp.models.hub import is_hub_id
from energycomp.models.numbers import NumberProcessor
from energycomp.models.parts import FORMAT, ModelParts
from energycomp.models.weights import check_fit, filled, load_weights, on_meta
from energycomp.plugins.hookspecs import Kind
from energycomp.plugins.registry import find, names

M = TypeVar("M", bound=ModelParts)

_first: ContextVar[Callable[[str, Conditioner], object] | None] = ContextVar("looks at a conditioner", default=None)

CONFIG, WEIGHTS, SCHEDULE = "config.json", "model.safetensors", "alphas_cumprod"
VAE, VAE_WEIGHTS = "vae", "diffusion_pytorch_model.safetensors"  # the folder of a codec inside that of its model
MAX_OWN_CODEC = 50_000_000  # bytes up to which the codec of a folder is written beside the model that uses it
MAX_CONFIG_BYTES = 1_000_000
MAX_WORK = 30_000_000_000  # weights times pixels of a sample: at most some seconds on one core
KINDS: dict[str, Kind] = {"network": "networks", "encoder": "encoders", "conditioner": "conditioners"}


def write(model: ModelParts, folder: str | Path, dtype: torch.dtype | None, documents: Mapping[str, str]) -> None:
    """What `Model.save_pretrained` does, with text files by name."""
    save = "save the pipeline that it is of with its own save_pretrained, and load that folder"
    if not hasattr(model.denoiser.network, "config"):
        network = type(model.denoiser.network).__name__
        raise InputError(
            f"got {model.name} with a network {network}, which no name rebuilds; expected one of ours; {save}"
        )
    config, own = model.config(), _own_codec(model)
    if own is not None:
        config["codec"]["source"] = VAE
    elif not _has_a_place((config["codec"] or {}).get("source")):
        raise InputError(
            f"got a model whose codec is {config['codec']['source']!r}; expected one that was read from a folder or "
            f"the hub; {save}"
        )
    weights = {k: v.to(dtype) if dtype and v.is_floating_point() else v for k, v in model.weights.items()}
    with suppress(OSError):  # which the next line reports
        Path(folder).parent.mkdir(parents=True, exist_ok=True)
    with atomic_directory(folder) as temporary:
        (temporary / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
        write_tensors(temporary / WEIGHTS, {**weights, SCHEDULE: model.denoiser.alphas_cumprod.float()})
        if own is not None:
            (nn.Module.to(deepcopy(own), dtype) if dtype else own).save_pretrained(temporary / VAE)  # no warning
        for name, text in documents.items():
            (temporary / name).write_text(text, encoding="utf-8")


def _own_codec(model: ModelParts) -> Any:
    """The autoencoder that is written beside the model: a small one that is in a folder."""
    codec = model.denoiser.codec
    if not isinstance(codec, VAECodec) or not is_folder(codec.source):
        return None
    size = sum(file.stat().st_size for file in Path(codec.source).rglob("*.safetensors"))
    return codec.vae if 0 < size <= MAX_OWN_CODEC else None


@contextmanager
def before_weights(check: Callable[[str, Conditioner], object]) -> Iterator[None]:
    """Calls `check` with the name and the conditioner of each folder that is read in the block, before its network.

    What it raises ends the loading at once: a command refuses a component without the seconds that weights take.
    """
    token = _first.set(check)
    try:
        yield
    finally:
        _first.reset(token)


def read(make: type[M], folder: Path) -> M:
    """The model of a folder that `write` wrote, in float32; classes are found by their registered names only."""
    verify(folder)
    config, tensors = _read_config(folder / CONFIG), read_tensors(folder / WEIGHTS)
    try:
        return _made(make, config, tensors, str(folder))
    except EnergycompError:
        raise
    except Exception as error:  # whatever a factory raises for arguments that it was not written for
        asked = re.search(r"unexpected keyword argument '(\w+)'", str(error))
        known = {field.name for part in (Denoiser, Defaults, ImageProcessor) for field in attrs.fields(part)}
        why = f"{type(error).__name__}: {error}{_meant(asked[1], known) if asked else ''}"
        raise CheckpointError(
            f"got {folder / CONFIG} that does not describe a model ({why}); expected what save_pretrained writes; "
            "restore it, or update energycomp"
        ) from error


def is_folder(name: str | Path) -> bool:
    """Whether there is a folder of that name, however long the name is."""
    try:
        return Path(name).is_dir()
    except (OSError, ValueError):  # too long a name, or one with a zero byte
        return False


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
        raise CheckpointError(
            f"got {path} of format {found!r}; expected {FORMAT}; update energycomp or export it again"
        )
    return config


def _made(make: type[M], config: dict[str, Any], tensors: dict[str, Tensor], source: str) -> M:
    """Built without memory, compared with config and weights, then filled with the weights."""
    schedule = tensors.pop(SCHEDULE).float()
    weights: dict[str, dict[str, Tensor]] = {part: {} for part in KINDS if part in config}
    for key, tensor in tensors.items():
        part, _, name = key.partition(".")
        part, name = (part, name) if part in weights else ("network", key)
        weights[part][name] = tensor

    def build(part: str) -> Any:
        return find(KINDS[part], config[part]["name"])(**config[part]["config"])

    def on_paper(part: str) -> Any:
        with on_meta(weights[part], source):
            made = build(part)
        module = weights_of(made) if part == "conditioner" else made
        check_fit({} if module is None else module.state_dict(), weights[part], f"the {part} of {source}")
        return made

    if weights["conditioner"]:
        on_paper("conditioner")
    conditioner: Conditioner = build("conditioner")
    if (first := _first.get()) is not None:
        first(config["name"], conditioner)
    networks = {part: on_paper(part).eval() for part in weights if part != "conditioner"}
    said = {"null_trained": None, **config["denoiser"]}  # a file has to say so: its default is not taken
    given: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in said.items()}
    codec = config["codec"]
    config["defaults"].pop("error_limit", None)  # of models saved before there was a calibration
    model = make(
        name=config["name"],
        denoiser=Denoiser(
            network=networks["network"], alphas_cumprod=schedule, codec=codec and _codec(codec, source), **given
        ),
        conditioner=conditioner,
        processor=(NumberProcessor if "mean" in config["processor"] else ImageProcessor)(**config["processor"]),
        network_name=config["network"]["name"],
        conditioner_name=config["conditioner"]["name"],
        defaults=Defaults(**config["defaults"]),
        encoder=networks.get("encoder"),
        encoder_name=config["encoder"]["name"] if "encoder" in config else None,
        decomposer_name=_decomposer(config),
    )  # fmt: skip
    own = json.loads(json.dumps({**model.config(), "codec": codec}))
    if wrong := _lost(config, own):
        raise CheckpointError(f"got {wrong} in {source}/{CONFIG}; expected what save_pretrained writes; restore it")
    if large := sum(tensor.numel() for tensor in tensors.values()) * math.prod(given["sample_shape"][1:]) > MAX_WORK:
        with on_meta():
            _check_shapes(model)
    if (module := weights_of(conditioner)) is not None:
        load_weights(module, weights["conditioner"], f"the conditioner of {source}")
        module.eval().requires_grad_(requires_grad=False)
    full = {part: filled(made, partial(build, part), weights[part], source) for part, made in networks.items()}
    denoiser = attrs.evolve(model.denoiser, network=full["network"])
    model = attrs.evolve(model, denoiser=denoiser, encoder=full.get("encoder"))
    if not large:
        _check_shapes(model)
    return model


def _lost(given: Any, own: Any, place: str = "") -> str:
    """What a config gives that a model's own config has not, in words; what it leaves out may be a default."""
    if isinstance(given, dict) and isinstance(own, dict):
        unknown = [f"the unknown argument {key!r}{place}{_meant(key, own)}" for key in given.keys() - own.keys()]
        below = (_lost(given[key], own[key], f" of {key!r}{place}") for key in given.keys() & own.keys())
        return next(filter(None, (*unknown, *below)), "")
    same = given == own and isinstance(given, bool) == isinstance(own, bool)
    return "" if same else f"{place.removeprefix(' of ')} = {given!r:.80}, which is read as {own!r:.80},"


def _meant(key: str, own: Iterable[str]) -> str:
    near = get_close_matches(key, own, n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def _codec(part: Mapping[str, Any], folder: str) -> VAECodec | NumberProcessor:
    """The codec that a config names: in the model's own folder, read at once, or elsewhere, read when it is used."""
    if "mean" in part:
        return NumberProcessor(**part)
    own = part.get("source") == VAE
    codec = VAECodec(**{**part, "source": str(Path(folder, VAE).absolute())} if own else part)
    if not _has_a_place(codec.source):
        raise CheckpointError(f"got the codec {codec.source!r}; expected a hub id or the absolute path of a folder")
    return codec.holding(_own_vae(Path(codec.source))) if own else codec


def _own_vae(folder: Path) -> Any:
    """The autoencoder in a model's folder: built without memory, compared with its weights, then filled with them."""
    import diffusers

    if not (file := folder / CONFIG).is_file() or file.stat().st_size > MAX_CONFIG_BYTES:
        raise CheckpointError(f"got {folder} without a {CONFIG} of at most {MAX_CONFIG_BYTES:,} bytes; restore it")
    config, tensors = json.loads(file.read_text(encoding="utf-8")), read_tensors(folder / VAE_WEIGHTS)
    if (kind := config.get("_class_name")) not in AUTOENCODERS:
        raise CheckpointError(f"got {file} of the class {kind!r}; expected {', '.join(AUTOENCODERS)}; restore it")
    build = partial(getattr(diffusers, kind).from_config, config)
    with on_meta(tensors, str(folder)):
        made = build()
    check_fit(made.state_dict(), tensors, f"the codec of {folder}")
    return filled(made, build, tensors, f"the codec of {folder}")


def _has_a_place(source: str | None) -> bool:
    """Whether a codec is found again; one without a source is in the config."""
    folder = Path(source or "/")
    return source is None or is_hub_id(source) or (folder.is_absolute() and ".." not in folder.parts)


def _decomposer(config: Mapping[str, Any]) -> str | None:
    """The registered name of the model's decomposer.

    A config without this key was written before decomposers had names: the network's own name stood for both.
    """
    name: Any = config.get("decomposer", config["network"]["name"])
    if not isinstance(name, str):
        raise CheckpointError(f"got the decomposer {name!r} in {CONFIG}; expected a registered name; restore it")
    if "decomposer" in config:
        find("decomposers", name)  # raises NotFoundError, which lists the registered names
    return name if name in names("decomposers") else None


def _check_shapes(model: ModelParts) -> None:
    """One row through network and encoder: samples, tokens and latents fit each other.

    Small models are tried with their weights, large ones on the meta device: its kernels for `arange` and others import
    torch's compiler, which takes longer than one evaluation of a small network.
    """
    denoiser, values = model.denoiser, tuple(model.conditioner.value_shape)
    with torch.no_grad(), suppress(NotImplementedError):  # an operation without a meta kernel
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
