"""LoRA weights of a pipeline as a model of its own: adapters of peft, switched on for its rows only."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Any

import attrs
import torch
from torch import Tensor, nn

from energycomp.components import Condition
from energycomp.denoisers import Placed
from energycomp.errors import InputError, NotFoundError, first_line
from energycomp.models import HubSource, Model, is_folder

if TYPE_CHECKING:
    from energycomp.models import Adapt
    from energycomp_text.families import Family

__all__ = ["adapter_of"]

FILE = "pytorch_lora_weights.safetensors"
HALVES = (".lora_A.weight", ".lora_B.weight")
# Settings of peft that a file may have; others may import modules, or change the weights of the base.
SETTINGS = {
    "alpha_pattern", "base_model_name_or_path", "exclude_modules", "inference_mode", "lora_alpha", "lora_dropout",
    "peft_type", "peft_version", "r", "rank_pattern", "revision", "target_modules", "task_type", "use_dora",
    "use_rslora",
}  # fmt: skip
_numbers = count(1)
_switching = RLock()


def adapter_of(pipe: Any, family: Family) -> Adapt | None:
    """What `Model.with_lora` calls for the models of a pipeline; None for one that takes no LoRA."""
    return _Adapter(pipe, family) if hasattr(pipe, "load_lora_weights") else None


@attrs.frozen(eq=False)
class _Adapter:
    """Makes a model with LoRA weights of one without, or with those `names`."""

    pipe: Any
    family: Family
    names: tuple[str, ...] = ()

    def __call__(self, model: Model, source: str | Path | Mapping[str, Tensor], scale: float) -> Model:
        """The model with further LoRA weights. Its network and encoders are those of `model`, not copies."""
        names = (*self.names, self._loaded(source, scale))
        text, denoiser = model.conditioner, model.denoiser
        network, encoder = denoiser.network, text.encoder  # type: ignore[attr-defined]
        inner = network.inner if isinstance(network, _Network) else network
        inner_encoder = encoder.inner if isinstance(encoder, _Encoder) else encoder
        parts = [part for part in self.pipe.components.values() if isinstance(part, nn.Module)]
        return attrs.evolve(
            model,
            name=f"{model.name}+lora" if not self.names else model.name,
            denoiser=attrs.evolve(denoiser, network=_Network(inner, parts, names), base=denoiser.base or denoiser),
            conditioner=attrs.evolve(text, encoder=_Encoder(inner_encoder, parts, names)),  # type: ignore[misc]
            adapt=attrs.evolve(self, names=names),
        )

    def _loaded(self, source: str | Path | Mapping[str, Tensor], scale: float) -> str:
        """The name of the adapter, once it is in the parts of the pipeline; it is left switched off."""
        if find_spec("peft") is None:
            raise NotFoundError("got LoRA weights without the package peft; pip install 'energycomp-text[lora]'")
        given = dict(source) if isinstance(source, Mapping) else str(_file(str(source)))
        shown = "the given weights" if isinstance(source, Mapping) else str(source)
        name = f"energycomp_{next(_numbers)}"
        network = getattr(self.pipe, self.family.network)
        parts = [part for part in self.pipe.components.values() if isinstance(part, nn.Module)]
        before = [(part, _active(part)) for part in parts]
        try:
            weights, *_, settings = self.pipe.lora_state_dict(
                given, use_safetensors=True, local_files_only=True, return_lora_metadata=True
            )
            _check_settings(settings, max((len(tensor) for tensor in weights.values() if tensor.ndim), default=0))
            _check(weights, self.pipe)
            with _silent():
                self.pipe.load_lora_weights(given, adapter_name=name, use_safetensors=True, local_files_only=True)
            if not any(name in layer.scaling for layer in _layers(network)):
                raise InputError(f"no weights for the {self.family.network}")  # noqa: TRY301 - one line for all causes
        except Exception as error:  # diffusers and peft raise many kinds
            raise InputError(
                f"got {shown}, which is no LoRA for this {self.family.pipeline} ({first_line(error)}); expected one "
                "that was trained on the same base"
            ) from error
        finally:
            for part, active in before:
                for layer in _layers(part):
                    layer.set_adapter(list(active), inference_mode=True)
        for part in parts:
            part.eval().requires_grad_(requires_grad=False)  # the dropout of an adapter begins in training mode
            for layer in _layers(part):
                if name in layer.scaling:
                    layer.set_scale(name, float(scale))
        return name


class _Network(nn.Module):
    """A network with adapters. The null row is without: u of a model with LoRA is that of its base."""

    def __init__(self, inner: nn.Module, parts: list[nn.Module], names: tuple[str, ...]) -> None:
        super().__init__()
        self.inner, self.names = inner, names
        self._parts = tuple(parts)

    @property
    def device(self) -> torch.device:
        """Where the network computes."""
        return self.inner.device if isinstance(self.inner, Placed) else next(self.inner.parameters()).device

    def forward(self, sample: Tensor, timestep: Tensor, condition: Condition) -> Tensor:
        """Predictions (R, C, h, w)."""
        null = condition.null
        if bool(null.all()):
            return self._of(sample, timestep, condition, ())
        if not bool(null.any()):
            return self._of(sample, timestep, condition, self.names)
        order = torch.cat([null.nonzero()[:, 0], (~null).nonzero()[:, 0]])
        parts = [
            self._of(sample[chosen], timestep[chosen], condition[chosen], names)
            for chosen, names in ((null, ()), (~null, self.names))
        ]
        return torch.cat(parts)[order.argsort()]

    def _of(self, sample: Tensor, timestep: Tensor, condition: Condition, names: tuple[str, ...]) -> Tensor:
        with _switched_on(self._parts, names):
            prediction: Tensor = self.inner(sample, timestep, condition)
        return prediction


class _Encoder(nn.Module):
    """A text encoder with adapters."""

    def __init__(self, inner: nn.Module, parts: list[nn.Module], names: tuple[str, ...]) -> None:
        super().__init__()
        self.inner, self.names = inner, names
        self._parts = tuple(parts)

    def forward(self, ids: Tensor, mask: Tensor) -> Any:
        """What the encoder makes of ids (R, L)."""
        with _switched_on(self._parts, self.names):
            return self.inner(ids, mask)


@contextmanager
def _silent() -> Iterator[None]:
    """Without what diffusers and peft report: parts that weights are not for, second adapters, errors that follow."""
    from diffusers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(before)


@contextmanager
def _switched_on(parts: tuple[nn.Module, ...], names: tuple[str, ...]) -> Iterator[None]:
    """Adapters are active in the block, beside those that are active already."""
    if not names:
        yield
        return
    with _switching:
        before = [(layer, list(layer.active_adapters)) for part in parts for layer in _layers(part)]
        try:
            for layer, active in before:
                layer.set_adapter([*active, *(name for name in names if name in layer.scaling)], inference_mode=True)
            yield
        finally:
            for layer, active in before:
                layer.set_adapter(active, inference_mode=True)


def _layers(part: nn.Module) -> list[Any]:
    from peft.tuners.tuners_utils import BaseTunerLayer

    return [layer for layer in part.modules() if isinstance(layer, BaseTunerLayer)]


def _active(part: nn.Module) -> list[str]:
    return sorted({name for layer in _layers(part) for name in layer.active_adapters})


def _file(source: str) -> Path:
    """The safetensors file of LoRA weights: itself, in a folder, or in a repository of the hub."""
    path = Path(source)
    if path.suffix == ".safetensors" and path.is_file():
        return path
    hub = None if is_folder(source) else HubSource.parse(source)
    if hub is None and not is_folder(source):
        raise NotFoundError(f"got the LoRA {source!r}; expected a safetensors file, a folder with one, or a hub id")
    folder = path if hub is None else hub.download(("*.safetensors",), "a LoRA on the hub")
    found = sorted(folder.glob("*.safetensors"))
    own = [file for file in found if file.name == FILE] or found
    if len(own) != 1:
        raise NotFoundError(f"got the LoRA {source!r} with {len(own)} safetensors files; expected one; name the file")
    return own[0]


def _check_settings(settings: Any, largest: int) -> None:
    """Raises `InputError` for settings of peft in a file beyond `SETTINGS`, or a rank above that of all weights."""
    from peft import LoraConfig

    usual = {**vars(LoraConfig()), "init_lora_weights": "gaussian"}
    for full, value in (settings or {}).items():
        name = full.rpartition(".")[2]
        known = name in SETTINGS or value == usual.get(name) or (name, value) == ("init_lora_weights", True)
        if value and not known:
            raise InputError(f"it has the setting {name} {value!r:.60}")
        ranks = [value] if name == "r" else [*value.values()] if name == "rank_pattern" else []
        if any(type(rank) is not int or rank > largest for rank in ranks):
            raise InputError(f"it has the setting {name} {value!r:.60}, which is not the rank of its weights")


def _check(weights: Mapping[str, Tensor], pipe: Any) -> None:
    """Raises `InputError` for weights of layers that the pipeline does not have, or of another width, or not finite.

    peft reports hundreds of them, and keeps what fits.
    """
    for key, weight in weights.items():
        half = next((half for half in HALVES if key.endswith(half)), None)
        part, _, rest = key.partition(".")
        if half is None or getattr(pipe, part, None) is None:
            continue
        if not bool(weight.isfinite().all()):
            raise InputError(f"{rest} is not finite")
        if key.removesuffix(half) + HALVES[1 - HALVES.index(half)] not in weights:
            raise InputError(f"it has {rest} without its other half")
        layer = dict(getattr(pipe, part).named_modules()).get(rest.removesuffix(half))
        base = getattr(getattr(layer, "base_layer", layer), "weight", None)
        if base is None:
            raise InputError(f"it has weights of {rest.removesuffix(half)}, which the {part} does not have")
        own, axis = (base.shape[1], 1) if half == HALVES[0] else (base.shape[0], 0)
        if base.ndim == 2 and weight.shape[axis] != own:
            raise InputError(f"{rest.removesuffix(half)} has {weight.shape[axis]} features, and {own} in the {part}")
