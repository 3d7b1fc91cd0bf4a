"""How well a model reads marked photos, and the odds of its proposals, fitted on photos that were kept back."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from energycomp.errors import InputError
from energycomp.inference import Solution
from energycomp.inference.problem import make_problem
from energycomp.models import Model
from energycomp.progress import progress
from energycomp_objects.conditioner import Objects
from energycomp_objects.counts import count_posterior, interval
from energycomp_objects.formats import MarkedPhoto, MarkedPhotos
from energycomp_objects.recipe import values_of
from energycomp_objects.solver import Propose

NEAR = 0.5  # of the smaller side of a marked object, within which an answer is that object
BINS = 10  # of the calibration error
RIDGE = 1e-2  # of the logistic regression


@attrs.frozen(eq=False)
class ReadPhoto:
    """An answer beside the marks of its photo.

    Args:
        pairs: (mark, object) of those that belong together.
        is_object: (M,) which proposals belong to a mark.
    """

    solution: Solution
    marked: Tensor
    pairs: list[tuple[int, int]]
    is_object: Tensor


def read_photos(model: Model, photos: Sequence[MarkedPhoto], solver: Propose | None = None) -> list[ReadPhoto]:
    """Answers to photos, each with the same seed."""
    conditioner = model.conditioner
    if not isinstance(conditioner, Objects):
        raise InputError(f"got the model {model.name!r}; expected one of `energycomp train objects`")
    answers = []
    for photo in progress(list(photos), "reading photos"):
        problem = make_problem(model.encode(photo.image()), model)
        solution = (solver or Propose()).solve(problem, generator=torch.Generator().manual_seed(0))
        marked = values_of(photo, conditioner)
        proposed = torch.tensor([[x, y] for x, y in zip(solution.trace["x"], solution.trace["y"], strict=True)])
        is_object = torch.zeros(len(proposed), dtype=torch.bool)
        is_object[[k for _, k in match(marked, proposed.reshape(-1, 2), photo.size)]] = True
        answers.append(ReadPhoto(solution, marked, match(marked, solution.conditions, photo.size), is_object))
    return answers


def match(marked: Tensor, values: Tensor, size: tuple[int, int]) -> list[tuple[int, int]]:
    """Pairs of marks (K, V) and values (N, V) that are nearest, within `NEAR` of a mark's smaller side."""
    if not len(marked) or not len(values):
        return []
    pixels = torch.tensor(size, dtype=torch.float32)
    distance = torch.cdist(marked[:, :2] * pixels, values[:, :2] * pixels)
    sides = marked[:, 2:4] if marked.shape[1] >= 4 else torch.full((len(marked), 2), 0.08)
    share = distance / ((sides * pixels).amin(1, keepdim=True) * NEAR).clamp(min=1.0)
    pairs = zip(*linear_sum_assignment(share.clamp(max=5.0).numpy()), strict=True)
    return [(int(a), int(b)) for a, b in pairs if share[a, b] < 1]


def score(model: Model, answers: Sequence[ReadPhoto]) -> dict[str, float]:
    """Recall, precision, words, counts, their intervals and calibration of answers."""
    conditioner = model.conditioner
    assert isinstance(conditioner, Objects)  # noqa: S101 - `read_photos` has checked it
    length = conditioner.length
    matched = sum(len(one.pairs) for one in answers)
    marks = sum(len(one.marked) for one in answers)
    objects = sum(one.solution.count for one in answers)
    words = [bool((one.marked[a, length:] == one.solution.conditions[b, length:]).all()) for one in answers for a, b in one.pairs]
    counts = [one.solution.count - len(one.marked) for one in answers]
    scores = {
        "recall": matched / max(marks, 1),
        "precision": matched / max(objects, 1),
        "words": sum(words) / max(len(words), 1),
        "count exact": sum(error == 0 for error in counts) / len(counts),
        "count error": sum(map(abs, counts)) / len(counts),
    }
    # Intervals of counts: of all, and of each word of the first attribute
    held = []
    for one in answers:
        low, high = interval(count_posterior(one.solution.trace["proposed"]))
        held.append(low <= len(one.marked) <= high)
    scores["counts in 90 %"] = sum(held) / len(held)
    # Calibration: of the probability that a proposal is an object
    probability = torch.cat([torch.tensor(one.solution.trace["proposed"]) for one in answers])
    right = torch.cat([one.is_object for one in answers]).float()
    scores["calibration error"] = calibration_error(probability, right)
    if conditioner.words:
        for number, word in enumerate(next(iter(conditioner.attributes.values())), 1):
            errors = [
                int((one.solution.conditions[:, length] == number).sum() - (one.marked[:, length] == number).sum())
                for one in answers
            ]
            scores[f"count exact, {word}"] = sum(error == 0 for error in errors) / len(errors)
            scores[f"count error, {word}"] = sum(map(abs, errors)) / len(errors)
    return scores


def calibration_error(probability: Tensor, right: Tensor) -> float:
    """The expected calibration error of probabilities (N,), over bins of equal width.

    >>> calibration_error(torch.tensor([0.75, 0.75]), torch.tensor([1.0, 0.0]))
    0.25
    """
    bins = (probability * BINS).long().clamp(max=BINS - 1)
    total = 0.0
    for k in bins.unique():
        among = bins == k
        total += float(among.sum() * (probability[among].mean() - right[among].mean()).abs())
    return total / max(len(right), 1)


def fit_odds(model: Model, answers: Sequence[ReadPhoto]) -> tuple[float, float, float]:
    """Weights of the log-odds of proposals by logistic regression on answers to photos that were kept back."""
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


def with_odds(model: Model, photos: MarkedPhotos | Sequence[MarkedPhoto], *, rounds: int = 2) -> Model:
    """The model with odds fitted on photos that were kept back, in place; gains change with the answers."""
    network = model.denoiser.network
    for _ in range(rounds):
        odds = fit_odds(model, read_photos(model, photos))
        network.odds = odds  # type: ignore[assignment]
        network.config["odds"] = list(odds)  # type: ignore[operator, index]
    return model
