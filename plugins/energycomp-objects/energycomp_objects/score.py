"""How well a model reads marked photos, and the odds of its proposals, fitted on photos that were kept back."""

from __future__ import annotations

import math
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
from energycomp_objects.counts import count_posterior
from energycomp_objects.formats import MarkedPhoto
from energycomp_objects.metrics import match, object_metrics
from energycomp_objects.network import PlacedUNet
from energycomp_objects.photos import values_of
from energycomp_objects.solver import Propose

RIDGE = 1e-2  # of the logistic regression
PLAIN = (0.0, 1.0, 0.0)  # odds of a proposal alone
HALVES = 4  # photos, from which on odds are fitted on halves
ROUNDS = 2  # of fits
SPREADS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)  # that are tried
UNLIKELY = 1e-6  # the least probability of a count


@attrs.frozen(eq=False)
class ReadPhoto:
    """An answer beside the marks of its photo.

    Args:
        pairs: (mark, object) of those that belong together.
        proposals: (mark, proposal) of those that do.
        is_object: (M,) which proposals belong to a mark.
        is_right: (M,) and have its words.
        is_all_right: whether the answer has all marked objects with their words, and no other.
    """

    photo: MarkedPhoto
    solution: Solution
    marked: Tensor
    pairs: list[tuple[int, int]]
    proposals: list[tuple[int, int]]
    is_object: Tensor
    is_right: Tensor
    is_all_right: bool


def read_photos(
    model: Model, photos: Sequence[MarkedPhoto], solver: Solver | None = None, *, show: bool = True
) -> list[ReadPhoto]:
    """Answers to photos, each with the same seed."""
    conditioner = model.conditioner
    if not isinstance(conditioner, Objects):
        raise InputError(f"got the model {model.name!r}; expected one of `energycomp train objects`")
    answers = []
    for photo in progress(list(photos), "reading photos", show=show):
        problem = make_problem(model.encode(photo.image()), model)
        solution = (solver or Propose()).solve(problem, generator=torch.Generator().manual_seed(0))
        marked = values_of(photo, conditioner)
        trace = solution.trace
        proposed = torch.tensor([[x, y] for x, y in zip(trace["x"], trace["y"], strict=True)]).reshape(-1, 2)
        proposals = match(marked, proposed)
        words = range(len(conditioner.words))
        codes = torch.tensor([trace[f"words {k}"] for k in words]).reshape(len(words), len(proposed)).T
        is_object = torch.zeros(len(proposed), dtype=torch.bool)
        is_right = is_object.clone()
        for mark, k in proposals:
            is_object[k] = True
            is_right[k] = _has_words(codes[k], marked[mark, conditioner.length :])
        pairs = match(marked, solution.conditions)
        is_all_right = len(pairs) == solution.count == len(marked) and all(
            _has_words(solution.conditions[k, conditioner.length :], marked[mark, conditioner.length :])
            for mark, k in pairs
        )
        answers.append(ReadPhoto(photo, solution, marked, pairs, proposals, is_object, is_right, is_all_right))
    return answers


def _has_words(codes: Tensor, marked: Tensor) -> bool:
    """Whether an object has all words of a mark; 0 is one that the mark leaves open."""
    return bool(((marked == 0) | (codes == marked)).all())


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


def average_precision(answers: Sequence[ReadPhoto]) -> float:
    """The area under precision over recall of all proposals, right where a mark with their words is near.

    It needs no threshold, and no odds that were fitted before: they are fitted on the answers themselves.
    """
    right = torch.cat([one.is_right for one in answers]).double()
    marks = sum(len(one.marked) for one in answers)
    odds = _inputs(answers) @ torch.tensor(fit_odds(answers), dtype=torch.float64)
    right = right[odds.argsort(descending=True, stable=True)]
    precision = right.cumsum(0) / torch.arange(1, len(right) + 1)
    best = precision.flip(0).cummax(0).values.flip(0)  # at this recall or a greater one
    return float((best * right).sum()) / max(marks, 1)


def fit_odds(answers: Sequence[ReadPhoto]) -> tuple[float, float, float]:
    """Weights of the log-odds of proposals by logistic regression on answers to photos that were kept back.

    Those of proposals alone where there is no proposal of an object, or no other one.
    """
    inputs = _inputs(answers)
    right = torch.cat([one.is_object for one in answers]).double()
    if not 0 < right.sum() < len(right):
        return PLAIN
    weights = torch.tensor(PLAIN, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(inputs @ weights, right)
        loss = loss + RIDGE * weights[1:].square().sum() / 10
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(closure)
    constant, by_logit, by_gain = weights.tolist()
    return constant, by_logit, by_gain


def _inputs(answers: Sequence[ReadPhoto]) -> Tensor:
    """1, the logit and the logarithm of the gain of all proposals, (N, 3)."""
    logit = torch.cat([torch.tensor(one.solution.trace["logit"]) for one in answers])
    gain = torch.cat([torch.tensor(one.solution.trace["gain"]) for one in answers])
    return torch.stack([torch.ones_like(logit), logit, gain.sign() * gain.abs().log1p()], dim=1).double()


def fit_spread(answers: Sequence[ReadPhoto]) -> float:
    """The spread of the log-odds of photos under which the marked numbers of objects are likeliest."""

    def likelihood(spread: float) -> float:
        total = 0.0
        for one in answers:
            posterior = count_posterior(one.solution.trace["proposed"], spread=spread)
            marked = len(one.marked)
            total += math.log(max(UNLIKELY, float(posterior[marked]) if marked < len(posterior) else 0.0))
        return total

    return max(SPREADS, key=likelihood)


def set_odds(model: Model, odds: Sequence[float], spread: float = 0.0) -> None:
    """Puts weights of the log-odds and their spread over photos into a model, which are saved with it."""
    network = model.denoiser.network
    if not isinstance(network, PlacedUNet):
        raise InputError(f"got the model {model.name!r}; expected one of `energycomp train objects`")
    network.odds = tuple(map(float, odds))
    network.spread = spread
    network.config |= {"odds": list(network.odds), "spread": spread}


def fit_held_out(model: Model, photos: Sequence[MarkedPhoto], solver: Solver | None = None) -> list[ReadPhoto]:
    """Fits the odds of a model on photos that were kept back, in place, and answers to these photos.

    The answers to each half of the photos have the odds of the other half, so that their scores are those of photos
    that no odds were fitted on; of fewer than four photos they have the model's. Costs three readings of each photo.
    """
    # Gains depend on the answer: odds are fitted on answers with the odds of proposals, then on better ones
    set_odds(model, PLAIN)
    answers = read_photos(model, photos, solver)
    halves = (slice(0, None, 2), slice(1, None, 2)) if len(photos) >= HALVES else (slice(None),) * 2
    for _ in range(ROUNDS):
        fitted = list(answers)
        for own, other in (halves, halves[::-1]):
            set_odds(model, fit_odds(fitted[other]), fit_spread(fitted[other]))
            answers[own] = read_photos(model, photos[own], solver)
    set_odds(model, fit_odds(answers), fit_spread(answers))
    return answers
