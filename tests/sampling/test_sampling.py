"""Every scheduler against a Gaussian, whose exact prediction is known in closed form."""

import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import diffusers
import pytest
import torch
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from torch import Tensor

from energycomp.components import flow_schedule
from energycomp.components.prediction import PREDICTION_TYPES, PredictionType
from energycomp.errors import CompositionError, InputError, NonFiniteError
from energycomp.sampling import compatible_schedulers, make_scheduler, sample
from energycomp.sampling.flow import FLOW_SCHEDULERS, FlowScheduler
from energycomp.sampling.schedulers import VARIANCE_PRESERVING, WITHOUT_SAMPLE, _build, _has_schedule, _is_plain
from energycomp.seeds import seeded

pytestmark = pytest.mark.usefixtures("one_thread")
M, S = 0.3, 0.5
T = 1000
SCHEDULES = {
    "cosine": diffusers.DDPMScheduler(num_train_timesteps=T, beta_schedule="squaredcos_cap_v2").alphas_cumprod,
    "linear": torch.cumprod(1 - torch.linspace(1e-4, 0.02, T, dtype=torch.float64), 0).float(),
    "scaled": torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, T, dtype=torch.float64) ** 2, 0).float(),
}
SCHEDULES["flow"] = flow_schedule()
COSINE = SCHEDULES["cosine"]
NAMES = compatible_schedulers()
# How far the standard deviation may be off after 10 and 50 steps, for solvers of first order and for the others.
FIRST_ORDER = {"DDIM", "DDPM", "DDIMParallel", "DDPMParallel", "EulerDiscrete", "EulerAncestralDiscrete"}
FIRST_ORDER |= {"FlowMatchEulerDiscrete", "LTXEulerAncestralRF"}
TOLERANCE = {10: (0.35, 0.28), 50: (0.12, 0.05)}
Predict = Callable[[Tensor, Tensor, str], Tensor]


def log_snr(alphas: Tensor, t: Tensor) -> Tensor:
    table = torch.logit(alphas.double())
    low = t.long().clamp(max=len(alphas) - 2)
    return torch.lerp(table[low], table[low + 1], t.double() - low)


def gaussian(alphas: Tensor, mean: float = M, std: float = S) -> Predict:
    """E[x0 | x_t] = m + s^2 sqrt(a) / (a s^2 + 1 - a) (x_t - sqrt(a) m), and eps and v from it."""

    def predict(x: Tensor, t: Tensor, kind: str) -> Tensor:
        assert t.shape == (len(x),)
        assert t.dtype == torch.float32
        snr = log_snr(alphas, t).view(-1, 1, 1, 1)
        a, b = torch.sigmoid(snr), torch.sigmoid(-snr)
        centred = (x - a.sqrt() * mean) / (a * std**2 + b)
        x0, eps = mean + std**2 * a.sqrt() * centred, b.sqrt() * centred
        v = a.sqrt() * eps - b.sqrt() * x0
        return {"sample": x0, "epsilon": eps, "v_prediction": v, "flow": eps - x0}[kind].to(x)

    return predict


def watched(alphas: Tensor) -> tuple[Predict, list[float]]:
    """The same, and a list of the timesteps that it is asked for."""
    seen: list[float] = []

    def predict(x: Tensor, t: Tensor, kind: str) -> Tensor:
        seen.append(float(t[0]))
        return gaussian(alphas)(x, t, kind)

    return predict, seen


@cache
def built(name: str, schedule: str, kind: str, value_range: tuple[float, float] | None = None) -> Any:
    """A scheduler, which several tests use in turn: some classes take half a second to build."""
    return make_scheduler(name, SCHEDULES[schedule], prediction_type=kind, value_range=value_range)


def run(predict: Predict, shape: tuple[int, ...], scheduler: Any, steps: int = 50, **options: Any) -> Tensor:
    """Samples by a scheduler, or by one that is made by its name for the cosine schedule and predictions of x0."""
    if isinstance(scheduler, str):
        scheduler = make_scheduler(scheduler, COSINE, prediction_type="sample")
    options = {"num_inference_steps": steps, "generator": seeded(0), "progress": False} | options
    return sample(predict, shape, scheduler, **options)


# Every scheduler with each kind of prediction and each schedule, but not with each pair of them.
PAIRS = [("linear", "v_prediction"), ("cosine", "epsilon"), ("cosine", "sample"), ("flow", "flow")]


@pytest.mark.parametrize(("schedule", "kind"), PAIRS)
@pytest.mark.parametrize("name", NAMES)
def test_samples_the_gaussian(name: str, schedule: str, kind: str) -> None:
    alphas, scheduler = SCHEDULES[schedule], built(name, schedule, kind)
    own = ("flow",) if name in FLOW_SCHEDULERS else (kind, "v_prediction")
    if name == "PNDMScheduler":
        own = ("epsilon" if schedule == "linear" else "v_prediction",)
    assert scheduler.config.prediction_type in own
    for steps, tolerances in TOLERANCE.items():
        x = run(gaussian(alphas), (1024, 1, 1, 2), scheduler, steps)
        # x_T is drawn with mean 0 instead of sqrt(alpha_bar_T) m, so that the mean is off by m s sqrt(alpha_bar_T).
        assert abs(float(x.mean()) - M) < 0.05 + M * S * float(alphas[-1]) ** 0.5
        tolerance = tolerances[0 if name.removesuffix("Scheduler") in FIRST_ORDER else 1]
        assert float(x.std()) == pytest.approx(S, rel=tolerance)


@pytest.mark.parametrize("kind", ["epsilon", "sample", "v_prediction"])
def test_pndm_averages_noise_but_on_a_schedule_that_ends_in_noise(kind: PredictionType) -> None:
    """Of data of mean 1 and deviation 0.1 averages of v make the mean 0.983 in 20 steps."""
    made = {name: make_scheduler("pndm", SCHEDULES[name], prediction_type=kind) for name in SCHEDULES}
    noise, v = ("epsilon", "v_prediction")
    expected = {"cosine": v, "linear": noise, "scaled": noise, "flow": v}
    assert {name: scheduler.config.prediction_type for name, scheduler in made.items()} == expected
    x = run(gaussian(SCHEDULES["linear"], 1.0, 0.1), (1024, 1, 1, 1), made["linear"], 20)
    assert float(x.mean()) == pytest.approx(1.0, abs=0.005)


def test_pndm_that_averages_noise_of_a_schedule_that_ends_in_noise_is_refused() -> None:
    noisy = diffusers.PNDMScheduler(beta_schedule="squaredcos_cap_v2", skip_prk_steps=True)
    with pytest.raises(InputError, match=r"got a PNDMScheduler with the prediction type 'epsilon'.*'v_prediction'"):
        make_scheduler(noisy, COSINE, prediction_type="epsilon")


@pytest.mark.parametrize("name", ["DDIMScheduler", "DDPMScheduler", "HeunDiscreteScheduler"])
def test_clips_to_the_value_range(name: str) -> None:
    """The data are at 3, so that x0 is clipped to every bound below it."""
    for value_range, expected in (((-1.0, 1.0), 1.0), ((-2.5, 2.5), 2.5), ((-8.0, 8.0), 3.0), (None, 3.0)):
        scheduler = make_scheduler(name, COSINE, prediction_type="sample", value_range=value_range)
        x = run(lambda x, t, kind: torch.full_like(x, 3.0), (2, 1, 1, 1), scheduler, 20)
        assert x.flatten().tolist() == pytest.approx([expected] * 2, abs=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_repeatable_independent_of_the_batch_and_of_one_prediction_per_timestep(name: str) -> None:
    scheduler = built(name, "cosine", "sample", (-1.0, 1.0))
    rows: list[int] = []

    def predict(x: Tensor, t: Tensor, kind: str) -> Tensor:
        rows.append(len(x))
        return gaussian(COSINE)(x, t, kind)

    def drawn(*seeds: int) -> Tensor:
        shape = (len(seeds), 1, 2, 2)
        return run(predict, shape, scheduler, 12, generator=[seeded(seed) for seed in seeds])

    state = torch.get_rng_state()
    batch = drawn(1, 2, 3)
    assert torch.equal(state, torch.get_rng_state())
    second_order = "Heun" in name or "KDPM2" in name
    assert rows == [3] * (2 * 12 - 1 if second_order else 13 if name == "PNDMScheduler" else 12)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        assert torch.equal(batch, drawn(1, 2, 3))
    torch.testing.assert_close(batch, torch.cat([drawn(1), drawn(2), drawn(3)]), rtol=0, atol=1e-5)
    assert not torch.allclose(batch[0], batch[1])


OTHERS = sorted({name for name in dir(diffusers) if name.endswith("Scheduler")} - set(NAMES))
FEW = torch.cumprod(1 - torch.linspace(5e-4, 0.1, 200, dtype=torch.float64), 0)  # some classes look at each level


def samples_the_gaussian(cls: Any, kind: str) -> bool:
    """Whether a class samples N(M, S^2) in 100 steps, without the global random state.

    The outcome also excludes classes that ignore their prediction type, replace the schedule (CogVideoX), are for
    distilled models (LCM, TCD), invert the process, or seed a Brownian tree from the global random state
    (DPMSolverSDE), so that no generator makes them repeatable.
    """
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before = torch.get_rng_state()
        try:
            if kind == "flow":
                inner = cls()
                usable = not hasattr(inner, "alphas_cumprod")  # else it is variance preserving, or exploding
                scheduler: Any = FlowScheduler(inner, FEW, own_levels=True)
            else:
                scheduler = _build(cls, FEW, kind, None)
                usable = _is_plain(scheduler) and _has_schedule(scheduler, FEW)
            if not (usable and issubclass(cls, SchedulerMixin)):
                return False
            x = run(gaussian(FEW), (1024, 1, 1, 1), scheduler, 100)
        except Exception:  # a class that fails in any way is one that does not work
            return False
        repeatable = torch.equal(before, torch.get_rng_state())
    return repeatable and abs(float(x.mean()) - M) < 0.1 * S and abs(float(x.std()) - S) < 0.1 * S


@pytest.mark.parametrize("name", OTHERS)
def test_every_other_scheduler_is_refused_and_would_not_sample(name: str) -> None:
    with pytest.raises(InputError, match=r"does not sample from a composition.*Use one of .*DDIMScheduler"):
        make_scheduler(name, COSINE, prediction_type="epsilon")
    assert [kind for kind in PREDICTION_TYPES if samples_the_gaussian(getattr(diffusers, name), kind)] == []


@pytest.mark.parametrize("name", WITHOUT_SAMPLE)
def test_classes_without_predictions_of_x0_would_not_sample_from_them(name: str) -> None:
    found = [kind for kind in VARIANCE_PRESERVING if samples_the_gaussian(getattr(diffusers, name), kind)]
    assert found == ["epsilon", "v_prediction"]


def test_compatible_schedulers_cover_the_common_ones() -> None:
    common = "DDIM DDPM DPMSolverMultistep EulerDiscrete EulerAncestralDiscrete HeunDiscrete KDPM2Discrete LMSDiscrete"
    assert {f"{name}Scheduler" for name in (*common.split(), "PNDM", "UniPCMultistep")} <= set(NAMES)
    assert not {"LCMScheduler", "TCDScheduler", "DDIMInverseScheduler", "FlowMatchLCMScheduler"} & set(NAMES)


OWN = type("Own", (diffusers.DDIMScheduler,), {})
DDIMS = ["ddim", "DDIM", "ddimscheduler", "DDIMScheduler", None, diffusers.DDIMScheduler, OWN]


@pytest.mark.parametrize("given", DDIMS)
def test_names_and_classes(given: str | type | None) -> None:
    scheduler = make_scheduler(given, COSINE, prediction_type="sample", value_range=(-1.0, 1.0))
    assert type(scheduler) is (OWN if given is OWN else diffusers.DDIMScheduler)
    assert scheduler.config.clip_sample
    assert scheduler.config.prediction_type == "sample"


@pytest.mark.parametrize("schedule", ["cosine", "scaled"])
@pytest.mark.parametrize("name", NAMES)
def test_schedule_is_reproduced(name: str, schedule: str) -> None:
    alphas, scheduler = SCHEDULES[schedule], built(name, schedule, "epsilon")
    kept = len(scheduler.alphas_cumprod)
    torch.testing.assert_close(scheduler.alphas_cumprod, alphas[:kept], rtol=1e-3, atol=1e-6)
    assert kept == T or (T - kept < 10 and float(alphas[kept]) < 2e-4)
    assert make_scheduler(scheduler, alphas, prediction_type="epsilon") is scheduler


@pytest.mark.parametrize("name", NAMES)
def test_zero_terminal_snr(name: str) -> None:
    root = SCHEDULES["scaled"].double().sqrt()
    alphas = ((root - root[-1]) * root[0] / (root[0] - root[-1])).square()
    scheduler = make_scheduler(name, alphas, prediction_type="v_prediction")
    x = run(gaussian(alphas.clamp(min=1e-12)), (512, 1, 1, 2), scheduler, 25)
    assert (float(x.mean()), float(x.std())) == pytest.approx((M, S), abs=0.1)


def test_fractional_timesteps_are_interpolated_in_log_snr() -> None:
    betas = make_scheduler("ddim", SCHEDULES["scaled"], prediction_type="epsilon").betas.tolist()
    karras = diffusers.EulerDiscreteScheduler(trained_betas=betas, use_karras_sigmas=True)
    assert make_scheduler(karras, SCHEDULES["scaled"], prediction_type="epsilon") is karras
    predict, seen = watched(SCHEDULES["scaled"])
    x = run(predict, (4096, 1, 1, 2), karras, 30)
    assert any(t % 1 for t in seen)
    karras.set_timesteps(30)
    sigma = torch.exp(-log_snr(SCHEDULES["scaled"], torch.tensor(seen)) / 2)
    torch.testing.assert_close(sigma, karras.sigmas[:-1].double(), rtol=1e-3, atol=1e-4)
    assert (float(x.mean()), float(x.std())) == pytest.approx((M, S), abs=0.05)


@pytest.mark.parametrize("name", ["DDIMScheduler", "DPMSolverMultistepScheduler", "EulerDiscreteScheduler"])
def test_counts_that_trailing_timesteps_round_wrongly(name: str) -> None:
    predict, seen = watched(SCHEDULES["scaled"])
    x = run(predict, (2048, 1, 1, 2), make_scheduler(name, SCHEDULES["scaled"], prediction_type="sample"), 61)
    assert len(seen) == 61
    assert min(seen) >= 0
    assert (float(x.mean()), float(x.std())) == pytest.approx((M, S), abs=0.04)


def test_initial_replaces_the_noise() -> None:
    initial = torch.linspace(-2, 2, 6).view(6, 1, 1, 1)
    x = run(gaussian(COSINE), initial.shape, "dpmsolvermultistep", initial=initial)
    torch.testing.assert_close(x, M + S * initial, rtol=0, atol=0.02)  # the flow of a Gaussian is affine


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_dtype(dtype: torch.dtype) -> None:
    x = run(gaussian(COSINE), (256, 1, 1, 1), "unipcmultistep", dtype=dtype)
    assert x.dtype == dtype
    assert (float(x.mean()), float(x.std())) == pytest.approx((M, S), abs=0.1)


def test_without_a_generator_samples_differ_and_the_global_state_stays() -> None:
    state = torch.get_rng_state()
    first, second = (run(gaussian(COSINE), (1, 1, 1, 4), "ddpm", 5, generator=None) for _ in range(2))
    assert not torch.equal(first, second)
    assert torch.equal(state, torch.get_rng_state())


def test_callback_sees_every_step_and_may_replace_the_sample() -> None:
    steps: list[tuple[int, float]] = []

    def callback(step: int, timestep: float, tensors: dict[str, Tensor]) -> dict[str, Tensor] | None:
        steps.append((step, timestep))
        return {"sample": torch.full_like(tensors["sample"], 9.0)} if step == 3 else None

    x = run(gaussian(COSINE), (2, 1, 1, 1), "ddim", 4, callback_on_step_end=callback)
    assert steps == [(0, 999.0), (1, 749.0), (2, 499.0), (3, 249.0)]
    assert torch.equal(x, torch.full((2, 1, 1, 1), 9.0))


def test_not_finite_names_the_step() -> None:
    def named(x: Tensor, t: Tensor, kind: str) -> Tensor:
        raise NonFiniteError("red_cube predicted NaN.")

    def late(x: Tensor, t: Tensor, kind: str) -> Tensor:
        return torch.full_like(x, float("nan")) if t[0] < 500 else x

    endless: dict[str, Any] = {
        "callback_on_step_end": lambda step, t, tensors: {"sample": torch.full_like(tensors["sample"], torch.inf)}
    }
    for predict, options, said in (
        (late, {}, r"prediction holds 4 values.* in step 6 of 10 \(timestep 499\)"),
        (named, {}, r"red_cube predicted NaN\. It happened in step 1 of 10"),
        (lambda x, t, kind: torch.full_like(x, 3e38), endless, r"that DDIMScheduler made holds.* in step 2 of 10"),
    ):
        with pytest.raises(NonFiniteError, match=said):
            run(predict, (1, 1, 2, 2), "ddim", 10, **options)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ("euler", InputError, r"got 'euler'.*Did you mean EulerAncestralDiscreteScheduler or EulerDiscreteScheduler\?"),
        ("nonsense", InputError, "got 'nonsense', expected one of .*DDIMScheduler"),
        (int, InputError, "int does not sample"),
        (diffusers.DDIMScheduler(), CompositionError, r"got a DDIMScheduler whose alphas_cumprod fall from 0.9999"),
        (diffusers.DDIMScheduler(num_train_timesteps=10), CompositionError, "in 10 timesteps, expected"),
        (3, InputError, "int does not sample from a composition"),
        (
            FlowScheduler(diffusers.FlowMatchEulerDiscreteScheduler(), flow_schedule(), own_levels=True),
            CompositionError,
            "got a FlowScheduler whose alphas_cumprod",
        ),
    ],
)
def test_schedulers_that_do_not_fit(given: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make_scheduler(given, COSINE, prediction_type="epsilon")


def test_bad_schedules_and_prediction_types() -> None:
    with pytest.raises(InputError, match="prediction_type: got 'score'"):
        make_scheduler(None, COSINE, prediction_type="score")
    for alphas in (COSINE.flip(0), COSINE[None], COSINE + 1, COSINE[:0], torch.full_like(COSINE, float("nan"))):
        with pytest.raises(InputError, match="alphas_cumprod: got shape"):
            make_scheduler(None, alphas, prediction_type="epsilon")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_inference_steps": 0}, "got 0, expected 1 to 1000"),
        ({"num_inference_steps": 1001}, "got 1001, expected 1 to 1000"),
        ({"num_inference_steps": 2.5}, "got 2.5, expected 1 to 1000"),
        ({"num_inference_steps": 600}, "DDIMScheduler then steps by 1 instead of 1.67 timesteps; use 500"),
        ({"generator": [torch.Generator()]}, "got a list of 1, expected one generator or 2"),
        ({"initial": torch.zeros(2, 1, 1, 2)}, r"initial: got shape \(2, 1, 1, 2\), expected \(2, 1, 1, 1\)"),
        ({"shape": (2,)}, r"shape: got \(2,\), expected \(B, C, H, W\)"),
        ({"shape": (2.0, 1, 1, 1)}, r"shape: got \(2.0, 1, 1, 1\), expected \(B, C, H, W\)"),
        ({"predict": lambda x, t, kind: x[:1]}, r"predict: got \(1, 1, 1, 1\), expected \(2, 1, 1, 1\)"),
    ],
)
def test_bad_arguments(options: dict[str, object], message: str) -> None:
    arguments: Any = {"predict": gaussian(COSINE), "shape": (2, 1, 1, 1), "scheduler": "ddim"}
    with pytest.raises(InputError, match=message):
        run(**(arguments | options))
