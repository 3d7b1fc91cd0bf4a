"""Inference: which conditions, and how many, explain an image."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor

from energycomp.errors import InputError
from energycomp.inference.attributes import read_attributes
from energycomp.inference.problem import Problem, make_problem
from energycomp.inference.refinement import refine_numbers
from energycomp.inference.solution import OUT_OF_DISTRIBUTION, Solution, Solver
from energycomp.inference.view import view_of
from energycomp.models.calibration import log_errors
from energycomp.models.loading import model_of
from energycomp.models.model import Model
from energycomp.plugins.registry import object_of
from energycomp.progress import display, working
from energycomp.seeds import as_generator

FIT_DRAWS = 16  # draws that measure fit and typicality


class OutOfDistributionWarning(UserWarning):
    """The error of the answer is larger than on nearly all held-out images: do not trust it."""


def infer(
    image: Any,
    model: Model | str | Path,
    *,
    solver: Solver | type[Solver] | str | None = None,
    count: int | Sequence[int] | None = None,
    candidates: Any = None,
    attributes: bool = True,
    generator: int | torch.Generator | None = None,
    progress: bool = True,
) -> Solution:
    """Finds the values, and their number, whose composition explains an image best (thesis eqs 5.7, 5.9).

    Args:
        image: one image: a path, Pillow image, uint8 array (H, W, 3) or (H, W), or float tensor (C, H, W) in [0, 1], as
            `Composer.sample(output_type="pt")` returns it. Data that are not images are tensors of any numbers.
        model: a model, or its name or folder, which is loaded for this image; load it once to read several.
        solver: an object with `solve(problem, generator=)`, its class, or a registered name such as "pursuit"; the
            model's default solver when left out.
        count: the number of components, or least and greatest; the model's default range when left out.
        candidates: restrict the search to these values (M, *V): a tensor, an array, or a list of values or of what the
            model is called with.
        attributes: whether the attributes of the components are read once they are found, for a conditioner that has
            some, see `MixedConditioner`; else they are left open.
        generator: or a seed, makes the answer repeatable; 0 when left out.
        progress: whether a terminal shows a clock and the bars of the solver.

    Returns:
        The solution, with `fit`, `typicality`, `out_of_distribution`, `at_count_limit` and `view` filled in.
        Exchangeable components are sorted by their values, positions from left to right, so that two runs with one
        answer number its components alike.

    Raises:
        InputError: more than one image, a solver that does not fit the problem, or another illegal argument.
        NotFoundError: no plugin registers a solver of that name.

    Warns:
        OutOfDistributionWarning: the typicality is below `OUT_OF_DISTRIBUTION`.
    """
    with display(show=progress), working("energycomp: reading ..."):
        model = model_of(model)
        return infer_sample(
            model.given(image),
            model,
            solver=solver,
            count=count,
            candidates=candidates,
            attributes=attributes,
            generator=generator,
        )


def infer_sample(
    image: Any,
    model: Model,
    *,
    solver: Solver | type[Solver] | str | None = None,
    count: int | Sequence[int] | None = None,
    candidates: Any = None,
    attributes: bool = True,
    generator: int | torch.Generator | None = None,
) -> Solution:
    """`infer` of an image as the model's processor takes it: float tensors are in [-1, 1]."""
    chosen: Solver = object_of("solvers", model.defaults.solver if solver is None else solver)
    generator = as_generator(0 if generator is None else generator)
    observation = model.encode(image)
    if len(observation) != 1:
        raise InputError(f"got {len(observation)} images; expected one; call infer for each")
    problem = make_problem(observation, model, count=count, candidates=candidates)
    problem.check(chosen.needs, type(chosen).__name__)
    solution = chosen.solve(problem, generator=generator)
    if problem.words and attributes:
        words = read_attributes(problem, solution.conditions, generator=generator)
        values = refine_numbers(problem, words.values, generator=generator)
        solution = attrs.evolve(solution, conditions=values, certainty=words.certainty(problem.beta, problem.energies))
    judged = _judged(_ordered(solution, problem), problem, model, generator)
    return attrs.evolve(judged, view=view_of(model, judged.conditions, image=image, runner_up=judged.runner_up))


def _ordered(solution: Solution, problem: Problem) -> Solution:
    """The components in the order of their values, the first number first."""
    values = solution.conditions
    if not problem.exchangeable or len(values) < 2:
        return solution
    order = torch.tensor(sorted(range(len(values)), key=values.tolist().__getitem__), device=values.device)

    def ordered(numbers: Tensor | None) -> Tensor | None:
        return None if numbers is None else numbers[order.to(numbers.device)]

    return attrs.evolve(
        solution,
        conditions=values[order],
        certainty=ordered(solution.certainty),
        component_gain=ordered(solution.component_gain),
        probability=ordered(solution.probability),
    )


def _judged(solution: Solution, problem: Problem, model: Model, generator: torch.Generator) -> Solution:
    """Adds how well the answer explains the image, on new draws, and whether there are reasons not to trust it."""
    bank, low = problem.draw(FIT_DRAWS, generator), problem.counts[0]
    left = problem.residuals(solution.conditions, bank)
    baseline = problem.baseline_errors(bank) if solution.count else None
    fit = None if baseline is None else 1.0 - float(left.square().sum((1, 2, 3)).mean() / baseline.mean())
    calibration = model.defaults.calibration
    typicality = None if calibration is None else calibration.typicality(solution.count, log_errors(left))
    beyond = typicality is not None and typicality < OUT_OF_DISTRIBUTION
    if beyond:
        warnings.warn(
            f"the answer leaves an error that {typicality:.1%} of held-out images with {solution.count} components "
            "reach: the image is out of distribution, do not trust the answer",
            OutOfDistributionWarning,
            stacklevel=4,  # the caller of `infer`
        )
    ends = {problem.counts[1], low if low > int(not problem.has_empty) else -1}
    return attrs.evolve(
        solution,
        fit=fit,
        typicality=typicality,
        out_of_distribution=beyond,
        at_count_limit=low < problem.counts[1] and solution.count in ends,
        rows=problem.rows,
    )
