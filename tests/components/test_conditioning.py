"""Condition rows, and the conformance of conditioners."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import torch
from torch import Tensor

from energycomp.components import (
    AttributeConditioner,
    Condition,
    Conditioner,
    FiniteConditioner,
    TextConditioner,
    TrainableConditioner,
    groups_of,
    weights_of,
)
from energycomp.errors import InputError
from energycomp.testing import Labels, UnitSquare
from energycomp_lab.checks import check_conditioner


@pytest.mark.parametrize("rows", [torch.zeros(3), torch.zeros(3, 2), torch.zeros(2, 1, 2, 1), torch.tensor(1.0)])
def test_rows_have_three_dimensions(rows: Tensor) -> None:
    with pytest.raises(InputError, match=r"expected floating point \(R, L, D\)"):
        Condition(rows)


def test_rows_are_floating_point() -> None:
    with pytest.raises(InputError, match="int64"):
        Condition(torch.zeros(3, 1, 2, dtype=torch.long))


@pytest.mark.parametrize(
    "null", [torch.zeros(2, dtype=torch.bool), torch.zeros(3), torch.zeros(3, 1, dtype=torch.bool)]
)
def test_null_is_one_flag_a_row(null: Tensor) -> None:
    with pytest.raises(InputError, match="one flag a row"):
        Condition(torch.zeros(3, 1, 2), null)


def test_cat_index_expand() -> None:
    a, u = Condition(torch.rand(2, 1, 2)), Condition.unconditional(1, 2, rows=2)
    both = Condition.cat([a, u])
    assert both.null.tolist() == [False, False, True, True]
    part = both[torch.tensor([3, 0])]
    assert part.null.tolist() == [True, False]
    assert torch.equal(part.rows[1], a.rows[0])
    assert len(a[:1].expand(5)) == 5
    assert a.expand(2) is a
    assert torch.equal(a.expand(4).rows, torch.cat([a.rows, a.rows]))
    with pytest.raises(InputError, match="expected 1 or 3"):
        a.expand(3)
    with pytest.raises(InputError, match=r"\(1, 2\), \(1, 3\)"):
        Condition.cat([a, Condition(torch.zeros(1, 1, 3))])


def test_to_keeps_the_flags() -> None:
    wide = Condition.unconditional(1, 2).to(dtype=torch.float64)
    assert wide.rows.dtype == torch.float64
    assert wide.null.dtype == torch.bool


def test_abilities_are_protocols() -> None:
    labels, places = Labels(4, paired=True), UnitSquare()
    assert isinstance(labels, Conditioner)
    assert isinstance(labels, FiniteConditioner)
    assert isinstance(labels, AttributeConditioner)
    assert isinstance(places, Conditioner)
    for ability in (FiniteConditioner, AttributeConditioner, TextConditioner, TrainableConditioner):
        assert not isinstance(places, ability)
    assert [group.tolist() for group in groups_of(labels) or ()] == [[0, 1], [2, 3]]
    assert groups_of(Labels(4)) is None
    assert groups_of(places) is None
    assert weights_of(labels) is None


@pytest.mark.parametrize("conditioner", [UnitSquare(), Labels(1), Labels(5)])
def test_conformance(conditioner: Conditioner) -> None:
    check_conditioner(conditioner)


@attrs.frozen
class Fourier(UnitSquare):
    """Sines and cosines of a place, whose norm is the same at every place."""

    token_shape: tuple[int, int] = (1, 16)

    def __call__(self, values: Tensor) -> Condition:
        angles = (super().__call__(values).rows[..., None] * 2.0 ** torch.arange(4)).flatten(2)
        return Condition(torch.cat([angles.sin(), angles.cos()], dim=2))


@attrs.frozen
class Deaf(Fourier):
    """Rows that a place takes part in and does not change."""

    def __call__(self, values: Tensor) -> Condition:
        rows = super().__call__(values).rows
        return Condition((rows.square() + rows.roll(8, 2).square()).sqrt())


@attrs.frozen
class Zeroed(UnitSquare):
    def __call__(self, values: Tensor) -> Condition:
        return Condition(0.5 + 0.0 * super().__call__(values).rows)


def test_embeddings_of_constant_norm_conform() -> None:
    rows = Fourier()(torch.rand(5, 2)).rows
    torch.testing.assert_close(rows.square().sum((1, 2)), torch.full((5,), 8.0))
    check_conditioner(Fourier())


class Detached(UnitSquare):
    def __call__(self, values: Tensor) -> Condition:
        return super().__call__(values.detach())


class Outside(Labels):
    def enumerate_support(self) -> Tensor:
        return torch.arange(self.size + 1)


class Careless(UnitSquare):
    def parse(self, *args: Any, **kwargs: Any) -> Tensor:
        return torch.tensor([[float(v) for v in args]])


class Forgetful(Labels):
    def config(self) -> dict[str, Any]:
        return {"size": self.size + 1}


class Rounding(UnitSquare):
    def describe(self, value: Tensor) -> list[float]:
        return [round(float(v), 1) for v in value]


class Unchecked(UnitSquare):
    def __call__(self, values: Tensor) -> Condition:
        return Condition(values.reshape(-1, 1, 2))


@attrs.frozen
class Constant(UnitSquare):
    def __call__(self, values: Tensor) -> Condition:
        return Condition(torch.zeros(3, 1, 2))


@pytest.mark.parametrize(
    ("conditioner", "message"),
    [
        (Detached(), "do not depend on the values"),
        (Deaf(), "a gradient of Deaf of 0"),
        (Zeroed(), "a gradient of Zeroed of 0"),
        (Outside(3), "outside its support"),
        (Careless(), "TypeError from Careless.parse"),
        (Forgetful(3), "other rows"),
        (Rounding(), "let parse take what describe gives"),
        (Unchecked(), "one dimension more"),
        (Constant(), "no value, no row"),
    ],
)
def test_the_conformance_check_finds(conditioner: Conditioner, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_conditioner(conditioner)


# Pooled vectors and masks


def pooled(rows: int) -> Condition:
    mask = torch.tensor([[True, False]]).expand(rows, -1)
    return Condition(torch.rand(rows, 2, 3), pooled=torch.rand(rows, 5), mask=mask)


def test_pooled_vectors_and_masks_go_with_their_rows() -> None:
    one = pooled(3)
    chosen = one[torch.tensor([2, 0])]
    assert chosen.pooled is not None
    assert chosen.mask is not None
    assert one.pooled is not None
    assert torch.equal(chosen.pooled, one.pooled[[2, 0]])
    for changed, rows in ((one[:1].expand(4), 4), (one.to(dtype=torch.float64), 3), (Condition.cat([one, one]), 6)):
        assert changed.pooled is not None
        assert changed.mask is not None
        assert len(changed.pooled) == len(changed.mask) == rows
        assert changed.mask.dtype == torch.bool
        assert changed.pooled.dtype == changed.rows.dtype


def test_null_rows_need_no_further_parts() -> None:
    null = Condition.unconditional(2, 3, rows=2)
    both = Condition.cat([null, pooled(1)])
    assert both.pooled is not None
    assert both.pooled[:2].abs().sum() == 0
    empty = pooled(1)
    filled = both.filled(empty)
    assert filled.pooled is not None
    assert empty.pooled is not None
    assert torch.equal(filled.pooled[1], empty.pooled[0])
    assert torch.equal(filled.rows[2], both.rows[2])
    assert not filled.null.any()
    alone = null.filled(empty)
    assert alone.mask is not None
    assert alone.mask.tolist() == [[True, False]] * 2
    with pytest.raises(InputError, match="with and without pooled vectors"):
        Condition.cat([Condition(torch.zeros(1, 2, 3)), pooled(1)])


def test_mixtures_of_rows_mix_pooled_vectors_and_use_all_tokens() -> None:
    two = attrs.evolve(pooled(2), mask=torch.tensor([[True, False], [False, True]]))
    mixed = two.mixed(torch.tensor([[0.25, 0.75], [1.0, 0.0]]))
    assert mixed.pooled is not None
    assert mixed.mask is not None
    assert two.pooled is not None
    torch.testing.assert_close(mixed.pooled[0], 0.25 * two.pooled[0] + 0.75 * two.pooled[1])
    torch.testing.assert_close(mixed.rows[1], two.rows[0])
    assert mixed.mask.tolist() == [[True, True], [True, False]]


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"pooled": torch.zeros(3, 5)}, r"pooled vectors of shape \(3, 5\); expected \(2, P\)"),
        ({"pooled": torch.zeros(2)}, "pooled vectors"),
        ({"mask": torch.ones(2, 3, dtype=torch.bool)}, r"a mask of shape \(2, 3\).*expected bool \(2, 2\)"),
        ({"mask": torch.ones(2, 2)}, "type torch.float32"),
    ],
)
def test_further_parts_fit_the_rows(parts: dict[str, Tensor], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Condition(torch.zeros(2, 2, 3), **parts)
