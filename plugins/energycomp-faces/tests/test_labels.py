"""Labels: what every conditioner is held to, and what is legal."""

from typing import Any

import pytest
import torch

from energycomp.components import AttributeConditioner
from energycomp.errors import InputError
from energycomp_faces.labels import BINARY, Labels
from energycomp_lab.checks import check_conditioner

HAIR = Labels({"smiling": BINARY, "hair": ("black", "fair", "red")})


def test_it_conforms() -> None:
    check_conditioner(HAIR)


def test_groups_are_the_values_of_each_attribute() -> None:
    assert isinstance(HAIR, AttributeConditioner)
    assert [group.tolist() for group in HAIR.groups] == [[0, 1], [2, 3, 4]]
    assert torch.cat(HAIR.groups).tolist() == HAIR.enumerate_support().tolist()


@pytest.mark.parametrize(
    ("given", "expected"),
    [({"smiling": True}, 1), ({"smiling": "no"}, 0), ({"hair": "red"}, 4), ({"attribute": "hair", "value": "fair"}, 3)],
)
def test_what_is_written(given: dict[str, Any], expected: int) -> None:
    assert HAIR.parse(**given).tolist() == [expected]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "expected one attribute"),
        ({"smiling": True, "hair": "red"}, "compose several"),
        ({"beard": True}, "expected one of smiling, hair"),
        ({"hair": True}, "expected one of black, fair, red"),
        ({"hair": ["red"]}, "expected one of black, fair, red"),
    ],
)
def test_what_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        HAIR.parse(**given)


@pytest.mark.parametrize("attributes", [{}, {"smiling": ("yes",)}, {"hair": ("red", "red")}])
def test_attributes_that_are_none(attributes: Any) -> None:
    with pytest.raises(InputError, match="two or more values"):
        Labels(attributes)
