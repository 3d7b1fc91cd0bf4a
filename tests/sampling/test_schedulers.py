"""The list of accepted schedulers is what a trial of every diffusers scheduler finds."""

from __future__ import annotations

import warnings
from typing import Any

import diffusers
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from torch import Tensor

from energycomp.components import flow_schedule
from energycomp.components.prediction import PREDICTION_TYPES
from energycomp.errors import CompositionError
from energycomp.sampling import make_scheduler, sample
from energycomp.sampling.flow import FLOW_SCHEDULERS, FlowScheduler
from energycomp.sampling.schedulers import (
    SCHEDULERS,
    VARIANCE_PRESERVING,
    WITHOUT_SAMPLE,
    _build,
    _has_schedule,
    _is_plain,
)

# Of few levels, since some classes look at each of them.
ALPHAS_CUMPROD = torch.cumprod(1 - torch.linspace(5e-4, 0.1, 200, dtype=torch.float64), 0)
M, S = 0.3, 0.5


def predict(x: Tensor, timestep: Tensor, prediction_type: str) -> Tensor:
    """The exact prediction for N(M, S^2)."""
    # Notation: a -> alpha_bar_t; x0 -> E[x_0 | x_t].
    a = ALPHAS_CUMPROD[timestep.round().long()][:, None, None, None]
    if bool((timestep % 1).any()):
        low, high = timestep.floor().long(), timestep.ceil().long()
        log_snr = torch.logit(ALPHAS_CUMPROD)
        a = torch.sigmoid(torch.lerp(log_snr[low], log_snr[high], (timestep % 1).double()))[:, None, None, None]
    residual = (x - a.sqrt() * M) / (a * S**2 + 1 - a)
    x0, eps = M + S**2 * a.sqrt() * residual, (1 - a).sqrt() * residual
    v = a.sqrt() * eps - (1 - a).sqrt() * x0
    return {"sample": x0, "epsilon": eps, "v_prediction": v, "flow": eps - x0}[prediction_type].to(x)


def samples_a_gaussian(cls: Any, prediction_type: str) -> bool:
    """Whether a class samples N(M, S^2) in 100 steps, without the global random state.

    The outcome also excludes classes that ignore their prediction type, replace the schedule (CogVideoX), are for
    distilled models (LCM, TCD), invert the process, or seed a Brownian tree from the global random state
    (DPMSolverSDE), so that no generator makes them repeatable.
    """
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before = torch.get_rng_state()
        try:
            if not issubclass(cls, SchedulerMixin):
                return False
            if prediction_type == "flow":
                inner = cls()
                if hasattr(inner, "alphas_cumprod"):  # it is variance preserving, or exploding
                    return False
                scheduler: Any = FlowScheduler(inner, ALPHAS_CUMPROD, own_levels=True)
            else:
                scheduler = _build(cls, ALPHAS_CUMPROD, prediction_type, None)
                if not (_is_plain(scheduler) and _has_schedule(scheduler, ALPHAS_CUMPROD)):
                    return False
            x = sample(
                predict,
                (1024, 1, 1, 1),
                scheduler,
                num_inference_steps=100,
                generator=torch.Generator().manual_seed(0),
                progress=False,
            )
        except Exception:  # a class that fails in any way is one that does not work
            return False
        repeatable = torch.equal(before, torch.get_rng_state())
    return repeatable and abs(float(x.mean()) - M) < 0.1 * S and abs(float(x.std()) - S) < 0.1 * S


OTHERS = {name for name in dir(diffusers) if name.endswith("Scheduler")} - {
    *SCHEDULERS,
    *WITHOUT_SAMPLE,
    *FLOW_SCHEDULERS,
}


@pytest.mark.parametrize("name", sorted(OTHERS))
def test_the_list_has_every_class_that_samples(name: str) -> None:
    """That those of the list do is in test_sampling.py."""
    assert [kind for kind in PREDICTION_TYPES if samples_a_gaussian(getattr(diffusers, name), kind)] == []


@pytest.mark.parametrize("name", WITHOUT_SAMPLE)
def test_classes_without_predictions_of_x0_have_none(name: str) -> None:
    found = [kind for kind in VARIANCE_PRESERVING if samples_a_gaussian(getattr(diffusers, name), kind)]
    assert found == ["epsilon", "v_prediction"]


def test_a_subclass_is_built_like_its_base() -> None:
    own = type("Own", (diffusers.DDIMScheduler,), {})
    scheduler = make_scheduler(own, ALPHAS_CUMPROD, prediction_type="sample")
    assert (type(scheduler), scheduler.config.prediction_type) == (own, "sample")


def test_a_flow_scheduler_of_another_schedule_is_refused_for_that() -> None:
    other = FlowScheduler(FlowMatchEulerDiscreteScheduler(), flow_schedule(), own_levels=True)
    with pytest.raises(CompositionError, match="got a FlowScheduler whose alphas_cumprod"):
        make_scheduler(other, ALPHAS_CUMPROD, prediction_type="sample")
