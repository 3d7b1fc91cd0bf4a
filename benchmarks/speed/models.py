"""What each included model costs: CPU seconds to draw an image and to read or to decompose one, without loading.

python benchmarks/speed/models.py [--models clevr faces ...]

Each model draws one image of its own, by its defaults, and reads it again; one that draws nothing from words has
dashes. torch has one thread.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch

from energycomp import Composer, infer, load
from energycomp.decomposition import decomposer_of, sampler_of
from energycomp.errors import EnergycompError
from energycomp.inference import OutOfDistributionWarning
from energycomp.plugins import names

COMPONENTS: dict[str, list[str]] = {  # of the image that is drawn; one place where nothing is named
    "clevr": ["red cube", "blue sphere"],
    "clevr-small": ["red cube", "blue sphere"],
    "faces": ["smiling", "black_hair=false"],
    "text": ["a red cube", "a blue sphere"],
    "text-composed": ["a red cube", "a blue sphere"],
}


def main() -> None:
    """Prints a row for each model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="*", default=names("models"), help="names; all by default")
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", OutOfDistributionWarning)
    for name in parser.parse_args().models:
        model: Any = load(name)
        size = "x".join(map(str, reversed(model.processor.size)))
        drawn, to_draw = timed(lambda model=model, name=name: draw(model, COMPONENTS.get(name)))
        picture = None if drawn is None else drawn[0]
        _, to_read = timed(lambda model=model, picture=picture: read(model, picture))
        print(f"| `{name}` | {size} | {to_draw} | {to_read} |", flush=True)


def timed(work: Callable[[], Any]) -> tuple[Any, str]:
    """The result and the CPU seconds; None and a dash for what the model cannot do."""
    start = time.process_time()
    try:
        found = work()
    except EnergycompError as error:
        print(f"({type(error).__name__}: {error})")
        return None, "-"
    return found, f"{time.process_time() - start:.1f}"


def draw(model: Any, texts: list[str] | None) -> Any:
    """One image (1, C, H, W) or a Pillow image in a list."""
    generator = torch.Generator().manual_seed(0)
    whole = sampler_of(model)
    if whole is not None:
        return model.decode(whole(1, generator=generator))
    return Composer(model.scene(*(texts or ["0.3,0.5", "0.7,0.6"]))).sample(1, generator=generator, progress=False)


def read(model: Any, picture: Any) -> Any:
    """The components of an image: searched for, or the parts of an encoder."""
    if model.decomposer_name is not None or model.encoder is not None:
        return decomposer_of(model).encode([picture])
    return infer(picture, model, progress=False)


if __name__ == "__main__":
    main()
