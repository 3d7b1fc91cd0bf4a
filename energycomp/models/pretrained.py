"""Models on disk: config.json, model.safetensors and a manifest of sha256 sums. Never pickle, never code."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from contextlib import suppress
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor

from energycomp.components.condition import Condition
from energycomp.components.conditioning import weights_of
from energycomp.denoisers.denoiser import Denoiser
from energycomp.denoisers.evaluator import rows, trunk
from energycomp.errors import CheckpointError, EnergycompError, InputError, NotFoundError
from energycomp.files import atomic_directory, read_tensors, verify, write_tensors
from energycomp.images import ImageProcessor
from energycomp.models.build import conditioner_of, filled, load_weights, network_of, on_meta
from energycomp.models.card import card
from energycomp.models.codec import VAECodec
from energycomp.models.config import CONFIG, config_of, read_config
from energycomp.models.defaults import Defaults
from energycomp.models.hub import CARD, is_hub_id
from energycomp.models.model import Model
from energycomp.plugins.hookspecs import Kind
from energycomp.plugins.registry import find, names

MAX_WORK = 30_000_000_000  # weights times pixels of a sample: at most some seconds on one core
WEIGHTS = "model.safetensors"


def save_pretrained(
    model: Model,
    folder: str | Path,
    *,
    dtype: torch.dtype | None = None,
    extra: Mapping[str, str] | None = None,
) -> None:
    """Writes a model such that `load(folder)` rebuilds it; the folder appears whole or not at all.

    Args:
        dtype: of the floating-point weights on disk, such as torch.float16; their own when left out.
        extra: further text files by name; README.md replaces the model card that is written otherwise.

    Raises:
        InputError: a codec that is in memory alone.
    """
    if not hasattr(model.denoiser.network, "config"):
        raise InputError(
            f"got {model.name} with a network {type(model.denoiser.network).__name__}, which no name rebuilds; "
            "expected one of ours; save the pipeline that it is of with its own save_pretrained, and load that folder"
        )
    config = config_of(model)
    if config["codec"] is not None and not _has_a_place(config["codec"]["source"]):
        raise InputError(
            f"got a model whose codec is {config['codec']['source']!r}; expected one that was read from a folder or "
            "the hub; save the pipeline that it is of with its own save_pretrained, and load that folder"
        )
    weights = {f"network.{name}": tensor for name, tensor in model.denoiser.network.state_dict().items()}
    for prefix, module in (("encoder", model.encoder), ("conditioner", weights_of(model.conditioner))):
        if module is not None:
            weights |= {f"{prefix}.{name}": tensor for name, tensor in module.state_dict().items()}
    if dtype is not None:
        weights = {k: v.to(dtype) if v.is_floating_point() else v for k, v in weights.items()}
    weights["alphas_cumprod"] = model.denoiser.alphas_cumprod.to(torch.float32)
    with atomic_directory(folder) as temporary:
        (temporary / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
        write_tensors(temporary / WEIGHTS, weights)
        for name, text in {CARD: card(model), **(extra or {})}.items():
            (temporary / name).write_text(text, encoding="utf-8")


def from_pretrained(folder: str | Path) -> Model:
    """Reads what `save_pretrained` wrote. Weights are float32; classes are found by their registered names only.

    Raises:
        CheckpointError: a file is missing, extra or altered, or a tensor is missing, extra or misshapen.
        NotFoundError: the config names a network or conditioner that no plugin registers.
    """
    path = Path(folder)
    if not is_folder(path):
        raise NotFoundError(f"got {path}, which is no folder; expected one that save_pretrained wrote")
    verify(path)
    config = read_config(path / CONFIG)
    tensors = read_tensors(path / WEIGHTS)
    try:
        return _model(config, tensors, str(path))
    except EnergycompError:
        raise
    except Exception as error:  # whatever a factory raises for arguments that it was not written for
        raise CheckpointError(
            f"got {path / CONFIG} that does not describe a model ({type(error).__name__}: {error}); expected what "
            "save_pretrained writes; restore it, or update energycomp"
        ) from error


def shipped(package: str, name: str = "") -> Model:
    """The model in the folder `weights` of an installed package, or in the folder `name` inside it."""
    with as_file(files(package) / "weights") as folder:
        return from_pretrained(folder / name)


def _model(config: Mapping[str, Any], tensors: dict[str, Tensor], source: str) -> Model:
    alphas_cumprod = tensors.pop("alphas_cumprod").float()
    parts: dict[str, dict[str, Tensor]] = {"network": {}, "conditioner": {}}
    if "encoder" in config:
        parts["encoder"] = {}
    for key, tensor in tensors.items():
        prefix, _, name = key.partition(".")
        part, name = (prefix, name) if prefix in parts else ("network", key)
        parts[part][name] = tensor
    networks = {"network": network_of(config["network"], "networks", parts["network"], source)}
    if "encoder" in config:
        networks["encoder"] = network_of(config["encoder"], "encoders", parts["encoder"], source)
    given = config["denoiser"].items()
    arguments: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in given}
    denoiser = Denoiser(
        network=networks["network"],
        alphas_cumprod=alphas_cumprod,
        codec=_codec(config["codec"]),
        **arguments,
    )
    model = Model(
        name=config["name"],
        denoiser=denoiser,
        conditioner=conditioner_of(config["conditioner"], parts["conditioner"], source),
        processor=ImageProcessor(**config["processor"]),
        network_name=config["network"]["name"],
        conditioner_name=config["conditioner"]["name"],
        defaults=Defaults(**config["defaults"]),
        encoder=networks.get("encoder"),
        encoder_name=config["encoder"]["name"] if "encoder" in config else None,
        decomposer_name=_decomposer(config),
    )
    kinds: dict[str, Kind] = {"network": "networks", "encoder": "encoders"}
    if large := sum(tensor.numel() for tensor in tensors.values()) * math.prod(denoiser.sample_shape[1:]) > MAX_WORK:
        with on_meta():
            _check_shapes(model)
    if (module := weights_of(model.conditioner)) is not None:
        load_weights(module, parts["conditioner"], source)
        module.eval().requires_grad_(requires_grad=False)
    full = {name: filled(net, config[name], kinds[name], parts[name], source) for name, net in networks.items()}
    denoiser = attrs.evolve(denoiser, network=full["network"])
    model = attrs.evolve(model, denoiser=denoiser, encoder=full.get("encoder"))
    if not large:
        _check_shapes(model)
    return model


def _decomposer(config: Mapping[str, Any]) -> str | None:
    """The registered name of the model's decomposer.

    A config without this key was written before decomposers had names: the network's own name stood for both.
    """
    if "decomposer" not in config:
        network: str = config["network"]["name"]
        return network if network in names("decomposers") else None
    name = config["decomposer"]
    if not isinstance(name, str):
        raise CheckpointError(f"got the decomposer {name!r}; expected a registered name; restore the file")
    find("decomposers", name)  # raises NotFoundError, which lists the registered names
    return name


def _codec(part: Mapping[str, Any] | None) -> VAECodec | None:
    """The codec that a config names, which is opened when it is first used."""
    if part is None:
        return None
    codec = VAECodec(**part)
    if not _has_a_place(codec.source):
        raise CheckpointError(f"got the codec {codec.source!r}; expected a hub id or the absolute path of a folder")
    return codec


def _has_a_place(source: str) -> bool:
    folder = Path(source)
    return is_hub_id(source) or (folder.is_absolute() and ".." not in folder.parts)


def _check_shapes(model: Model) -> None:
    """One row through network and encoder: samples, tokens and latents fit each other.

    Small models are tried with their weights, large ones on the meta device: its kernels for `arange` and others import
    torch's compiler, which takes longer than one evaluation of a small network.
    """
    denoiser = model.denoiser
    with torch.no_grad(), suppress(NotImplementedError):  # an operation without a meta kernel
        shared = trunk(denoiser, torch.zeros(1, *denoiser.sample_shape), torch.zeros(1))
        out = rows(denoiser, shared, Condition(torch.zeros(1, *denoiser.token_shape)), torch.zeros(1).long())
        if tuple(out.shape[1:]) != denoiser.sample_shape:
            raise CheckpointError(
                f"got a network that makes {tuple(out.shape[1:])} of samples {denoiser.sample_shape}; expected the same"
            )
        if model.encoder is not None:
            shape = tuple(model.encoder(torch.zeros(1, *denoiser.sample_shape)).shape)
            if len(shape) != 3 or shape[2:] != tuple(model.conditioner.value_shape):
                raise CheckpointError(
                    f"got an encoder that makes {shape} of one sample; expected (1, K, "
                    f"{model.conditioner.value_shape[-1]}), values of the conditioner"
                )


def is_folder(name: str | Path) -> bool:
    """Whether there is a folder of that name, however long the name is."""
    try:
        return Path(name).is_dir()
    except (OSError, ValueError):  # too long a name, or one with a zero byte
        return False
