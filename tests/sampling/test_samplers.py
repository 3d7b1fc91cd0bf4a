"""The seam of samplers: targets, the sampler that runs a scheduler, reports, and samplers of one's own."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import attrs
import pytest
import torch
from torch import Tensor

from energycomp import Composer
from energycomp.components import Composition, Mixture, predict
from energycomp.components.space import timestep_of
from energycomp.denoisers import count_rows
from energycomp.errors import CompositionError, InputError, NotFoundError
from energycomp.plugins import find, register
from energycomp.sampling import (
    Level,
    Run,
    Sampled,
    Sampler,
    SamplingReport,
    SchedulerSampler,
    Steps,
    Target,
    draw_samples,
    make_scheduler,
    sample,
)
from energycomp.testing import Gaussian, bumps_model, tiny_model
from energycomp_lab.checks import ConformanceError, check_sampler


def drawn(composer: Composer, **options: Any) -> Tensor:
    options = {"n": 2, "num_inference_steps": 4, "output_type": "latent", "progress": False, "generator": 0} | options
    samples: Tensor = composer.sample(**options)
    return samples


@pytest.mark.parametrize("scheduler", [None, "DDIMScheduler", "ddpm", "EulerAncestralDiscreteScheduler"])
def test_the_default_is_the_loop_of_the_scheduler_bit_for_bit(scheduler: str | None) -> None:
    model = bumps_model()
    composer = Composer([model(0.3, 0.3), model(0.7, 0.6)])
    space = composer.noised_space
    made = make_scheduler(scheduler, space.alphas_cumprod, prediction_type="sample", value_range=(-1.0, 1.0))

    def predicted(x: Tensor, t: Tensor, kind: Any) -> Tensor:
        return predict(composer.composition, x, t, prediction_type=kind)

    with torch.no_grad():
        loop = sample(predicted, (2, *space.sample_shape), made, num_inference_steps=4, generator=0, progress=False)
    ways = [{"scheduler": scheduler}, {"sampler": SchedulerSampler(scheduler)}]
    for way in [*ways, {"sampler": "scheduler"}] if scheduler is None else ways:
        assert torch.equal(drawn(composer, **way), loop)


def test_samplers_that_are_refused() -> None:
    with pytest.raises(NotFoundError, match=r"No sampler is named 'nobody'.*Known samplers: .*scheduler"):
        drawn(Composer(Gaussian()), sampler="nobody")
    with pytest.raises(InputError, match="Expected a sampler: an object, or one of the registered names"):
        drawn(Composer(Gaussian()), sampler=3)
    with pytest.raises(InputError, match="expected one of them"):
        drawn(Composer(Gaussian()), sampler="scheduler", scheduler="ddim")


@attrs.frozen
class Faulty:
    """Ancestral steps with one fault, or none."""

    fault: str = ""

    def start(self, run: Run, /) -> Steps:
        if self.fault == "unseeded":
            torch.rand(1)
        return FaultySteps(self.fault, SchedulerSampler("ddpm").start(run))


@attrs.define(eq=False)
class FaultySteps(Steps):
    fault: str
    inner: Steps
    x: Tensor = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.x = self.inner.x

    @property
    def levels(self) -> Any:
        return [] if self.fault == "still" else self.inner.levels

    def step(self, level: Level, /) -> None:
        if self.fault != "deaf":
            self.inner.x = self.x
        self.inner.step(level)
        self.x = self.inner.x[None] if self.fault == "rank" else self.inner.x

    def finish(self) -> Sampled:
        changed = {
            "shape": torch.cat([self.x, self.x[:1]]),
            "wide": 1.3 * self.x,
            "shifted": self.x + 0.3,
            "nan": self.x * torch.nan,
            "deaf": self.inner.x,
        }
        return Sampled(changed.get(self.fault, self.x))


def test_a_sampler_of_ones_own() -> None:
    assert isinstance(Faulty(), Sampler)
    check_sampler(Faulty())
    register("samplers", "faulty", Faulty)
    composer = Composer(Gaussian(0.4, 0.25))
    assert torch.equal(drawn(composer, sampler="faulty"), drawn(composer, sampler=Faulty))
    assert torch.equal(drawn(composer, sampler="faulty"), drawn(composer, scheduler="ddpm"))
    assert find("samplers", "faulty")() == Faulty()


FAULTS = {
    "unseeded": "global random state", "shape": "expected .* return n samples", "wide": "variance", "shifted": "mean",
    "nan": "NaN", "still": "variance", "deaf": "other samples of Faulty than a callback returned",
    "rank": "of a wrong shape|shape",
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_the_check_finds_faults(fault: str) -> None:
    with pytest.raises(ConformanceError, match=FAULTS[fault]):
        check_sampler(Faulty(fault))


@attrs.frozen
class Adaptive:
    """Heun's method along the probability flow, with steps as long as its error allows.

    Notation: variable -> symbol
        sigma, ahead    sqrt(1 / alpha_bar - 1) at a level, and at the next one
        z               x / sqrt(alpha_bar), for which dz / dsigma = eps (Karras et al., 2022, Algorithm 1)
    """

    tolerance: float = 0.01

    def start(self, run: Run, /) -> AdaptiveSteps:
        return AdaptiveSteps(run, run.noise(), self.tolerance, run.levels[0])


@attrs.define(eq=False)
class AdaptiveSteps(Steps):
    run: Run
    x: Tensor
    tolerance: float
    level: Level  # of the next step
    share: float = 0.5  # of sigma that a step leaves
    rejected: int = 0

    @property
    def levels(self) -> Iterator[Level]:
        clean = float(self.run.target.noised_space.alphas_cumprod[0])
        for step in itertools.count():
            alpha = self.level.alpha  # where the last step led to, or where it began
            sigma = (1 / alpha - 1) ** 0.5 * self.share
            ahead = 1.0 if alpha >= clean else min(clean, 1 / (1 + sigma**2))
            self.level = Level(step, float(self.timestep(alpha)), alpha, ahead)
            yield self.level
            if ahead == 1.0:
                return

    def timestep(self, alpha: float) -> Tensor:
        snr = torch.logit(torch.tensor(alpha, dtype=torch.float64))
        return timestep_of(self.run.target.noised_space.alphas_cumprod, snr)

    def step(self, level: Level, /) -> None:
        target = self.run.target
        if level.is_last:
            self.x = target.compose(self.x, level.rows(self.x), prediction_type="sample")
            return
        sigma = (1 / level.alpha - 1) ** 0.5
        ahead = (1 / level.next_alpha - 1) ** 0.5
        # Euler's step.
        z = self.x / level.alpha**0.5
        slope = target.compose(self.x, level.rows(self.x))
        euler = z + (ahead - sigma) * slope
        # Heun's step: the mean of the slopes at both ends.
        end = self.timestep(level.next_alpha).expand(len(z))
        slope = (slope + target.compose(euler * level.next_alpha**0.5, end)) / 2
        heun = z + (ahead - sigma) * slope
        # Accept where both agree, and choose the length of the next step by their difference.
        error = float((heun - euler).square().mean().sqrt()) * level.next_alpha**0.5 / self.tolerance
        self.share = self.share ** min(2.0, max(0.2, 0.9 / max(error, 0.01) ** 0.5))
        if error > 1:
            self.rejected += 1
            return
        self.x = heun * level.next_alpha**0.5
        self.level = attrs.evolve(level, alpha=level.next_alpha)


def test_a_sampler_may_choose_its_steps() -> None:
    """The probability flow takes noise to mean + deviation * noise. Smaller errors take more steps."""
    target = Target(Composition.of(Gaussian(0.4, 0.25)))
    counts, errors = [], []
    for tolerance in (0.03, 0.003):
        run = Run(target, 200, num_inference_steps=7, generator=0)
        steps = Adaptive(tolerance).start(run)
        exact = 0.4 + 0.5 * steps.x
        timesteps: list[float] = []

        def callback(_: int, timestep: float, __: Any, seen: list[float] = timesteps) -> None:
            seen.append(timestep)

        begun: Any = SimpleNamespace(start=lambda _, steps=steps: steps)
        samples = draw_samples(begun, run, callback_on_step_end=callback, progress=False).samples
        errors.append(float((samples - exact).abs().max()))
        counts.append(len(timesteps))
        assert timesteps == sorted(timesteps, reverse=True)
        assert len(timesteps) - len(set(timesteps)) == steps.rejected  # a step that was rejected is taken again
    assert 7 < counts[0] < counts[1] < 200
    assert steps.rejected
    assert errors[1] < min(0.02, errors[0] / 4)


def test_a_callback_ends_the_run_of_any_sampler() -> None:
    """Also where nobody knows how many steps there are."""
    check_sampler(Adaptive())
    seen: list[int] = []

    def callback(step: int, _: Any, __: dict[str, Tensor]) -> dict[str, Any]:
        seen.append(step)
        return {"stop": step == 2}

    assert drawn(Composer(Gaussian()), sampler=Adaptive(), callback_on_step_end=callback).shape == (2, 1, 1, 1)
    assert seen == [0, 1, 2]


def test_leaves_are_predicted_in_one_batch() -> None:
    model = tiny_model()
    a, b = model(0.2, 0.2), model(0.7, 0.7)
    target = Target(2 * a - b)
    x, t = torch.randn(3, 3, 16, 16), torch.tensor([100.0, 500.0, 900.0])
    calls: list[int] = []
    model.denoiser.network.base.register_forward_hook(lambda _module, given, _made: calls.append(len(given[0])))
    with count_rows() as spent, torch.no_grad():
        leaves = target.predict(x, t)
    assert (spent.rows, spent.trunks, calls) == (6, 3, [3])
    with torch.no_grad():
        torch.testing.assert_close(leaves, torch.stack([a.eps(x, t), b.eps(x, t)]), rtol=0, atol=1e-5)
        torch.testing.assert_close(2 * leaves[0] - leaves[1], target.compose(x, t), rtol=0, atol=1e-5)
        x0 = target.predict(x, t, prediction_type="sample")
        torch.testing.assert_close(x0[0], predict(a, x, t, prediction_type="sample"), rtol=0, atol=1e-4)


def test_leaves_of_several_groups_keep_their_order_and_those_in_a_mixture_are_known() -> None:
    model = tiny_model()
    space = model.denoiser.noised_space
    g = Gaussian(0.3, sample_shape=space.sample_shape, space="pixels", value_range=space.value_range)
    a, b = model(0.2, 0.2), model(0.7, 0.7)
    x, t = torch.randn(2, 3, 16, 16), torch.full((2,), 500.0)
    with torch.no_grad():
        for leaf, one in zip((a, g, b), Target(a + g + b).predict(x, t), strict=True):
            torch.testing.assert_close(one, leaf.eps(x, t), rtol=0, atol=1e-5)
    target = Target(a | b)
    assert (target.groups, target.device) == ([model.denoiser], model.denoiser.device)
    assert isinstance(next(iter(target.composition.terms)), Mixture)


def test_energies_of_leaves() -> None:
    a, b = Gaussian(0.5), Gaussian(-0.5)
    x, t = torch.randn(4, 1, 1, 1), torch.full((4,), 300.0)
    target = Target(a + b)
    with count_rows() as spent:
        assert torch.equal(target.energies(x, t), torch.stack([a.energy(x, t), b.energy(x, t)]))
    assert spent.rows == 8
    without = Target(tiny_model()(0.2, 0.2))
    with pytest.raises(CompositionError, match="no energy"):
        without.energies(torch.zeros(1, 3, 16, 16), torch.zeros(1))


def test_timesteps_are_those_of_the_default_scheduler() -> None:
    target = Target(Composition.of(Gaussian()))
    made = make_scheduler(None, target.noised_space.alphas_cumprod, prediction_type="epsilon")
    for steps in (1, 50, 1000):
        made.set_timesteps(steps)
        assert target.timesteps(steps).tolist() == made.timesteps.tolist()
    assert len(target.timesteps(7)) == 7  # where DDIM strides by whole timesteps
    assert float(target.timesteps(7).min()) >= 0
    with pytest.raises(InputError, match="expected 1 to 1000"):
        target.timesteps(1001)


def test_warnings_of_a_report() -> None:
    assert SamplingReport(1, ess=(1.0, 0.02), acceptance={900.0: 0.6}).warnings == ()
    (stuck,) = SamplingReport(1, acceptance={900.0: 0.6, 500.0: 0.01}).warnings
    assert "1 of 2 timesteps" in stuck
    assert SamplingReport(1, notes=("weights ended",)).warnings == ("weights ended",)
