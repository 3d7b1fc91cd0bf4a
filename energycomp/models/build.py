"""Networks and conditioners of a saved model: built without memory, compared with the weights, then given them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from traceback import walk_stack
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from energycomp.components.conditioning import Conditioner, weights_of
from energycomp.errors import CheckpointError
from energycomp.plugins.hookspecs import Kind
from energycomp.plugins.registry import find

INITIALISERS = "torch.nn.init"
IMPORT_SYSTEM = "<frozen importlib._bootstrap>"
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
SPARE_TENSORS, SPARE_NUMBERS = 64, 1_000_000  # that a network may make beside its weights, such as grids of places


def load_weights(module: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Copies weights into a module, or leaves it as it was; a module on the meta device takes them over.

    Raises:
        CheckpointError: naming the first that is missing, extra, misshapen, of another kind or not finite.
    """
    own = module.state_dict()
    _check_fit(own, tensors, source)
    meta = any(tensor.is_meta for tensor in own.values())
    # A copy, since tensors of a safetensors file are its pages: they change with the file, and may be unaligned.
    cast = {name: tensor.to(own[name].dtype, copy=meta) for name, tensor in tensors.items()}
    for name, tensor in cast.items():
        if not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(f"got {name!r} in {source} with numbers that are not finite; restore the file")
    module.load_state_dict(cast, assign=meta)


def network_of(part: Mapping[str, Any], kind: Kind, weights: Mapping[str, Tensor], source: str) -> nn.Module:
    """The network or encoder that a config names, on torch's meta device, once it is known to fit the weights."""
    network: nn.Module = _on_meta(part, kind, weights, source)
    _check_fit(network.state_dict(), weights, source)
    return network.eval()


def filled(
    network: nn.Module, part: Mapping[str, Any], kind: Kind, weights: Mapping[str, Tensor], source: str
) -> nn.Module:
    """A network that `network_of` gave, with its weights.

    One that ties parameters, or holds tensors that are not saved, is built once more: those have their values from the
    constructor.
    """
    own = [id(tensor) for tensor in network.state_dict(keep_vars=True).values()]
    held = {id(leaf) for module in network.modules() for leaf in tree_leaves(vars(module)) if _is_meta(leaf)}
    if len(set(own)) < len(own) or held - set(own):
        network = _build(part, kind)
    load_weights(network, weights, source)
    return network.to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]


def conditioner_of(part: Mapping[str, Any], weights: Mapping[str, Tensor], source: str) -> Conditioner:
    """The conditioner that a config names; one with weights is made once they are known to be those of the file."""
    if weights:
        if (module := weights_of(_on_meta(part, "conditioners", weights, source))) is None:
            raise CheckpointError(
                f"got weights of the conditioner {part['name']!r} in {source}, which has none; restore the file"
            )
        _check_fit(module.state_dict(), weights, source)
    made: Conditioner = _build(part, "conditioners")
    if not weights and weights_of(made) is not None:
        raise CheckpointError(
            f"got no weights of the conditioner {part['name']!r} in {source}; expected them; restore the file"
        )
    return made


@contextmanager
def on_meta() -> Iterator[None]:
    """Makes the tensors of the block on torch's meta device, except those of modules that it imports.

    A module keeps its constants for the life of the process, so they are made in memory.

    >>> with on_meta():
    ...     torch.zeros(2).device
    device(type='meta')
    """
    with torch.device("meta"), _ImportsInMemory():
        yield


class _ImportsInMemory(TorchFunctionMode):
    """Ends the meta device while a module is imported; of this thread, and inside its `with` block only.

    Tensors on the meta device have no numbers, so the functions of `torch.nn.init` leave them alone: torch would import
    its compiler to fill them, which takes a second.
    """

    def __init__(self) -> None:
        super().__init__()
        self.imports = _running_imports()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if _running_imports() > self.imports:
            with torch.device("cpu"):
                return func(*args, **kwargs)
        if getattr(func, "__module__", "") == INITIALISERS and (tensor := kwargs.get("tensor")) is not None:
            return tensor if tensor.is_meta else func(*args, **kwargs)
        return func(*args, **kwargs)


def _running_imports() -> int:
    """How many frames of Python's import system are on the stack of this thread."""
    return sum(frame.f_code.co_filename == IMPORT_SYSTEM for frame, _ in walk_stack(None))


@contextmanager
def no_larger_than(weights: Mapping[str, Tensor], source: str) -> Iterator[None]:
    """Counts the tensors that are made in the block: no config makes a network that is larger than its weights.

    Enter it inside `on_meta()`, where tensors take no memory: it then also ends the construction of a billion layers
    early. The constants of modules that are imported meanwhile do not count.

    Raises:
        CheckpointError: more than twice as many tensors, or numbers in them, as there are in the weights.
    """
    with _Budget(weights, source):
        yield


class _Budget(TorchFunctionMode):
    """Refuses to make tensors beyond a number; of this thread, and inside its `with` block only."""

    def __init__(self, weights: Mapping[str, Tensor], source: str) -> None:
        super().__init__()
        self.source = source
        self.imports = _running_imports()
        self.tensors = 2 * len(weights) + SPARE_TENSORS
        self.numbers = 2 * sum(tensor.numel() for tensor in weights.values()) + SPARE_NUMBERS

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        new = isinstance(made, Tensor) and not any(isinstance(given, Tensor) for given in args)
        if new and _running_imports() == self.imports:
            self.tensors -= 1
            self.numbers -= made.numel()
            if self.tensors < 0 or self.numbers < 0:
                raise CheckpointError(
                    f"got a network that is larger than its weights in {self.source}; expected the parameters of the "
                    "file; use the config that they were saved with"
                )
        return made


def _on_meta(part: Mapping[str, Any], kind: Kind, weights: Mapping[str, Tensor], source: str) -> Any:
    with on_meta(), no_larger_than(weights, source):
        return _build(part, kind)


def _build(part: Mapping[str, Any], kind: Kind) -> Any:
    """An object by its registered name, which keeps the arguments that the config gives it."""
    if not isinstance(part["name"], str) or not isinstance(part["config"], dict):
        raise CheckpointError(f"got {part!r} among the {kind}; expected a name and an object; restore the file")
    built = find(kind, part["name"])(**part["config"])
    own = json.loads(json.dumps(built.config() if kind == "conditioners" else built.config))
    for key, value in part["config"].items():
        if key not in own or own[key] != value:
            raise CheckpointError(
                f"got {key!r} = {value!r} for {part['name']}, which has {own.get(key)!r}; expected an argument that "
                "it keeps; restore the file"
            )
    return built


def _check_fit(own: Mapping[str, Tensor], tensors: Mapping[str, Tensor], source: str) -> None:
    for problem, keys in (("missing", own.keys() - tensors.keys()), ("extra", tensors.keys() - own.keys())):
        if keys:
            raise CheckpointError(
                f"got weights in {source} with {len(keys)} {problem} tensors, {min(keys)!r} first; expected exactly "
                "those of the network; use the preset that they were trained with"
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


def _is_meta(leaf: object) -> bool:
    return isinstance(leaf, Tensor) and leaf.is_meta
