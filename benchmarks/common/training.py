"""Networks that are trained by a benchmark, and their reports."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from energycomp.files import atomic_file
from energycomp_lab.training import FitConfig, fit

Network = TypeVar("Network", bound=nn.Module)


def trained(
    make: Callable[[], Network], loss: Any, data: Any, out: Path, *, collate_fn: Any = None, **config: Any
) -> Network:
    """A network with the averaged weights of a run, which goes on where it was stopped, in eval mode.

    Args:
        config: fields of `FitConfig`; `seed` is that of the initial weights, too.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config["seed"])
        network = make()
    network.load_state_dict(fit(network, loss, data, FitConfig(**config), out=out, collate_fn=collate_fn).ema_state)
    return network.eval()


def report(path: Path, found: Mapping[str, Any]) -> None:
    """Prints what was measured, and writes it as JSON."""
    text = json.dumps(found, indent=2)
    with atomic_file(path) as temporary:
        temporary.write_text(f"{text}\n")
    print(text)
