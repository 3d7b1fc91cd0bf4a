"""What the server keeps of a browser tab, so that it is there again when the page is loaded again."""

from __future__ import annotations

import threading
import time
from typing import Generic, TypeVar

import attrs

T = TypeVar("T")

FORGOTTEN = 3_600.0  # s after which what was not used is forgotten
PAGES = 16  # browser tabs of which something is kept at most


@attrs.define
class Kept(Generic[T]):
    """A value of each of the last 16 browser tabs, for an hour."""

    _values: dict[str, tuple[float, T]] = attrs.field(factory=dict)
    _lock: threading.Lock = attrs.field(factory=threading.Lock)

    def put(self, key: str, value: T) -> None:
        """Keeps a value under the name of a browser tab; forgets what is old."""
        with self._lock:
            self._values.pop(key, None)
            fresh = {name: one for name, one in self._values.items() if time.monotonic() - one[0] < FORGOTTEN}
            self._values = {**dict(list(fresh.items())[-PAGES + 1 :]), key: (time.monotonic(), value)}

    def get(self, key: str) -> T | None:
        with self._lock:
            since, value = self._values.get(key, (0.0, None))
        return value if value is not None and time.monotonic() - since < FORGOTTEN else None
