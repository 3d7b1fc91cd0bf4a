"""The parts of a pipeline from its folder: fixed classes, safetensors only, sizes checked before memory is taken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from energycomp.errors import InputError, NotFoundError, first_line
from energycomp_text.families.family import Family
from energycomp_text.folders import HOW_TO_GET, INDEX, check_size, complete, read_json
from energycomp_text.quiet import quiet

MAX_TIMESTEPS = 100_000
# Pipelines warn of other values; the scheduler of a composition is made anew.
SCHEDULER = {"DDIMScheduler": {"clip_sample": False, "steps_offset": 1}}
SHARD = "-[0-9][0-9][0-9][0-9][0-9]-of-[0-9][0-9][0-9][0-9][0-9].safetensors"


def files_of(family: Family) -> tuple[str, ...]:
    """Patterns of the files of a pipeline that are needed."""
    found = [INDEX]
    for part in family.parts:
        if part.startswith(("tokenizer", "scheduler")):
            found += [f"{part}/*"]
        else:
            stem = f"{part}/{_stem(part)}"
            found += [
                f"{part}/config.json",
                *(stem + end for end in (".safetensors", ".safetensors.index.json", SHARD)),
            ]
    return tuple(found)


def read_pipeline(folder: Path, family: Family, source: str, dtype: torch.dtype) -> Any:
    """The pipeline in a folder, of the class of its family. Each weight is in memory once. Raises `NotFoundError` for a
    part that is missing or cannot be read.
    """
    import diffusers

    lacking = {name for name in family.parts if not (folder / name).is_dir()}
    if missing := [name for name in family.parts if name in lacking - {*family.optional}]:
        raise NotFoundError(
            f"got {source} without {', '.join(missing)}; expected the folders {', '.join(family.parts)} of a "
            f"{family.pipeline}; {HOW_TO_GET}"
        )
    parts = {name: _part(folder / name, family, source, dtype) for name in family.parts if name not in lacking}
    flags = {name: value for name, value in read_json(folder / INDEX).items() if name in family.index}
    if wrong := [name for name, value in flags.items() if type(value) is not bool]:
        raise InputError(f"got {source} with {wrong[0]} {flags[wrong[0]]!r} in {INDEX}; expected true or false")
    return getattr(diffusers, family.pipeline)(**parts, **dict.fromkeys(lacking), **flags, **family.given)


def _part(folder: Path, family: Family, source: str, dtype: torch.dtype) -> Any:
    import diffusers
    import transformers

    name = family.parts[folder.name]
    cls = getattr(diffusers, name, None) or getattr(transformers, name)
    try:
        if folder.name == "scheduler":
            return cls.from_config(_check_steps(read_json(folder / "scheduler_config.json")), **SCHEDULER.get(name, {}))
        if folder.name.startswith("tokenizer"):
            return _check_length(cls.from_pretrained(folder, local_files_only=True))
        return _network(cls, folder, dtype)
    except Exception as error:  # both libraries raise many kinds
        raise NotFoundError(
            f"got {source} without a {folder.name} that can be read ({first_line(error)}); expected a {name} in the "
            f"folder {folder.name} of a {family.pipeline}, in safetensors; download it again"
        ) from error


def _network(cls: Any, folder: Path, dtype: torch.dtype) -> Any:
    config = read_json(folder / "config.json")
    check_size(lambda: _make(cls, config), folder / f"{_stem(folder.name)}.safetensors")
    with quiet():
        loaded = cls.from_pretrained(
            folder, use_safetensors=True, torch_dtype=dtype, local_files_only=True, output_loading_info=True
        )
    return complete(loaded).eval()


def _make(cls: Any, config: Any) -> Any:
    """A network of a config, by a class of diffusers or of transformers."""
    from diffusers import ConfigMixin

    return cls.from_config(config) if issubclass(cls, ConfigMixin) else cls(cls.config_class.from_dict(config))


def _stem(part: str) -> str:
    return "model" if part.startswith("text_encoder") else "diffusion_pytorch_model"


def _check_length(tokenizer: Any) -> Any:
    length = tokenizer.model_max_length
    if type(length) is not int or length < 1:
        raise InputError(f"got model_max_length {length!r:.40}; expected at least 1")
    return tokenizer


def _check_steps(config: Any) -> Any:
    steps = config.get("num_train_timesteps", 1000)
    if type(steps) is not int or not 1 <= steps <= MAX_TIMESTEPS:
        raise InputError(f"got num_train_timesteps {steps!r}; expected 1 to {MAX_TIMESTEPS:,}")
    return config
