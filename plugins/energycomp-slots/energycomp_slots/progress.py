"""What shows how training goes: each term of the loss, slots in use, and pictures."""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch
from torch.utils.data import Dataset
from tqdm import tqdm

from energycomp.decomposition import decomposer_of
from energycomp.files import atomic_file
from energycomp.models import Model
from energycomp.viz import strip
from energycomp_slots.loss import Terms

__all__ = ["Diary"]

SHOWN = 4
SMOOTHING = 0.98
COLLAPSED = 1.5  # slots in use, below which one explains all of a picture


class Diary:
    """Writes the terms of the loss to `terms.jsonl`, and pictures of parts to `samples/`.

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

    def show(self, step: int) -> int:
        """Shows where the phase is after so many of its steps: a line, and a picture. Returns the step of the run."""
        step += self.started
        entry = {"step": step, "phase": self.phase, **{name: float(f"{v:.4g}") for name, v in self.terms.items()}}
        with (self.out / "terms.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
        said = ", ".join(f"{name} {value:.4g}" for name, value in self.terms.items())
        used = self.terms.get("used", math.inf)
        warning = "; slots collapse: the price of latents grows too fast" if used < COLLAPSED else ""
        tqdm.write(f"step {step:,}, {self.phase}: {said}{warning}")
        decomposer = decomposer_of(self.model)
        parts = decomposer.parts(decomposer.encode(self.shown))
        folder = self.out / "samples"
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_file(folder / f"parts-{step:06d}.png") as temporary:
            strip(self.shown, parts.whole, parts.images, parts.masks).save(temporary, format="PNG")
        return step
