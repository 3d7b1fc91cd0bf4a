"""Shared by the benchmarks of composed samples: the ways to draw one, and results that are taken up again."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor

from energycomp import Composer, Model, sample_best
from energycomp.denoisers import count_rows
from energycomp.files import atomic_file
from energycomp.images import to_output
from energycomp.sampling import compatible_schedulers

__all__ = ["Way", "mean_interval", "recorded"]

Z = 1.96


@attrs.frozen
class Way:
    """How a composition is drawn: a scheduler or a sampler, its steps, and of how many samples the best is kept.

    >>> Way.parsed("ddpm@100x4")
    Way(name='ddpm', steps=100, best_of=4, until_complete=False)
    >>> str(Way.parsed("DDIMScheduler@50")), str(Way.parsed("ddpm@100+4"))
    ('ddim@50', 'ddpm@100+4')
    """

    name: str
    steps: int
    best_of: int = 1
    until_complete: bool = False

    @classmethod
    def parsed(cls, text: str) -> Way:
        """From NAME@STEPS, NAME@STEPSxBEST, or NAME@STEPS+BEST, which stops at the first complete sample.

        Raises:
            argparse.ArgumentTypeError: another text.
        """
        if (found := re.fullmatch(r"([\w-]+)@(\d+)(?:([x+])(\d+))?", text)) is None:
            raise argparse.ArgumentTypeError(f"got {text!r}; expected NAME@STEPS or NAME@STEPSxBEST, as ddpm@100x4")
        return cls(found[1].lower().removesuffix("scheduler"), int(found[2]), int(found[4] or 1), found[3] == "+")

    @classmethod
    def of(cls, model: Model) -> Way:
        """What `energycomp sample` does where nothing is chosen."""
        return cls.parsed(f"{model.defaults.scheduler}@{model.defaults.num_inference_steps}")

    def __str__(self) -> str:
        best = f"{'+' if self.until_complete else 'x'}{self.best_of}" if self.best_of > 1 else ""
        return f"{self.name}@{self.steps}{best}"

    def draw(self, model: Model, composition: Any, seed: int) -> Tensor:
        """A sample (C, H, W) of a composition of the model's components."""
        schedulers = {name.lower().removesuffix("scheduler") for name in compatible_schedulers()}
        by = "scheduler" if self.name in schedulers else "sampler"
        generator = torch.Generator().manual_seed(seed)
        options: dict[str, Any] = {by: self.name, "num_inference_steps": self.steps, "progress": False}
        if self.best_of == 1:
            images = Composer(composition).sample(1, generator=generator, output_type="pt", **options)
        else:
            images = sample_best(
                composition,
                best_of=self.best_of,
                until_complete=self.until_complete,
                model=model,
                generator=generator,
                output_type="pt",
                **options,
            ).images
        return torch.as_tensor(images[0])


def recorded(
    path: Path, way: Way, model: Model, composition: Any, seed: int, read: Callable[[Tensor], Any]
) -> dict[str, Any]:
    """Draws and reads one sample: what is "read", and the network evaluations of drawing it, "rows".

    Both are written to PATH.json, and the sample to PATH.png; they are taken from there if they exist. What was read in
    the same image for another way is not read again.
    """
    record = path.with_suffix(".json")
    if not record.exists():
        with count_rows() as spent:
            image = way.draw(model, composition, seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path.with_suffix(".png")) as temporary:
            to_output(image[None], "pil", (-1.0, 1.0))[0].save(temporary, format="PNG")
        same = [other for other in path.parent.parent.glob(f"*/{path.name}.json") if _shows(other, path)]
        answer = json.loads(same[0].read_text())["read"] if same else read(image)
        with atomic_file(record) as temporary:
            temporary.write_text(json.dumps({"read": answer, "rows": spent.rows}))
    found: dict[str, Any] = json.loads(record.read_text())
    return found


def _shows(record: Path, path: Path) -> bool:
    """Whether a record of another way is that of the same image."""
    return record.with_suffix(".png").read_bytes() == path.with_suffix(".png").read_bytes()


def mean_interval(values: Tensor) -> tuple[float, float]:
    """The mean of independent values, and half the width of its 95 % interval.

    >>> mean_interval(torch.tensor([0.0, 1.0, 1.0, 1.0]))
    (0.75, 0.49)
    """
    values = values.double()
    return round(float(values.mean()), 4), round(float(Z * values.std() / len(values) ** 0.5), 4)
