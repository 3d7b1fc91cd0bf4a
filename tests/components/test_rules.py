"""The table of rules, prediction types, and noised spaces: each against its definition."""

import math
from typing import Any, get_args

import pytest
import torch

from energycomp.components import (
    Gaussian,
    NoisedSpace,
    Rule,
    combine,
    cosine_schedule,
    identifies_null,
    rule_weights,
    stratified_timesteps,
)
from energycomp.components.space import check_compatible
from energycomp.errors import CompositionError, InputError

U = Gaussian(0.0, name="u", unconditional="self")


@pytest.mark.parametrize("rule", get_args(Rule))
@pytest.mark.parametrize("count", [1, 2, 5])
def test_the_table_is_the_algebra(rule: Any, count: int) -> None:
    leaves = [Gaussian(float(k), name=f"{k}", unconditional=U) for k in range(count)]
    row, null = rule_weights(rule, float(count))
    expected = {**dict.fromkeys(leaves, row), **({U: null} if null else {})}
    assert dict(combine(leaves, rule).terms) == pytest.approx(expected)
    assert identifies_null(rule) == (rule == "product")
    if rule != "sum":
        assert count * row + null == pytest.approx(1.0)  # mass 1
    rows, nulls = rule_weights(rule, torch.full((3,), float(count)))
    assert rows.tolist() == pytest.approx([row] * 3)
    assert nulls.tolist() == pytest.approx([null] * 3)


def test_rules_that_cannot_be() -> None:
    for mass in (0.0, torch.tensor([1.0, 0.0])):
        with pytest.raises(CompositionError, match="without components under the rule 'mean', or with weights"):
            rule_weights("mean", mass)
    with pytest.raises(CompositionError, match="got rule 'max'; expected 'sum', 'mean' or 'product'"):
        rule_weights("max", 1.0)  # type: ignore[arg-type]
    assert rule_weights("product", 0.0) == (1.0, 1.0)  # no components: u


def test_spaces_are_equal_where_components_compose() -> None:
    alphas, shape = cosine_schedule(), (3, 8, 8)
    space = NoisedSpace(alphas, shape)
    assert space == NoisedSpace(alphas.double(), shape, "pixels")
    assert hash(space) == hash(NoisedSpace(alphas, shape))
    ranged = NoisedSpace(alphas, shape, value_range=(-1, 1))
    others = (
        NoisedSpace(alphas, (3, 8, 9)), NoisedSpace(alphas, shape, "vae:one:0.18"),
        NoisedSpace(cosine_schedule(500), shape), NoisedSpace(torch.linspace(0.99, 0.01, 1000), shape),
        ranged, "pixels",
    )  # fmt: skip
    assert all(space != other for other in others)
    with pytest.raises(CompositionError, match=r"a' with value_range None.*value_range \(-1.0, 1.0\); expected one"):
        check_compatible(("a", space), ("b", ranged))


@pytest.mark.parametrize("value_range", [(0.0, 1.0), (1.0, -1.0), (-math.inf, math.inf), (0.0, 0.0), 1.0, ("a", "b")])
def test_value_ranges_that_cannot_be(value_range: Any) -> None:
    with pytest.raises(InputError, match=r"got value_range=.*expected \(-r, r\).*centre the data"):
        NoisedSpace(cosine_schedule(), (1, 2, 2), value_range=value_range)


@pytest.mark.parametrize("power", [1.0, 0.5, 0.25])
def test_timesteps_are_stratified(power: float) -> None:
    state = torch.get_rng_state()
    t = stratified_timesteps(40, 100.0, 900.0, power=power, generator=torch.Generator().manual_seed(0))
    assert torch.equal(state, torch.get_rng_state())
    part = (((t - 100) / 800).double() ** (1 / power) * 40).floor().long()
    assert part.sort().values.tolist() == list(range(40))
    assert part.tolist() != list(range(40))
