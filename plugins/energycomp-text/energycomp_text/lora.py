"""LoRA weights of a pipeline as a model of its own: adapters of peft, active for its rows, in their thread, only."""

from __future__ import annotations

import warnings
import weakref
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, partial
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import attrs
import torch
from torch import Tensor, nn

from energycomp.components import Condition
from energycomp.errors import InputError, NotFoundError
from energycomp.models import Model, execution_device
from energycomp_text.lora_files import check_settings, check_weights, file_of, reason_of, short_name
from energycomp_text.quiet import quiet

if TYPE_CHECKING:
    from energycomp.models import Adapt
    from energycomp_text.families import Family

_numbers = count(1)
_on: ContextVar[tuple[str, ...]] = ContextVar("adapters", default=())  # active in this thread
_changing = Lock()  # held while adapters are loaded or removed
_unused: deque[tuple[Any, str]] = deque()  # pipelines and adapters that no model has any more


def adapter_of(pipe: Any, family: Family) -> Adapt | None:
    """What `Model.with_lora` calls for the models of a pipeline; None for one that takes no LoRA."""
    return _Adapter(pipe, family) if hasattr(pipe, "load_lora_weights") else None


@attrs.frozen(eq=False)
class _Weights:
    """An adapter in the parts of a pipeline."""

    name: str

    @classmethod
    def of(cls, pipe: Any, name: str) -> _Weights:
        made = cls(name)
        weakref.finalize(made, _remove, pipe, name).atexit = False
        return made


@attrs.frozen(eq=False)
class _Adapter:
    """Makes a model with LoRA weights of one without, or with those of `held`."""

    pipe: Any
    family: Family
    held: tuple[_Weights, ...] = ()

    def __call__(self, model: Model, source: str | Path | Mapping[str, Tensor], scale: float) -> Model:
        """The model with further LoRA weights."""
        held = (*self.held, self._load_adapter(source, scale))
        text = model.conditioner
        denoiser = model.denoiser
        network, encoder = denoiser.network, text.encoder  # type: ignore[attr-defined]
        inner = network.inner if isinstance(network, _Network) else network
        inner_encoder = encoder.inner if isinstance(encoder, _Encoder) else encoder
        return attrs.evolve(
            model,
            name=f"{model.name}+{short_name(source)}",
            denoiser=attrs.evolve(denoiser, network=_Network(inner, held), base=denoiser.base or denoiser),
            conditioner=attrs.evolve(text, encoder=_Encoder(inner_encoder, held)),  # type: ignore[misc]
            adapt=attrs.evolve(self, held=held),
        )

    def _load_adapter(self, source: str | Path | Mapping[str, Tensor], scale: float) -> _Weights:
        """An adapter, once it is in the parts of the pipeline; it is left inactive."""
        if find_spec("peft") is None:
            raise NotFoundError("got LoRA weights without the package peft; pip install 'energycomp-text[lora]'")
        given = dict(source) if isinstance(source, Mapping) else str(file_of(str(source)))
        shown = "the given weights" if isinstance(source, Mapping) else str(source)
        name = f"energycomp_{next(_numbers)}"
        parts = _parts(self.pipe)
        with _changing:
            try:
                with _hide(name), _keep_activity(parts):
                    self._load(given, name)
            except Exception as error:  # diffusers and peft raise many kinds
                _delete(self.pipe, name)
                raise InputError(
                    f"got {shown}, LoRA weights that this {self.family.pipeline} cannot load: {reason_of(error)}"
                ) from error
            for part in parts:
                part.eval().requires_grad_(requires_grad=False)  # the dropout of an adapter begins in training mode
                for layer in _layers(part):
                    if not isinstance(layer, _ByThread):
                        layer.__class__ = _by_thread(layer.__class__)
                    if name in layer.scaling:
                        layer.set_scale(name, float(scale))
        _sweep()
        return _Weights.of(self.pipe, name)

    def _load(self, given: dict[str, Tensor] | str, name: str) -> None:
        """Puts weights into the parts of the pipeline, after checks; raises `InputError`, or an error of a library."""
        options: dict[str, Any] = {"use_safetensors": True, "local_files_only": True}
        with quiet(), warnings.catch_warnings(), _keep_offloading(self.pipe, self._network):
            warnings.simplefilter("ignore")  # of parts that the weights are not for, and of second adapters
            weights, *_, settings = self.pipe.lora_state_dict(given, return_lora_metadata=True, **options)
            check_settings(settings, max((len(tensor) for tensor in weights.values() if tensor.ndim), default=0))
            check_weights(weights, self.pipe)
            self.pipe.load_lora_weights(given, adapter_name=name, **options)
        if not any(name in layer.scaling for layer in _layers(self._network)):
            raise InputError(f"it has no weights of the {self.family.network}; expected some; take another LoRA")

    @property
    def _network(self) -> nn.Module:
        network: nn.Module = getattr(self.pipe, self.family.network)
        return network


class _Network(nn.Module):
    """A network with adapters."""

    def __init__(self, inner: nn.Module, held: tuple[_Weights, ...]) -> None:
        super().__init__()
        self.inner = inner
        self.held = held

    @property
    def device(self) -> torch.device:
        own: torch.device | None = getattr(self.inner, "device", None)
        return next(self.inner.parameters()).device if own is None else own

    def forward(self, sample: Tensor, timestep: Tensor, condition: Condition) -> Tensor:
        null = condition.null
        if bool(null.all()):
            return self._of(sample, timestep, condition, ())
        if not bool(null.any()):
            return self._of(sample, timestep, condition, self.held)
        order = torch.cat([null.nonzero()[:, 0], (~null).nonzero()[:, 0]])
        parts = [
            self._of(sample[chosen], timestep[chosen], condition[chosen], held)
            for chosen, held in ((null, ()), (~null, self.held))
        ]
        return torch.cat(parts)[order.argsort()]

    def _of(self, sample: Tensor, timestep: Tensor, condition: Condition, held: tuple[_Weights, ...]) -> Tensor:
        layers = [layer for layer in self.inner.modules() if isinstance(layer, _ByThread)]
        if gone := [weights for weights in held if not any(weights.name in layer.scaling for layer in layers)]:
            raise InputError(
                f"got a component with {len(gone)} LoRA that its pipeline no longer has; expected the weights that "
                "with_lora loaded; call with_lora again, and unload_lora_weights of the pipeline after the last use"
            )
        with _activate(held):
            prediction: Tensor = self.inner(sample, timestep, condition)
        return prediction


class _Encoder(nn.Module):
    """A text encoder with adapters."""

    def __init__(self, inner: nn.Module, held: tuple[_Weights, ...]) -> None:
        super().__init__()
        self.inner = inner
        self.held = held

    def forward(self, ids: Tensor, mask: Tensor) -> Any:
        with _activate(self.held):
            return self.inner(ids, mask)


@contextmanager
def _hide(name: str) -> Iterator[None]:
    """No thread uses an adapter in the block: peft makes it active before it has its weights."""
    from peft.tuners import tuners_utils

    kind: Any = tuners_utils.BaseTunerLayer
    before = kind.active_adapters
    kind.active_adapters = property(lambda layer: [one for one in before.fget(layer) if one != name])
    try:
        yield
    finally:
        kind.active_adapters = before


@contextmanager
def _keep_activity(parts: list[nn.Module]) -> Iterator[None]:
    """Adapters are active after the block as they were before it; those that come in it are not."""
    before = [(part, _active(part)) for part in parts]
    try:
        yield
    finally:
        for part, active in before:
            for layer in _layers(part):
                layer.set_adapter(list(active), inference_mode=True)


@contextmanager
def _keep_offloading(pipe: Any, network: nn.Module) -> Iterator[None]:
    """diffusers ends offloading to load LoRA weights, and begins it again on a device of its choice: here the same."""
    device = execution_device(network)
    own = ("enable_model_cpu_offload", "enable_sequential_cpu_offload")
    for name in own if device is not None else ():
        setattr(pipe, name, partial(getattr(pipe, name), device=device))
    try:
        yield
    finally:
        for name in own:
            vars(pipe).pop(name, None)


@contextmanager
def _activate(held: tuple[_Weights, ...]) -> Iterator[None]:
    """Adapters are active in the block, in this thread, beside those that a person has made active."""
    before = _on.set(tuple(weights.name for weights in held))
    try:
        yield
    finally:
        _on.reset(before)


class _ByThread:
    """A layer of peft whose adapters are also active where this thread says so: no thread sees those of another."""

    scaling: dict[str, float]


@cache
def _by_thread(kind: Any) -> type:
    """Such layers of a class of peft, whose `forward` asks for `active_adapters`, `disable_adapters` and `merged`."""

    def mine(layer: Any) -> list[str]:
        return [name for name in _on.get() if name in layer.scaling]

    def active(layer: Any) -> list[str]:
        own = kind.active_adapters.fget(layer)
        here = mine(layer)
        if here and (layer.merged_adapters or kind.disable_adapters.fget(layer)):
            own = []  # in the weights already, or switched off
        return [*own, *here]

    members = {
        "active_adapters": property(active),
        "disable_adapters": property(lambda layer: kind.disable_adapters.fget(layer) and not mine(layer)),
        "merged": property(lambda layer: kind.merged.fget(layer) and not mine(layer)),
    }
    return type(kind.__name__, (_ByThread, kind), members)


def _remove(pipe: Any, name: str) -> None:
    """Removes an adapter that no model has any more: at once, or after one is loaded."""
    _unused.append((pipe, name))
    _sweep()


def _sweep() -> None:
    if _changing.acquire(blocking=False):
        try:
            while _unused:
                _delete(*_unused.popleft())
        finally:
            _changing.release()


def _delete(pipe: Any, name: str) -> None:
    """Takes an adapter out of all parts; with the last one, their layers are again those that they were."""
    pipe.delete_adapters(name)
    if not any(layer.scaling for part in _parts(pipe) for layer in _layers(part)):
        pipe.unload_lora_weights()


def _parts(pipe: Any) -> list[nn.Module]:
    return [part for part in pipe.components.values() if isinstance(part, nn.Module)]


def _layers(part: nn.Module) -> list[Any]:
    from peft.tuners.tuners_utils import BaseTunerLayer

    return [layer for layer in part.modules() if isinstance(layer, BaseTunerLayer)]


def _active(part: nn.Module) -> list[str]:
    return sorted({name for layer in _layers(part) for name in layer.active_adapters})
