"""What a model is asked for by: a registered name, a folder, or a repository of the hub; and a model onto the hub."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from energycomp.errors import InputError, NotFoundError, first_line
from energycomp.files import MANIFEST
from energycomp.models.card import card
from energycomp.models.config import CONFIG
from energycomp.models.hub import CARD, HubSource, upload
from energycomp.models.model import Model, checked_model
from energycomp.models.pretrained import WEIGHTS, from_pretrained, is_folder, save_pretrained
from energycomp.plugins.registry import find, names

FILES = (CONFIG, WEIGHTS, MANIFEST)
PIPELINE = "model_index.json"  # of diffusers
SINGLE_FILES = (".safetensors", ".ckpt", ".gguf")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load(
    source: str | Path,
    *,
    device: torch.device | str = "cpu",
    dtype: str | torch.dtype | None = None,
    revision: str | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
    cache_dir: str | Path | None = None,
    **options: Any,
) -> Model:
    """A model: a name that a plugin registers, a folder, or a hub id.

    Args:
        source: "clevr"; a folder that `save_pretrained` wrote, or that of a pipeline of diffusers, such as SDXL or
            FLUX, which energycomp-text reads; or "owner/name" on the hub, of either kind, or "owner/name@revision".
        device: where to put the network.
        dtype: of the network, such as "bfloat16"; float32 when left out. The encoders of a model of ours stay float32;
            all parts of a pipeline have it, its text encoders and its VAE included.
        revision: of a hub id: a branch, a tag or a commit.
        token: of a private repository of the hub; that of `hf auth login` when left out.
        local_files_only: reads the cache of the hub alone, without the network.
        cache_dir: folder of that cache; the hub's own when left out.
        options: of a registered model, such as `preset=`, or of a pipeline, such as `image_size=`.

    Raises:
        NotFoundError: there is no such model; the message lists the registered names.
        InputError: an object that is no name, a device that cannot be used, or an option that the model does not have.
        CheckpointError: the files are incomplete, altered, or do not fit.
        HubError: a token that the hub refuses, or a connection that broke off.
    """
    name, chosen = _name(source), _dtype(dtype)
    check_device(device)
    hub = (
        None
        if isinstance(source, Path) or is_folder(name) or name in names("models")
        else HubSource.parse(name, revision, token=token, local_files_only=local_files_only, cache_dir=cache_dir)
    )
    if hub is None and revision is not None:
        raise InputError(f"got the revision {revision!r} with {name}, which is no hub id; leave it out")
    if name in names("models"):
        # A factory that is given a model to read hands the type on; the others make float32.
        model: Model = find("models", name)(**options, **({"dtype": dtype} if "model" in options and dtype else {}))
    elif is_folder(name):
        model = _from_folder(Path(name), name, options, dtype)
    elif hub is not None:
        model = _from_hub(hub, options, dtype)
    elif "/" in name or isinstance(source, Path):
        raise NotFoundError(f"got {name}, which is no folder; expected one that save_pretrained wrote; check the path")
    else:
        model = find("models", name)(**options)
    return _cast(model, chosen).to(device)


def model_of(given: Any) -> Model:
    """A model as it is, or that of a name, a folder or a hub id, which is loaded to the CPU.

    Raises:
        InputError: neither a model nor a name.

    >>> model_of(3)
    Traceback (most recent call last):
    energycomp.errors.InputError: got an object of int for a model; expected a Model; ...
    """
    return load(given) if isinstance(given, str | Path) else checked_model(given)


def push_to_hub(
    model: Model | str | Path,
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | None = None,
    commit_message: str | None = None,
    revision: str | None = None,
    dtype: torch.dtype | None = None,
) -> str:
    """Writes a model and its card to a repository of the hub, in one commit; returns the address of the commit.

    The repository, and the branch `revision`, are made where they do not exist. A card that the repository has already
    is kept.

    Args:
        model: a model; or what `load` takes, of which a folder is uploaded as it is, once it has been verified.
        repo_id: "owner/name".
        private: whether a repository that is made is private.
        token: with write access; that of `hf auth login` when left out.
        dtype: of the weights on the hub, as for `save_pretrained`; not for a folder.

    Raises:
        HubError: the hub refuses the token, or the connection broke off.
    """
    options: dict[str, Any] = {"private": private, "token": token, "message": commit_message, "revision": revision}
    if isinstance(model, str | Path) and is_folder(model) and str(model) not in names("models"):
        if dtype is not None:
            raise InputError(f"got dtype {dtype} with the folder {model}, which is uploaded as it is; leave it out")
        folder, loaded = Path(model), from_pretrained(model)
        files = {name: folder / name for name in FILES}
        own = folder / CARD
        text = own.read_text(encoding="utf-8") if own.is_file() else card(loaded, source=repo_id)
        return upload(files, repo_id, card=text, **options)
    loaded = model_of(model)
    with TemporaryDirectory() as temporary:
        folder = Path(temporary) / "model"
        save_pretrained(loaded, folder, dtype=dtype)
        files = {name: folder / name for name in FILES}
        return upload(files, repo_id, card=card(loaded, source=repo_id), **options)


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


def check_device(device: torch.device | str, argument: str = "device") -> None:
    """Raises `InputError` for a device that torch cannot use here, which names the argument.

    >>> check_device("quantum")
    Traceback (most recent call last):
    energycomp.errors.InputError: got device 'quantum', which cannot be used here (...); expected cpu, cuda, ...
    """
    try:
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        raise InputError(
            f"got {argument} {str(device)!r}, which cannot be used here ({first_line(error).rstrip('.')}); expected "
            "cpu, cuda, cuda:0 or mps; leave it out for the CPU"
        ) from error


def _dtype(given: str | torch.dtype | None) -> torch.dtype | None:
    dtype = DTYPES.get(given) if isinstance(given, str) else given
    if (given is None) != (dtype is None) or (dtype is not None and dtype not in DTYPES.values()):
        raise InputError(f"got dtype {given!r}; expected one of {', '.join(DTYPES)}")
    return dtype


def _cast(model: Model, dtype: torch.dtype | None) -> Model:
    """The model with a network of that type; it is converted in place."""
    network = model.denoiser.network
    if dtype is None or all(p.dtype == dtype for p in network.parameters() if p.is_floating_point()):
        return model
    if model.decomposer_name is not None:
        raise InputError(f"got dtype {dtype} with {model.name}, which is evaluated in float32; leave it out")
    network.to(dtype=dtype)
    return model


def _from_hub(hub: HubSource, options: Mapping[str, Any], dtype: str | torch.dtype | None) -> Model:
    registered = ", ".join(names("models")) or "none"
    folder = hub.download(
        [*FILES, CARD, PIPELINE, *names("loaders")],
        f"a folder, a hub id, or one of the registered models: {registered}",
    )
    return _from_folder(folder, hub.repo, options, dtype, hub.options())


def _from_folder(
    folder: Path,
    source: str,
    options: Mapping[str, Any],
    dtype: str | torch.dtype | None,
    hub: Mapping[str, Any] | None = None,
) -> Model:
    """A model of ours, or one of another format, which a plugin reads.

    Args:
        hub: how it is read, where the source is a repository of the hub.
    """
    for marker in names("loaders"):
        if (folder / marker).is_file():
            given = {**options, **(hub or {}), **({} if dtype is None else {"dtype": dtype})}
            model: Model = find("loaders", marker)(source, **given)
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
    if not any((folder / name).exists() for name in FILES):
        raise NotFoundError(
            f"got {source}, which holds neither {CONFIG} nor {PIPELINE}; expected what save_pretrained of energycomp, "
            "or of a pipeline of diffusers, writes; check the path"
        )
    if not (folder / MANIFEST).exists() and _is_part(folder):
        raise NotFoundError(
            f"got {source}, a single network, such as a part of a pipeline of diffusers; expected the whole pipeline; "
            f"give the folder with {PIPELINE}"
        )
    if hub is not None and not (folder / MANIFEST).exists():
        raise NotFoundError(
            f"got {source}, a repository without {MANIFEST}; expected one that push_to_hub of energycomp wrote; check "
            "the name"
        )
    return from_pretrained(folder)


def _is_part(folder: Path) -> bool:
    """Whether a folder holds a network of diffusers or of transformers."""
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(config, dict) and not config.keys().isdisjoint(("_class_name", "architectures"))
