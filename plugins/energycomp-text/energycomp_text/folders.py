"""Folders of pipelines and encoders: where they come from, and what is checked before one is read."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from energycomp.errors import CheckpointError, InputError, NotFoundError, first_line
from energycomp.models import no_larger_than

__all__ = ["HOW_TO_GET", "INDEX", "check_size", "complete", "download", "read_json"]

INDEX = "model_index.json"
HOW_TO_GET = (
    "name one of the hub, `--model stable-diffusion-v1-5/stable-diffusion-v1-5`, of which only what is needed is "
    "fetched; or a folder, such as one of `hf download stable-diffusion-v1-5/stable-diffusion-v1-5 --local-dir sd`"
)
MAX_JSON_BYTES = 1_000_000


def download(repo: str, patterns: Sequence[str]) -> Path:
    """The folder of some files of a hub repository; what was downloaded before is there without a network.

    Args:
        patterns: of names from the root of the repository; `*` stands for slashes, too.
    """
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repo, allow_patterns=list(patterns)))
    except Exception as error:  # the hub client raises many kinds; each means that the model is not here
        raise NotFoundError(
            f"got {repo!r}, which is no folder and could not be read from the hub ({type(error).__name__}: "
            f"{first_line(error)}); check its name and the network; {HOW_TO_GET}"
        ) from error


def read_json(file: Path) -> Any:
    """What a small JSON file holds; raises `InputError` for a large one, and for what is no JSON."""
    try:
        if file.stat().st_size > MAX_JSON_BYTES:
            raise InputError(
                f"got {file} of {file.stat().st_size:,} bytes; expected at most {MAX_JSON_BYTES:,}; download it again"
            )
        return json.loads(file.read_text(encoding="utf-8"))
    except (RecursionError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"got {file}, which is no JSON ({first_line(error)}); download it again") from error


def check_size(make: Callable[[], object], weights: Path) -> None:
    """Refuses a config whose network is larger than its weights, before any memory is taken for either.

    Args:
        make: the network by its config; it is called on torch's meta device.
        weights: a safetensors file, of which only the header is read.

    Raises:
        CheckpointError: it is larger.
    """
    if not weights.is_file():
        raise FileNotFoundError(f"no file named {weights.name}")
    with safe_open(weights, "pt") as file:
        sizes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    with torch.device("meta"):
        held = {name: torch.empty(size) for name, size in sizes.items()}
        with no_larger_than(held, str(weights)):
            make()


def complete(loaded: tuple[Any, dict[str, Any]]) -> Any:
    """What `from_pretrained` gave with its loading info; raises `CheckpointError` for weights that it made up."""
    module, info = loaded
    # Poolers come after the states.
    if missing := [name for name in info["missing_keys"] if not name.startswith("pooler.")]:
        raise CheckpointError(f"{len(missing)} weights of {type(module).__name__} are missing, {min(missing)!r} first")
    return module
