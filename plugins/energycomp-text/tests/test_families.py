"""Each family of pipelines: sampled as its pipeline samples, composed, read and ranked."""

import json
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import attrs
import diffusers
import pytest
import torch
from torch import Tensor

import energycomp
from energycomp import Composer, during, infer, region
from energycomp.components import flow_schedule, predict
from energycomp.denoisers import count_rows
from energycomp.errors import InputError
from energycomp.inference import make_problem
from energycomp.models import Model
from energycomp.seeds import seeded
from energycomp_lab.checks import check_component
from energycomp_solvers.enumerate import Enumerate
from energycomp_text import from_pipeline, with_concepts
from energycomp_text.families import GROUP, KNOWN, Family, Prompted, families, pixart, zimage
from energycomp_text.testing import OPTIONS, TINY, tiny_flux, tiny_pipeline, tiny_pixart, tiny_sd3, tiny_sdxl

SIZE, SCALE, STEPS = 32, 5.0, 4
PETS = ("cat", "dog", "rabbit", "cow")
CALLS: dict[str, dict[str, Any]] = {
    "sd": {"guidance_scale": SCALE},
    "sdxl": {"guidance_scale": SCALE},
    "sd3": {"guidance_scale": SCALE, "max_sequence_length": 40},
    "flux": {
        "guidance_scale": 3.5, "true_cfg_scale": SCALE, "negative_prompt": "", "height": SIZE, "width": SIZE,
        "max_sequence_length": 48,
    },
    "pixart": {
        "guidance_scale": SCALE, "max_sequence_length": 40, "use_resolution_binning": False, "clean_caption": False,
    },
    "zimage": {"guidance_scale": SCALE - 1, "height": SIZE, "width": SIZE, "max_sequence_length": 48},
}  # fmt: skip


@attrs.frozen(eq=False)
class Case:
    """A pipeline, its folder, and the model that was read from there."""

    name: str
    pipe: Any
    folder: Path
    model: Model

    @property
    def scheduler(self) -> Any:
        """That of the pipeline. A shift that depends on the size of the image is that of the model."""
        shifted = self.name in ("flux", "zimage")
        return "FlowMatchEulerDiscreteScheduler" if shifted else self.pipe.scheduler


@pytest.fixture(scope="module", params=TINY)
def case(request: pytest.FixtureRequest, saved: Callable[[str], Path]) -> Case:
    return _case(request.param, saved)


@pytest.fixture(scope="module")
def sd(saved: Callable[[str], Path]) -> Case:
    return _case("sd", saved)


def _case(name: str, saved: Callable[[str], Path]) -> Case:
    model = with_concepts(energycomp.load(saved(name), **OPTIONS[name]), PETS, template="a {}")
    return Case(name, TINY[name](), saved(name), few(model))


def few(model: Model, draws: int = 4) -> Model:
    return attrs.evolve(model, defaults=attrs.evolve(model.defaults, draws=draws))


def image() -> Tensor:
    return torch.rand(3, SIZE, SIZE, generator=seeded(3))


def latents(composition: Any, scheduler: Any, n: int = 1, *, steps: int = STEPS, **options: Any) -> Tensor:
    options = {"generator": seeded(3), "output_type": "latent", **options}
    samples: Tensor = Composer(composition).sample(
        n, num_inference_steps=steps, scheduler=scheduler, progress=False, **options
    )
    return samples


def of_pipeline(pipe: Any, name: str, *, steps: int = STEPS, **changes: Any) -> Tensor:
    """What the pipeline itself makes of "a cat", which is the oracle."""
    options = {"generator": seeded(3), "output_type": "latent", **CALLS[name], **changes}
    made: Tensor = pipe("a cat", num_inference_steps=steps, **options).images
    return pipe._unpack_latents(made, SIZE, SIZE, 2) if name == "flux" and options["output_type"] == "latent" else made


def assert_same(got: Tensor, expected: Tensor, tolerance: float = 1e-4) -> None:
    """Relative to the size of samples, which is about 1 of those of trained weights."""
    assert float((got - expected).abs().max()) < tolerance * float(expected.std())


def test_one_prompt_with_guidance_is_that_of_the_pipeline(case: Case) -> None:
    guided, plain = SCALE * case.model("a cat") & case.model.unconditional, case.model("a cat")
    expected = of_pipeline(case.pipe, case.name)
    with count_rows() as spent:
        assert_same(latents(guided, case.scheduler), expected)
    assert spent.rows == STEPS * 2
    assert float((latents(plain, case.scheduler) - expected).abs().max()) > 0.05 * float(expected.abs().max())
    images = latents(guided, case.scheduler, steps=2, output_type="pt")
    expected = of_pipeline(case.pipe, case.name, steps=2, output_type="pt")
    torch.testing.assert_close(images, expected, rtol=0, atol=1e-4 if case.name == "sd" else 1e-3)


SCHEDULERS: dict[str, tuple[str, dict[str, Any], str, int, float]] = {
    "ddim": ("DDIMScheduler", {}, "v_prediction", 10, 1e-4),
    "pndm": ("PNDMScheduler", {"skip_prk_steps": True}, "epsilon", 3, 1e-4),
    "euler": ("EulerDiscreteScheduler", {}, "v_prediction", 3, 1e-4),
    "euler ancestral": ("EulerAncestralDiscreteScheduler", {}, "epsilon", 3, 1e-4),
    "dpm": ("DPMSolverMultistepScheduler", {}, "v_prediction", 3, 1e-4),
    "zero SNR": (  # with epsilon, the noise says nothing where all is noise
        "DDIMScheduler", {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}, "v_prediction", 3, 1e-3,
    ),
}  # fmt: skip


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_schedulers_and_prediction_types_are_those_of_the_pipeline(scheduler: str) -> None:
    name, changes, kind, steps, tolerance = SCHEDULERS[scheduler]
    pipe = tiny_pipeline(prediction_type=kind)
    pipe.scheduler = getattr(diffusers, name).from_config(pipe.scheduler.config, **changes)
    model = from_pipeline(pipe)
    assert model.denoiser.prediction_type == kind
    expected = of_pipeline(pipe, "sd", steps=steps)
    assert_same(latents(SCALE * model("a cat") & model.unconditional, pipe.scheduler, steps=steps), expected, tolerance)
    plain = latents(model("a cat"), pipe.scheduler, steps=steps)
    assert float((plain - expected).abs().max()) > 0.05 * float(expected.std())


def test_a_negative_prompt_is_the_difference_of_two(sd: Case) -> None:
    """Diffusers moves away from the negative prompt in place of u: n + s (a - n), of mass 1 as a composition is."""
    expected = of_pipeline(sd.pipe, "sd", negative_prompt="rain", guidance_scale=3.0)
    got = latents(3.0 * sd.model("a cat") - 2.0 * sd.model("rain"), sd.scheduler)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("distilled", [True, False])
def test_one_prompt_of_flux_needs_no_unconditional_row(distilled: bool) -> None:
    """dev takes its guidance as an input of the network; schnell has none, and a fixed shift."""
    pipe = tiny_flux(guidance_embeds=distilled)
    scale = {"embedded_guidance": 1.0} if distilled else {}
    model = from_pipeline(pipe, image_size=SIZE, max_sequence_length=48, **scale)
    single = {"true_cfg_scale": 1.0, "negative_prompt": None}
    expected = of_pipeline(pipe, "flux", guidance_scale=1.0, **single)
    with count_rows() as spent:
        assert_same(latents(model("a cat"), "FlowMatchEulerDiscreteScheduler"), expected)
    assert spent.rows == STEPS
    other = of_pipeline(pipe, "flux", guidance_scale=9.0, **single)
    assert torch.allclose(expected, other, atol=1e-4) != distilled
    assert torch.equal(model.denoiser.alphas_cumprod, flow_schedule(1000, 3.0)) != distilled


def test_the_shift_of_dev_is_that_of_its_image_size() -> None:
    small, large = (from_pipeline(tiny_flux(), image_size=size).denoiser.alphas_cumprod for size in (32, 64))
    assert float(large.mean()) < float(small.mean())


def test_stable_diffusion_3_without_t5(tmp_path: Path) -> None:
    pipe = tiny_sd3(t5=False)
    pipe.save_pretrained(tmp_path / "sd3")
    model = energycomp.load(tmp_path / "sd3", max_sequence_length=8)
    expected = of_pipeline(pipe, "sd3", max_sequence_length=8)
    assert_same(latents(SCALE * model("a cat") & model.unconditional, pipe.scheduler), expected)
    assert model("a cat").condition.shape == (32 + 8, 64)
    with pytest.raises(InputError, match=f"expected at most {pipe.tokenizer.model_max_length}; shorten it"):
        model("abcdefgh " * pipe.tokenizer.model_max_length)


@pytest.mark.parametrize("zeros", [True, False])
def test_the_unconditional_row_of_sdxl_is_zeros_or_the_empty_prompt(zeros: bool) -> None:
    pipe = tiny_sdxl()
    pipe.register_to_config(force_zeros_for_empty_prompt=zeros)
    model = from_pipeline(pipe)
    got = latents(SCALE * model("a cat") & model.unconditional, pipe.scheduler, steps=2)
    assert_same(got, of_pipeline(pipe, "sdxl", steps=2))


@torch.no_grad()
def test_compositions_are_sums_of_what_the_network_predicts(case: Case) -> None:
    model, sample, timestep = case.model, torch.randn(2, 4, 16, 16, generator=seeded(3)), torch.tensor([120.0, 777.0])
    cat, dog, rain, u = (
        Composer(leaf + 0).eps(sample, timestep)
        for leaf in (model("a cat"), model("a dog"), model("rain"), model.unconditional)
    )
    with count_rows() as spent:
        got = Composer(model("a cat") & 2.0 * model("a dog") & ~(0.5 * model("rain"))).eps(sample, timestep)
    torch.testing.assert_close(got, u + (cat - u) + 2.0 * (dog - u) - 0.5 * (rain - u), rtol=0, atol=1e-4)
    assert spent.rows == 2 * 4  # three prompts and u, for two samples
    check_component(SCALE * model("a cat") & ~model("rain"), tolerance=1e-3)


@torch.no_grad()
def test_a_region_and_an_interval_are_followed(sd: Case) -> None:
    model, sample = sd.model, torch.randn(1, 4, 16, 16, generator=seeded(3))
    cat, dog = model("a cat"), model("a dog")
    timestep, late = torch.tensor([500.0]), torch.tensor([900.0])
    got = Composer(region("left half") * cat + region("right half") * dog).eps(sample, timestep)
    left, right = (Composer(leaf + 0).eps(sample, timestep) for leaf in (cat, dog))
    torch.testing.assert_close(got, torch.cat([left[..., :8], right[..., 8:]], dim=3), rtol=0, atol=1e-5)
    in_turn = Composer(during(0.0, 0.4) * cat + during(0.4, 1.0) * dog)
    torch.testing.assert_close(in_turn.eps(sample, late), Composer(cat + 0).eps(sample, late), rtol=0, atol=1e-5)


@pytest.mark.parametrize("sampler", ["mixture", "perpendicular", "smc"])
def test_or_and_corrected_samplers(sd: Case, sampler: str) -> None:
    cat, dog = sd.model("a cat"), sd.model("a dog")
    samples = latents(cat | dog if sampler == "mixture" else cat & dog, None, 2, sampler=sampler)
    assert samples.shape == (2, 4, 16, 16)
    assert bool(samples.isfinite().all())


def test_masks_and_prompts_that_do_not_fit(case: Case) -> None:
    with pytest.raises(InputError, match="mask"):
        region(torch.zeros(2, 16, 16)) * case.model("a cat")
    with pytest.raises(InputError, match=r"got a prompt of [0-9]+ (tokens|ids).*compose several prompts with &"):
        case.model("a cat " * 100)


def test_infer_over_four_concepts(case: Case) -> None:
    seen: list[int] = []
    hook = case.model.denoiser.codec.vae.encoder.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    with count_rows() as spent:
        solution = infer(torch.rand(3, 48, 64, generator=seeded(3)), case.model, count=2, generator=0)
    hook.remove()
    assert seen == [1]  # encoded once
    named = [case.model.conditioner.describe(value)["concept"] for value in solution.conditions]
    assert len(set(named)) == 2
    assert set(named) <= set(PETS)
    compared = len({*map(tuple, solution.conditions.tolist()), *map(tuple, solution.runner_up.tolist())})
    assert compared in (3, 4)
    # 4 draws choose among the concepts, 4 compare the two best sets, and 16 measure the best against u.
    assert spent.rows == solution.rows
    assert solution.rows in (4 * len(PETS) + 4 * 2 * 2 + 16 * 3, 4 * len(PETS) + 4 * compared + 16 * 3)


def test_a_concept_is_one_row_a_draw(sd: Case) -> None:
    model = sd.model
    observation, listed = model.encode(image()[None] * 2 - 1), model.conditioner.enumerate_support()
    problem = make_problem(observation, model, count=2)
    bank = problem.draw(5, seeded(3))
    with count_rows() as spent:
        form = problem.quadratic(listed, bank)
    assert spent.rows == problem.rows == 5 * len(PETS)  # and none for u: the rule is mean
    composed = make_problem(observation, attrs.evolve(model, denoiser=attrs.evolve(model.denoiser, rule="mean")))
    expected = composed.errors(listed[[1, 3]][None], bank)[0].double()
    torch.testing.assert_close(form.errors([1, 3], 0.5), expected, rtol=1e-4, atol=0)


def test_infer_is_brute_force_over_sets(sd: Case) -> None:
    """The set whose mean prediction is nearest to the noise, over the same draws, one UNet call a set and draw."""
    model = few(sd.model, 6)
    solution = infer(image(), model, solver=Enumerate(p_value=None), count=2, generator=seeded(1))
    observation = model.encode(image()[None] * 2 - 1)
    bank = make_problem(observation, model).draw(6, seeded(1))
    noised = bank.noised(observation, model.denoiser.alphas_cumprod)
    errors: dict[frozenset[str], float] = {}
    for first in range(4):
        for second in range(first):
            mean = 0.5 * model(concept=PETS[second]) + 0.5 * model(concept=PETS[first])
            off = predict(mean, noised, bank.timestep) - bank.noise
            errors[frozenset((PETS[second], PETS[first]))] = float(off.square().sum((1, 2, 3)).mean())
    found = frozenset(model.conditioner.describe(value)["concept"] for value in solution.conditions)
    assert found == min(errors, key=lambda names: errors[names])


@pytest.mark.parametrize(("concepts", "counts"), [(["cat", "dog"], {1, 2}), (["cat"], {1})])
def test_fewer_concepts_than_the_greatest_count(sd: Case, concepts: list[str], counts: set[int]) -> None:
    model = with_concepts(sd.model, concepts)
    assert infer(torch.zeros(3, 32, 32), model).count in counts
    with pytest.raises(InputError, match="components that differ"):
        infer(torch.zeros(3, 32, 32), model, count=3)


def test_without_concepts_there_is_nothing_to_look_for(pipe: Any) -> None:
    with pytest.raises(InputError, match=r"energycomp_text.with_concepts"):
        infer(torch.zeros(3, 32, 32), from_pipeline(pipe))


def test_half_precision_changes_little(case: Case) -> None:
    half = energycomp.load(case.folder, dtype="bfloat16", **OPTIONS[case.name])
    assert {p.dtype for p in half.denoiser.network.parameters()} == {torch.bfloat16}
    sample, timestep = torch.randn(2, 4, 16, 16, generator=seeded(3)), torch.tensor([120.0, 777.0])
    one, other = (Composer(m("a cat") & m("a dog")).eps(sample, timestep) for m in (case.model, half))
    assert other.dtype == torch.float32
    assert float((one - other).abs().max()) < (0.05 if case.name == "sd" else 0.1) * float(one.abs().max())


def test_nothing_is_encoded_before_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading runs no text encoder, which may be large; a prompt is encoded once, and u once for all samples."""
    encoded: list[list[str]] = []
    pipe = tiny_pixart()
    own = pipe.encode_prompt
    monkeypatch.setattr(
        pipe, "encode_prompt", lambda prompts, **options: encoded.append(prompts) or own(prompts, **options)
    )
    model = from_pipeline(pipe, max_sequence_length=40)
    assert encoded == []
    for _ in range(2):
        latents(model("a cat") & model("a dog"), None)
    assert encoded == [["a cat"], ["a dog"], [""]]


def test_a_family_of_ones_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class OwnPipeline(diffusers.PixArtSigmaPipeline):
        pass

    def family() -> Family:
        return attrs.evolve(pixart.family(), pipeline="OwnPipeline", guidance_scale=2.0)

    monkeypatch.setattr(diffusers, "OwnPipeline", OwnPipeline, raising=False)
    monkeypatch.setitem(KNOWN, "OwnPipeline", family)
    pipe = OwnPipeline(**tiny_pixart().components)
    pipe.save_pretrained(tmp_path / "own")
    assert json.loads((tmp_path / "own/model_index.json").read_text())["_class_name"] == "OwnPipeline"
    for model in (energycomp.load(tmp_path / "own"), from_pipeline(pipe)):
        assert model.defaults.guidance_scale == 2.0
        assert model("a cat").condition.mask is not None


def test_families_are_found_by_the_class_of_their_pipeline(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {name: make() for name, make in families().items()}
    assert [one.pipeline for one in found.values()] == list(found)
    assert sum(isinstance(one.build, Prompted) for one in found.values()) == 5
    point = EntryPoint("OwnPipeline", "energycomp_text.families.flux:family", GROUP)  # of another package
    monkeypatch.setattr("energycomp_text.families.entry_points", lambda group: [point] if group == GROUP else [])
    assert families()["OwnPipeline"]().pipeline == "FluxPipeline"


def test_the_page_links_to_the_file_of_a_family() -> None:
    root = Path(__file__).parents[3]
    file = Path(zimage.__file__).resolve().relative_to(root)
    assert f"/blob/main/{file.as_posix()})" in (root / "docs/pipelines.md").read_text(encoding="utf-8")
