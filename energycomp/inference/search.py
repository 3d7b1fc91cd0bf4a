"""How an image is read: its solver, its answer in order, and what is said of it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any

import attrs
import torch
from torch import Tensor

from energycomp.components.conditioning import mixed_of
from energycomp.errors import EnergycompWarning, InputError
from energycomp.inference.attributes import read_attributes
from energycomp.inference.judge import judge, measured
from energycomp.inference.problem import Problem, make_problem
from energycomp.inference.refine import refine_numbers
from energycomp.inference.screen import unknown_by
from energycomp.inference.solution import Solution
from energycomp.inference.solver import ReadsLast, SearchInterrupted, Solver
from energycomp.inference.view import view_of
from energycomp.models.defaults import TAILS
from energycomp.models.model import Model
from energycomp.plugins.registry import object_of
from energycomp.progress import following
from energycomp.seeds import as_generator


class OutOfDistributionWarning(EnergycompWarning):
    """The error of the answer is larger than on nearly all held-out images: do not trust it.

    >>> import warnings
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("error", OutOfDistributionWarning)  # an exception in its place
    ...     warnings.warn("the image is out of distribution", OutOfDistributionWarning)
    Traceback (most recent call last):
    energycomp.inference.search.OutOfDistributionWarning: the image is out of distribution
    """


@attrs.frozen(eq=False)
class Search:
    """How images are read: the arguments of `infer` that are the same for all of them.

    >>> from energycomp.testing import bumps_model, planted
    >>> Search("pursuit").read(planted(bumps_model(), torch.tensor([[0.2, 0.3]])), bumps_model()).count
    1
    """

    solver: Solver | type[Solver] | str | None = None
    count: int | Sequence[int] | None = None
    candidates: Any = None
    attributes: bool = True
    prior: Any = None
    last: bool = False

    def read(self, image: Any, model: Model, generator: int | torch.Generator | None = None) -> Solution:
        """The solution for one image as the model's processor takes it: float tensors are in [-1, 1].

        >>> from energycomp.testing import bumps_model, planted
        >>> image = planted(bumps_model(), torch.tensor([[0.2, 0.3], [0.7, 0.8]]))
        >>> Search("pursuit", count=2).read(image, bumps_model()).conditions.round(decimals=2)
        tensor([[0.2000, 0.3000],
                [0.7000, 0.8000]])
        """
        if self.solver is None and model.encoder is not None:
            raise InputError(
                f"got {model.name}, whose encoder reads the latents of an image in one pass; expected a model without "
                "one, or a solver, whose search takes minutes; use decompose, or name solver 'sgd'"
            )
        # Who searches, and who reads what is left open
        solver: Solver = object_of("solvers", model.defaults.solver if self.solver is None else self.solver)
        if solver.needs == "differentiable":
            _check_gradients(model)
        reader = self._last(model)
        # Solvers follow gradients, also where the caller has turned them off
        with torch.inference_mode(mode=False):
            return self._read(image, model, solver, reader, as_generator(0 if generator is None else generator))

    def _read(
        self, image: Any, model: Model, solver: Solver, reader: ReadsLast | None, generator: torch.Generator
    ) -> Solution:
        # Ask: the image in the space of the model, and what is to be found in it.
        observation = model.encode(image)
        if len(observation) != 1:
            raise InputError(f"got {len(observation)} images; expected one; call infer for each")
        if observation.is_inference():  # gradients do not go through such a tensor, but through a copy
            observation = observation.clone()
        problem = make_problem(
            observation, model,
            count=self.count, candidates=self.candidates, prior=self.prior, attributes=self.attributes,
        )  # fmt: skip
        problem.check(solver.needs, type(solver).__name__)

        # An image of another kind is searched, too, since only a warning can be switched off
        is_unknown = unknown_by(problem, model) is not None
        if is_unknown:
            _warn(f"{model.name} does not know images of this kind", 4)

        # Search. An answer that Ctrl-C leaves behind is described only if somebody wants it.
        described = partial(self._described, problem, model, image, solver, reader, generator, is_unknown)
        try:
            with following("reading", lambda: problem.rows, unit="network evaluation"):
                solution = solver.solve(problem, generator=generator)
        except SearchInterrupted as stop:
            finish = stop.finish
            raise SearchInterrupted(lambda: described(finish())) from stop
        return described(solution)

    def _described(
        self,
        problem: Problem,
        model: Model,
        image: Any,
        solver: Solver,
        reader: ReadsLast | None,
        generator: torch.Generator,
        is_unknown: bool,
        solution: Solution,
    ) -> Solution:
        """The answer of a solver with its words, what is read last, and how well it fits."""
        before = solution.conditions
        # Read the words of each object, and then its numbers once more
        if problem.asks_words and solution.posteriors is None:  # a solver may read them itself
            words = read_attributes(problem, solution.conditions, generator=generator)
            values = refine_numbers(problem, words.values, generator=generator)
            solution = attrs.evolve(solution, conditions=values, form=None, **words.posteriors(problem))
        # Read what is known once all else is, such as turns
        if reader is not None:
            values = reader.read_last(problem, solution.conditions, generator)
            solution = attrs.evolve(solution, conditions=values, form=None)

        # Refuse an answer that the prior rules out.
        known = problem.prior(solution.conditions[None])
        if known is not None and not bool(known.isfinite()):
            got = f"got a prior that rules out all answers that {type(solver).__name__} found"
            raise InputError(f"{got}; expected one that allows some; allow more, or change count= or candidates=")

        # Order the components by their values, so that equal answers look the same.
        is_other = not torch.equal(before, solution.conditions)
        solution = _ordered(solution, problem)

        # Judge the answer on draws that did not select it.
        found = measured(solution, problem, generator)
        judgement = judge(solution, problem, model, image, found)
        if is_unknown:
            judgement = attrs.evolve(judgement, typicality=TAILS[-1], missing=None)
        if is_other:  # the solver has measured an answer whose words were open
            solution = attrs.evolve(solution, **found.of_answer())

        # Describe it in the words of the conditioner, and say if it is not to be trusted.
        view = view_of(model, solution.conditions, image=image, runner_up=solution.runner_up)
        if judgement.out_of_distribution and not is_unknown:
            share = f"{judgement.typicality:.1%} of held-out images with {solution.count} components"
            _warn(f"the answer leaves an error that about {share} reach", 5)
        return attrs.evolve(solution, judgement=judgement, view=view, form=None, rows=problem.rows)

    def _last(self, model: Model) -> ReadsLast | None:
        """What reads last, where it is asked for; raises `InputError` for a model without."""
        own = model.conditioner
        mixed = mixed_of(model.conditioner)
        if not self.last:
            return None
        if not (self.attributes and mixed is not None and mixed.support.unread and isinstance(own, ReadsLast)):
            got = f"got last=True with {model.name} and attributes={self.attributes}"
            raise InputError(f"{got}; expected a model with turns, and attributes=True; leave it out")
        return own


def _warn(reason: str, stacklevel: int) -> None:
    """Warns the caller of `infer`, so many frames above."""
    text = f"{reason}: the image is out of distribution, do not trust the answer"
    warnings.warn(text, OutOfDistributionWarning, stacklevel=stacklevel + 1)


def _check_gradients(model: Model) -> None:
    if any(weight.is_inference() for weight in model.denoiser.network.parameters()):
        got = f"got the model {model.name}, loaded in torch.inference_mode, with a solver that needs gradients"
        raise InputError(f"{got}; expected weights with gradients; load it before, or under torch.no_grad")


def _ordered(solution: Solution, problem: Problem) -> Solution:
    """The components in the order of their values, the first number first."""
    values = solution.conditions
    if not problem.exchangeable or len(values) < 2:
        return solution
    # Everything that has one entry for each component, in this order
    order = torch.tensor(sorted(range(len(values)), key=values.tolist().__getitem__))

    def ordered(each: Tensor) -> Tensor:
        return each[order.to(each.device)]

    found: dict[str, Any] = {"conditions": ordered(values)}
    if solution.component_gain is not None:
        found["component_gain"] = ordered(solution.component_gain)
    if solution.probability is not None:
        found["probability"] = ordered(solution.probability)
    if solution.posteriors is not None:
        found["posteriors"] = tuple(map(ordered, solution.posteriors))
    if solution.form is not None:
        found["form"] = solution.form.take(order)
    return attrs.evolve(solution, **found)
