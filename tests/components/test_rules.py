"""The table of rules, prediction types, and noised spaces: each against its definition."""

from __future__ import annotations

import math
from itertools import permutations
from typing import Any, get_args

import pytest
import torch

from energycomp.components import (
    Gaussian,
    NoisedSpace,
    PredictionType,
    Rule,
    combine,
    convert,
    cosine_schedule,
    error_scale,
    identifies_null,
    rule_weights,
    signal_noise,
    stratified_timesteps,
    target,
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
    space = NoisedSpace(cosine_schedule(), (3, 8, 8))
    assert space == NoisedSpace(cosine_schedule().double(), (3, 8, 8), "pixels")
    assert hash(space) == hash(NoisedSpace(cosine_schedule(), (3, 8, 8)))
    others = (
        NoisedSpace(cosine_schedule(), (3, 8, 9)),
        NoisedSpace(cosine_schedule(), (3, 8, 8), "vae:one:0.18"),
        NoisedSpace(cosine_schedule(500), (3, 8, 8)),
        NoisedSpace(torch.linspace(0.99, 0.01, 1000), (3, 8, 8)),
        NoisedSpace(cosine_schedule(), (3, 8, 8), value_range=(-1.0, 1.0)),
        "pixels",
    )
    assert all(space != other for other in others)
    with pytest.raises(CompositionError, match=r"a' with value_range None.*value_range \(-1, 1\); expected one"):
        check_compatible(("a", space), ("b", NoisedSpace(cosine_schedule(), (3, 8, 8), value_range=(-1, 1))))


@pytest.mark.parametrize("value_range", [(0.0, 1.0), (1.0, -1.0), (-math.inf, math.inf), (0.0, 0.0), 1.0, ("a", "b")])
def test_value_ranges_that_cannot_be(value_range: Any) -> None:
    with pytest.raises(InputError, match=r"got value_range=.*expected \(-r, r\).*centre the data"):
        NoisedSpace(cosine_schedule(), (1, 2, 2), value_range=value_range)


def test_every_type_from_every_type() -> None:
    generator = torch.Generator().manual_seed(0)
    x0, eps = (torch.randn(4, 3, 2, 2, dtype=torch.float64, generator=generator) for _ in range(2))
    timestep, alphas = torch.tensor([5.0, 300.5, 700.0, 950.0]), cosine_schedule()
    signal, noise = signal_noise(alphas, timestep, torch.float64)
    sample = signal * x0 + noise * eps
    perfect = {kind: target(x0, eps, alphas, timestep, kind) for kind in get_args(PredictionType)}
    for source, wanted in permutations(get_args(PredictionType), 2):
        got = convert(perfect[source], sample, signal, noise, source=source, target=wanted)
        torch.testing.assert_close(got, perfect[wanted], rtol=1e-6, atol=1e-6)
    off = {kind: perfect[kind] + 0.1 for kind in perfect}
    for kind, wrong in off.items():
        as_eps = convert(wrong, sample, signal, noise, source=kind, target="epsilon")
        expected = (as_eps - eps).square().flatten(1).sum(1)
        got = (wrong - perfect[kind]).square().flatten(1).sum(1) * error_scale(alphas, timestep, kind)
        torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("power", [1.0, 0.5, 0.25])
def test_timesteps_are_stratified(power: float) -> None:
    state = torch.get_rng_state()
    t = stratified_timesteps(40, 100.0, 900.0, power=power, generator=torch.Generator().manual_seed(0))
    assert torch.equal(state, torch.get_rng_state())
    part = (((t - 100) / 800).double() ** (1 / power) * 40).floor().long()
    assert part.sort().values.tolist() == list(range(40))
    assert part.tolist() != list(range(40))
