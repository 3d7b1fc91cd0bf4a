"""Inference: which conditions, and how many, explain an image."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor

from energycomp.components.conditioning import groups_of, mixed_of
from energycomp.components.values import values_of
from energycomp.denoisers.together import run_together
from energycomp.errors import EnergycompWarning, InputError
from energycomp.fields import is_whole
from energycomp.inference.attributes import read_attributes, refine_numbers
from energycomp.inference.compare import as_normal, standard_error
from energycomp.inference.judge import judge
from energycomp.inference.problem import Problem, make_problem
from energycomp.inference.solution import ReadsLast, SearchInterrupted, Solution, Solver
from energycomp.inference.view import view_of
from energycomp.models.given import model_of
from energycomp.models.model import Model
from energycomp.plugins.registry import object_of
from energycomp.progress import display, working
from energycomp.seeds import as_generator


class OutOfDistributionWarning(EnergycompWarning):
    """The error of the answer is larger than on nearly all held-out images: do not trust it.

    >>> import warnings
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("error", OutOfDistributionWarning)  # an exception in its place
    ...     warnings.warn("the image is out of distribution", OutOfDistributionWarning)
    Traceback (most recent call last):
    energycomp.inference.infer.OutOfDistributionWarning: the image is out of distribution
    """


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
    generator: int | torch.Generator | None = None,
    progress: bool = True,
) -> Solution:
    """Finds the values, and their number, whose composition explains an image best (thesis eqs 5.7, 5.9).

    Args:
        image: one image: a path, Pillow image, uint8 array (H, W, 3) or (H, W), or float tensor (C, H, W) in [0, 1]; or
            data that are no images, tensors of any numbers.
        model: a model, or its name or folder, which is loaded for this image; load it once to read several.
        solver: an object with `solve(problem, generator=)`, its class, or a registered name; by default the model's. A
            model with an encoder, such as `decomp`, has none: use `decompose`.
        count: the number of components, or least and greatest; the model's default range when left out.
        candidates: restrict the search to these values (M, *V), as `values_of` takes them.
        attributes: whether the attributes of a `MixedConditioner` are read once components are found, or left open.
        last: whether what the conditioner leaves open otherwise, such as turns of cubes, is read once all else is
            known, see `ReadsLast`.
        prior: what is known of the values before: an energy, added to the error as a posterior has it, see `as_prior`.
            Certainties and p-values are those of the posterior then; it costs no network evaluation.
        generator: or a seed, makes the answer repeatable; 0 when left out.
        progress: whether a terminal shows a clock and the bars of the solver.

    Returns:
        The solution. Exchangeable components are sorted by their values, positions from left to right.

    Raises:
        InputError: more than one image, a solver that does not fit the problem, or another illegal argument.
        NotFoundError: no plugin registers a solver of that name.

    Warns:
        OutOfDistributionWarning: the typicality is below `OUT_OF_DISTRIBUTION`.

    >>> from energycomp.testing import labels_model, planted
    >>> model = labels_model(3, counts=(1, 2))  # which of three labels an image shows
    >>> image = model.decode(planted(model, torch.tensor([2])))[0]
    >>> solution = infer(image, model)
    >>> solution.count, solution.conditions.tolist()
    (1, [2])
    """
    with display(show=progress), working("energycomp: reading ..."):
        model = model_of(model)
        return Search(solver, count, candidates, attributes, prior, last).read(model.given(image), model, generator)


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
    count = None if groups_of(model.conditioner) else len(given)
    return Search(_Given(given), count, attributes=False).read(model.given(image), model, generator)


@attrs.frozen(eq=False)
class _Given:
    """The solver that returns the answer that it is given, with its error."""

    values: Tensor
    needs: str | None = None

    def solve(self, problem: Problem, *, generator: torch.Generator | None = None) -> Solution:
        # Its error, and how much it rises without each component
        left, parts = problem.explained(self.values, problem.draw(problem.default_draws, generator))
        errors = left.flatten(1).square().sum(1)
        gain = None if parts is None else parts.flatten(1).sum(1).cpu()
        spread = as_normal(*standard_error(errors))
        found = Solution(self.values, len(self.values), float(errors.mean()), spread, problem.rows)
        return attrs.evolve(found, component_gain=gain)


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
        solver: Solver = object_of("solvers", model.defaults.solver if self.solver is None else self.solver)
        if solver.needs == "differentiable":
            _check_gradients(model)
        reader = self._last(model)
        with torch.inference_mode(mode=False):  # solvers follow gradients, also where the caller has turned them off
            return self._read(image, model, solver, reader, as_generator(0 if generator is None else generator))

    def _read(
        self, image: Any, model: Model, solver: Solver, reader: ReadsLast | None, generator: torch.Generator
    ) -> Solution:
        # Ask: the image in the space of the model, and what is to be found in it.
        observation = model.encode(image)
        if len(observation) != 1:
            raise InputError(f"got {len(observation)} images; expected one; call infer for each")
        if observation.is_inference():
            observation = observation.clone()
        problem = make_problem(
            observation, model,
            count=self.count, candidates=self.candidates, prior=self.prior, attributes=self.attributes,
        )  # fmt: skip
        problem.check(solver.needs, type(solver).__name__)

        # Search. An answer that Ctrl-C leaves behind is described only if somebody wants it.
        described = partial(self._described, problem, model, image, solver, reader, generator)
        try:
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
        solution: Solution,
    ) -> Solution:
        """The answer of a solver with its words, what is read last, and how well it fits."""
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

        # Judge the answer on draws that did not select it, and describe it.
        solution = _ordered(solution, problem)
        judgement = judge(solution, problem, model, image, generator)
        view = view_of(model, solution.conditions, image=image, runner_up=solution.runner_up)
        if judgement.out_of_distribution:
            warnings.warn(
                f"the answer leaves an error that about {judgement.typicality:.1%} of held-out images with "
                f"{solution.count} components reach: the image is out of distribution, do not trust the answer",
                OutOfDistributionWarning,
                stacklevel=5,  # the caller of `infer`
            )
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


def infer_many(
    images: Iterable[Any],
    model: Model | str | Path,
    *,
    batch_size: int = 8,
    solver: Solver | type[Solver] | str | None = None,
    count: int | Sequence[int] | None = None,
    candidates: Any = None,
    attributes: bool = True,
    last: bool = False,
    prior: Any = None,
    seed: int = 0,
) -> Iterator[Solution]:
    """Solutions of several images, one after another; the network evaluations of `batch_size` images run together.

    Each answer is that of `infer(image, model, generator=seed)`, up to rounding in the network, and costs as many
    network evaluations. Evaluations with gradients run image by image. It is meant for accelerators; on a CPU,
    `energycomp batch --workers` uses all cores. Arguments and errors as of `infer`: the first image that raises one
    ends it, after the solutions of earlier batches.

    >>> from energycomp.testing import bumps_model, planted
    >>> model = bumps_model(solver="pursuit")
    >>> images = [planted(model, torch.tensor(places)) / 2 + 0.5 for places in ([[0.2, 0.2]], [[0.3, 0.7], [0.8, 0.3]])]
    >>> [solution.count for solution in infer_many([image[0] for image in images], model)]
    [1, 2]
    """
    if not is_whole(batch_size) or batch_size < 1:
        raise InputError(f"got batch_size={batch_size}; expected at least 1, such as 8")
    search = Search(solver, count, candidates, attributes, prior, last)
    read = partial(infer, model=model_of(model), generator=seed, progress=False, **attrs.asdict(search, recurse=False))
    left = iter(images)
    while batch := list(islice(left, batch_size)):
        yield from run_together([partial(read, image) for image in batch])


def _check_gradients(model: Model) -> None:
    if any(weight.is_inference() for weight in model.denoiser.network.parameters()):
        got = f"got the model {model.name}, loaded in torch.inference_mode, with a solver that needs gradients"
        raise InputError(f"{got}; expected weights with gradients; load it before, or under torch.no_grad")


def _ordered(solution: Solution, problem: Problem) -> Solution:
    """The components in the order of their values, the first number first."""
    values = solution.conditions
    if not problem.exchangeable or len(values) < 2:
        return solution
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
