"""Editing: read an image, change its composition, and repaint only what the change touches."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import torch
from PIL import Image
from torch import Tensor

from energycomp.components import HasUnread, mixed_of, value_of
from energycomp.denoisers import count_rows
from energycomp.errors import InputError
from energycomp.fields import is_whole
from energycomp.images import grid, html, open_window, png
from energycomp.inference import Search, Solution, Solver, View, answer_text, view_of
from energycomp.models import Model, model_of
from energycomp.progress import display, working
from energycomp.seeds import as_generator
from energycomp_edit.canvas import Plan, edited, filled

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
        values: values of the new composition, (K, *V).
        solution: the answer of `infer` for the given image.
        rows: network evaluations of the change, without those of reading.
        before: the given image and its components, as the conditioner describes them.
        after: the same for the result.

    >>> from energycomp.testing import bumps_model, planted
    >>> model, places = bumps_model(), torch.tensor([[0.2, 0.2], [0.8, 0.8]])
    >>> answer = Solution(places, count=2, error=0.0, stderr=0.0, rows=0)
    >>> image = planted(model, places)[0] / 2 + 0.5
    >>> print(edit(image, model, remove=[0], solution=answer, num_inference_steps=4, progress=False))
    2 objects before, 1 after; ...% of the image changed
    """

    image: Image.Image
    sample: Tensor
    mask: Tensor
    values: Tensor
    solution: Solution
    rows: int
    before: View
    after: View

    def picture(self, *, side: int = SIDE) -> Image.Image:
        """The image before and after, side by side, see `View.picture`.

        >>> from energycomp.testing import bumps_model, planted
        >>> model, places = bumps_model(), torch.tensor([[0.2, 0.2], [0.8, 0.8]])
        >>> answer = Solution(places, count=2, error=0.0, stderr=0.0, rows=0)
        >>> image = planted(model, places)[0] / 2 + 0.5
        >>> changed = edit(image, model, remove=[0], solution=answer, num_inference_steps=2, progress=False)
        >>> changed.picture(side=64).width > 2 * 64  # two images, side by side
        True
        """
        return grid([view.picture(side=side) for view in (self.before, self.after)], columns=2, heads=HEADS)

    def show(self) -> None:
        """Opens that picture in a window; raises `InputError` where nothing shows it."""
        open_window(self.picture())

    def __str__(self) -> str:
        before, after = len(self.before.components), len(self.after.components)
        counts = f"{before} object{'' if before == 1 else 's'} before, {after} after"
        return f"{counts}; {float(self.mask.mean()):.0%} of the image changed"

    def __repr__(self) -> str:
        return f"Edit({self}; {self.solution.rows + self.rows:,} network evaluations)"

    def _repr_html_(self) -> str:
        warnings = [f"warning: {warning}" for warning in self.solution.warnings]
        after = {"objects": self.after.rows, "noun": self.after.noun}
        return html(answer_text(after, *warnings, str(self)), self.picture(side=NOTEBOOK))

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
    num_inference_steps: int | None = None,
    generator: int | torch.Generator | None = None,
    progress: bool = True,
) -> Edit:
    """Reads an image, changes its composition, and samples the new composition where it differs from the old one.

    New words are drawn over the object, whose edges and highlights stay; where the model does not read them then, or
    sees another outline, the object is sampled anew. A moved component takes its pixels and its shadow along, enlarged
    as the model expects it there. The regions of components that leave or arrive are sampled from noise; all other
    pixels stay as they are. The cost is that of `infer`, (K + 1) DRAWS network evaluations for the outlines of K
    components, (N + 1) DRAWS for N that arrive, 3 DRAWS for each that moves, and K + 1 per step. New words cost twice
    as many per step, and 2 DRAWS and those of `DRAWS` errors to see whether they are read.

    Args:
        image, model, solver, count, generator, progress: as `infer` takes them.
        move: `{k: value}`, a new value for component k of the answer, counted from 0. A value is the arguments that the
            model is called with, such as `(0.4, 0.6)` or a mapping of named arguments, or a tensor or array of shape V.
            Attributes that it leaves open stay as they were read.
        set: `{k: {"color": "red"}}`, new words for attributes of component k; its place stays, or is that of `move`.
        remove, add: components that are removed, and values of components that are added.
        solution: the answer of `infer` for this image; by default it is computed.
        num_inference_steps: number of scheduler steps; by default the model's.

    Raises:
        InputError: a component that the answer lacks, one that is both moved and removed, an illegal value, nothing
            to change.

    >>> from energycomp.testing import bumps_model, planted
    >>> model = bumps_model()
    >>> places = torch.tensor([[0.2, 0.2], [0.8, 0.8]])
    >>> answer = Solution(places, count=2, error=0.0, stderr=0.0, rows=0)
    >>> image = planted(model, places)[0] / 2 + 0.5
    >>> edited = edit(image, model, remove=[0], add=[(0.2, 0.8)], solution=answer, progress=False)
    >>> edited.values
    tensor([[0.8000, 0.8000],
            [0.2000, 0.8000]])
    """
    model = model_of(model)
    generator = as_generator(0 if generator is None else generator)
    if num_inference_steps is not None and not (is_whole(num_inference_steps) and num_inference_steps >= 1):
        raise InputError(f"got num_inference_steps={num_inference_steps}; expected a whole number, such as 50")
    image = model.given(image)
    if solution is None:
        with display(show=progress), working("energycomp: reading the image ..."):
            solution = Search(solver, count).read(image, model, generator)
    plan = _plan(solution.conditions, model, {} if move is None else move, {} if set is None else set, remove, add)
    plan = attrs.evolve(plan, new=tuple(filled(model, plan.new, generator)))
    steps = num_inference_steps or model.defaults.num_inference_steps
    with count_rows() as spent, torch.no_grad():
        result, sample, mask = edited(image, model, plan, steps=steps, generator=generator, progress=progress)
    before, after = view_of(model, plan.old, image=image), view_of(model, plan.values, image=result)
    return Edit(result, sample, mask, plan.values, solution, spent.rows, before, after)


def _plan(old: Tensor, model: Model, move: Any, words: Any, remove: Any, add: Any) -> Plan:
    kinds = {"move": (move, Mapping), "set": (words, Mapping), "remove": (remove, Collection), "add": (add, Sequence)}
    for name, (given, kind) in kinds.items():
        if not isinstance(given, kind) or isinstance(given, str):
            expected = "move={0: (0.4, 0.6)}, set={0: {'color': 'red'}}, remove=[1], add=[(0.2, 0.8)]"
            raise InputError(f"got {name}={given!r}; expected such as {expected}")
    if not (move or words or remove or add):
        raise InputError("got nothing to change; expected a component to move, set, remove or add")
    for k in (*move, *words, *remove):
        if k not in range(len(old)):
            known = "; ".join(f"{i}: {model.conditioner.describe(value)}" for i, value in enumerate(old))
            raise InputError(f"got component {k} of {len(old)}; expected one of the answer's ({known or 'none'})")
    if both := {*move, *words} & {*remove}:
        raise InputError(f"got component {min(both)} to change and to remove; expected one of both")
    if len({*remove}) < len(remove):
        raise InputError(f"got components {sorted(remove)} to remove, one of them twice; expected each once")

    added = tuple(value_of(model.conditioner, value)[0].to(old) for value in add)
    plan = Plan(old, tuple(remove), _moved(old, model, move, words), added)
    if model.defaults.distinct and len(torch.unique(plan.values, dim=0)) < len(plan.values):
        raise InputError(f"got equal values in {plan.values.tolist()}; expected components that differ; change one")
    return plan


def _moved(old: Tensor, model: Model, move: Mapping[int, Any], words: Mapping[int, Any]) -> dict[int, Tensor]:
    """The new values of components; attributes that they leave open stay as they were."""
    mixed = mixed_of(model.conditioner)
    moved = {}
    for k, value in move.items():
        new = value_of(model.conditioner, value)[0].to(old)
        moved[k] = new if mixed is None else mixed.support.kept(old[k], new)
    return moved | {k: _worded(moved.get(k, old[k]), given, model, k) for k, given in words.items()}


def _worded(value: Tensor, words: Any, model: Model, k: int) -> Tensor:
    """A value with other words of its attributes."""
    mixed = mixed_of(model.conditioner)
    own: object = model.conditioner
    unread = own.unread if isinstance(own, HasUnread) else ()
    known = () if mixed is None else (*mixed.attributes, *unread)
    if not isinstance(words, Mapping) or not words or not words.keys() <= {*known}:
        raise InputError(
            f"got {words!r} to set for component {k}; expected words by attribute of {model.name}: "
            f"{', '.join(known) or 'it has none'}"
        )
    said = {name: word for name, word in model.conditioner.describe(value).items() if name not in unread}
    new = value_of(model.conditioner, {**said, **words})[0].to(value)
    return mixed.support.kept(value, new) if mixed is not None else new
