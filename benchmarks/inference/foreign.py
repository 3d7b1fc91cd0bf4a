"""Images that a model of scenes has not been trained on: flat and synthetic ones, changed scenes, other data sets."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from energycomp import Model
from energycomp.plugins import find

__all__ = ["foreign_images"]

CHANGES: dict[str, Callable[[Tensor], Tensor]] = {
    "rotated by 90 degrees": lambda image: image.rot90(1, (1, 2)),
    "rotated by 180 degrees": lambda image: image.rot90(2, (1, 2)),
    "flipped upside down": lambda image: image.flip(1),
    "upper and lower half exchanged": lambda image: image.roll(image.shape[1] // 2, 1),
    "negative": lambda image: -image,
    "half as bright": lambda image: (image + 1) / 2 - 1,
    "1.4 times as bright": lambda image: ((image + 1) * 1.4 - 1).clamp(-1, 1),
    "blurred": lambda image: avg_pool2d(image[None], 5, 1, 2)[0],
    "with noise of 0.2": lambda image: (
        image + 0.2 * torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
    ).clamp(-1, 1),
}
OTHERS = (("faces", "synthetic"), ("decomp", "synthetic"), ("clevr", "synthetic:textured:3-5"))


def foreign_images(model: Model, n: int) -> dict[str, list[Tensor]]:
    """n images (3, H, W) in [-1, 1] of each kind, by its description; changed scenes are the model's own kind."""
    height, width = model.processor.size
    generator = torch.Generator().manual_seed(0)
    tone = torch.linspace(-1, 1, n)
    found = {
        "one grey tone, black to white": [torch.full((3, height, width), float(t)) for t in tone],
        "uniform noise": [torch.rand(3, height, width, generator=generator) * 2 - 1 for _ in range(n)],
        "stripes": [
            torch.sign(torch.sin(torch.arange(width) / (2.0 + k))).expand(3, height, width).clone() for k in range(n)
        ],
        "coloured blocks": [_blocks(height, width, generator) for _ in range(n)],
    }
    scenes = [
        model.processor(e.image)[0] for e in find("datasets", model.name)().examples("synthetic:2-6", count=n, seed=77)
    ]
    found |= {f"scenes, {name}": [change(scene) for scene in scenes] for name, change in CHANGES.items()}
    for name, data in OTHERS:
        examples = find("datasets", name)().examples(data, count=n, seed=5)
        found[f"{name}, {data}"] = [model.processor(example.image)[0] for example in examples]
    return found


def _blocks(height: int, width: int, generator: torch.Generator) -> Tensor:
    blocks = torch.rand(3, 8, 8, generator=generator).mul(2).sub(1)
    return blocks.repeat_interleave(height // 8, 1).repeat_interleave(width // 8, 2)
