"""What a model is asked for by: a registered name, a folder, or a repository of the hub."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from energycomp.errors import InputError, NotFoundError, first_line
from energycomp.manifest import MANIFEST, list_files
from energycomp.models.folder import CONFIG, WEIGHTS, Check, M, read
from energycomp.models.hub import CARD, HubSource, is_folder
from energycomp.plugins.registry import find, names, registers

FILES = (CONFIG, WEIGHTS, MANIFEST)
PIPELINE = "model_index.json"  # of diffusers
SINGLE_FILES = (".safetensors", ".ckpt", ".gguf")
INSTEAD = {  # what pipelines of diffusers take, and what does it here
    "torch_dtype": "dtype=, such as dtype='bfloat16'",
    "use_safetensors": "nothing in its place: no other weights are read",
}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def open_model(
    make: type[M],
    source: Any,
    dtype: str | torch.dtype | None,
    reading: Mapping[str, Any],
    options: Mapping[str, Any],
    check: Check | None,
) -> M:
    """What `Model.from_pretrained` makes of its arguments; `dtype` is handed to the readers of other formats."""
    for option in INSTEAD.keys() & options.keys():
        raise InputError(f"got {option}= with {source}; expected {INSTEAD[option]}")
    name = _name(source)
    is_path = isinstance(source, Path)
    local = is_folder(name)
    known = registers("models", name) and not (is_path and local)
    subfolder = _subfolder(reading["subfolder"])
    hub = None if is_path or local or known else HubSource.parse(name, **{**reading, "subfolder": subfolder})
    if local and not known:
        return _in_folder(make, Path(name) / subfolder, str(Path(name) / subfolder), dtype, options, check)
    if subfolder and known:
        raise InputError(f"got the subfolder {subfolder!r} with the registered model {name}; leave it out")
    if hub is None and reading["revision"] is not None:
        raise InputError(f"got the revision {reading['revision']!r} with {name}, which is no hub id; leave it out")
    if hub is not None:
        expected = f"a folder, a hub id, or one of the registered models: {', '.join(names('models')) or 'none'}"
        folder = hub.download([*FILES, CARD, PIPELINE, *names("loaders")], expected)
        if inside := [name for name in list_files(folder) if "/" in name]:  # files of a codec
            folder = hub.download([*FILES, *inside], expected)
        return _in_folder(make, folder, hub.repo, dtype, options, check, hub)
    if ("/" in name or is_path) and not known:
        raise NotFoundError(f"got {name}, which is no folder; expected one that save_pretrained wrote; check the path")
    typed = {"dtype": dtype} if "model" in options and dtype else {}  # for a factory that is given a model to read
    model: M = find("models", name)(**options, **typed)
    if check is not None:
        check(model.name, model.conditioner)
    return model


def _subfolder(given: Any) -> str:
    """The folder inside of a folder or a repository, "" for none."""
    if given is None:
        return ""
    parts = Path(given).parts if isinstance(given, str | Path) else ()
    if not parts or Path(given).is_absolute() or ".." in parts:
        raise InputError(f"got subfolder={given!r}; expected the name of a folder inside the model's, such as 'small'")
    return Path(given).as_posix()


def check_device(device: torch.device | str, argument: str = "device") -> None:
    """Raises `InputError` for a device that torch cannot use here, which names the argument.

    >>> check_device("quantum")
    Traceback (most recent call last):
    energycomp.errors.InputError: got device 'quantum', which cannot be used here (...); expected cpu, cuda, ...
    """
    expected = "expected cpu, cuda, cuda:0 or mps; leave it out for the CPU"
    if not isinstance(device, torch.device | str):
        raise InputError(f"got {argument} {device!r}, which is no device; {expected}")
    try:
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError, ImportError) as error:
        reason = first_line(error).partition(". ")[0].rstrip(".")
        raise InputError(f"got {argument} {str(device)!r}, which cannot be used here ({reason}); {expected}") from error


def dtype_of(given: str | torch.dtype | None) -> torch.dtype | None:
    """A type of networks, by its name or itself; None for None.

    >>> dtype_of("bfloat16"), dtype_of(None)
    (torch.bfloat16, None)
    """
    dtype = DTYPES.get(given) if isinstance(given, str) else given
    if (given is None) != (dtype is None) or (dtype is not None and dtype not in DTYPES.values()):
        raise InputError(f"got dtype {given!r}; expected one of {', '.join(DTYPES)}")
    return dtype


def _name(source: Any) -> str:
    """What is asked for, as text."""
    if not isinstance(source, str | Path):
        raise InputError(
            f"got an object of {type(source).__name__}; expected a registered name, a folder or a hub id; for a "
            "pipeline of diffusers in memory call energycomp_text.from_pipeline"
        )
    if Path(source).suffix in SINGLE_FILES and not is_folder(source):
        raise InputError(
            f"got {source}, a single file of weights; expected a folder or a hub id; read it by from_single_file of "
            "its pipeline in diffusers, and give that to energycomp_text.from_pipeline"
        )
    return str(source)


def _in_folder(
    make: type[M],
    folder: Path,
    source: str,
    dtype: str | torch.dtype | None,
    options: Mapping[str, Any],
    check: Check | None,
    hub: HubSource | None = None,
) -> M:
    """A model of ours, or one of another format, which a plugin reads."""
    for marker in names("loaders"):
        if (folder / marker).is_file():
            if hub and hub.subfolder:
                raise InputError(f"got the subfolder {hub.subfolder!r} with a pipeline of diffusers; leave it out")
            typed = {} if dtype is None else {"dtype": dtype}
            model: M = find("loaders", marker)(source, **options, **(hub.options() if hub else {}), **typed)
            return model
    if (folder / PIPELINE).is_file():
        raise NotFoundError(
            f"got {source}, a pipeline of diffusers; expected the plugin that reads them; pip install energycomp-text"
        )
    if options:
        raise InputError(
            f"got {', '.join(options)} with {source}; expected options with a registered model or a pipeline only; a "
            "folder says itself what it holds"
        )
    if not (folder / MANIFEST).exists():
        raise NotFoundError(
            f"got {source} without {MANIFEST} and {PIPELINE}; expected what save_pretrained of energycomp, or of a "
            "whole pipeline of diffusers, writes; check the name"
        )
    return read(make, folder, check)
