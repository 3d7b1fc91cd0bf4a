"""Models on disk: config.json, model.safetensors and a manifest of sha256 sums. Never pickle, never code."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import get_ident
from typing import Any, cast

import attrs
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from energycomp.components.conditioning import Condition, Conditioner, weights_of
from energycomp.denoisers.denoiser import Denoiser
from energycomp.denoisers.evaluator import rows, trunk
from energycomp.errors import CheckpointError, EnergycompError, InputError, NotFoundError, first_line
from energycomp.files import atomic_directory, read_tensors, verify, write_tensors
from energycomp.images import ImageProcessor
from energycomp.models.codec import VAECodec, is_hub_id
from energycomp.models.model import Defaults, Model
from energycomp.plugins.registry import Kind, find, names

__all__ = ["from_pretrained", "is_folder", "load", "load_weights", "no_larger_than", "save_pretrained"]

FORMAT = 1
CONFIG, WEIGHTS = "config.json", "model.safetensors"
PIPELINE = "model_index.json"  # of diffusers
MAX_CONFIG_BYTES = 1_000_000
KEYS = {
    "": {"format", "name", "network", "conditioner", "denoiser", "codec", "processor", "defaults"},
    "network": {"name", "config"},
    "conditioner": {"name", "config"},
    "denoiser": {"prediction_type", "rule", "sample_shape", "token_shape", "null_trained"},
}
ENCODER = {"": KEYS[""] | {"encoder"}, "encoder": {"name", "config"}}  # where there is one
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def load(source: str | Path, *, device: torch.device | str = "cpu", **options: Any) -> Model:
    """A model: a name that a plugin registers, a folder, or a hub id.

    Args:
        source: "clevr"; a folder that `save_pretrained` wrote, or that of a Stable Diffusion pipeline of diffusers,
            which energycomp-text reads; or "owner/name" on the hub, of either kind.
        device: where to put the network.
        options: of a registered model, such as `preset=`, or of a pipeline, `dtype=`.

    Raises:
        NotFoundError: there is no such model; the message lists the registered names.
        CheckpointError: the files are incomplete, altered, or do not fit.
    """
    name = str(source)
    if name in names("models"):
        model: Model = find("models", name)(**options)
    elif is_folder(name):
        model = _from_folder(Path(name), name, options)
    elif is_hub_id(name) and not isinstance(source, Path):
        model = _from_folder(_download(name), name, options)
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

    Raises:
        InputError: a codec that is in memory alone.
    """
    config = _config(model)
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
        for name, text in (extra or {}).items():
            (temporary / name).write_text(text)


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
    config = _read_config(path / CONFIG)
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


def _model(config: Mapping[str, Any], tensors: dict[str, Tensor], source: str) -> Model:
    part = config["denoiser"]
    alphas_cumprod = tensors.pop("alphas_cumprod")
    encodes = "encoder" in config
    inner = _taken(tensors, "encoder.") if encodes else {}
    told = _taken(tensors, "conditioner.")
    weights = {k.removeprefix("network."): v for k, v in tensors.items()}
    denoiser = Denoiser(
        network=_skeleton(config["network"], "networks", weights, source),
        alphas_cumprod=alphas_cumprod.float(),
        prediction_type=part["prediction_type"],
        rule=part["rule"],
        sample_shape=tuple(part["sample_shape"]),
        token_shape=tuple(part["token_shape"]),
        null_trained=part["null_trained"],
        codec=_codec(config["codec"]),
    )
    model = Model(
        name=config["name"],
        denoiser=denoiser,
        conditioner=_conditioner(config["conditioner"], told, source),
        processor=ImageProcessor(**config["processor"]),
        network_name=config["network"]["name"],
        conditioner_name=config["conditioner"]["name"],
        defaults=Defaults(**config["defaults"]),
        encoder=_skeleton(config["encoder"], "encoders", inner, source) if encodes else None,
        encoder_name=config["encoder"]["name"] if encodes else None,
    )
    _check_shapes(model)
    if (module := weights_of(model.conditioner)) is not None:
        load_weights(module, told, source)
        module.eval().requires_grad_(requires_grad=False)
    network = _filled(config["network"], "networks", weights, source)
    encoder = _filled(config["encoder"], "encoders", inner, source) if encodes else None
    return attrs.evolve(model, denoiser=attrs.evolve(denoiser, network=network), encoder=encoder)


def _taken(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Takes those of a prefix out."""
    return {name.removeprefix(prefix): tensors.pop(name) for name in list(tensors) if name.startswith(prefix)}


def _conditioner(part: Mapping[str, Any], weights: Mapping[str, Tensor], source: str) -> Conditioner:
    """A conditioner; one with weights is made once they are known to be those of the file."""
    if not weights:
        made: Conditioner = _build(part, "conditioners")
        if weights_of(made) is not None:
            raise CheckpointError(
                f"got no weights of the conditioner {part['name']!r} in {source}; expected them; restore the file"
            )
        return made
    with no_larger_than(weights, source), torch.device("meta"):
        empty: Conditioner = _build(part, "conditioners")
    if (module := weights_of(empty)) is None:
        raise CheckpointError(
            f"got weights of the conditioner {part['name']!r} in {source}, which has none; restore the file"
        )
    _check_fit(module.state_dict(), weights, source)
    return cast("Conditioner", _build(part, "conditioners"))


def _filled(part: Mapping[str, Any], kind: Kind, weights: Mapping[str, Tensor], source: str) -> nn.Module:
    module: nn.Module = _build(part, kind)
    load_weights(module, weights, source)
    return module.to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]


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


def load_weights(module: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Copies weights into a module, or leaves it as it was.

    Raises:
        CheckpointError: naming the first that is missing, extra, misshapen, of another kind or not finite.
    """
    own = module.state_dict()
    _check_fit(own, tensors, source)
    cast = {name: tensor.to(own[name].dtype) for name, tensor in tensors.items()}
    for name, tensor in cast.items():
        if not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(f"got {name!r} in {source} with numbers that are not finite; restore the file")
    module.load_state_dict(cast)


def _check_fit(own: Mapping[str, Tensor], tensors: Mapping[str, Tensor], source: str) -> None:
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
        if tensor.dtype not in (FLOATS if own[name].is_floating_point() else (own[name].dtype,)):
            raise CheckpointError(
                f"got {name!r} of {tensor.dtype} in {source}; expected {own[name].dtype}, or other floating-point "
                "numbers where that is; restore the file"
            )


def _config(model: Model) -> dict[str, Any]:
    denoiser = model.denoiser
    encoder: dict[str, Any] = {}
    if model.encoder is not None:
        encoder = {"encoder": {"name": model.encoder_name, "config": dict(model.encoder.config)}}  # type: ignore[arg-type]
    return {
        "format": FORMAT,
        "name": model.name,
        "network": {"name": model.network_name, "config": dict(denoiser.network.config)},  # type: ignore[arg-type]
        "conditioner": {"name": model.conditioner_name, "config": model.conditioner.config()},
        **encoder,
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
    for name, keys in (KEYS | ENCODER if "encoder" in config else KEYS).items():
        part = config[name] if name else config
        if not isinstance(part, dict) or part.keys() != keys:
            found = sorted(part) if isinstance(part, dict) else type(part).__name__
            raise CheckpointError(
                f"got {path} with {found} in {name or 'it'}; expected {sorted(keys)}, what save_pretrained writes"
            )
    return config


def _skeleton(part: Mapping[str, Any], kind: Kind, weights: Mapping[str, Tensor], source: str) -> nn.Module:
    """The network or encoder without memory, on torch's meta device, once it is known to fit the weights."""
    with no_larger_than(weights, source), torch.device("meta"):
        network: nn.Module = _build(part, kind)
    _check_fit(network.state_dict(), weights, source)
    return network


@contextmanager
def no_larger_than(weights: Mapping[str, Tensor], source: str) -> Iterator[None]:
    """Counts the parameters of what is made: no config makes a network that is larger than its file of weights."""
    # Some networks register a parameter again, to tie it to another.
    left = {"tensors": 2 * len(weights), "numbers": 2 * sum(tensor.numel() for tensor in weights.values())}
    thread = get_ident()

    def count(_module: nn.Module, _name: str, parameter: Tensor | None) -> None:
        if parameter is None or get_ident() != thread:
            return
        left["tensors"] -= 1
        left["numbers"] -= parameter.numel()
        if min(left.values()) < 0:
            raise CheckpointError(
                f"got a network that is larger than its weights in {source}; expected the parameters of the file; "
                "use the config that they were saved with"
            )

    handle = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        handle.remove()


def _check_shapes(model: Model) -> None:
    """One row through network and encoder on the meta device: samples, tokens and latents fit each other."""
    denoiser = model.denoiser
    with torch.device("meta"), torch.no_grad(), suppress(NotImplementedError):  # an operation without a meta kernel
        shared = trunk(denoiser, torch.empty(1, *denoiser.sample_shape), torch.zeros(1))
        out = rows(denoiser, shared, Condition(torch.empty(1, *denoiser.token_shape)), torch.zeros(1).long())
        if tuple(out.shape[1:]) != denoiser.sample_shape:
            raise CheckpointError(
                f"got a network that makes {tuple(out.shape[1:])} of samples {denoiser.sample_shape}; expected the same"
            )
        if model.encoder is not None:
            shape = tuple(model.encoder.eval()(torch.empty(1, *denoiser.sample_shape)).shape)
            if len(shape) != 3 or shape[2:] != tuple(model.conditioner.value_shape):
                raise CheckpointError(
                    f"got an encoder that makes {shape} of one sample; expected (1, K, "
                    f"{model.conditioner.value_shape[-1]}), values of the conditioner"
                )


def _build(part: Mapping[str, Any], kind: Any) -> Any:
    """An object by its registered name, which says of its arguments what the config says."""
    if not isinstance(part["name"], str) or not isinstance(part["config"], dict):
        raise CheckpointError(f"got {part!r} among the {kind}; expected a name and an object; restore the file")
    built = find(kind, part["name"])(**part["config"])
    own = json.loads(json.dumps(built.config() if kind == "conditioners" else built.config))
    for key, value in part["config"].items():
        if key not in own or own[key] != value:
            raise CheckpointError(
                f"got {key!r} = {value!r} for {part['name']}, which has {own.get(key)!r}; expected an argument that "
                "it keeps; restore the file"
            )
    return built


def _from_folder(folder: Path, source: str, options: Mapping[str, Any]) -> Model:
    """A model of ours, or a pipeline of diffusers."""
    if (folder / PIPELINE).is_file():
        return _pipeline(source, options)
    if options:
        raise InputError(
            f"got {', '.join(options)} with {source}; expected options with a registered model or a pipeline only; a "
            "folder says itself what it holds"
        )
    if not any((folder / name).exists() for name in (CONFIG, WEIGHTS, "manifest.json")):
        raise NotFoundError(
            f"got {source}, which holds neither {CONFIG} nor {PIPELINE}; expected what save_pretrained of energycomp, "
            "or of a pipeline of diffusers, writes; check the path"
        )
    return from_pretrained(folder)


def _pipeline(source: str, options: Mapping[str, Any]) -> Model:
    """A diffusers pipeline, which the plugin of text reads."""
    if "text" not in names("models"):
        raise NotFoundError(
            f"got {source}, a pipeline of diffusers; expected the plugin that reads them; pip install energycomp-text"
        )
    model: Model = find("models", "text")(model=source, **options)
    return model


def is_folder(name: str | Path) -> bool:
    """Whether there is a folder of that name, however long the name is."""
    try:
        return Path(name).is_dir()
    except (OSError, ValueError):  # too long a name, or one with a zero byte
        return False


def _download(repo: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repo, allow_patterns=[CONFIG, PIPELINE, WEIGHTS, "manifest.json", "README.md"]))
    except Exception as error:  # the hub client raises many kinds; each means that the model is not here
        raise NotFoundError(
            f"got {repo!r}, which is no folder and could not be read from the hub ({type(error).__name__}: "
            f"{first_line(error)}); expected a folder, a hub id, or one of the registered models: "
            f"{', '.join(names('models')) or 'none'}"
        ) from error
