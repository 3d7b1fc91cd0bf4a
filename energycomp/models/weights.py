"""Weights into modules: compared with what the module expects, before either takes memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from inspect import currentframe
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from energycomp.denoisers.layout import channels_last
from energycomp.errors import CheckpointError, InputError
from energycomp.files import read_tensors

PICKLED = (".pt", ".pth", ".ckpt", ".bin", ".pkl")
INITIALISERS = "torch.nn.init"
IMPORT_SYSTEM = "<frozen importlib._bootstrap>"
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
SPARE_TENSORS, SPARE_NUMBERS = 64, 1_000_000  # that a network may make beside its weights, such as grids of places


def read_weights(source: str | Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, or of all such files of a folder, on the CPU.

    Raises:
        InputError: a file that needs pickle, with how to convert it, or a folder without safetensors.
        CheckpointError: a file that is absent or damaged, or a tensor that is in two files.
    """
    path = Path(source)
    if path.suffix in PICKLED:
        raise InputError(
            f"got {source}, which may need pickle; expected safetensors; convert it where you trust it: "
            f"safetensors.torch.save_file(torch.load({path.name!r}, weights_only=True), '{path.stem}.safetensors')"
        )
    if not path.is_dir():
        return read_tensors(path)
    found: dict[str, Tensor] = {}
    for file in sorted(path.glob("*.safetensors")):
        more = read_tensors(file)
        if twice := sorted(found.keys() & more.keys()):
            raise CheckpointError(f"got {twice[0]!r} in two files of {source}; expected one; name a file")
        found |= more
    if not found:
        raise InputError(f"got the folder {source} without *.safetensors; expected weights; name another")
    return found


def load_weights(module: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Copies weights into a module, or leaves it as it was; a module on the meta device takes them over.

    Raises:
        CheckpointError: naming the first that is missing, extra, misshapen, of another kind or not finite.

    >>> layer = nn.Linear(1, 1, bias=False)
    >>> load_weights(layer, {"weight": torch.full((1, 1), 2.0)}, "memory")
    >>> layer.weight.item()
    2.0
    """
    own = module.state_dict()
    check_fit(own, tensors, source)
    meta = any(tensor.is_meta for tensor in own.values())
    # A copy, since tensors of a safetensors file are its pages: they change with the file, and may be unaligned.
    cast = {name: tensor.to(own[name].dtype, copy=meta) for name, tensor in tensors.items()}
    for name, tensor in cast.items():
        if not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(f"got {name!r} in {source} with numbers that are not finite; restore the file")
    module.load_state_dict(cast, assign=meta)


def fill_weights(
    network: nn.Module, rebuild: Callable[[], nn.Module], tensors: Mapping[str, Tensor], source: str
) -> Any:
    """A network on the meta device with its weights; one that ties parameters or holds others is built once more."""
    own = [id(tensor) for tensor in network.state_dict(keep_vars=True).values()]
    leaves = (leaf for module in network.modules() for leaf in tree_leaves(vars(module)))
    held = {id(leaf) for leaf in leaves if isinstance(leaf, Tensor) and leaf.is_meta}
    if len(set(own)) < len(own) or held - set(own):
        network = rebuild()
    load_weights(network, tensors, source)
    return channels_last(network).eval()


@contextmanager
def on_meta(weights: Mapping[str, Tensor] | None = None, source: str = "") -> Iterator[None]:
    """Makes the tensors of the block on torch's meta device, except those of modules that it imports.

    A module keeps its constants for the life of the process, so they are made in memory.

    Args:
        weights: what is made must not be larger; the construction of a billion layers also ends early.
        source: where they are from, for errors.

    Raises:
        CheckpointError: more than twice as many tensors, or numbers in them, as there are in the weights.

    >>> with on_meta():
    ...     torch.zeros(2).device
    device(type='meta')
    """
    with torch.device("meta"), _Meta(weights, source):
        yield


class _Meta(TorchFunctionMode):
    """What `on_meta` adds to torch's meta device; of this thread, and inside its `with` block only.

    Tensors on the meta device have no numbers, so the functions of `torch.nn.init` leave them alone: torch would import
    its compiler to fill them, which takes a second.
    """

    def __init__(self, weights: Mapping[str, Tensor] | None, source: str) -> None:
        super().__init__()
        self.source = source
        self.imports = _running_imports()
        self.limited = weights is not None
        weights = weights or {}
        self.tensors = 2 * len(weights) + SPARE_TENSORS
        self.numbers = 2 * sum(tensor.numel() for tensor in weights.values()) + SPARE_NUMBERS

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if _running_imports() > self.imports:
            with torch.device("cpu"):
                return func(*args, **kwargs)
        if getattr(func, "__module__", "") == INITIALISERS and (tensor := kwargs.get("tensor")) is not None:
            return tensor if tensor.is_meta else func(*args, **kwargs)
        made = func(*args, **kwargs)
        if self.limited and isinstance(made, Tensor) and not any(isinstance(given, Tensor) for given in args):
            self.tensors -= 1
            self.numbers -= made.numel()
            if self.tensors < 0 or self.numbers < 0:
                raise CheckpointError(
                    f"got a network that is larger than its weights in {self.source}; expected the parameters of the "
                    "file; use the config that they were saved with"
                )
        return made


def _running_imports() -> int:
    """How many frames of Python's import system are on the stack of this thread."""
    frame = currentframe()
    found = 0
    while frame is not None:  # for each tensor that is made, so without a generator
        found += frame.f_code.co_filename == IMPORT_SYSTEM
        frame = frame.f_back
    return found


def check_fit(own: Mapping[str, Tensor], tensors: Mapping[str, Tensor], source: str) -> None:
    """Raises `CheckpointError` where names, shapes or kinds of numbers differ from a module's own."""
    for problem, keys in (("missing", own.keys() - tensors.keys()), ("extra", tensors.keys() - own.keys())):
        if keys:
            raise CheckpointError(
                f"got weights in {source} with {len(keys)} {problem} tensors, {min(keys)!r} first; expected exactly "
                "its own; use the preset that they were trained with"
            )
    for name, tensor in tensors.items():
        if tensor.shape != own[name].shape:
            raise CheckpointError(
                f"got {name!r} of shape {tuple(tensor.shape)} in {source}; expected {tuple(own[name].shape)}; "
                "use the preset that it was trained with"
            )
        if tensor.dtype not in (FLOATS if own[name].is_floating_point() else (own[name].dtype,)):
            raise CheckpointError(
                f"got {name!r} of {tensor.dtype} in {source}; expected {own[name].dtype}, or other floating-point "
                "numbers where that is; restore the file"
            )
