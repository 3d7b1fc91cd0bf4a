"""Loading without what diffusers and transformers write to the terminal meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet() -> Iterator[None]:
    """Without progress bars of both libraries, and log messages of diffusers; as it was before afterwards."""
    from diffusers.utils import logging as of_diffusers
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars
    from transformers.utils import logging as of_transformers

    verbosity = of_diffusers.get_verbosity()
    no_downloads = are_progress_bars_disabled()
    shown = [library for library in (of_diffusers, of_transformers) if library.is_progress_bar_enabled()]
    of_diffusers.set_verbosity(of_diffusers.CRITICAL)
    for library in shown:
        library.disable_progress_bar()
    try:
        yield
    finally:
        of_diffusers.set_verbosity(verbosity)
        for library in shown:
            library.enable_progress_bar()
        if no_downloads:  # those of the hub, which transformers switches with its own
            disable_progress_bars()
