"""The data that sources render: "synthetic", with options after a colon, "synthetic:3-5"."""

from __future__ import annotations

HELD_OUT = 1_000_000_000  # added to the seed of evaluation images, so that no training image is among them
WRITTEN = 2_000_000_000  # added to the seed of images in folders, which are neither training nor evaluation images


def synthetic(spec: str) -> str | None:
    """The options of a spec of rendered images; None for a spec of a file or folder.

    >>> synthetic("synthetic:3-5"), synthetic("synthetic"), synthetic("CLEVR_v1.0:3-5")
    ('3-5', '', None)
    """
    kind, _, options = spec.partition(":")
    return options if kind == "synthetic" else None
