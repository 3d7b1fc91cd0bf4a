"""Models on disk: config.json, model.safetensors and a manifest of sha256 sums. Never pickle, never code."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from energycomp.codec import VAECodec
from energycomp.denoiser import Denoiser
from energycomp.errors import CheckpointError, EnergycompError, InputError, NotFoundError
from energycomp.images import ImageProcessor
from energycomp.model import Defaults, Model
from energycomp.plugins import find, names
from energycomp.storage import atomic_directory, read_tensors, verify, write_tensors

__all__ = ["from_pretrained", "load", "load_weights", "save_pretrained"]

FORMAT = 1
CONFIG, WEIGHTS = "config.json", "model.safetensors"
MAX_CONFIG_BYTES = 1_000_000
MAX_PARAMETERS = 20_000_000_000


def load(source: str | Path, *, device: torch.device | str = "cpu", **options: Any) -> Model:
    """A model: a name that a plugin registers, a folder, or a hub id.

    Args:
        source: "clevr"; a folder that `save_pretrained` wrote; or "owner/name" on the hub.
        device: where to put the network.
        options: of a registered model, such as `preset=`.

    Raises:
        NotFoundError: there is no such model; the message lists the registered names.
        CheckpointError: the files are incomplete, altered, or do not fit.
    """
    name = str(source)
    if options and name not in names("models") and (Path(name).exists() or "/" in name):
        raise InputError(
            f"got {', '.join(options)} with {name}; expected options with a registered model only; a folder says "
            "itself what it holds"
        )
    if name in names("models"):
        model: Model = find("models", name)(**options)
    elif Path(name).is_dir():
        model = from_pretrained(name)
    elif re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", name) and not isinstance(source, Path):
        model = from_pretrained(_download(name))
    elif "/" in name or isinstance(source, Path):
        raise NotFoundError(f"got {name}, which is no folder; expected one that save_pretrained wrote; check the path")
    else:
        model = find("models", name)(**options)
    return model.to(device)


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
        extra: further text files by name, such as a model card.
    """
    weights = {f"network.{name}": tensor for name, tensor in model.denoiser.network.state_dict().items()}
    if dtype is not None:
        weights = {k: v.to(dtype) if v.is_floating_point() else v for k, v in weights.items()}
    weights["alphas_cumprod"] = model.denoiser.alphas_cumprod.to(torch.float32)
    with atomic_directory(folder) as temporary:
        (temporary / CONFIG).write_text(json.dumps(_config(model), indent=2) + "\n")
        write_tensors(temporary / WEIGHTS, weights)
        for name, text in (extra or {}).items():
            (temporary / name).write_text(text)


def from_pretrained(folder: str | Path) -> Model:
    """Reads what `save_pretrained` wrote. Weights are float32; classes are found by their registered names only.

    Raises:
        CheckpointError: a file is missing, extra or altered, or a tensor is missing, extra or misshapen.
        NotFoundError: the config names a network or conditioner that no plugin registers.
    """
    path = Path(folder)
    if not path.is_dir():
        raise NotFoundError(f"got {path}, which is no folder; expected one that save_pretrained wrote")
    verify(path)
    config = _read_config(path / CONFIG)
    tensors = read_tensors(path / WEIGHTS)
    try:
        network = _build(config["network"], "networks")
        conditioner = _build(config["conditioner"], "conditioners")
        alphas_cumprod = tensors.pop("alphas_cumprod")
        load_weights(network, {k.removeprefix("network."): v for k, v in tensors.items()}, str(path))
        part = config["denoiser"]
        denoiser = Denoiser(
            network=network.to(memory_format=torch.channels_last).eval(),
            alphas_cumprod=alphas_cumprod.float(),
            prediction_type=part["prediction_type"],
            rule=part["rule"],
            sample_shape=tuple(part["sample_shape"]),
            token_shape=tuple(part["token_shape"]),
            null_trained=bool(part["null_trained"]),
            codec=None if config["codec"] is None else VAECodec(**config["codec"]),
        )
        return Model(
            name=str(config["name"]),
            denoiser=denoiser,
            conditioner=conditioner,
            processor=ImageProcessor(**config["processor"]),
            network_name=config["network"]["name"],
            conditioner_name=config["conditioner"]["name"],
            defaults=Defaults(**config["defaults"]),
        )
    except EnergycompError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise CheckpointError(
            f"got {path / CONFIG} that does not describe a model ({type(error).__name__}: {error}); expected what "
            "save_pretrained writes; restore it, or update energycomp"
        ) from error


def load_weights(module: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Copies weights into a module.

    Raises:
        CheckpointError: naming the first that is missing, extra, misshapen or not finite.
    """
    own = module.state_dict()
    for problem, keys in (("missing", own.keys() - tensors.keys()), ("extra", tensors.keys() - own.keys())):
        if keys:
            raise CheckpointError(
                f"got weights in {source} with {len(keys)} {problem} tensors, {min(keys)!r} first; expected exactly "
                "those of the network; use the preset that they were trained with"
            )
    for name, tensor in tensors.items():
        if tensor.shape != own[name].shape:
            raise CheckpointError(
                f"got {name!r} of shape {tuple(tensor.shape)} in {source}; expected {tuple(own[name].shape)}; "
                "use the preset that it was trained with"
            )
        if not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(f"got {name!r} in {source} with numbers that are not finite; restore the file")
    module.load_state_dict({name: tensor.to(own[name].dtype) for name, tensor in tensors.items()})


def _config(model: Model) -> dict[str, Any]:
    denoiser = model.denoiser
    return {
        "format": FORMAT,
        "name": model.name,
        "network": {"name": model.network_name, "config": dict(denoiser.network.config)},  # type: ignore[arg-type]
        "conditioner": {"name": model.conditioner_name, "config": model.conditioner.config()},
        "denoiser": {
            "prediction_type": denoiser.prediction_type,
            "rule": denoiser.rule,
            "sample_shape": list(denoiser.sample_shape),
            "token_shape": list(denoiser.token_shape),
            "null_trained": denoiser.null_trained,
        },
        "codec": None if denoiser.codec is None else denoiser.codec.config(),
        "processor": attrs.asdict(model.processor),
        "defaults": attrs.asdict(model.defaults),
    }


def _read_config(path: Path) -> dict[str, Any]:
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


def _build(part: Mapping[str, Any], kind: Any) -> Any:
    """An object by its registered name; networks are counted without memory before they are made."""
    factory = find(kind, str(part["name"]))
    if kind == "networks":
        with torch.device("meta"):
            size = sum(p.numel() for p in factory(**part["config"]).parameters())
        if size > MAX_PARAMETERS:
            raise CheckpointError(f"got a network of {size:,} parameters; expected at most {MAX_PARAMETERS:,}")
    return factory(**part["config"])


def _download(repo: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repo, allow_patterns=[CONFIG, WEIGHTS, "manifest.json", "README.md"]))
    except Exception as error:  # the hub client raises many kinds; each means that the model is not here
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise NotFoundError(
            f"got {repo!r}, which is no folder and could not be read from the hub ({type(error).__name__}: {reason}); "
            f"expected a folder, a hub id, or one of the registered models: {', '.join(names('models')) or 'none'}"
        ) from error
