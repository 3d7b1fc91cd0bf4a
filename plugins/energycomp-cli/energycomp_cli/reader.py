"""The reader of images: it searches the components of an image, describes them as JSON, and writes what shows them."""

from __future__ import annotations

import warnings
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import typer

from energycomp.errors import InputError, OutOfDistributionError
from energycomp.plugins import find
from energycomp_cli.answers import Answer, Answers, answers_in
from energycomp_cli.lines import append_line
from energycomp_cli.names import redrawn_file
from energycomp_cli.options import load_model, takes_words

if TYPE_CHECKING:
    from collections.abc import Mapping

    from PIL import Image

    from energycomp.inference import Solution
    from energycomp.models import Model
    from energycomp_cli.items import Item

SAMPLES = 3  # of the components of an image


@attrs.frozen
class ImageReader:
    """The arguments that decide about the answers and the files of images.

    Args:
        source, device, options: of the model.
        solver, count, seed: of the search.
        folder: of the marked images; None writes none.
        redraw: whether each image is also drawn beside samples of its components.
        last: whether what is left open otherwise is read last.
        anyway: whether images of a kind that the model does not know are read, too.
    """

    source: str
    device: str
    options: Mapping[str, Any]
    solver: str | None
    count: Any
    seed: int
    folder: Path | None
    redraw: bool
    last: bool = False
    anyway: bool = False

    def load(self) -> Model:
        """The model; `NotFoundError` where there is none, or no solver of its name."""
        if self.solver is not None:
            find("solvers", self.solver)
        model: Model = load_model(self.source, self.device, self.options, searchable=True)
        find("solvers", self.solver or model.defaults.solver)
        return model

    def settings(self, model: Model) -> dict[str, Any]:
        """What answers depend on, as JSON."""
        return {
            "model": self.source,
            "solver": self.solver or model.defaults.solver,
            "counts": list(self.count or model.defaults.counts),
            "seed": self.seed,
            **({"last": True} if self.last else {}),
            **({"options": self.options} if self.options else {}),
            **({"conditioner": model.conditioner.config()} if takes_words(model) else {}),
            "fingerprint": model_fingerprint(model),
        }

    def answers(
        self, model: Model, lines: Path | None, own: Path | None = None
    ) -> AbstractContextManager[Answers, bool | None]:
        """The known answers of a file of JSON lines, see `answers_in`; none without a file."""
        return Answers() if lines is None else answers_in(lines, self.settings(model), own)

    def read(self, model: Model, item: Item, answers: Answers) -> dict[str, Any]:
        """The record of an image: that of an earlier run, or a new one, which is kept."""
        answer = answers.of(item, named=self.folder is not None)
        if answer.known is not None and self.is_complete(answer):
            return answer.known
        return self.complete(model, answer, answers.file, progress=True)

    def is_complete(self, answer: Answer) -> bool:
        """Whether an answer is known, with all that is drawn of it, and may be given."""
        if answer.known is None or self._is_refused(answer.known):
            return False
        return not self.redraw or self.folder is None or redrawn_file(self.folder, answer.known).exists()

    def _is_refused(self, record: Mapping[str, Any]) -> bool:
        """Whether this run refuses an answer that was kept with --anyway, or by an earlier version."""
        return bool(record.get("out_of_distribution")) and not self.anyway

    def complete(
        self, model: Model, answer: Answer, lines: Path | None = None, *, progress: bool = False
    ) -> dict[str, Any]:
        """The record of an image, after its files are written; a known one is drawn alone.

        Args:
            lines: a file of JSON lines to which a new record is appended.
            progress: whether the search shows how far it is.

        Raises:
            OutOfDistributionError: the model does not know such images; nothing is written.
            InputError: the image cannot be read.
        """
        from energycomp.inference import check_known, check_trusted

        if answer.known is not None and self._is_refused(answer.known):
            raise OutOfDistributionError(f"got an image of a kind that {self.source} does not know")
        image = answer.item.open()
        if answer.known is not None:
            self._draw_again(model, image, answer.known)
            return answer.known
        if not self.anyway:
            check_known(image, model)
        solution = self._search(model, image, answer, lines, progress=progress)
        if not self.anyway:
            check_trusted(solution, model)
        record = self._record(model, image, answer, solution)
        if lines is not None:
            append_line(lines, record)
        return record

    def _search(self, model: Model, image: Any, answer: Answer, lines: Path | None, *, progress: bool) -> Solution:
        """Runs the solver. At Ctrl-C the answer that it has already, if any, is kept as "interrupted"."""
        import torch

        from energycomp.inference import OutOfDistributionWarning, SearchInterrupted, infer

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", OutOfDistributionWarning)  # it is in the answer
            try:
                return infer(
                    image,
                    model,
                    solver=self.solver,
                    count=self.count,
                    **({"last": True} if self.last else {}),
                    generator=torch.Generator().manual_seed(self.seed),
                    progress=progress,
                )
            except SearchInterrupted as stop:
                if lines is not None:
                    typer.echo(f"energycomp: keeping the first answer in {lines}; Ctrl-C again for none", err=True)
                    record = self._record(model, image, answer, stop.finish())
                    append_line(lines, {**record, "interrupted": True})
                raise

    def _record(self, model: Model, image: Any, answer: Answer, solution: Solution) -> dict[str, Any]:
        """Makes the record of a solution, after its files are written."""
        import torch

        from energycomp.images import save_image
        from energycomp.inference import View

        record = {**answer.head, **solution.record()}
        is_image = not isinstance(image, torch.Tensor)
        if is_image:
            record["frame"] = {"size": list(image.size), "box": list(model.processor.box(image))}
        if self.folder is not None:
            view = View(None, tuple(record["objects"]))
            has_places = is_image and len(view.places) == record["count"]
            record |= {"picture": f"{answer.name}.png" if has_places else None, "name": answer.name}
            if has_places:
                marked = attrs.evolve(view, image=model.shown(model.processor.frame(image)))
                save_image(marked.picture(), self.folder / f"{answer.name}.png")
            self._draw_again(model, image, record)
        return record

    def _draw_again(self, model: Model, image: Image.Image, record: Mapping[str, Any]) -> None:
        """With `redraw`, writes an image beside samples of the components that were found in it."""
        from energycomp.images import save_image

        if self.redraw and self.folder is not None:
            grid = _with_samples(model, image, record["objects"], self.seed)
            save_image(grid, redrawn_file(self.folder, record))


def failure(image: str, error: InputError) -> dict[str, Any]:
    """The record of an image that could not be read, or that is of a kind that the model does not know."""
    if not isinstance(error, OutOfDistributionError):
        return {"image": image, "failed": str(error)}
    return {"image": image, "failed": f"{image}: {error}; --anyway reads it", "out_of_distribution": True}


def _with_samples(model: Model, image: Any, objects: list[dict[str, Any]], seed: int) -> Any:
    import torch

    from energycomp.components import value_of
    from energycomp.images import grid
    from energycomp.inference import JUDGED
    from energycomp.sampling import Composer

    described = [{name: one[name] for name in one if name not in JUDGED} for one in objects]
    values = [value_of(model.conditioner, one) for one in described]
    composed = model.compose(torch.cat(values)) if values else model.unconditional
    samples = Composer(composed).sample(SAMPLES, generator=torch.Generator().manual_seed(seed), progress=False)
    samples = [model.shown(sample) for sample in samples]
    seen = model.processor.frame(image).resize(samples[0].size)
    heads = ["image", *(f"sample {number}" for number in range(1, 1 + SAMPLES))]
    return grid([seen, *samples], columns=1 + SAMPLES, side=192, heads=heads)


def model_fingerprint(model: Model) -> str:
    """Identifies what changes an answer and is not in the settings: weights, noise schedule and defaults."""
    from energycomp.files import fingerprint

    settings = repr((model.defaults, model.processor, model.denoiser.rule))
    return fingerprint({settings: model.denoiser.alphas_cumprod, **model.trained.state_dict()})
