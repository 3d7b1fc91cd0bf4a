"""An image of `energycomp infer`: read, described as JSON, marked, and drawn beside samples of its components."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import typer

from energycomp.errors import InputError, OutOfDistributionError
from energycomp.progress import over_bar
from energycomp_cli.lines import append_line
from energycomp_cli.options import load_model, takes_words
from energycomp_cli.output import print_table
from energycomp_cli.results import redrawn_file

if TYPE_CHECKING:
    from collections.abc import Mapping

    from PIL import Image

    from energycomp.inference import Solution
    from energycomp.models import Model
    from energycomp_cli.writers import Output

SAMPLES = 3  # of the components of an image
Show = Callable[[str, dict[str, Any]], None]


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
        from energycomp.plugins import find

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

    def read(
        self,
        model: Model,
        image: Any,
        head: Mapping[str, Any],
        name: str,
        lines: Path | None = None,
        *,
        progress: bool = False,
    ) -> dict[str, Any]:
        """The record of an image, which begins with `head`, after the files of this name are written.

        Args:
            progress: whether the search shows how far it is.
            lines: a file of JSON lines to which the record is appended. At Ctrl-C it is that of the answer that the
                search has already, if it has one, and "interrupted" is true.

        Raises:
            OutOfDistributionError: the model does not know such images; nothing is written.
        """
        import torch

        from energycomp.inference import OutOfDistributionWarning, SearchInterrupted, check_known, check_trusted, infer

        if not self.anyway:
            check_known(image, model)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", OutOfDistributionWarning)  # it is in the answer
            try:
                solution = infer(
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
                    record = self._record(model, image, stop.finish(), head, name)
                    append_line(lines, {**record, "interrupted": True})
                raise
        if not self.anyway:
            check_trusted(solution, model)
        record = self._record(model, image, solution, head, name)
        if lines is not None:
            append_line(lines, record)
        return record

    def check_known_answer(self, record: Mapping[str, Any]) -> None:
        """Refuses an answer that an earlier run with --anyway, or an earlier version, kept of an unknown image."""
        if record.get("out_of_distribution") and not self.anyway:
            raise OutOfDistributionError(f"got an image of a kind that {self.source} does not know")

    def _record(
        self, model: Model, image: Any, solution: Solution, head: Mapping[str, Any], name: str
    ) -> dict[str, Any]:
        """The record of an answer, after its files are written."""
        import torch

        from energycomp.inference import View

        record = {**head, **solution.record()}
        if not isinstance(image, torch.Tensor):
            record["frame"] = {"size": list(image.size), "box": list(model.processor.box(image))}
        if self.folder is not None:
            view = View(None, tuple(record["objects"]))
            has_places = not isinstance(image, torch.Tensor) and len(view.places) == record["count"]
            record |= {"picture": f"{name}.png" if has_places else None, "name": name}
            if has_places:
                marked = attrs.evolve(view, image=model.shown(model.processor.frame(image)))
                _save(marked.picture(), self.folder / f"{name}.png")
            self.redrawn(model, image, record)
        return record

    def lacks(self, record: Mapping[str, Any]) -> bool:
        """Whether the drawing of a known answer is missing."""
        return self.redraw and self.folder is not None and not redrawn_file(self.folder, record).exists()

    def redrawn(self, model: Model, image: Image.Image, record: Mapping[str, Any]) -> None:
        """With `redraw`, writes an image beside samples of the components that were found in it."""
        if self.redraw and self.folder is not None:
            _save(_redrawn(model, image, record["objects"], self.seed), redrawn_file(self.folder, record))


def failure(image: str, error: InputError) -> dict[str, Any]:
    """The record of an image that could not be read, or that is of a kind that the model does not know.

    >>> failure("a.png", InputError("got a.png, which is no image"))
    {'image': 'a.png', 'failed': 'got a.png, which is no image'}
    """
    if not isinstance(error, OutOfDistributionError):
        return {"image": image, "failed": str(error)}
    return {"image": image, "failed": f"{image}: {error}; --anyway reads it", "out_of_distribution": True}


def _save(image: Image.Image, file: Path) -> None:
    from energycomp.images import save_image

    save_image(image, file)


def _redrawn(model: Model, image: Any, objects: list[dict[str, Any]], seed: int) -> Any:
    """An image beside three samples of the components that were found in it."""
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


def printer(output: Output, *, redraw: bool, as_json: bool) -> Show:
    """What prints the record of an image, or why it could not be read: a table or JSON, and its files.

    Where a writer prints, it prints warnings and what could not be read alone.

    Raises:
        InputError: options that do not fit.
    """
    if redraw and output.folder is None:
        raise InputError("got --redraw without a folder; expected one for the images, such as -o out")
    if output.printed and as_json:
        raise InputError(f"got --format {output.writer} and --json; expected one of them, since both print the answers")

    def show(image: str, record: dict[str, Any]) -> None:
        with over_bar():
            if "failed" in record:
                typer.echo(f"energycomp: {record['failed']}", err=True)
            for warning in record.get("warnings", ()):  # a line of an earlier version has none
                typer.echo(f"energycomp: warning: {image}: {warning}", err=True)
            if as_json:
                typer.echo(json.dumps(record))
            elif "failed" not in record and not output.printed:
                _print(image, record, output.folder, redraw=redraw)

    return show


def _print(image: str, record: dict[str, Any], folder: Path | None, *, redraw: bool) -> None:
    from energycomp.inference import answer_cells, answer_line

    typer.echo(image)
    if record["objects"]:
        print_table(*answer_cells(record))
    typer.echo(answer_line(record))
    if folder is not None and record["picture"]:
        typer.echo(str(folder / record["picture"]))
    if folder is not None and redraw:
        typer.echo(str(redrawn_file(folder, record)))
