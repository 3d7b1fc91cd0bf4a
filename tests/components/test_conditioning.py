"""Condition rows, and the conformance of conditioners."""

from typing import Any

import attrs
import pytest
import torch
from torch import Tensor

from energycomp.components import Classes, Condition, Conditioner, Latents, ability, groups_of, weights_of
from energycomp.errors import InputError
from energycomp.testing import Labels, UnitSquare
from energycomp_lab.checks import check_conditioner

FLAGS = "one flag a row"


@pytest.mark.parametrize(
    ("rows", "parts", "message"),
    [
        *(((*shape,), {}, r"expected floating point \(R, L, D\)") for shape in ((3,), (3, 2), (2, 1, 2, 1), ())),
        (torch.zeros(3, 1, 2, dtype=torch.long), {}, "int64"),
        ((3, 1, 2), {"null": torch.zeros(2, dtype=torch.bool)}, FLAGS), ((3, 1, 2), {"null": torch.zeros(3)}, FLAGS),
        ((3, 1, 2), {"null": torch.zeros(3, 1, dtype=torch.bool)}, FLAGS),
        ((2, 2, 3), {"pooled": torch.zeros(3, 5)}, r"pooled vectors of shape \(3, 5\); expected \(2, P\)"),
        ((2, 2, 3), {"pooled": torch.zeros(2)}, "pooled vectors"),
        ((2, 2, 3), {"mask": torch.ones(2, 3).bool()}, r"a mask of shape \(2, 3\).*expected bool \(2, 2\)"),
        ((2, 2, 3), {"mask": torch.ones(2, 2)}, "type torch.float32"),
    ],
)  # fmt: skip
def test_parts_of_a_condition_fit_each_other(rows: Any, parts: dict[str, Tensor], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Condition(torch.zeros(rows) if isinstance(rows, tuple) else rows, **parts)


def test_cat_index_expand_and_to() -> None:
    a, u = Condition(torch.rand(2, 1, 2)), Condition.unconditional(1, 2, rows=2)
    both = Condition.cat([a, u])
    assert both.null.tolist() == [False, False, True, True]
    part = both[torch.tensor([3, 0])].to(dtype=torch.float64)
    assert (part.null.tolist(), part.rows.dtype) == ([True, False], torch.float64)
    assert torch.equal(part.rows[1], a.rows[0].double())
    assert len(a[:1].expand(5)) == 5
    assert a.expand(2) is a
    assert torch.equal(a.expand(4).rows, torch.cat([a.rows, a.rows]))
    with pytest.raises(InputError, match="expected 1 or 3"):
        a.expand(3)
    with pytest.raises(InputError, match=r"\(1, 2\), \(1, 3\)"):
        Condition.cat([a, Condition(torch.zeros(1, 1, 3))])


def test_abilities() -> None:
    labels, places = Labels(4, paired=True), UnitSquare()
    assert isinstance(labels, Conditioner)
    assert isinstance(places, Conditioner)
    assert ability(labels, "enumerate_support")().tolist() == [0, 1, 2, 3]
    assert [ability(places, name) for name in ("enumerate_support", "groups", "concepts", "module")] == [None] * 4
    assert [group.tolist() for group in groups_of(labels) or ()] == [[0, 1], [2, 3]]
    assert groups_of(Labels(4)) is groups_of(places) is weights_of(labels) is None


@pytest.mark.parametrize("conditioner", [UnitSquare(), Labels(1), Labels(5), Latents(3), Classes(("a", "b"))])
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


def test_embeddings_of_constant_norm_conform() -> None:
    rows = Fourier()(torch.rand(5, 2)).rows
    torch.testing.assert_close(rows.square().sum((1, 2)), torch.full((5,), 8.0))
    check_conditioner(Fourier())


@attrs.frozen
class Faulty(UnitSquare):
    """Places, with one fault."""

    fault: str = ""

    def parse(self, *args: Any, **kwargs: Any) -> Tensor:
        if self.fault == "careless":
            return torch.tensor([[float(v) for v in args]])
        return super().parse(*args, **kwargs)

    def describe(self, value: Tensor) -> list[float]:
        return [round(float(v), 1 if self.fault == "rounding" else 4) for v in value]

    def config(self) -> dict[str, Any]:
        return {"fault": self.fault}

    def __call__(self, values: Tensor) -> Condition:
        rows = values.reshape(-1, 1, 2) if self.fault == "unchecked" else super().__call__(values).rows
        faults = {"detached": rows.detach(), "zeroed": 0.5 + 0.0 * rows, "constant": torch.zeros(3, 1, 2)}
        return Condition(faults.get(self.fault, rows))


class Outside(Labels):
    def enumerate_support(self) -> Tensor:
        return torch.arange(self.size + 1)


class Forgetful(Labels):
    def config(self) -> dict[str, Any]:
        return {"size": self.size + 1}


@pytest.mark.parametrize(
    ("conditioner", "message"),
    [
        (Faulty("detached"), "do not depend on the values"), (Faulty("zeroed"), "a gradient of Faulty of 0"),
        (Deaf(), "a gradient of Deaf of 0"), (Outside(3), "outside its support"),
        (Faulty("careless"), "TypeError from Faulty.parse"), (Forgetful(3), "other rows"),
        (Faulty("rounding"), "let parse take what describe gives"), (Faulty("unchecked"), "one dimension more"),
        (Faulty("constant"), "no value, no row"),
    ],
)  # fmt: skip
def test_the_conformance_check_finds(conditioner: Conditioner, message: str) -> None:
    check_conditioner(Faulty())
    with pytest.raises(AssertionError, match=message):
        check_conditioner(conditioner)


# Pooled vectors and masks


def pooled(rows: int) -> Any:
    mask = torch.tensor([[True, False]]).expand(rows, -1)
    return Condition(torch.rand(rows, 2, 3), pooled=torch.rand(rows, 5), mask=mask)


def test_pooled_vectors_and_masks_go_with_their_rows() -> None:
    one = pooled(3)
    assert torch.equal(one[torch.tensor([2, 0])].pooled, one.pooled[[2, 0]])
    for changed, rows in ((one[:1].expand(4), 4), (one.to(dtype=torch.float64), 3), (Condition.cat([one, one]), 6)):
        assert len(changed.pooled) == len(changed.mask) == rows
        assert (changed.mask.dtype, changed.pooled.dtype) == (torch.bool, changed.rows.dtype)


def test_null_rows_need_no_further_parts() -> None:
    null = Condition.unconditional(2, 3, rows=2)
    both: Any = Condition.cat([null, pooled(1)])
    assert both.pooled[:2].abs().sum() == 0
    empty = pooled(1)
    filled, alone = both.filled(empty), null.filled(empty)
    assert torch.equal(filled.pooled[1], empty.pooled[0])
    assert torch.equal(filled.rows[2], both.rows[2])
    assert not filled.null.any()
    assert alone.mask.tolist() == [[True, False]] * 2
    with pytest.raises(InputError, match="with and without pooled vectors"):
        Condition.cat([Condition(torch.zeros(1, 2, 3)), pooled(1)])


def test_mixtures_of_rows_mix_pooled_vectors_and_use_all_tokens() -> None:
    two = attrs.evolve(pooled(2), mask=torch.tensor([[True, False], [False, True]]))
    mixed = two.mixed(torch.tensor([[0.25, 0.75], [1.0, 0.0]]))
    torch.testing.assert_close(mixed.pooled[0], 0.25 * two.pooled[0] + 0.75 * two.pooled[1])
    torch.testing.assert_close(mixed.rows[1], two.rows[0])
    assert mixed.mask.tolist() == [[True, True], [True, False]]
