"""A composition as a guider of diffusers: the loop of a modular pipeline samples what `Composer` samples."""

import copy
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import attrs
import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler

from energycomp import Composer, during, match_snr, per_sample, ramp, region
from energycomp.components import Composition, Condition, cosine_schedule, flow_schedule, predict, timestep_of
from energycomp.denoisers import Conditional
from energycomp.errors import InputError
from energycomp.seeds import seeded
from energycomp.testing import Gaussian, tiny_model
from energycomp_samplers import regional
from energycomp_text.guider import CompositionGuider
from energycomp_text.pipelines import from_pipeline
from energycomp_text.testing import tiny_lora, tiny_pipeline, tiny_sdxl

STEPS = 5
CASES: dict[str, Any] = {
    "guidance": lambda a, b, u: 3 * a & u,
    "two prompts": lambda a, b, u: 2 * a & 3 * b,
    "not": lambda a, b, u: 2 * a & ~b,
    "halves": lambda a, b, u: 2 * region("left half") * a & 3 * region("right half") * b,
    "one after another": lambda a, b, u: during(until=0.4) * a & during(from_=0.4) * b,
}


def denoised(pipe: Any, guider: Any, latents: torch.Tensor, given: dict[str, Any]) -> tuple[torch.Tensor, int]:
    """What the denoising blocks of `diffusers.modular_pipelines` do, and how often the network runs."""
    scheduler, calls = copy.deepcopy(pipe.scheduler), 0
    scheduler.set_timesteps(STEPS)
    for i, t in enumerate(scheduler.timesteps):
        guider.set_state(step=i, num_inference_steps=STEPS, timestep=t)
        states = guider.prepare_inputs(given)
        for state in states:
            guider.prepare_models(pipe.unet)
            with torch.no_grad():
                (state.noise_pred,) = pipe.unet(
                    latents, t, encoder_hidden_states=state.prompt_embeds, return_dict=False
                )
            guider.cleanup_models(pipe.unet)
            calls += 1
        latents = scheduler.step(guider(states)[0], t, latents, return_dict=False)[0]
    return latents, calls


def with_ddim(pipe: Any) -> Any:
    changes = {"timestep_spacing": "trailing", "set_alpha_to_one": True, "steps_offset": 0}
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, **changes)
    return pipe


@pytest.fixture(scope="module")
def pipe() -> Any:
    return with_ddim(tiny_pipeline())


def sampled(composition: Any, scheduler: Any, n: int = 1, steps: int = STEPS) -> tuple[torch.Tensor, Any]:
    """What `Composer` samples, which is the oracle, and its report."""
    spent: list[Any] = []
    options: Any = {"scheduler": scheduler, "output_type": "latent", "progress": False, "report": spent.append}
    return Composer(composition).sample(n, generator=0, num_inference_steps=steps, **options), spent[0]


def assert_same(got: torch.Tensor, expected: torch.Tensor) -> None:
    assert float((got - expected).abs().max() / expected.abs().max()) < 1e-5


@pytest.mark.parametrize("case", CASES)
def test_a_composition_in_the_loop_of_a_modular_pipeline(case: str, pipe: Any) -> None:
    model = from_pipeline(pipe)
    a, b, u = model("cat"), model("dog"), model.unconditional
    composition = CASES[case](a, b, u)
    rows = {
        leaf: model.conditioner(model.conditioner.parse(text)).rows for leaf, text in ((a, "cat"), (b, "dog"), (u, ""))
    }
    guider = CompositionGuider(composition, {leaf: {"prompt_embeds": row} for leaf, row in rows.items()})
    noise = torch.randn(1, *model.denoiser.sample_shape, generator=seeded(0))
    got, calls = denoised(pipe, guider, noise, {"prompt_embeds": (None, None)})
    expected, report = sampled(composition, pipe.scheduler)
    assert_same(got, expected)
    assert calls == report.evaluations


def test_a_composition_in_a_modular_pipeline_of_sdxl() -> None:
    """The whole `StableDiffusionXLAutoBlocks`; the pooled vectors of the leaves are given by `inputs`."""
    from diffusers.modular_pipelines import StableDiffusionXLAutoBlocks

    pipe = with_ddim(tiny_sdxl())
    model = from_pipeline(pipe)
    a, b = model("a dog"), model("a cat")
    inputs = {leaf: {"prompt_embeds": leaf.condition.rows, "text_embeds": leaf.condition.pooled} for leaf in (a, b)}
    modular = StableDiffusionXLAutoBlocks().init_pipeline()
    parts = {name: part for name, part in pipe.components.items() if part is not None}
    for composition, images in (
        (3 * a & 2 * b, 1),
        (3 * region("left half") * a & 2 * region("right half") * b, 2),
        (during(until=0.5) * a & during(from_=0.5) * b, 1),
    ):
        modular.update_components(**parts, guider=CompositionGuider(composition, inputs))
        got = modular(
            prompt="a dog", height=32, width=32, num_inference_steps=3, output="latents", output_type="latent",
            generator=seeded(0), num_images_per_prompt=images,
        )  # fmt: skip
        assert_same(got, sampled(composition, pipe.scheduler, images, steps=3)[0])


def test_the_rows_of_conditions_are_the_prompts_by_default(pipe: Any) -> None:
    model = from_pipeline(pipe)
    a = model("cat")
    guider = CompositionGuider(2 * a & model("dog"))
    guider.set_state(step=0, num_inference_steps=STEPS, timestep=torch.tensor(999))
    time_ids = (torch.zeros(1), torch.ones(1))
    states = guider.prepare_inputs({"prompt_embeds": ("own", "negative"), "time_ids": time_ids, "scale": torch.ones(2)})
    assert guider.num_conditions == len(states) == 3
    assert [int(state.time_ids) for state in states] == [1, 0, 0]  # u has those of the negative prompt
    assert states[0].prompt_embeds == "negative"
    assert any(state.prompt_embeds is a.condition.rows for state in states)
    assert repr(guider) == "CompositionGuider(-2 u + 2 photo(cat) + photo(dog))".replace("photo", model.name)


def leaves() -> tuple[Any, Any, Any]:
    model = tiny_model()
    return model(0.2, 0.2), model(0.8, 0.7), model.unconditional


def with_more(leaf: Any, **more: torch.Tensor) -> Any:
    """The leaf, whose condition has more than rows, which the pipeline would take from its own prompt."""
    return Conditional(leaf.denoiser, Condition(leaf.condition.rows, **more))


BOARD = ((torch.arange(16)[:, None] + torch.arange(16)) % 2).float()  # one half in coarser pixels
REFUSED: dict[str, tuple[Callable[[Any, Any, Any], Any], str]] = {
    "mass": (lambda a, b, u: CompositionGuider(a + b), r"of mass 2\.0; expected mass 1 everywhere"),
    "mass of pixels": (lambda a, b, u: CompositionGuider(region(BOARD) * (2 * a)), "expected mass 1 everywhere"),
    "no inputs": (lambda a, b, u: CompositionGuider(a & b, {a: {}}), "got no inputs of"),
    "no leaf": (lambda a, b, u: CompositionGuider(Gaussian(0.0)), "which is no leaf of a denoiser"),
    "samples": (lambda a, b, u: CompositionGuider(per_sample([a, b])), "vary over samples; expected one composition"),
    "pooled": (
        lambda a, b, u: CompositionGuider(2 * with_more(a, pooled=torch.zeros(1, 4)) & u),
        "a pooled vector beside the rows, and no inputs",
    ),
    "mask": (
        lambda a, b, u: CompositionGuider(2 * with_more(a, mask=torch.ones(1, 1, dtype=torch.bool)) & u),
        "a mask of tokens beside the rows",
    ),
}


@pytest.mark.parametrize(("make", "message"), REFUSED.values(), ids=REFUSED)
def test_what_a_guider_refuses(make: Callable[..., Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make(*leaves())


def test_what_needs_inputs_and_pixels_of_the_sample_is_taken() -> None:
    a, _, u = leaves()
    leaf = with_more(a, pooled=torch.zeros(1, 4))
    CompositionGuider(2 * leaf & u, {leaf: {"prompt_embeds": a.condition.rows, "text_embeds": torch.zeros(1, 4)}})
    guider = CompositionGuider(region(BOARD) * (2 * a) & u)
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


@pytest.mark.parametrize("case", ["one after another", "ramp"])
def test_parts_of_the_trajectory_of_a_shifted_flow(case: str) -> None:
    """The timesteps of its scheduler are noise levels, and not indices of the schedule."""
    model = tiny_model(prediction_type="flow")
    denoiser = attrs.evolve(model.denoiser, alphas_cumprod=flow_schedule(shift=3.0))
    a, b = (Conditional(denoiser, model(*place).condition) for place in ((0.2, 0.2), (0.8, 0.7)))
    u = denoiser.unconditional
    ramped = (1 + 2 * ramp(0.1, 0.9)) * a & u
    composition = ramped if case == "ramp" else during(until=0.4) * a & during(from_=0.4) * b
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    x = torch.randn(1, 3, 16, 16, generator=seeded(0))
    expected, report = sampled(composition, copy.deepcopy(scheduler))
    guider, calls = CompositionGuider(composition), 0
    named = {guider._names.get(id(leaf)): leaf for leaf in (a, b, u)}
    scheduler.set_timesteps(STEPS)
    for i, t in enumerate(scheduler.timesteps):
        guider.set_state(step=i, num_inference_steps=STEPS, timestep=t)
        states, level = guider.prepare_inputs({"prompt_embeds": (None, None)}), t.double() / 1000
        length = ((1 - level) ** 2 + level**2).sqrt().float()
        at = timestep_of(a.noised_space.alphas_cumprod, -2 * torch.logit(level)).float().reshape(1)
        for state in states:
            leaf = named[getattr(state, guider._identifier_key)]
            with torch.no_grad():
                state.noise_pred = predict(Composition.of(leaf), x / length, at, prediction_type="flow")
            calls += 1
        x = scheduler.step(guider(states)[0], t, x, return_dict=False)[0]
    assert_same(x, expected)
    assert calls == report.evaluations


def test_it_can_be_the_first_import() -> None:
    """Guiders of diffusers need torch's compiler, which other imports of diffusers leave out."""
    slow = "import sys; sys.modules.update(peft=None, transformers=None)"  # which diffusers imports if they are there
    code = f"{slow}; from energycomp_text.guider import CompositionGuider"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_leaves_that_the_network_of_the_pipeline_does_not_predict_are_refused(pipe: Any) -> None:
    """It would sample the base model, or what it sees without a view."""
    pytest.importorskip("peft")
    another = tiny_pipeline(seed=1)
    another.vae = pipe.vae
    model, other = from_pipeline(pipe), from_pipeline(another)
    a, b, ground = model("cat"), model("dog"), torch.zeros(model.denoiser.sample_shape)
    ink = model.with_lora(tiny_lora(pipe))
    seen = regional([("left half", 2 * a), ("right half", b)], apart_until=1.0, background=ground)
    for composition in (
        3 * ink("cat") & 2 * ink("dog"),
        3 * ink("cat") & 2 * b,
        ink("cat"),
        0.5 * a + 0.5 * other("dog"),
        seen,
        match_snr(a, attrs.evolve(model.denoiser.noised_space, alphas_cumprod=cosine_schedule())),
    ):
        for inputs in (None, {leaf: {"prompt_embeds": torch.zeros(1, 2, 3)} for leaf in composition.terms}):
            with pytest.raises(InputError, match=r"got .*; expected .*; sample the composition with a Composer"):
                CompositionGuider(composition, inputs)


def test_a_step_without_set_state_is_refused(pipe: Any) -> None:
    """The weights were 1 each: the unweighted sum."""
    model = from_pipeline(pipe)
    guider = CompositionGuider(3 * model("cat") & 2 * model("dog"))
    states = guider.prepare_inputs({})
    assert guider.num_conditions == len(states) == 3
    for state in states:
        state.noise_pred = torch.ones(1, 4, 16, 16)
    with pytest.raises(InputError, match=r"without a timestep; .* call set_state"):
        guider(states)
    guider.set_state(step=0, num_inference_steps=STEPS, timestep=torch.tensor(999))
    torch.testing.assert_close(guider(states).pred, torch.ones(1, 4, 16, 16))
