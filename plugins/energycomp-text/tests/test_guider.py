"""A composition as a guider of diffusers: the loop of a modular pipeline samples what `Composer` samples."""

import copy
from typing import Any

import attrs
import pytest
import torch
from diffusers import DDIMScheduler

from energycomp import Composer, during, match_snr, region
from energycomp.components import cosine_schedule
from energycomp.errors import InputError
from energycomp.testing import Gaussian
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
                state.noise_pred = pipe.unet(latents, t, encoder_hidden_states=state.prompt_embeds, return_dict=False)[
                    0
                ]
            guider.cleanup_models(pipe.unet)
            calls += 1
        latents = scheduler.step(guider(states)[0], t, latents, return_dict=False)[0]
    return latents, calls


@pytest.fixture(scope="module")
def pipe() -> Any:
    made = tiny_pipeline()
    made.scheduler = DDIMScheduler.from_config(
        made.scheduler.config, timestep_spacing="trailing", set_alpha_to_one=True, steps_offset=0
    )
    return made


@pytest.mark.parametrize("case", CASES)
def test_a_composition_in_the_loop_of_a_modular_pipeline(case: str, pipe: Any) -> None:
    model = from_pipeline(pipe)
    a, b, u = model("cat"), model("dog"), model.unconditional
    composition = CASES[case](a, b, u)
    inputs = {
        leaf: {"prompt_embeds": model.conditioner(model.conditioner.parse(text)).rows}
        for leaf, text in ((a, "cat"), (b, "dog"), (u, ""))
    }
    guider = CompositionGuider(composition, inputs)
    noise = torch.randn(1, *model.denoiser.sample_shape, generator=torch.Generator().manual_seed(0))
    got, calls = denoised(pipe, guider, noise, {"prompt_embeds": (None, None)})
    spent: list[Any] = []
    expected = Composer(composition).sample(
        generator=0, num_inference_steps=STEPS, scheduler=pipe.scheduler, output_type="latent", progress=False,
        report=spent.append,
    )  # fmt: skip
    assert float((got - expected).abs().max() / expected.abs().max()) < 1e-5
    assert calls == spent[0].evaluations


def test_a_composition_in_a_modular_pipeline_of_sdxl() -> None:
    """The whole `StableDiffusionXLAutoBlocks`; the pooled vectors of the leaves are given by `inputs`."""
    from diffusers.modular_pipelines import StableDiffusionXLAutoBlocks

    pipe = tiny_sdxl()
    pipe.scheduler = DDIMScheduler.from_config(
        pipe.scheduler.config, timestep_spacing="trailing", set_alpha_to_one=True, steps_offset=0
    )
    model = from_pipeline(pipe)
    a, b = model("a dog"), model("a cat")
    inputs = {leaf: {"prompt_embeds": leaf.condition.rows, "text_embeds": leaf.condition.pooled} for leaf in (a, b)}
    modular = StableDiffusionXLAutoBlocks().init_pipeline()
    for composition, images in (
        (3 * a & 2 * b, 1),
        (3 * region("left half") * a & 2 * region("right half") * b, 2),
        (during(until=0.5) * a & during(from_=0.5) * b, 1),
    ):
        parts = {name: part for name, part in pipe.components.items() if part is not None}
        modular.update_components(**parts, guider=CompositionGuider(composition, inputs))
        got = modular(
            prompt="a dog", height=32, width=32, num_inference_steps=3, output="latents", output_type="latent",
            generator=torch.Generator().manual_seed(0), num_images_per_prompt=images,
        )  # fmt: skip
        expected = Composer(composition).sample(
            images, generator=0, num_inference_steps=3, scheduler=pipe.scheduler, output_type="latent", progress=False
        )
        assert float((got - expected).abs().max() / expected.abs().max()) < 1e-5


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


def test_a_guider_without_mass_1_or_inputs_is_refused(pipe: Any) -> None:
    model = from_pipeline(pipe)
    a, b = model("cat"), model("dog")
    with pytest.raises(InputError, match=r"of mass 2\.0; expected mass 1 everywhere"):
        CompositionGuider(a + b)
    with pytest.raises(InputError, match="got no inputs of"):
        CompositionGuider(a & b, {a: {}})
    with pytest.raises(InputError, match="which is no leaf of a denoiser"):
        CompositionGuider(Gaussian(0.0))


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
