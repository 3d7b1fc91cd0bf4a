"""How well a model reads marked photos, and the odds of its proposals, fitted on photos that were kept back."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import torch
from torch import Tensor

from energycomp.errors import InputError
from energycomp.inference import Solution, Solver
from energycomp.inference.problem import make_problem
from energycomp.models import Model
from energycomp.progress import progress
from energycomp_lab.evaluation import attribute_metrics
from energycomp_objects.conditioner import Objects
from energycomp_objects.formats import MarkedPhoto
from energycomp_objects.metrics import match_proposals, object_metrics
from energycomp_objects.network import PlacedUNet
from energycomp_objects.recipe import values_of
from energycomp_objects.solver import Propose

RIDGE = 1e-2  # of the logistic regression


@attrs.frozen(eq=False)
class ReadPhoto:
    """An answer beside the marks of its photo.

    Args:
        is_object: (M,) which proposals belong to a mark.
    """

    solution: Solution
    marked: Tensor
    is_object: Tensor


def read_photos(model: Model, photos: Sequence[MarkedPhoto], solver: Solver | None = None) -> list[ReadPhoto]:
    """Answers to photos, each with the same seed."""
    conditioner = model.conditioner
    if not isinstance(conditioner, Objects):
        raise InputError(f"got the model {model.name!r}; expected one of `energycomp train objects`")
    answers = []
    for photo in progress(list(photos), "reading photos"):
        problem = make_problem(model.encode(photo.image()), model)
        solution = (solver or Propose()).solve(problem, generator=torch.Generator().manual_seed(0))
        marked = values_of(photo, conditioner)
        answers.append(ReadPhoto(solution, marked, match_proposals(marked, solution.trace)))
    return answers


def score(model: Model, answers: Sequence[ReadPhoto]) -> dict[str, float]:
    """The figures of `object_metrics` of answers, and how often attributes are right."""
    conditioner = model.conditioner
    assert isinstance(conditioner, Objects)  # noqa: S101 - `read_photos` has checked it
    metrics = object_metrics(next(iter(conditioner.attributes.values()), ()))
    attributes = attribute_metrics(conditioner)
    for one in answers:
        found = one.solution
        record = {
            "true": one.marked.tolist(),
            "conditions": found.conditions.tolist(),
            "trace": found.trace,
            "counts": found.counts,
        }
        metrics.update([], [], record=[record])
        attributes.update([found.conditions], [one.marked], certainty=[found.certainty])
    return {name: float(value) for name, value in {**metrics.compute(), **attributes.compute()}.items()}


def fit_odds(answers: Sequence[ReadPhoto]) -> tuple[float, float, float]:
    """Weights of the log-odds of proposals by logistic regression on answers to photos that were kept back.

    Those of an untrained network where nothing was proposed.
    """
    if not any(one.solution.trace["logit"] for one in answers):
        return (0.0, 1.0, 0.0)
    logit = torch.cat([torch.tensor(one.solution.trace["logit"]) for one in answers])
    gain = torch.cat([torch.tensor(one.solution.trace["gain"]) for one in answers])
    right = torch.cat([one.is_object for one in answers]).double()
    inputs = torch.stack([torch.ones_like(logit), logit, gain.sign() * gain.abs().log1p()], dim=1).double()
    weights = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(inputs @ weights, right)
        loss = loss + RIDGE * weights[1:].square().sum() / 10
        loss.backward()
        return loss

    optimizer.step(closure)
    constant, by_logit, by_gain = weights.tolist()
    return constant, by_logit, by_gain


def with_odds(model: Model, photos: Sequence[MarkedPhoto], *, rounds: int = 2, solver: Solver | None = None) -> Model:
    """The model with odds fitted on photos that were kept back, in place; gains change with the answers."""
    network = model.denoiser.network
    if not isinstance(network, PlacedUNet):
        raise InputError(f"got the model {model.name!r}; expected one of `energycomp train objects`")
    for _ in range(rounds):
        odds = fit_odds(read_photos(model, photos, solver))
        network.odds = odds
        network.config["odds"] = list(odds)
    return model
