"""The config.json of a saved model: what it says, and which keys it must have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attrs

from energycomp.errors import CheckpointError
from energycomp.fields import plain
from energycomp.models.model import Model

CONFIG = "config.json"
FORMAT = 1
MAX_CONFIG_BYTES = 1_000_000
NAMED = {"name", "config"}
DENOISER = ("prediction_type", "rule", "sample_shape", "token_shape", "null_trained")
VALUE_RANGE = "value_range"  # of the denoiser; left out by files that were written before there was a choice
KEYS = {
    "": {"format", "name", "network", "conditioner", "denoiser", "codec", "processor", "defaults"},
    "network": NAMED,
    "conditioner": NAMED,
    "denoiser": set(DENOISER),
}
OPTIONAL = {"encoder", "decomposer"}


def config_of(model: Model) -> dict[str, Any]:
    """What `config.json` says of a model: its parts by registered names, with their arguments."""
    denoiser = model.denoiser
    own = {name: getattr(denoiser, name) for name in (*DENOISER, VALUE_RANGE)}
    config = {
        "format": FORMAT,
        "name": model.name,
        "network": {"name": model.network_name, "config": dict(denoiser.network.config)},  # type: ignore[arg-type]
        "conditioner": {"name": model.conditioner_name, "config": model.conditioner.config()},
        "denoiser": {name: list(value) if isinstance(value, tuple) else value for name, value in own.items()},
        "codec": None if denoiser.codec is None else denoiser.codec.config(),
        "processor": attrs.asdict(model.processor, value_serializer=plain),
        "defaults": attrs.asdict(model.defaults, value_serializer=plain),
    }
    if model.encoder is not None:
        config["encoder"] = {"name": model.encoder_name, "config": dict(model.encoder.config)}  # type: ignore[arg-type]
    if model.decomposer_name is not None:
        config["decomposer"] = model.decomposer_name
    return config


def read_config(path: Path) -> dict[str, Any]:
    """What a `config.json` says.

    Raises:
        CheckpointError: there is none, it is too large, no JSON, of another format, or has other keys than `config_of`
            gives.
    """
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
    given = OPTIONAL & config.keys()
    for name, keys in (KEYS | {"": KEYS[""] | given} | dict.fromkeys(given & {"encoder"}, NAMED)).items():
        part = config[name] if name else config
        spare = {VALUE_RANGE} if name == "denoiser" else set()
        if not isinstance(part, dict) or part.keys() - spare != keys:
            found = sorted(part) if isinstance(part, dict) else type(part).__name__
            raise CheckpointError(
                f"got {path} with {found} in {name or 'it'}; expected {sorted(keys)}, what save_pretrained writes"
            )
    if isinstance(config["defaults"], dict):
        config["defaults"].pop("error_limit", None)  # of models saved before there was a calibration
    return config
