"""How an image is read: its problem, its solver, its answer in order, and how far that can be trusted."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from energycomp.components.conditioning import ability, mixed_of
from energycomp.errors import EnergycompWarning, InputError
from energycomp.inference.attributes import read_attributes
from energycomp.inference.judge import judge, measured
from energycomp.inference.problem import Problem, make_problem
from energycomp.inference.refine import refine_numbers
from energycomp.inference.screen import unknown_by
from energycomp.inference.solution import Solution
from energycomp.inference.solver import SearchInterrupted, Solver
from energycomp.inference.view import view_of
from energycomp.models.defaults import TAILS
from energycomp.models.model import Model
from energycomp.plugins.registry import object_of
from energycomp.progress import following
from energycomp.seeds import as_generator


class OutOfDistributionWarning(EnergycompWarning):
    """The error of the answer is larger than on nearly all held-out images: do not trust it."""


def read_image(
    image: Any,
    model: Model,
    generator: int | torch.Generator | None = None,
    *,
    solver: Solver | type[Solver] | str | None = None,
    count: int | Sequence[int] | None = None,
    candidates: Any = None,
    attributes: bool = True,
    last: bool = False,
    prior: Any = None,
    init: Any = None,
) -> Solution:
    """`infer` for one image as the model's processor takes it: float tensors are in [-1, 1]."""
    if solver is None and model.encoder is not None:
        raise InputError(
            f"got {model.name}, whose encoder reads the latents of an image in one pass; expected a model without "
            "one, or a solver, whose search takes minutes; use decompose, or name solver 'sgd'"
        )
    # Who searches, and who reads what is left open
    searcher: Solver = object_of("solvers", model.defaults.solver if solver is None else solver)
    if searcher.needs == "differentiable":
        _check_gradients(model)
    read_last = _reader_of_last(model, attributes) if last else None
    # Solvers follow gradients, also where the caller has turned them off
    with torch.inference_mode(mode=False):
        random = as_generator(0 if generator is None else generator)
        # Ask: the image in the space of the model, and what is to be found in it
        observation = _encode(image, model)
        problem = make_problem(
            observation, model, count=count, candidates=candidates, prior=prior, attributes=attributes, init=init
        )
        takes_init = getattr(searcher, "takes_init", False)
        problem.check(searcher.needs, type(searcher).__name__, takes_init=takes_init)
        # An image of another kind is searched, too, since only a warning can be switched off
        is_unknown = unknown_by(problem, model) is not None
        if is_unknown:
            _warn(f"{model.name} does not know images of this kind", 3)

        # Search. An answer that Ctrl-C leaves behind is described only if somebody wants it
        def describe(solution: Solution) -> Solution:
            complete = _complete(solution, problem, type(searcher).__name__, read_last, random)
            is_changed = not torch.equal(complete.conditions, solution.conditions)
            return _describe(complete, problem, model, image, random, is_changed=is_changed, is_unknown=is_unknown)

        try:
            with following("reading", lambda: problem.rows, unit="network evaluation"):
                solution = searcher.solve(problem, generator=random)
        except SearchInterrupted as stop:
            finish = stop.finish
            raise SearchInterrupted(lambda: describe(finish())) from stop
        return describe(solution)


def _encode(image: Any, model: Model) -> Tensor:
    """The observation (1, *shape) of an image, through which gradients may go."""
    observation = model.encode(image)
    if len(observation) != 1:
        raise InputError(f"got {len(observation)} images; expected one; call infer for each")
    return observation.clone() if observation.is_inference() else observation


def _complete(
    solution: Solution, problem: Problem, solver: str, read_last: Any, generator: torch.Generator
) -> Solution:
    """An answer with all that is read after its search; one whose values change loses its `form`, of other values."""
    # The attributes of each object, and then its numbers once more; a solver may have read them itself
    if problem.asks_attributes and solution.posteriors is None:
        known = read_attributes(problem, solution.conditions, generator=generator)
        values = refine_numbers(problem, known.values, generator=generator)
        posteriors = known.probabilities(problem.posterior)
        solution = attrs.evolve(solution, conditions=values, form=None, posteriors=posteriors)
    # What is known once all else is, such as turns
    if read_last is not None:
        values = read_last(problem, solution.conditions, generator)
        solution = attrs.evolve(solution, conditions=values, form=None)
    # Refuse an answer that the prior rules out
    energies = problem.prior(solution.conditions[None])
    if energies is not None and not bool(energies.isfinite()):
        raise InputError(
            f"got a prior that rules out all answers that {solver} found; expected one that allows some; allow more, "
            "or change count= or candidates="
        )
    return solution


def _describe(
    solution: Solution,
    problem: Problem,
    model: Model,
    image: Any,
    generator: torch.Generator,
    *,
    is_changed: bool,
    is_unknown: bool,
) -> Solution:
    """An answer in the order of its values, with how well it fits, how sure it is, and how it looks."""
    solution = _sort(solution, problem)
    # How far it can be trusted, by draws that did not select it
    residuals = measured(solution, problem, generator)
    solution = judge(solution, problem, model, image, residuals)
    if is_unknown:
        solution = attrs.evolve(solution, typicality=TAILS[-1], missing=None)
    if is_changed:
        solution = attrs.evolve(solution, **residuals.of_answer())
    # The words of the conditioner, and a warning
    view = view_of(model, solution.conditions, image=image, runner_up=solution.runner_up)
    if solution.out_of_distribution and not is_unknown:
        share = f"{solution.typicality:.1%} of held-out images with {solution.count} components"
        _warn(f"the answer leaves an error that about {share} reach", 5)
    return attrs.evolve(solution, view=view, form=None, rows=problem.rows)


def _reader_of_last(model: Model, attributes: bool) -> Any:
    """What reads what is left open otherwise; raises `InputError` for a model without."""
    read_last = ability(model.conditioner, "read_last")
    mixed = mixed_of(model.conditioner)
    if not attributes or mixed is None or not mixed.support.unread or read_last is None:
        got = f"got last=True with {model.name} and attributes={attributes}"
        raise InputError(f"{got}; expected a model with turns, and attributes=True; leave it out")
    return read_last


def _warn(reason: str, stacklevel: int) -> None:
    """Warns the caller of `infer`, so many frames above."""
    text = f"{reason}: the image is out of distribution, do not trust the answer"
    warnings.warn(text, OutOfDistributionWarning, stacklevel=stacklevel + 1)


def _check_gradients(model: Model) -> None:
    if any(weight.is_inference() for weight in model.denoiser.network.parameters()):
        got = f"got the model {model.name}, loaded in torch.inference_mode, with a solver that needs gradients"
        raise InputError(f"{got}; expected weights with gradients; load it before, or under torch.no_grad")


def _sort(solution: Solution, problem: Problem) -> Solution:
    """The components in the order of their values, the first number first."""
    values = solution.conditions
    if not problem.exchangeable or len(values) < 2:
        return solution
    # Everything that has one entry for each component, in this order
    order = torch.tensor(sorted(range(len(values)), key=values.tolist().__getitem__))

    def sort(each: Tensor) -> Tensor:
        return each[order.to(each.device)]

    def sort_known(each: Tensor | None) -> Tensor | None:
        return None if each is None else sort(each)

    return attrs.evolve(
        solution,
        conditions=sort(values),
        component_gain=sort_known(solution.component_gain),
        probability=sort_known(solution.probability),
        posteriors=None if solution.posteriors is None else tuple(map(sort, solution.posteriors)),
        form=None if solution.form is None else solution.form.take(order),
    )
