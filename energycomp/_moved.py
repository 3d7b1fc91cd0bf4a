"""What earlier versions wrote to disk, as it is written today. Nothing else of theirs is kept."""

from __future__ import annotations

from typing import Any

from energycomp.plugins.registry import names

TODAY = 2  # the format of config.json


def config_of_today(config: dict[str, Any]) -> dict[str, Any]:
    """A `config.json` of format 1 in today's format; one of another format as it is.

    In format 1 codec and processor had no names: all were autoencoders and images, apart from numbers, which are
    standardised by their mean.
    """
    if config.get("format") != 1:
        return config
    network = config["network"]["name"]
    codec = config["codec"]
    processor = config["processor"]
    # Before decomposers had names, that of the network stood for both
    same = {"decomposer": network} if network in names("decomposers") else {}
    if network == "adopted":
        config["network"]["config"]["process"] = _named(config["network"]["config"]["process"])
    return {
        **same,
        **config,
        "format": TODAY,
        "denoiser": {**config["denoiser"], "trained_alone": network == "adopted"},
        "codec": codec if codec is None else {"name": "numbers" if "mean" in codec else "vae", "config": codec},
        "processor": {"name": "numbers" if "mean" in processor else "image", "config": processor},
        "defaults": {name: value for name, value in config["defaults"].items() if name != "error_limit"},
    }


def _named(process: Any) -> Any:
    """A process of `adopt`: tables were told apart by whether they fall."""
    if not isinstance(process, list) or len(process) < 3:
        return process
    return {"alphas_cumprod" if process[0] > process[-1] else "betas": process}
