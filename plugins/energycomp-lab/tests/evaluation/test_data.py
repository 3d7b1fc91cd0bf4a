"""Conditions of examples as values, ranges of counts as people write them, and what dimensions of latents change."""

from typing import Any

import attrs
import pytest
import torch
from torch import Tensor

from energycomp.errors import InputError
from energycomp.fields import parse_range
from energycomp.testing import Labels, UnitSquare, stripes_model
from energycomp_decomp import DiffusionDecomposer
from energycomp_lab.evaluation import (
    Example,
    HasConcepts,
    HasSceneScores,
    strongest_dimensions,
    traverse_dimension,
    true_values,
)


@pytest.mark.parametrize(("text", "expected"), [("3-5", (3, 5)), ("4", (4, 4)), ("0", (0, 0)), ("0-64", (0, 64))])
def test_ranges(text: str, expected: tuple[int, int]) -> None:
    assert parse_range(text) == expected


@pytest.mark.parametrize("text", ["", "-", "-3", "3-", "5-3", "3-5-7", "a", "3.5", " 3", "0-65", "²", "٣"])
def test_what_is_no_range(text: str) -> None:
    with pytest.raises(InputError, match="expected two counts from 0 to 64"):
        parse_range(text)


def test_bounds() -> None:
    assert parse_range("1-3", least=1, greatest=3) == (1, 3)
    for text in ("0-3", "1-4"):
        with pytest.raises(InputError, match="from 1 to 3"):
            parse_range(text, least=1, greatest=3)


@attrs.frozen
class Attributes(Labels):
    """Two attributes, Hat and glasses, each yes or no."""

    size: int = 4
    paired: bool = True

    def parse(self, *args: Any, **kwargs: Any) -> Tensor:
        return torch.tensor([2 * ("Hat", "glasses").index(kwargs["attribute"]) + (kwargs["value"] == "yes")])

    def describe(self, value: Tensor) -> Any:
        return {"attribute": ("Hat", "glasses")[int(value) // 2], "value": ("no", "yes")[int(value) % 2]}


def has(**values: bool) -> Example:
    stated = [{"attribute": name, "value": "yes" if value else "no"} for name, value in values.items()]
    return Example(None, name="a face", conditions=stated)


def test_conditions_are_values_of_the_conditioner() -> None:
    assert true_values(Example(None, conditions=[(0.1, 0.2), [0.3, 0.4]]), UnitSquare()).tolist() == [
        pytest.approx([0.1, 0.2]),
        pytest.approx([0.3, 0.4]),
    ]
    assert true_values(Example(None, conditions=[2, 0]), Labels(3)).tolist() == [2, 0]
    for conditioner, shape in ((UnitSquare(), (0, 2)), (Labels(3), (0,)), (Attributes(), (0,))):
        assert true_values(Example(None, conditions=[]), conditioner).shape == shape


def test_attributes_that_the_model_does_not_have_are_left_out() -> None:
    assert true_values(has(glasses=True, beard=False, hat=False), Attributes()).tolist() == [0, 3]
    with pytest.raises(InputError, match="got a face with the attributes beard, and a model of Hat, glasses; expected"):
        true_values(has(beard=True), Attributes())


def test_examples_without_conditions_and_with_others() -> None:
    with pytest.raises(InputError, match="got a room without conditions; expected those of its components"):
        true_values(Example(None, name="a room", masks=torch.zeros(0, 1, 1)), UnitSquare())
    with pytest.raises(InputError, match="expected two numbers"):
        true_values(has(hat=True), UnitSquare())

    class Strict(UnitSquare):
        def parse(self, x: float, y: float) -> Tensor:
            return torch.tensor([[x, y]])

    with pytest.raises(InputError, match=r"got a face with the conditions .* which Strict does not take"):
        true_values(has(hat=True), Strict())


def test_optional_abilities_of_a_source() -> None:
    class Source:
        def concepts(self, spec: str) -> tuple[str, ...]:
            return (spec,)

    assert isinstance(Source(), HasConcepts)
    assert not isinstance(Source(), HasSceneScores)


def stripes() -> DiffusionDecomposer:
    return DiffusionDecomposer(stripes_model(parts=4))


LATENTS = stripes().encode(torch.full((1, 3, 16, 16), 0.3))


def test_a_dimension_changes_its_own_part_alone() -> None:
    found = traverse_dimension(stripes(), LATENTS, 1, 2, [0.0, 0.3, 0.6])
    assert found.dim == 2
    assert found.parts.whole.shape == (3, 3, 16, 16)
    assert found.changed == pytest.approx(0.6 / 3 / 2, abs=1e-5)  # one channel of three, of a range of 2
    assert found.outside == pytest.approx(0, abs=1e-6)


def test_the_strongest_dimensions_are_those_of_colour() -> None:
    dims = strongest_dimensions(stripes(), LATENTS, 3, (0.0, 0.5), count=3)
    assert len(dims) == 3
    changes = [traverse_dimension(stripes(), LATENTS, 3, dim, [0.0, 0.5]).parts.whole for dim in range(4)]
    moved = torch.stack([(whole[1] - whole[0]).abs().mean() for whole in changes])
    assert set(dims) == set(moved.topk(3).indices.tolist())


@pytest.mark.parametrize(
    ("part", "dim", "message"), [(4, 0, "got part 4 of 4"), (-1, 0, "got part -1"), (0, 4, "got dimension 4 of 4")]
)
def test_what_is_not_there(part: int, dim: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        traverse_dimension(stripes(), LATENTS, part, dim, [0.0, 1.0])
