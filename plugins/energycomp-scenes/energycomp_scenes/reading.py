"""What a reading says of relations: places and words as samples of their posterior.

The words of an object are drawn from `Solution.posteriors`, its place from N(read, PLACE^2) with the error that
readings of held-out scenes have. A relation has the share of the samples in which it holds.
"""

from __future__ import annotations

import itertools
from typing import Any

import attrs
import torch
from torch import Tensor

from energycomp.errors import InputError
from energycomp.inference import Solution, make_problem, read_attributes, view_of
from energycomp.models import Model
from energycomp.seeds import as_generator
from energycomp_clevr.codes import ATTRIBUTES, CUBE, SHAPE, TURN
from energycomp_clevr.objects import Objects
from energycomp_clevr.seen import check_viewpoint
from energycomp_scenes.relations import KINDS, SHOWN, Formula, ground_of

PLACE = (0.0025, 0.0045)  # std of places, shares of the picture: of `clevr` on 60 held-out scenes
DRAWS = 1000
SIZES = [len(words) for words in ATTRIBUTES.values()]
OF_THE_ANSWER: dict[str, Any] = {"error": float("nan"), "stderr": float("nan")} | dict.fromkeys(
    ("runner_up", "difference", "difference_stderr", "p_value", "component_gain", "probability")
)


@attrs.frozen(eq=False)
class Belief:
    """Samples of what a picture shows, S scenes of K objects.

    Args:
        ground: (S, K, 2), where objects stand, see `ground_of`.
        codes: (S, K, 4), the words of each, from 1, in the order of `ATTRIBUTES`.

    >>> ground = torch.tensor([[0.0, 0.0], [2.0, 1.0]]).expand(10, 2, 2)  # both objects, in all samples
    >>> known = Belief(ground, torch.ones(10, 2, 4, dtype=torch.long))
    >>> [row["left of"] for row in known.relations()]
    [1.0]
    """

    ground: Tensor
    codes: Tensor

    def probability(self, formula: Formula) -> float:
        """That a formula holds, whose names are the numbers of objects, "1", "2"; raises `InputError` for other
        names.
        """
        index = {str(k): k - 1 for k in range(1, self.codes.shape[1] + 1)}
        if unknown := formula.names - index.keys():
            raise InputError(f"got the object {min(unknown)!r} in {formula!r}; expected a number up to {len(index)}")
        return float(formula.holds(self.ground, index).float().mean())

    def relations(self) -> list[dict[str, Any]]:
        """Each pair of objects with the probabilities of its relations, JSON data."""
        rows = []
        for a, b in itertools.combinations(range(self.codes.shape[1]), 2):
            of_pair = {kind: KINDS[kind].margin(self.ground[:, a], self.ground[:, b]) for kind in SHOWN}
            chances = {kind: round(float((margin > 0).float().mean()), 4) for kind, margin in of_pair.items()}
            rows.append({"a": a + 1, "b": b + 1, **chances})
        return rows


def check_objects(model: Model, *, camera: bool = False) -> Model:
    """The model; raises `InputError` unless its components are whole objects, and for a camera, if it takes none."""
    if not isinstance(model.conditioner, Objects):
        raise InputError(f"got the model {model.name}; expected one of whole objects, such as clevr")
    if camera:
        check_viewpoint(model)
    return model


def joined(solution: Solution, image: Any, model: Model, *, generator: int | torch.Generator | None = 0) -> Solution:
    """A reading whose words are those of two posteriors, its own and that of another model, see `pool`.

    The other model reads words at the places that were found, which costs about 260 network evaluations an object.
    Where a word changes, the error of the answer and what compares it to others are not known any more: they are NaN
    and None, and `explain` measures the error. The typicality remains that of the image as it was read.

    Raises:
        InputError: a reading without certainties, or a model without them.
    """
    sure = solution.certainty
    is_known = sure is not None and not bool(sure.isnan().any())
    reads_words = model.defaults.beta is not None and isinstance(model.conditioner, Objects)
    if not is_known or solution.posteriors is None or not reads_words:
        got = f"got {solution!r} to join with {model.name}"
        raise InputError(
            f"{got}; expected a reading of whole objects and a model of them, such as clevr and clevr-small"
        )
    if not solution.count:
        return solution
    # Read the words with the other model, at the places that were found
    problem = make_problem(model.encode(model.given(image)), model, count=solution.count)
    found = read_attributes(problem, solution.conditions[:, :2].to(problem.device), generator=as_generator(generator))
    others = found.probabilities(problem.posterior)
    words = [pool(one.cpu(), other.cpu()) for one, other in zip(solution.posteriors, others, strict=True)]
    # The most likely words of both; what was measured of another answer does not hold any more
    codes = torch.stack([each.argmax(1) + 1 for each in words], dim=1)
    before = solution.conditions.cpu()
    turns = torch.where(codes[:, SHAPE - 2, None] == CUBE, before[:, TURN:], 0.0)  # a cube that stays one stays turned
    values = torch.cat([before[:, :2], codes.to(before), turns], dim=1)
    if not torch.equal(values, before):  # another answer, which nothing was measured of
        solution = attrs.evolve(solution, fit=None, share=None, pixels=None, **OF_THE_ANSWER)
    return attrs.evolve(
        solution,
        conditions=values,
        posteriors=tuple(words),
        view=attrs.evolve(view_of(model, values), image=solution.image),
        rows=solution.rows + problem.rows,
    )


def pool(one: Tensor, other: Tensor) -> Tensor:
    """The logarithmic pool of two posteriors (K, n) of the same words, from the same image: sqrt(p q), normalised.

    Both posteriors hold the evidence of the image, and their product would count it twice. With exponents that sum to 1
    it counts once: the pool of two that agree is what they say, and evidence that both take up can be taken up before
    or after pooling (Genest, 1984).

    >>> pool(torch.tensor([[0.8, 0.2]]), torch.tensor([[0.8, 0.2]])), pool(torch.eye(2), torch.eye(2).flip(0))
    (tensor([[0.8000, 0.2000]]), tensor([[0.5000, 0.5000],
            [0.5000, 0.5000]]))
    """
    least = torch.finfo(one.dtype).tiny  # where both rule out what the other says
    return ((one.clamp(min=least).log() + other.clamp(min=least).log()) / 2).softmax(dim=1)


def belief(
    solution: Solution,
    *,
    camera: Tensor | None = None,
    draws: int = DRAWS,
    generator: int | torch.Generator | None = 0,
) -> Belief:
    """The belief of a reading of `clevr` or `clevr-small`, seen by a camera (3,), CLEVR's usual one when left out.

    Raises:
        InputError: a reading of another model.

    >>> objects = torch.tensor([[0.3, 0.4, 1, 1, 1, 1], [0.7, 0.6, 1, 1, 1, 1.0]])
    >>> belief(Solution(objects, 2, 1.0, 0.1, 0)).relations()
    [{'a': 1, 'b': 2, 'left of': 1.0, 'in front of': 0.0, 'near': 0.0, 'in the same row as': 0.0}]
    """
    values = solution.conditions.cpu()
    count = solution.count
    if values.ndim != 2 or values.shape[1] not in (TURN, TURN + 1):
        raise InputError(f"got {solution!r}, whose components are no objects; expected a reading of clevr")
    # Draw words of their posterior, then places around those that were found
    random = as_generator(generator)
    codes = values[None, :, 2:TURN].long().expand(draws, -1, -1).clone()
    chances = [each.cpu() for each in solution.posteriors or ()]
    if chances and count and all(bool(each.isfinite().all()) for each in chances):
        words = [torch.multinomial(each, draws, replacement=True, generator=random).T + 1 for each in chances]
        codes = torch.stack(words, dim=2)
    noise = torch.randn(draws, count, 2, generator=random) * torch.tensor(PLACE)
    return Belief(ground_of(torch.cat([values[None, :, :2] + noise, codes[..., :1]], dim=2), camera), codes)
