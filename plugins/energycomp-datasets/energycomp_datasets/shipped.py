"""The networks whose weights this package ships: judges of pictures, trained on rendered ones."""

from __future__ import annotations

from importlib.resources import as_file, files
from pathlib import Path
from typing import TypeVar

from torch import nn

from energycomp.files import atomic_directory, read_tensors, write_tensors
from energycomp.manifest import verify
from energycomp.models import load_weights

Network = TypeVar("Network", bound=nn.Module)
WEIGHTS = "model.safetensors"


def save_network(network: nn.Module, folder: str | Path) -> None:
    """Writes the weights as float16; the folder appears whole or not at all."""
    Path(folder).parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.half().contiguous() for name, tensor in network.state_dict().items()}
    with atomic_directory(folder) as temporary:
        write_tensors(temporary / WEIGHTS, tensors)


def load_network(network: Network, name: str, folder: str | Path | None = None) -> Network:
    """A network with the trained weights of a folder, or those of its name in this package; frozen and in eval mode."""
    if folder is None:
        with as_file(files("energycomp_datasets") / "weights" / name) as inside:
            return load_network(network, name, inside)
    path = Path(folder)
    verify(path)
    load_weights(network, read_tensors(path / WEIGHTS), str(path))
    return network.requires_grad_(requires_grad=False).eval()
