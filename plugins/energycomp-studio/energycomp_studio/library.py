"""The models that the page offers, each loaded when it is first used."""

from __future__ import annotations

import threading

import attrs

from energycomp import load
from energycomp.decomposition import sampler_of, takes_apart
from energycomp.models import Model
from energycomp.plugins import names


def abilities(model: Model) -> tuple[str, ...]:
    """What a model does on the page, and whether it samples whole scenes."""
    if not takes_apart(model):
        return ("sample", "read", "edit")
    return ("decompose", "recombine", *(["sample whole scenes (command line)"] if sampler_of(model) else []))


@attrs.define
class Library:
    """Registered models, and one that was named at the start, `first`, which may be a folder or a hub id."""

    first: str
    device: str = "cpu"
    _loaded: dict[str, Model] = attrs.field(factory=dict)
    _lock: threading.RLock = attrs.field(factory=threading.RLock)

    @property
    def names(self) -> list[str]:
        return list(dict.fromkeys([self.first, *names("models")]))

    def able(self, ability: str) -> list[str]:
        """The names of the models that have an ability, or of which that is not known yet."""
        return [name for name in self.names if not self.is_loaded(name) or ability in abilities(self._loaded[name])]

    def model(self, name: str) -> Model:
        """The model of one of the names; raises `InputError` or `NotFoundError` where it cannot be loaded."""
        with self._lock:
            if name not in self._loaded:
                self._loaded[name] = load(name, device=self.device)
            return self._loaded[name]

    def is_loaded(self, name: str) -> bool:
        """Whether `model` returns at once."""
        return name in self._loaded
