"""Memory of this process, read from /proc (Linux). `ru_maxrss` would include what the parent held at the fork."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

__all__ = ["reset_peak", "resident"]


def resident(*, peak: bool = False) -> int:
    """Bytes of this process in memory, or the most since `reset_peak`; 0 where there is no /proc."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:" if peak else "VmRSS:"):
                return int(line.split()[1]) * 1024
    return 0


def reset_peak() -> None:
    """The peak begins anew with what is resident now."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
