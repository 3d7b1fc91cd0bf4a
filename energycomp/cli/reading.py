"""An image of `energycomp infer`: read, described as JSON, marked, and drawn beside samples of its components."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from energycomp.cli.options import load_searchable, takes_words
from energycomp.cli.output import solution_record
from energycomp.cli.results import model_fingerprint, redrawn_file

if TYPE_CHECKING:
    from collections.abc import Mapping

    from PIL import Image

    from energycomp.models import Model

SAMPLES = 3  # of the components of an image
JUDGED = ("certainty", "gain", "probability")  # of a component, beside its description


@attrs.frozen
class Reading:
    """The arguments that decide about the answers and the files of images.

    Args:
        source, device, options: of the model.
        solver, count, seed: of the search.
        folder: of the marked images; None writes none.
        redraw: whether each image is also drawn beside samples of its components.
    """

    source: str
    device: str
    options: Mapping[str, Any]
    solver: str | None
    count: Any
    seed: int
    folder: Path | None
    redraw: bool

    def load(self) -> Model:
        """The model."""
        return load_searchable(self.source, self.device, **self.options)

    def settings(self, model: Model) -> dict[str, Any]:
        """What answers depend on, as JSON."""
        return {
            "model": self.source,
            "solver": self.solver or model.defaults.solver,
            "counts": list(self.count or model.defaults.counts),
            "seed": self.seed,
            **({"options": self.options} if self.options else {}),
            **({"conditioner": model.conditioner.config()} if takes_words(model) else {}),
            "fingerprint": model_fingerprint(model),
        }

    def read(self, model: Model, image: Image.Image, head: Mapping[str, Any], name: str) -> dict[str, Any]:
        """The record of an image, which begins with `head`, after the files of this name are written."""
        import torch

        from energycomp.inference import OutOfDistributionWarning, infer

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", OutOfDistributionWarning)  # it is in the answer
            solution = infer(
                image,
                model,
                solver=self.solver,
                count=self.count,
                generator=torch.Generator().manual_seed(self.seed),
                progress=False,
            )
        record = {**head, **solution_record(model, solution)}
        if self.folder is not None:
            record |= {"picture": _write_marked(model, self.folder, name, image, record), "name": name}
            self.redrawn(model, image, record)
        return record

    def lacks(self, record: Mapping[str, Any]) -> bool:
        """Whether the drawing of a known answer is missing."""
        return self.redraw and self.folder is not None and not redrawn_file(self.folder, record).exists()

    def redrawn(self, model: Model, image: Image.Image, record: Mapping[str, Any]) -> None:
        """With `redraw`, writes an image beside samples of the components that were found in it."""
        if self.redraw and self.folder is not None:
            from energycomp.images import save_image

            save_image(_redrawn(model, image, record["objects"], self.seed), redrawn_file(self.folder, record))


def _write_marked(model: Model, folder: Path, name: str, image: Image.Image, record: Mapping[str, Any]) -> str | None:
    """Writes the image with a ring at each component; returns its name, or None where components have no places."""
    from energycomp.images import save_image
    from energycomp.inference import View

    view = View(model.shown(model.processor.frame(image)), tuple(record["objects"]))
    if len(view.places) != record["count"]:
        return None
    save_image(view.picture(), folder / f"{name}.png")
    return f"{name}.png"


def _redrawn(model: Model, image: Any, objects: list[dict[str, Any]], seed: int) -> Any:
    """An image beside three samples of the components that were found in it."""
    import torch

    from energycomp.components import value_of
    from energycomp.images import grid
    from energycomp.sampling import Composer

    described = [{name: one[name] for name in one if name not in JUDGED} for one in objects]
    values = [value_of(model.conditioner, one) for one in described]
    composed = model.compose(torch.cat(values)) if values else model.unconditional
    samples = Composer(composed).sample(SAMPLES, generator=torch.Generator().manual_seed(seed), progress=False)
    samples = [model.shown(sample) for sample in samples]
    seen = model.processor.frame(image).resize(samples[0].size)
    heads = ["image", *(f"sample {number}" for number in range(1, 1 + SAMPLES))]
    return grid([seen, *samples], columns=1 + SAMPLES, side=192, heads=heads)
