"""The models that the page offers, each loaded when it is first used."""

from __future__ import annotations

import threading

import attrs

from energycomp import load
from energycomp.models import Model
from energycomp.plugins import names


@attrs.define
class Library:
    """Registered models, and one that was named at the start, which may be a folder or a hub id.

    Args:
        first: the model that is shown first.
        device: where models run.
    """

    first: str
    device: str = "cpu"
    _loaded: dict[str, Model] = attrs.field(factory=dict)
    _lock: threading.RLock = attrs.field(factory=threading.RLock)

    @property
    def names(self) -> list[str]:
        """All names, the first model first."""
        return list(dict.fromkeys([self.first, *names("models")]))

    def model(self, name: str) -> Model:
        """The model of one of the names; raises `InputError` or `NotFoundError` where it cannot be loaded."""
        with self._lock:
            if name not in self._loaded:
                self._loaded[name] = load(name, device=self.device)
            return self._loaded[name]

    def is_loaded(self, name: str) -> bool:
        """Whether `model` returns at once."""
        return name in self._loaded
