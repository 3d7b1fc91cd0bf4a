"""A composition as a guider of diffusers: what it takes, and its weights in the loop of a flow."""

import copy
import subprocess
import sys
from typing import Any

import attrs
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from energycomp import Composer, during, per_sample, ramp, region
from energycomp.components import Composition, Condition, flow_schedule, predict, timestep_of
from energycomp.denoisers import Conditional
from energycomp.errors import InputError
from energycomp.testing import tiny_model
from energycomp_text.guider import CompositionGuider

STEPS = 5
SHIFT = 3.0


def leaves() -> tuple[Any, Any, Any]:
    model = tiny_model()
    return model(0.2, 0.2), model(0.8, 0.7), model.unconditional


def flow_leaves() -> tuple[Any, Any, Any]:
    model = tiny_model(prediction_type="flow")
    denoiser = attrs.evolve(model.denoiser, alphas_cumprod=flow_schedule(shift=SHIFT))
    a, b = (Conditional(denoiser, model(*place).condition) for place in ((0.2, 0.2), (0.8, 0.7)))
    return a, b, denoiser.unconditional


@pytest.mark.parametrize("case", ["one after another", "ramp"])
def test_parts_of_the_trajectory_of_a_shifted_flow(case: str) -> None:
    """The timesteps of its scheduler are noise levels, and not indices of the schedule."""
    a, b, u = flow_leaves()
    composition = during(until=0.4) * a & during(from_=0.4) * b
    if case == "ramp":
        composition = (1 + 2 * ramp(0.1, 0.9)) * a & u
    scheduler = FlowMatchEulerDiscreteScheduler(shift=SHIFT)
    noise = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    spent: list[Any] = []
    expected = Composer(composition).sample(
        generator=0, num_inference_steps=STEPS, scheduler=scheduler, output_type="latent", progress=False,
        report=spent.append,
    )  # fmt: skip
    guider, x, calls = CompositionGuider(composition), noise, 0
    own = copy.deepcopy(scheduler)
    own.set_timesteps(STEPS)
    for i, t in enumerate(own.timesteps):
        guider.set_state(step=i, num_inference_steps=STEPS, timestep=t)
        states, level = guider.prepare_inputs({"prompt_embeds": (None, None)}), t.double() / 1000
        length = ((1 - level) ** 2 + level**2).sqrt().float()
        at = timestep_of(a.noised_space.alphas_cumprod, -2 * torch.logit(level)).float().reshape(1)
        for state in states:
            leaf = next(leaf for leaf in (a, b, u) if _named(guider, leaf) == getattr(state, guider._identifier_key))
            with torch.no_grad():
                state.noise_pred = predict(Composition.of(leaf), x / length, at, prediction_type="flow")
            calls += 1
        x = own.step(guider(states)[0], t, x, return_dict=False)[0]
    assert float((x - expected).abs().max() / expected.abs().max()) < 1e-5
    assert calls == spent[0].evaluations


def _named(guider: Any, leaf: Any) -> str | None:
    name: str | None = guider._names.get(id(leaf))
    return name


def test_it_can_be_the_first_import() -> None:
    """Guiders of diffusers need torch's compiler, which other imports of diffusers leave out."""
    slow = "import sys; sys.modules.update(peft=None, transformers=None)"  # which diffusers imports if they are there
    code = f"{slow}; from energycomp_text.guider import CompositionGuider"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_mass_is_looked_at_in_the_pixels_of_the_sample() -> None:
    """A checkerboard is one half in coarser pixels."""
    a, _, u = leaves()
    board = (torch.arange(16)[:, None] + torch.arange(16)) % 2
    with pytest.raises(InputError, match="expected mass 1 everywhere"):
        CompositionGuider(region(board.float()) * (2 * a))
    guider = CompositionGuider(region(board.float()) * (2 * a) & u)
    guider.set_state(step=0, num_inference_steps=STEPS, timestep=torch.tensor(999))
    assert guider.num_conditions == 2


def test_tokens_have_no_regions() -> None:
    a, b, _ = leaves()
    for composition, fits in ((a & b, True), (region("left half") * a & region("right half") * b, False)):
        guider = CompositionGuider(composition)
        guider.set_state(step=0, num_inference_steps=STEPS, timestep=torch.tensor(999))
        states = guider.prepare_inputs({})
        for state in states:
            state.noise_pred = torch.ones(1, 64, 12)
        if fits:
            assert guider(states).pred.shape == (1, 64, 12)
        else:
            with pytest.raises(InputError, match=r"got predictions of shape \(1, 64, 12\)"):
                guider(states)


def test_compositions_that_differ_between_samples_are_refused_at_once() -> None:
    a, b, _ = leaves()
    with pytest.raises(InputError, match="vary over samples; expected one composition"):
        CompositionGuider(per_sample([a, b]))


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ({"pooled": torch.zeros(1, 4)}, "a pooled vector beside the rows, and no inputs"),
        ({"mask": torch.ones(1, 1, dtype=torch.bool)}, "a mask of tokens beside the rows"),
    ],
)
def test_conditions_with_more_than_rows_need_inputs(more: dict[str, torch.Tensor], text: str) -> None:
    """The pooled vector of SDXL would be that of the pipeline's own prompt."""
    a, _, u = leaves()
    leaf = Conditional(a.denoiser, Condition(a.condition.rows, **more))
    with pytest.raises(InputError, match=text):
        CompositionGuider(2 * leaf & u)
    CompositionGuider(2 * leaf & u, {leaf: {"prompt_embeds": a.condition.rows, "text_embeds": torch.zeros(1, 4)}})
