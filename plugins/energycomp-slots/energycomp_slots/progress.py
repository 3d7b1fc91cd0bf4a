"""What shows how training goes: each term of the loss, slots in use, and pictures."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset
from tqdm import tqdm

from energycomp.decomposition import decomposer_of
from energycomp.model import Model
from energycomp.storage import atomic_file
from energycomp.viz import grid, strip
from energycomp_slots.loss import Terms

__all__ = ["Diary"]

SHOWN, SCENES = 4, 16
SMOOTHING = 0.98


class Diary:
    """Writes the terms of the loss to `terms.jsonl`, and pictures of parts and of new scenes to `samples/`.

    Args:
        out: folder of the run.
        model: that is trained.
        data: of pictures, of which the first are shown.
    """

    def __init__(self, out: Path, model: Model, data: Dataset[torch.Tensor]) -> None:
        self.out, self.model = out, model
        self.shown = torch.stack([data[k] for k in range(SHOWN)]).float() / 127.5 - 1.0
        self.phase, self.started, self.terms = "", 0, dict[str, float]()

    def begin(self, phase: str, step: int) -> None:
        """Another phase begins after so many steps of the run."""
        self.phase, self.started, self.terms = phase, step, {}

    def note(self, terms: Terms) -> None:
        """Takes in the terms of a step."""
        for name, value in terms.parts.items():
            new = float(value.detach())
            self.terms[name] = SMOOTHING * self.terms.get(name, new) + (1 - SMOOTHING) * new

    def __call__(self, module: Any, step: int) -> None:
        """Shows where the run is: a line, and two pictures."""
        del module
        step += self.started
        entry = {"step": step, "phase": self.phase, **{name: float(f"{v:.4g}") for name, v in self.terms.items()}}
        with (self.out / "terms.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
        said = ", ".join(f"{name} {value:.4g}" for name, value in self.terms.items())
        used = self.terms.get("used", math.inf)
        warning = "; slots collapse: the price of latents grows too fast" if used < 1.5 else ""
        tqdm.write(f"step {step:,}, {self.phase}: {said}{warning}")
        decomposer: Any = decomposer_of(self.model)
        generator = torch.Generator().manual_seed(0)
        parts = decomposer.parts(decomposer.encode(self.shown))
        folder = self.out / "samples"
        folder.mkdir(parents=True, exist_ok=True)
        pictures = {"parts": strip(self.shown, parts.whole, parts.images, parts.masks)}
        if self.phase != "inference":
            pictures["scenes"] = grid(decomposer.sample(SCENES, generator=generator), 8)
        for name, picture in pictures.items():
            with atomic_file(folder / f"{name}-{step:06d}.png") as temporary:
                picture.save(temporary, format="PNG")
