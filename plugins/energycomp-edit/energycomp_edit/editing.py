"""Editing: read an image, change its composition, and repaint only what the change touches."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping, Sequence, Set as AbstractSet
from pathlib import Path
from typing import Any

import attrs
import torch
from PIL import Image
from torch import Tensor

from energycomp.denoisers import count_rows
from energycomp.errors import InputError
from energycomp.fields import is_whole
from energycomp.images import grid, html, open_window, png
from energycomp.inference import (
    OutOfDistributionWarning,
    Solution,
    Solver,
    View,
    answer_text,
    make_problem,
    read_image,
    view_of,
)
from energycomp.models import Model, model_of
from energycomp.plugins import object_of
from energycomp.progress import display, working
from energycomp.seeds import as_generator
from energycomp_edit.canvas import make_painter
from energycomp_edit.checking import find_faults
from energycomp_edit.plan import make_plan

TRIES = 3  # samples of a change at most: a second one helps where chance drew a bad one, and costs as much as the first
SIDE = 480  # px, the shorter side of each image that is shown
NOTEBOOK = 256  # px, the shorter side of each image in a notebook
HEADS = ("before", "after")


@attrs.frozen(eq=False, repr=False)
class Edit:
    """An edited image. A notebook shows it beside the image before.

    Args:
        image: the result, of the size of the given image and equal to it outside the mask.
        sample: the result at the model's size, encoded, (1, C, H, W). Where it is blended with the image, it may differ
            from it outside the mask.
        mask: 1 where a byte of the image changed, (1, 1, H, W) at the model's size; in the image, each of its pixels is
            a block.
        values: values of the composition that was asked for, (K, *V).
        solution: the answer of `infer` for the given image.
        new_solution: the answer of `infer` for the result.
        faults: what `new_solution` sees otherwise than asked for, a phrase for each object; none where the edit holds.
        tries: how many results were sampled; this is the one with the fewest faults.
        rows: network evaluations of all of them, and of reading them, without those of reading the given image.
        before: the given image and its components, as the conditioner describes them.
    """

    image: Image.Image
    sample: Tensor
    mask: Tensor
    values: Tensor
    solution: Solution
    new_solution: Solution
    faults: tuple[str, ...]
    tries: int
    rows: int
    before: View

    @property
    def after(self) -> View:
        """The result and its components, as they were read."""
        return self.new_solution.view

    def picture(self, *, side: int = SIDE) -> Image.Image:
        """The image before and after, side by side, see `View.picture`."""
        return grid([view.picture(side=side) for view in (self.before, self.after)], columns=2, heads=HEADS)

    def show(self) -> None:
        """Opens that picture in a window; raises `InputError` where nothing shows it."""
        open_window(self.picture())

    def __str__(self) -> str:
        before, after = len(self.before.components), self.new_solution.count
        holds = f"not as asked: {'; '.join(self.faults)}" if self.faults else "as asked"
        counts = f"{before} object{'' if before == 1 else 's'} before, {after} after, {holds}"
        return f"{counts}; {float(self.mask.mean()):.0%} of the image changed"

    def __repr__(self) -> str:
        return f"Edit({self}; {self.solution.rows + self.rows:,} network evaluations)"

    def _repr_html_(self) -> str:
        reasons = [f"warning: {warning}" for warning in self.solution.warnings]
        return html(answer_text(self.new_solution.record(), *reasons, str(self)), self.picture(side=NOTEBOOK))

    def _repr_png_(self) -> bytes:
        return png(self.picture(side=NOTEBOOK))


def edit(
    image: Any,
    model: Model | str | Path,
    *,
    move: Mapping[int, Any] | None = None,
    set: Mapping[int, Mapping[str, str]] | None = None,  # noqa: A002 - as the option of the command line
    remove: Collection[int] = (),
    add: Sequence[Any] = (),
    solution: Solution | None = None,
    solver: Solver | type[Solver] | str | None = None,
    count: int | Sequence[int] | None = None,
    tries: int = TRIES,
    num_inference_steps: int | None = None,
    generator: int | torch.Generator | None = None,
    progress: bool = True,
) -> Edit:
    """Reads an image, changes its composition, samples the new composition where it differs, and reads the result.

    New words are drawn over the object, whose edges and highlights stay; where the model does not read them then, or
    sees another outline, the object is sampled anew. A moved component takes its pixels and its shadow along, enlarged
    as the model expects it there. The regions of components that leave or arrive are sampled from noise; all other
    pixels stay as they are.

    The result is read as the image was, and compared with what was asked for: `Edit.faults`. Where they differ, the
    change is sampled again from other noise, moved objects with faults included. The result with the fewest faults is
    kept.

    The cost is that of `infer`, (K + 1) DRAWS network evaluations for the outlines of K
    components, (N + 1) DRAWS for N that arrive, 3 DRAWS for each that moves, and K + 1 per step. New words cost twice
    as many per step, and 2 DRAWS and those of `DRAWS` errors to see whether they are read. Each try costs its steps
    and another `infer`.

    Args:
        image, model, solver, generator, progress: as `infer` takes them.
        count: likewise, of the given image; the components of the result are counted.
        move: `{k: value}`, a new value for component k of the answer, counted from 0. A value is the arguments that the
            model is called with, such as `(0.4, 0.6)` or a mapping of named arguments, or a tensor or array of shape V.
            Attributes that it leaves open stay as they were read.
        set: `{k: {"color": "red"}}`, new words for attributes of component k; its place stays, or is that of `move`.
        remove, add: components that are removed, and values of components that are added.
        solution: the answer of `infer` for this image; by default it is computed.
        tries: most results that are sampled.
        num_inference_steps: number of scheduler steps; by default the model's.

    Raises:
        InputError: a component that the answer lacks, one that is both moved and removed, an illegal value, nothing
            to change.

    >>> from energycomp.testing import bumps_model, planted
    >>> model, places = bumps_model(solver="pursuit"), torch.tensor([[0.2, 0.2], [0.8, 0.8]])
    >>> answer = Solution(places, count=2, error=0.0, stderr=0.0, rows=0)
    >>> image = planted(model, places)[0] / 2 + 0.5
    >>> edit(image, model, remove=[0], add=[(0.2, 0.8)], solution=answer, progress=False).values
    tensor([[0.8000, 0.8000],
            [0.2000, 0.8000]])
    """
    model = model_of(model)
    generator = as_generator(0 if generator is None else generator)
    for name, given in (("num_inference_steps", num_inference_steps), ("tries", tries)):
        if given is not None and not (is_whole(given) and given >= 1):
            raise InputError(f"got {name}={given}; expected a whole number, at least 1")
    # Read the image, and plan the change of its composition
    image = model.given(image)
    if solution is None:
        with display(show=progress), working("energycomp: reading the image ..."):
            solution = read_image(image, model, generator, solver=solver, count=count)
    plan = make_plan(solution.conditions, model, move or {}, set or {}, remove, add)
    _check_reader(image, model, solver)
    steps = num_inference_steps or model.defaults.num_inference_steps
    before = view_of(model, plan.old, image=image)
    made = list[Edit]()
    with count_rows() as spent:
        paint = make_painter(image, model, plan, steps=steps, generator=generator, progress=progress)
        resampled: AbstractSet[int] = frozenset()
        for tried in range(1, tries + 1):
            # Sample the change, and read the result
            with torch.no_grad():
                result, sample, mask = paint(resampled)
            with display(show=progress), working("energycomp: reading the result ..."):
                seen = _read_again(result, model, solver, generator)
            faults = find_faults(plan.values, seen.conditions, model)
            texts = tuple(map(str, faults))
            made.append(Edit(result, sample, mask, plan.values, solution, seen, texts, tried, 0, before))
            if not faults:
                break
            # Pixels that were kept and are not read as they should be are the same in each try: sample these anew
            rows = [fault.row for fault in faults if fault.row is not None]
            resampled = resampled | {plan.kept[row] for row in rows if row < len(plan.kept)}
    # Keep the result with the fewest faults
    best = min(made, key=lambda one: len(one.faults))
    return attrs.evolve(best, tries=len(made), rows=spent.rows)


def _check_reader(image: Any, model: Model, solver: Any) -> None:
    """Refuses a solver that cannot read the result before anything is sampled."""
    reader: Solver = object_of("solvers", model.defaults.solver if solver is None else solver)
    make_problem(model.encode(image), model).check(reader.needs, type(reader).__name__)


def _read_again(image: Image.Image, model: Model, solver: Any, generator: torch.Generator) -> Solution:
    """Reads a result, whose number of components is searched for."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OutOfDistributionWarning)  # the answer itself says so
        return read_image(model.given(image), model, generator, solver=solver)
