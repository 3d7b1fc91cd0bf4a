"""A search that begins with proposals: right ones make it short, wrong ones cost evaluations and change no answer."""

from typing import Any

import attrs
import pytest
import torch
from torch import Tensor

from energycomp import infer
from energycomp.components import MixedSupport
from energycomp.inference import Solution
from energycomp.models import Model
from energycomp.models.proposals import Proposals
from energycomp.testing import bumps_model, planted, tinted_model

TINTED = tinted_model(solver="pursuit", beta=40.0)
PARSE = TINTED.conditioner.parse
TRUE = torch.cat([PARSE(0.2, 0.3, tint="red", width="wide"), PARSE(0.7, 0.8, tint="blue", width="narrow")])
OTHER_WORDS = torch.tensor([[0.0, 0.0, 1.0, -1.0], [0.0, 0.0, -2.0, 1.0]])
INVENTED = PARSE(0.5, 0.5, tint="green", width="wide")


@attrs.frozen(eq=False)
class Said:
    """In the place of a network of proposals: the same values for each image, with the certainty of a liar."""

    values: Tensor
    words: tuple[int, ...]
    probability: float = 1.0

    def network(self, _: Model) -> Any:
        return self

    def to(self, _: Any) -> Any:
        return self

    def propose(self, _: Tensor) -> Proposals:
        codes = [self.values[:, 2 + k].long() - 1 for k in range(len(self.words))]
        words = [
            torch.full((len(code), n), 1e-4).scatter(1, code[:, None], 1.0).log()
            for code, n in zip(codes, self.words, strict=True)
        ]
        return Proposals(self.values, torch.full((len(self.values),), self.probability), tuple(words))


def read(model: Model, values: Tensor | None, truth: Tensor, **said: Any) -> Solution:
    if values is not None:
        support = model.conditioner.support
        words = support.words if isinstance(support, MixedSupport) else ()
        proposer: Any = Said(values, words, **said)
        model = attrs.evolve(model, proposals=proposer)
    return infer(planted(model, truth)[0] / 2 + 0.5, model, generator=0)


def test_right_proposals_give_the_same_answer_for_a_third_of_the_evaluations() -> None:
    without, with_them = read(TINTED, None, TRUE), read(TINTED, TRUE, TRUE)
    assert torch.allclose(with_them.conditions, without.conditions, atol=1e-3)
    assert 3 * with_them.rows < without.rows


@pytest.mark.parametrize(
    "lies",
    [
        pytest.param(TRUE[:1], id="one is missing"),
        pytest.param(TRUE[:0], id="none"),
        pytest.param(INVENTED, id="invented"),
        pytest.param(torch.cat([TRUE, INVENTED, TRUE]), id="one too many, and twice the same"),
        pytest.param(TRUE + OTHER_WORDS, id="other words"),
        pytest.param(TRUE + TRUE.new_tensor([0.05, -0.04, 0.0, 0.0]), id="other places"),
    ],
)
def test_proposals_that_lie_change_no_answer(lies: Tensor) -> None:
    without, with_them = read(TINTED, None, TRUE), read(TINTED, lies, TRUE)
    assert torch.allclose(with_them.conditions, without.conditions, atol=2e-3)
    assert with_them.rows < 1.5 * without.rows


def test_fewer_proposals_than_are_asked_for_are_none() -> None:
    image = planted(TINTED, TRUE)[0] / 2 + 0.5
    said: Any = Said(TRUE[:1], (3, 2))
    found = infer(image, attrs.evolve(TINTED, proposals=said), count=2, generator=0)
    assert torch.allclose(found.conditions, infer(image, TINTED, count=2, generator=0).conditions)


def test_unlikely_proposals_are_none() -> None:
    without, with_them = read(TINTED, None, TRUE), read(TINTED, TRUE, TRUE, probability=0.01)
    assert (with_them.rows, with_them.conditions.tolist()) == (without.rows, without.conditions.tolist())


@pytest.mark.parametrize("beta", [None, 40.0])
def test_places_alone(beta: float | None) -> None:
    model = bumps_model(solver="pursuit", beta=beta)
    places = torch.tensor([[0.2, 0.3], [0.7, 0.8]])
    without = read(model, None, places)
    for said, share in ((places, 0.5), (places[:1], 1.5), (places.flip(1), 1.5)):
        with_them = read(model, said, places)
        assert torch.allclose(with_them.conditions, without.conditions, atol=2e-3)
        assert with_them.rows < share * without.rows


def test_a_start_and_listed_values_come_first() -> None:
    image = planted(TINTED, TRUE)[0] / 2 + 0.5
    said: Any = Said(INVENTED, (3, 2))
    model = attrs.evolve(TINTED, proposals=said)
    for options in ({"init": TRUE}, {"candidates": torch.cat([TRUE, INVENTED])}):
        both = [infer(image, each, generator=0, **options) for each in (TINTED, model)]
        assert both[0].rows == both[1].rows
