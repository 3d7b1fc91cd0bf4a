"""Inference: which conditions, and how many, explain an image."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias, TypedDict, Unpack, overload

import attrs
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from energycomp.components.conditioning import groups_of
from energycomp.components.values import values_of
from energycomp.denoisers.together import run_together
from energycomp.errors import InputError
from energycomp.fields import is_whole
from energycomp.images.read import as_rgb
from energycomp.inference.judge import Measured
from energycomp.inference.problem import Problem
from energycomp.inference.read import read_image
from energycomp.inference.solution import Solution
from energycomp.inference.solver import Solver
from energycomp.models.given import model_of
from energycomp.models.model import Model
from energycomp.progress import display, working

Many: TypeAlias = list[Image.Image] | list[Tensor] | list[str] | list[Path] | list[np.ndarray[Any, Any]]
"""Several images, each as `infer` takes one."""


class Options(TypedDict, total=False):
    """The options of `infer`, for type checkers."""

    solver: Solver | type[Solver] | str | None
    count: int | Sequence[int] | None
    candidates: Any
    attributes: bool
    last: bool
    prior: Any
    init: Any
    generator: int | torch.Generator | None
    progress: bool


@overload
def infer(image: Many, model: Model | str | Path, **options: Unpack[Options]) -> list[Solution]: ...


@overload
def infer(image: Any, model: Model | str | Path, **options: Unpack[Options]) -> Solution: ...


def infer(
    image: Any,
    model: Model | str | Path,
    *,
    solver: Solver | type[Solver] | str | None = None,
    count: int | Sequence[int] | None = None,
    candidates: Any = None,
    attributes: bool = True,
    last: bool = False,
    prior: Any = None,
    init: Any = None,
    generator: int | torch.Generator | None = None,
    progress: bool = True,
) -> Solution | list[Solution]:
    """Finds the values, and their number, whose composition explains an image best (thesis eqs 5.7, 5.9).

    Args:
        image: one image: a path, Pillow image, uint8 array (H, W, 3) or (H, W), or float tensor (C, H, W) in [0, 1]; or
            data that are no images, tensors of any numbers. A list of several is read as `infer_many` reads it.
        model: a model, or its name or folder, which is loaded for this image; load it once to read several.
        solver: an object with `solve(problem, generator=)`, its class, or a registered name; by default the model's. A
            model with an encoder, such as `decomp`, has none: use `decompose`.
        count: the number of components, or least and greatest; the model's default range when left out.
        candidates: restrict the search to these values (M, *V), as `values_of` takes them.
        attributes: whether the attributes of a `MixedConditioner` are read once components are found, or left open.
        last: whether what the conditioner leaves open otherwise, such as turns of cubes, is read once all else is
            known, see `Conditioner`.
        prior: what is known of the values before: an energy, added to the error as a posterior has it, see `as_prior`.
            Certainties and p-values are those of the posterior then; it costs no network evaluation.
        init: values (K, *V) to start the search from, as `values_of` takes them: those of the frame before, for
            example. The search keeps, moves, adds and removes components as it would any others; it skips the lattice
            search, which costs most. For solvers that move values, such as "pursuit" and "sgd".
        generator: or a seed, makes the answer repeatable; 0 when left out.
        progress: whether the network evaluations of the search are shown as they are spent, and after 5 s how long it
            takes on, as far as the solver counts its steps by `energycomp.progress`.

    Returns:
        The solution, or a list of them for a list of images. Exchangeable components are sorted by their values,
        positions from left to right.

    Raises:
        InputError: several images in one tensor, a solver that does not fit the problem, or another illegal argument.
        NotFoundError: no plugin registers a solver of that name.

    Warns:
        OutOfDistributionWarning: the model does not know images of this kind, which is said before the search, or the
            typicality is below `OUT_OF_DISTRIBUTION`. `check_known` refuses such an image.

    >>> from energycomp.testing import labels_model, planted
    >>> model = labels_model(3, counts=(1, 2))  # which of three labels an image shows
    >>> image = model.decode(planted(model, torch.tensor([2])))[0]
    >>> solution = infer(image, model)
    >>> solution.count, solution.conditions.tolist()
    (1, [2])
    >>> [solution.count for solution in infer([image, image], model)]
    [1, 1]
    """
    options: dict[str, Any] = {
        "solver": solver, "count": count, "candidates": candidates, "attributes": attributes, "last": last,
        "prior": prior, "init": init,
    }  # fmt: skip
    with display(show=progress):
        if _are_several(image):
            return list(infer_many(image, model, seed=_seed_of(generator), **options))
        with working("energycomp: loading ..."):
            model = model_of(model)
        return read_image(model.given(image), model, generator, **options)


def _are_several(image: Any) -> bool:
    """Whether it is a list of images or data, rather than one of numbers."""
    kinds = str | Path | Image.Image | np.ndarray | Tensor
    return isinstance(image, list | tuple) and len(image) > 0 and all(isinstance(one, kinds) for one in image)


def _seed_of(generator: int | torch.Generator | None) -> int:
    """A seed as it is, 0 for None, or one that a generator draws."""
    if isinstance(generator, torch.Generator):
        return int(torch.randint(2**62, (), generator=generator, device=generator.device))
    return 0 if generator is None else generator


def explain(
    image: Any, model: Model | str | Path, values: Any, *, generator: int | torch.Generator | None = None
) -> Solution:
    """What `infer` says of an answer that is given in place of a search: its error, fit, typicality and maps.

    Costs K network evaluations per draw, and one more for u, for the draws of the model and for `FIT_DRAWS` others.

    Args:
        image, model, generator: as of `infer`.
        values: of the K components (K, *V), as `values_of` takes them.

    Raises:
        InputError: values that the model does not have.

    >>> from energycomp.testing import bumps_model, planted
    >>> model, places = bumps_model(), torch.tensor([[0.2, 0.3], [0.7, 0.8]])
    >>> solution = explain(planted(model, places)[0] / 2 + 0.5, model, places)
    >>> [divmod(int(one.argmax()), 16) for one in solution.maps()]  # rows and columns of 16x16 pixels
    [(4, 3), (12, 11)]
    """
    model = model_of(model)
    given = values_of(model.conditioner, values)
    # As `infer`, with a solver that knows the answer; attributes have slots of their own, and no count
    count = None if groups_of(model.conditioner) else len(given)
    return read_image(model.given(image), model, generator, solver=_Given(given), count=count, attributes=False)


@attrs.frozen(eq=False)
class _Given:
    """The solver that returns the answer that it is given, with its error."""

    values: Tensor
    needs: str | None = None

    def solve(self, problem: Problem, *, generator: torch.Generator | None = None) -> Solution:
        # Its error, and how much it rises without each component
        left, parts = problem.explained(self.values, problem.draw(problem.default_draws, generator))
        error = Measured(left, parts, None).of_answer()
        return Solution(self.values, len(self.values), rows=problem.rows, **error)


def infer_many(
    images: Iterable[Any],
    model: Model | str | Path,
    *,
    batch_size: int = 8,
    seed: int = 0,
    **options: Unpack[Options],
) -> Iterator[Solution]:
    """Solutions of several images, in their order; `batch_size` images are read side by side.

    Each answer is that of `infer(image, model, generator=seed)`, up to rounding in the network, and costs as many
    network evaluations. On an accelerator, evaluations of all images of a batch run together, except those with
    gradients. On a CPU, the images share the threads of torch, one image on each. Options and errors are those of
    `infer`. The first image that raises an error ends it, after the solutions of earlier batches.

    >>> from energycomp.testing import bumps_model, planted
    >>> model = bumps_model(solver="pursuit")
    >>> images = [planted(model, torch.tensor(places)) / 2 + 0.5 for places in ([[0.2, 0.2]], [[0.3, 0.7], [0.8, 0.3]])]
    >>> [solution.count for solution in infer_many([image[0] for image in images], model)]
    [1, 2]
    """
    if not is_whole(batch_size) or batch_size < 1:
        raise InputError(f"got batch_size={batch_size}; expected at least 1, such as 8")
    # Each image is read as by `infer`, in a thread: on an accelerator, networks wait for the rows of all of them
    model = model_of(model)
    read: Callable[[Any], Any] = partial(infer, model=model, generator=seed, progress=False, **options)
    left = iter(images)
    while batch := list(islice(left, batch_size)):
        # Decoded here: two threads cannot decode one Pillow image
        batch = [as_rgb(image) if isinstance(image, Image.Image) else image for image in batch]
        tasks = [partial(read, image) for image in batch]
        yield from run_together(tasks, merged=model.denoiser.device.type != "cpu")
