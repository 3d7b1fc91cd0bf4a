"""The training log: each term of the loss, the number of slots in use, and images of parts."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import torch

from energycomp.decomposition import decomposer_of
from energycomp.images import from_bytes, save_image, strip
from energycomp.models import Model
from energycomp.progress import over_bar
from energycomp_datasets.pictures import Pictures
from energycomp_slots.loss import Terms

SHOWN = 4  # images
SMOOTHING = 0.98  # of the running mean of each term
COLLAPSED = 1.5  # slots in use; below it a single slot explains the whole image


class TrainingLog:
    """Writes the terms of the loss to `terms.jsonl`, and images of parts of the first four data to `samples/`."""

    def __init__(self, out: Path, model: Model, data: Pictures) -> None:
        self.out = out
        self.model = model
        self.shown = from_bytes(torch.stack([data[k] for k in range(min(SHOWN, len(data)))]))
        self.phase = ""
        self.started = 0
        self.terms = dict[str, float]()

    def begin(self, phase: str, step: int) -> None:
        """Begins a phase at a step of the run."""
        self.phase = phase
        self.started = step
        self.terms = {}

    def note(self, terms: Terms) -> None:
        """Adds the terms of one step to their running means."""
        for name, value in terms.parts.items():
            new = float(value.detach())
            self.terms[name] = SMOOTHING * self.terms.get(name, new) + (1 - SMOOTHING) * new

    def show(self, step: int) -> int:
        """Writes a line and an image at a step of the phase. Returns the step of the run."""
        step += self.started
        entry = {"step": step, "phase": self.phase, **{name: float(f"{v:.4g}") for name, v in self.terms.items()}}
        with (self.out / "terms.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
        shown = ", ".join(f"{name} {value:.4g}" for name, value in self.terms.items())
        used = self.terms.get("used", math.inf)
        warning = "; slots collapse: the weight of the KL term of slots grows too fast" if used < COLLAPSED else ""
        with over_bar():
            sys.stdout.write(f"step {step:,}, {self.phase}: {shown}{warning}\n")
        decomposer = decomposer_of(self.model)
        parts = decomposer.parts(decomposer.encode(self.shown))
        figure = strip(self.shown, parts.whole, parts.images, parts.masks)
        save_image(figure, self.out / "samples" / f"parts-{step:06d}.png")
        return step
