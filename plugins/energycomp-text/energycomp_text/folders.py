"""Folders of pipelines and encoders: download, and checks before they are read."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from energycomp.errors import CheckpointError, InputError, first_line
from energycomp.models import HubSource, on_meta

INDEX = "model_index.json"
HOW_TO_GET = (
    "give a hub id, such as stable-diffusion-v1-5/stable-diffusion-v1-5, of which only the required files are "
    "downloaded, or a folder that save_pretrained of a pipeline wrote"
)
WANTED = f"a pipeline or a text encoder on the hub; {HOW_TO_GET}"
MAX_JSON_BYTES = 1_000_000


def download(repo: str, patterns: Sequence[str]) -> Path:
    """Downloads some files of a hub repository and returns their folder; cached files need no network."""
    return HubSource(repo).download(patterns, WANTED)


def read_json(file: Path) -> Any:
    """The content of a JSON file; raises `InputError` if the file is large or not JSON."""
    try:
        if file.stat().st_size > MAX_JSON_BYTES:
            raise InputError(
                f"got {file} of {file.stat().st_size:,} bytes; expected at most {MAX_JSON_BYTES:,}; download it again"
            )
        return json.loads(file.read_text(encoding="utf-8"))
    except (RecursionError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"got {file}, which is no JSON ({first_line(error)}); download it again") from error


def check_size(make: Callable[[], object], weights: Path) -> None:
    """Refuses a config whose network is larger than its weights, before memory is allocated for either."""
    sizes: dict[str, list[int]] = {}
    for part in _files(weights):
        with safe_open(part, "pt") as file:
            sizes |= {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    held = {name: torch.empty(size, device="meta") for name, size in sizes.items()}
    with on_meta(held, str(weights)):
        make()


def _files(weights: Path) -> list[Path]:
    """The file of weights, or those that its index names, which lie beside it."""
    index = weights.with_name(f"{weights.name}.index.json")
    single = weights.is_file() or not index.is_file()
    names = [weights.name] if single else sorted(set(read_json(index)["weight_map"].values()))
    files = [weights.with_name(name) for name in names]
    if missing := [file.name for file in files if not file.is_file()]:
        raise FileNotFoundError(f"no file named {missing[0]}")
    return files


def complete(loaded: tuple[Any, dict[str, Any]]) -> Any:
    """The module of `from_pretrained` with its loading info; raises `CheckpointError` if weights were missing."""
    module, info = loaded
    # The pooler is not used: it follows the hidden states.
    if missing := [name for name in info["missing_keys"] if not name.startswith("pooler.")]:
        raise CheckpointError(f"{len(missing)} weights of {type(module).__name__} are missing, {min(missing)!r} first")
    return module
