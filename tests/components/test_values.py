"""Values read from text and drawn at random, for conditioners with and without a reader of their own."""

from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from energycomp.components import ability, random_values, read_value, values_of
from energycomp.errors import InputError
from energycomp.testing import Labels, UnitSquare, tinted_model


class Anything(UnitSquare):
    """Remembers the arguments of `parse`."""

    given: ClassVar[list[Any]] = []

    def parse(self, *args: Any, **kwargs: Any) -> Tensor:
        self.given[:] = [args, kwargs]
        return torch.zeros(1, 2)


class Prompts(Anything):
    def read(self, text: str) -> Tensor:
        return torch.full((1, 2), float(len(text)))


@pytest.mark.parametrize(
    ("text", "args", "kwargs"),
    [
        ("0.3,0.45", (0.3, 0.45), {}), (" .5 , 1e-1,-2", (0.5, 0.1, -2), {}), ("smiling", ("smiling",), {}),
        ("x=0.3, y=0.45", (), {"x": 0.3, "y": 0.45}), ("male=false", (), {"male": False}),
        ("hair=red", (), {"hair": "red"}), ('name="a"', (), {"name": "a"}), ("a red cube", ("a red cube",), {}),
        ("1,size=big", (1,), {"size": "big"}),
    ],
)  # fmt: skip
def test_text_is_the_arguments_of_parse(text: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    conditioner = Anything()
    assert ability(conditioner, "read") is None
    read_value(conditioner, text)
    assert conditioner.given == [args, kwargs]


@pytest.mark.parametrize(
    ("conditioner", "texts", "said"),
    [
        (Anything(), ("", " ", ",", "1,", "=1", "2x=1", "a=1,a=2", "[" * 5000 + "="), "expected arguments with commas"),
        (UnitSquare(), ("nan,0.5", "1e999,0", "[[[,0", "0.3", "left,top", "x=0.3"), "expected two numbers"),
    ],
)
def test_text_that_cannot_be_read(conditioner: UnitSquare, texts: tuple[str, ...], said: str) -> None:
    for text in texts:
        with pytest.raises(InputError, match=said):
            read_value(conditioner, text)


def test_a_reader_of_its_own_gets_the_text_as_it_is() -> None:
    assert read_value(Prompts(), "a dog, and a cat=1").tolist() == [[18.0, 18.0]]


@pytest.mark.parametrize("conditioner", [UnitSquare(), Labels(3), tinted_model().conditioner])
def test_random_values_are_legal_and_repeat(conditioner: Any) -> None:
    one, two = (random_values(conditioner, 50, generator=1) for _ in range(2))
    assert torch.equal(one, two)
    assert len(one) == 50
    assert bool(conditioner.support.check(one).all())


def test_numbers_alone_leave_the_attributes_open() -> None:
    conditioner = tinted_model().conditioner
    places = values_of(conditioner, [(0.3, 0.4), (0.7, 0.6)])
    assert places.equal(torch.tensor([[0.3, 0.4, 0.0, 0.0], [0.7, 0.6, 0.0, 0.0]]))
    assert values_of(conditioner, [(0.3, 0.4), {"x": 0.7, "y": 0.6, "tint": "red"}])[:, 2].tolist() == [0.0, 1.0]
    with pytest.raises(InputError):
        values_of(conditioner, [(0.3, 0.4, 1.0)])
