"""What tests of hostile input draw: damaged bytes. HOSTILE=50 in the environment draws 50 times as many, new ones."""

import os
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, settings, strategies as st

TIMES = int(os.environ.get("HOSTILE", "1"))
EXTREMES = [value.to_bytes(width, "little") for width in (1, 4, 8) for value in (0, 1, 2 ** (8 * width) - 1)]


def examples(count: int) -> Callable[[Any], Any]:
    quiet = settings(database=None, deadline=None, suppress_health_check=list(HealthCheck), print_blob=False)
    return settings(quiet, max_examples=count * TIMES, derandomize=TIMES == 1)


@st.composite
def damaged_bytes(draw: st.DrawFn, data: bytes) -> bytes:
    """Bytes with a flipped bit, a copied stretch, other bytes, an extreme number, or less of them."""
    place, start = (draw(st.integers(0, len(data))) for _ in range(2))
    flipped = bytes(byte ^ 1 << draw(st.integers(0, 7)) for byte in data[place : place + 1])
    copied = data[start : start + draw(st.integers(0, 64))]
    new = draw(st.sampled_from([flipped, flipped, copied, b"", *EXTREMES]) | st.binary(max_size=8))
    return data[:place] + new + data[place + draw(st.sampled_from([len(new)] * 8 + [0, 64, len(data)])) :]
