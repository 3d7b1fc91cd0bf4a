"""LoRA weights of a pipeline: where their file is, and whether they are weights of that pipeline."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from energycomp.errors import InputError, NotFoundError
from energycomp.models import HubSource, is_folder

STEM = "pytorch_lora_weights"  # of the file that diffusers writes
HALVES = (".lora_A.weight", ".lora_B.weight")
# Settings of peft that a file may have; others may import modules, or change the weights of the base.
SETTINGS = {
    "alpha_pattern", "base_model_name_or_path", "exclude_modules", "inference_mode", "lora_alpha", "lora_dropout",
    "peft_type", "peft_version", "r", "rank_pattern", "revision", "target_modules", "task_type", "use_dora",
    "use_rslora",
}  # fmt: skip
SAME_BASE = "expected one that was trained on the same base"
DAMAGED = "expected what save_lora_weights writes; download it again"


def file_of(source: str) -> Path:
    """The safetensors file of LoRA weights: itself, in a folder, or in a repository of the hub."""
    path = Path(source)
    if path.suffix == ".safetensors" and path.is_file():
        return path
    hub = None if is_folder(source) else HubSource.parse(source)
    if hub is None and not is_folder(source):
        raise NotFoundError(f"got the LoRA {source!r}; expected a safetensors file, a folder with one, or a hub id")
    folder = path if hub is None else hub.download(("*.safetensors",), "a LoRA on the hub")
    found = sorted(folder.glob("*.safetensors"))
    own = [file for file in found if file.stem == STEM] or found
    if len(own) != 1:
        raise NotFoundError(f"got the LoRA {source!r} with {len(own)} safetensors files; expected one; name the file")
    return own[0]


def short_name(source: str | Path | Mapping[str, Tensor]) -> str:
    """What a model with these weights is called by: the name of their file, or of its folder or repository.

    >>> short_name("loras/ink (2).safetensors"), short_name("owner/toy-lora"), short_name({})
    ('ink_2', 'toy-lora', 'lora')
    """
    if isinstance(source, Mapping):
        return "lora"
    path = Path(str(source).removesuffix(".safetensors")).resolve()
    name = path.parent.name if path.name == STEM else path.name
    return re.sub(r"[^\w.-]+", "_", name).strip("_")[:32] or "lora"


def reason_of(error: Exception) -> str:
    """What is wrong with weights, and what to do, in one line: an `InputError` of the checks says both."""
    if isinstance(error, InputError):
        return str(error)
    said = " ".join(str(error).split())[:200].rstrip(" :") or type(error).__name__
    found = f"it lacks {said}" if isinstance(error, KeyError) else said
    return f"{found}; expected weights that load_lora_weights of the pipeline takes; try it there"


def check_settings(settings: Any, largest: int) -> None:
    """Raises `InputError` for settings of peft in a file beyond `SETTINGS`, or a rank above that of all weights."""
    from peft import LoraConfig

    usual = {**vars(LoraConfig()), "init_lora_weights": "gaussian"}
    for full, value in (settings or {}).items():
        name = full.rpartition(".")[2]
        known = name in SETTINGS or value == usual.get(name) or (name, value) == ("init_lora_weights", True)
        if value and not known:
            raise InputError(f"it has the setting {name} {value!r:.60}; expected ranks and scales only; take another")
        ranks = [value] if name == "r" else [*value.values()] if name == "rank_pattern" else []
        if any(type(rank) is not int or rank > largest for rank in ranks):
            raise InputError(
                f"it has the setting {name} {value!r:.60}, which is not the rank of its weights; {DAMAGED}"
            )


def check_weights(weights: Mapping[str, Tensor], pipe: Any) -> None:
    """Raises `InputError` for weights of layers that the pipeline does not have, of another width, or damaged."""
    halves = {key: half for key in weights for half in HALVES if key.endswith(half)}
    parts = {key.partition(".")[0] for key in halves}
    held = {name: part for name in parts if (part := getattr(pipe, name, None)) is not None}
    if parts and not held:
        raise InputError(f"it has weights of {min(parts)}, a part that the pipeline does not have; {SAME_BASE}")
    layers = {name: dict(part.named_modules()) for name, part in held.items()}
    for key, half in halves.items():
        weight = weights[key]
        part, _, rest = key.partition(".")
        if part not in layers:
            continue
        if not bool(weight.isfinite().all()):
            raise InputError(f"{rest} is not finite; {DAMAGED}")
        name = rest.removesuffix(half)
        first = half == HALVES[0]
        other = weights.get(key.removesuffix(half) + HALVES[first])
        if other is None:
            raise InputError(f"it has {rest} without its other half; {DAMAGED}")
        if min(weight.ndim, other.ndim) < 2 or weight.shape[not first] != other.shape[first]:
            shapes = [tuple(tensor.shape) for tensor in ((weight, other) if first else (other, weight))]
            raise InputError(f"the halves of {name} have the shapes {shapes[0]} and {shapes[1]}; {DAMAGED}")
        layer = layers[part].get(name)
        base = _weight_of(layer)
        if base is None:
            raise InputError(f"it has weights of {name}, which the {part} does not have; {SAME_BASE}")
        own = base.shape[1] if first else base.shape[0]
        if base.ndim == 2 and weight.shape[first] != own:
            raise InputError(f"{name} has {weight.shape[first]} features, and {own} in the {part}; {SAME_BASE}")


def _weight_of(layer: Any) -> Any:
    """The weight of a layer, also of one that has LoRA weights already; None where it has none."""
    if layer is None:
        return None
    inner = dict(layer.named_children()).get("base_layer", layer)
    return dict(inner.named_parameters(recurse=False)).get("weight")
