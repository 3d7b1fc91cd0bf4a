"""Operators that are not linear, against quadrature, and what samplers say of samples that do not fit what was seen."""

import math
from collections.abc import Callable
from typing import Any

import attrs
import pytest
import torch
from torch import Tensor

from energycomp import Composer, per_sample
from energycomp.components import predict
from energycomp.errors import InputError
from energycomp.sampling import Run, Target
from energycomp.seeds import seeded
from energycomp.testing import Gaussian
from energycomp_samplers import observe, pool
from energycomp_samplers.curved import fit_line, points_of
from energycomp_samplers.gauss import Gauss
from energycomp_samplers.smc import SMC
from energycomp_samplers.weighing import Weighing

ONE = torch.ones(1)


def standard(size: int = 1) -> Gaussian:
    return Gaussian(0.0, 1.0, sample_shape=(size,))


def kink(z: Tensor) -> Tensor:
    return torch.where(z < 0, -z, 5.0 * z)


def power(z: Tensor) -> Tensor:
    return z**3


CASES: dict[str, tuple[Callable[[Tensor], Tensor], float, float, float]] = {  # f, y, std, and P(z < 0) by quadrature
    "kink 0.02": (kink, 1.0, 0.02, 0.756),
    "kink 0.05": (kink, 1.0, 0.05, 0.756),
    "kink 0.1": (kink, 1.0, 0.1, 0.756),
    "sine 0.02": (lambda z: torch.sin(3.0 * z), 0.5, 0.02, 0.266),
    "sine 0.1": (lambda z: torch.sin(3.0 * z), 0.5, 0.1, 0.266),
    "cubic 0.02": (lambda z: z**3 - 2.0 * z, 0.5, 0.02, 0.917),
}


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("name", CASES)
def test_modes_of_an_operator_that_is_not_linear_have_their_shares(name: str, seed: int, drawn: Any) -> None:
    f, y, std, share = CASES[name]
    x, report = drawn(standard() & observe(f, [y], std), SMC(), 2000, 50, generator=seed)
    assert float((x < 0).double().mean()) == pytest.approx(share, abs=0.05)
    assert abs(float((x < 0).double().mean()) - share) < 4.0 * report.share_error
    assert report.warnings == ()


def test_a_ring_is_seen_from_all_sides(drawn: Any) -> None:
    """|z|^2 = 2 in the plane: all angles are alike."""
    x, report = drawn(standard(2) & observe(lambda z: z.square().sum(1, keepdim=True), [2.0], 0.02), SMC(), 2000)
    quarters = torch.stack([((x > 0) == torch.tensor(signs)).all(1) for signs in ([1, 1], [1, 0], [0, 1], [0, 0])])
    assert float((quarters.double().mean(1) - 0.25).abs().max()) < 0.06
    assert report.warnings == ()


@pytest.mark.parametrize("steps", [20, 100])
@pytest.mark.parametrize("std", [0.3, 0.05, 0.005])
def test_samples_are_as_wide_as_the_posterior_however_few_the_steps(std: float, steps: int, drawn: Any) -> None:
    x, report = drawn(standard() & observe(ONE, [0.5], std), SMC(), 4000, steps)
    assert float(x.std()) * (1.0 + std**-2) ** 0.5 == pytest.approx(1.0, abs=0.05)
    assert report.is_drawn
    assert report.warnings == ()


def test_samples_that_end_at_a_mean_are_too_near_to_each_other_and_the_cure_is_named(drawn: Any) -> None:
    seen = standard() & observe(ONE, [0.5], 0.05)
    for sampler in (None, "gauss", SMC(last="mean")):
        x, report = drawn(seen, sampler, 1000, 20)
        assert float(x.std()) / 0.05 < 0.6
        better = "SMC(last='draw')" if isinstance(sampler, SMC) else "Gauss(last='draw')"
        assert [better in note for note in report.warnings] == [True]
        assert "too near to each other, about 0.48 of their distance" in report.warnings[0]
    # A draw, one sample alone, enough steps, and what is surer than the noise of the last level need none
    for scene, sampler, n, steps in (
        (seen, Gauss(last="draw"), 1000, 20),
        (seen, None, 1, 20),
        (seen, None, 100, 500),
        (Gaussian(0.5, 1e-4, sample_shape=(1,)) & observe(ONE, [0.5], 0.05), None, 100, 20),
    ):
        assert drawn(scene, sampler, n, steps)[1].warnings == ()


def test_samples_that_miss_are_said_and_the_sampler_that_is_named_has_none(drawn: Any) -> None:
    seen = standard() & observe(power, [0.5], 0.1)

    def beyond(x: Tensor) -> float:
        return float(((power(x) - 0.5).abs() > 0.4).double().mean())

    for sampler in (None, "gauss"):
        x, report = drawn(seen, sampler, 2000, 200)
        assert beyond(x) > 0.05
        assert any("miss the observation" in note and "use sampler='smc'" in note for note in report.warnings)
    x, report = drawn(seen, "smc", 2000, 50)
    assert beyond(x) < 0.01
    assert report.warnings == ()


def test_without_a_report_it_is_a_warning_of_python() -> None:
    seen = standard() & observe(power, [0.5], 0.1)
    with pytest.warns(UserWarning, match="miss the observation") as caught:
        Composer(seen).sample(500, num_inference_steps=100, output_type="latent", generator=0, progress=False)
    assert caught[0].filename == __file__


def test_an_observation_that_the_components_contradict_is_said(drawn: Any) -> None:
    x, report = drawn(standard() & observe(ONE, [9.0], 1.0), SMC(), 1000)
    assert float(x.mean()) == pytest.approx(4.5, abs=0.2)
    assert any("unless the components contradict y" in note for note in report.warnings)


def test_what_was_not_seen_is_not_missed(drawn: Any) -> None:
    """One of 64 numbers is seen, far away: the others have no residual that would hide it."""
    mask = torch.zeros(1, 8, 8)
    mask[0, 0, 0] = 1.0
    scene = Gaussian(0.0, 1.0, sample_shape=(1, 8, 8)) & observe(mask, 9.0 * mask, 1.0)
    _, report = drawn(scene, Gauss(last="draw"), 50, 10)
    assert any("miss the observation" in note for note in report.warnings)


def test_each_sample_is_compared_with_its_own_observation(drawn: Any) -> None:
    scenes = [standard() & observe(ONE, [y], 0.1, variance=1.0) for y in (-1.0, 1.0)]
    assert not any("miss" in note for note in drawn(per_sample(scenes), None, 2, 500)[1].warnings)


def test_shares_that_are_unsure_are_said(drawn: Any) -> None:
    """Eight numbers of exp(z): 94 of 2,000 particles are left, and their shares are off by 0.04 each."""
    y = torch.linspace(0.3, 3.0, 8)
    _, report = drawn(standard(8) & observe(torch.exp, y, 0.2), SMC(), 2000)
    assert report.share_error > 0.022
    assert any("may be off by 0.0" in note and "use more particles" in note for note in report.warnings)


def test_the_error_of_a_share_is_that_of_the_first_particles() -> None:
    n = 400
    run = Run(Target(standard()), n, num_inference_steps=2, generator=0)
    weighing = Weighing(SMC(), run, torch.zeros(1, n, dtype=torch.float64))
    z = torch.randn(n, 1, generator=seeded(0))
    assert weighing.share_error(z) is None  # the weights go on
    weighing.ended = torch.ones(1, dtype=torch.bool)
    assert weighing.share_error(z) == pytest.approx((0.25 / n) ** 0.5, rel=0.01)  # each its own first particle
    weighing.ancestors = torch.arange(n)[None] // 4
    assert weighing.share_error(z.repeat_interleave(4, 0)[:n]) == pytest.approx((0.25 / (n / 4)) ** 0.5, rel=0.02)
    assert attrs.evolve(weighing, options=SMC(particles=2)).share_error(z) is None


def test_the_line_of_a_linear_function_is_that_function() -> None:
    matrix = torch.randn(3, 4, generator=seeded(0))
    centre = torch.randn(5, 4, generator=seeded(1))
    line = fit_line(lambda z: z @ matrix.T + 2.0, centre, points_of(4, 8)[:, None].expand(8, 5, 4))
    assert torch.allclose(line.matrix, matrix.double().expand(5, 3, 4), atol=1e-5)
    assert float(line.curvature.max()) < 1e-10
    assert torch.allclose(line.at(torch.zeros(5, 4)), torch.full((5, 3), 2.0).double(), atol=1e-5)


def test_the_line_of_a_curve_has_the_slope_and_the_variance_of_its_mean() -> None:
    """sin(a z) of N(0, 1): E[f'] = a exp(-a^2 / 2), Var[f] = (1 - exp(-2 a^2)) / 2."""
    a = 1.2
    line = fit_line(lambda z: torch.sin(a * z), torch.zeros(1, 1), points_of(1, 64)[:, None])
    slope = a * math.exp(-(a**2) / 2)
    assert float(line.matrix) == pytest.approx(slope, abs=0.02)
    assert float(line.curvature) == pytest.approx((1 - math.exp(-2 * a**2)) / 2 - slope**2, abs=0.02)


def test_a_function_with_a_domain_is_followed_by_its_derivative_at_its_edge() -> None:
    """log(z) is not finite at points below 0: only the sample near 0 is left to its derivative."""
    centre = torch.tensor([[0.5], [9.0]])
    line = fit_line(torch.log, centre, points_of(1, 16)[:, None].expand(16, 2, 1))
    assert bool(line.matrix.isfinite().all())
    assert float(line.matrix[0]) == pytest.approx(2.0)
    assert float(line.curvature[0]) == 0.0
    assert float(line.curvature[1]) > 0.0


def test_operators_of_many_numbers_are_followed_by_their_derivative() -> None:
    """As the pair that they are: a function that is linear needs no fit."""
    prior = Gaussian(0.3, 0.5, sample_shape=(1, 16, 16))
    y = torch.randn(1, 8, 8, generator=seeded(0))
    x, t = torch.ones(2, 1, 16, 16), torch.full((2,), 500.0)
    one, other = (predict(prior & observe(a, y, 0.1), x, t) for a in (pool(2), lambda z: pool(2).forward(z)))
    assert torch.allclose(one, other, atol=1e-3)


def test_the_last_option_is_one_of_two() -> None:
    with pytest.raises(InputError, match="last"):
        SMC(last="median")  # type: ignore[arg-type]
