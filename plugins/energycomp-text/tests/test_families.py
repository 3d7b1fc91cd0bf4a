"""Each family of pipelines: sampled as its pipeline samples, composed, read, ranked; or refused in one line."""

from __future__ import annotations

import json
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from torch import Tensor

import energycomp
from energycomp import Composer, during, infer, rank, region
from energycomp.components import flow_schedule
from energycomp.denoisers import count_rows
from energycomp.errors import InputError
from energycomp.models import Model
from energycomp_lab.checks import check_component
from energycomp_text import from_pipeline, with_concepts
from energycomp_text.families import GROUP, KNOWN, Family, Prompted, families, pixart, zimage
from energycomp_text.testing import OPTIONS, TINY, tiny_flux, tiny_pixart, tiny_sd3, tiny_sdxl

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
OTHERS = tuple(name for name in TINY if name != "sd")


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
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    return _case(request.param, tmp_path_factory.mktemp("pipelines"))


def _case(name: str, folder: Path) -> Case:
    pipe = TINY[name]()
    pipe.save_pretrained(folder / name)
    model = with_concepts(energycomp.load(folder / name, **OPTIONS[name]), PETS, template="a {}")
    few = attrs.evolve(model.defaults, draws=4)
    return Case(name, pipe, folder / name, attrs.evolve(model, defaults=few))


def seeded(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def latents(composition: Any, scheduler: Any, n: int = 1, **options: Any) -> Tensor:
    samples: Tensor = Composer(composition).sample(
        n, generator=seeded(), num_inference_steps=STEPS, scheduler=scheduler, output_type="latent", progress=False,
        **options,
    )  # fmt: skip
    return samples


def of_pipeline(case: Case, prompt: str, **changes: Any) -> Tensor:
    options = {**CALLS[case.name], **changes}
    made: Tensor = case.pipe(
        prompt, num_inference_steps=STEPS, generator=seeded(), output_type="latent", **options
    ).images
    return case.pipe._unpack_latents(made, SIZE, SIZE, 2) if case.name == "flux" else made


# The pipeline itself is the oracle


def test_one_prompt_with_guidance_is_that_of_the_pipeline(case: Case) -> None:
    expected = of_pipeline(case, "a cat")
    with count_rows() as spent:
        got = latents(SCALE * case.model("a cat") & case.model.unconditional, case.scheduler)
    assert float((got - expected).abs().max()) < 1e-4 * float(expected.std())
    assert spent.rows == STEPS * 2
    plain = latents(case.model("a cat"), case.scheduler)
    assert float((plain - expected).abs().max()) > 0.05 * float(expected.abs().max())


def test_images_are_those_of_the_pipeline(case: Case) -> None:
    made = case.pipe(
        "a cat", num_inference_steps=2, generator=seeded(), output_type="pt", **CALLS[case.name]
    ).images  # fmt: skip
    got = Composer(SCALE * case.model("a cat") & case.model.unconditional).sample(
        generator=seeded(), num_inference_steps=2, scheduler=case.scheduler, output_type="pt", progress=False
    )
    torch.testing.assert_close(got, made, rtol=0, atol=1e-3)


def test_the_embedded_guidance_is_an_input_of_the_network(tmp_path: Path) -> None:
    pipe = tiny_flux()
    model = from_pipeline(pipe, image_size=SIZE, max_sequence_length=48, embedded_guidance=1.0)
    case = Case("flux", pipe, tmp_path, model)
    single = {"true_cfg_scale": 1.0, "negative_prompt": None}
    expected = of_pipeline(case, "a cat", guidance_scale=1.0, **single)
    with count_rows() as spent:
        got = latents(model("a cat"), case.scheduler)
    assert float((got - expected).abs().max()) < 1e-4 * float(expected.std())
    assert spent.rows == STEPS  # one prompt needs no unconditional row
    assert not torch.allclose(expected, of_pipeline(case, "a cat", guidance_scale=9.0, **single), atol=1e-4)


def test_schnell_has_no_guidance_and_a_fixed_shift(tmp_path: Path) -> None:
    pipe = tiny_flux(guidance_embeds=False)
    model = from_pipeline(pipe, image_size=SIZE, max_sequence_length=48)
    case = Case("flux", pipe, tmp_path, model)
    expected = of_pipeline(case, "a cat", true_cfg_scale=1.0, negative_prompt=None)
    got = latents(model("a cat"), case.scheduler)
    assert float((got - expected).abs().max()) < 1e-4 * float(expected.std())
    assert torch.equal(model.denoiser.alphas_cumprod, flow_schedule(1000, 3.0))


def test_the_shift_of_dev_is_that_of_its_image_size() -> None:
    small, large = (from_pipeline(tiny_flux(), image_size=size).denoiser.alphas_cumprod for size in (32, 64))
    assert float(large.mean()) < float(small.mean())


def test_stable_diffusion_3_without_t5(tmp_path: Path) -> None:
    pipe = tiny_sd3(t5=False)
    pipe.save_pretrained(tmp_path / "sd3")
    model = energycomp.load(tmp_path / "sd3", max_sequence_length=8)
    expected = pipe(
        "a cat", num_inference_steps=STEPS, guidance_scale=SCALE, max_sequence_length=8, generator=seeded(),
        output_type="latent",
    ).images  # fmt: skip
    got = latents(SCALE * model("a cat") & model.unconditional, pipe.scheduler)
    assert float((got - expected).abs().max()) < 1e-4 * float(expected.std())
    assert model("a cat").condition.shape == (32 + 8, 64)
    with pytest.raises(InputError, match=f"expected at most {pipe.tokenizer.model_max_length}; shorten it"):
        model("abcdefgh " * pipe.tokenizer.model_max_length)


def test_the_unconditional_row_of_sdxl_is_zeros_or_the_empty_prompt() -> None:
    for zeros in (True, False):
        pipe = tiny_sdxl()
        pipe.register_to_config(force_zeros_for_empty_prompt=zeros)
        model = from_pipeline(pipe)
        expected = pipe(
            "a cat", num_inference_steps=2, guidance_scale=SCALE, generator=seeded(), output_type="latent"
        ).images
        got = Composer(SCALE * model("a cat") & model.unconditional).sample(
            generator=seeded(), num_inference_steps=2, scheduler=pipe.scheduler, output_type="latent", progress=False
        )
        assert float((got - expected).abs().max()) < 1e-4 * float(expected.std())


# Composed


@torch.no_grad()
def test_compositions_are_sums_of_what_the_network_predicts(case: Case) -> None:
    model, sample, timestep = case.model, torch.randn(2, 4, 16, 16, generator=seeded()), torch.tensor([120.0, 777.0])
    cat, dog, rain, u = (
        Composer(leaf + 0).eps(sample, timestep)
        for leaf in (model("a cat"), model("a dog"), model("rain"), model.unconditional)
    )
    with count_rows() as spent:
        got = Composer(model("a cat") & 2.0 * model("a dog") & ~(0.5 * model("rain"))).eps(sample, timestep)
    torch.testing.assert_close(got, u + (cat - u) + 2.0 * (dog - u) - 0.5 * (rain - u), rtol=0, atol=1e-4)
    assert spent.rows == 2 * 4  # three prompts and u, for two samples
    check_component(SCALE * model("a cat") & ~model("rain"), tolerance=1e-3)


def test_batched_is_looped(case: Case) -> None:
    scene = case.model("a cat") & case.model("a dog")
    both = Composer(scene).sample(
        2, generator=[seeded(0), seeded(1)], num_inference_steps=2, output_type="latent", progress=False
    )
    alone = [
        Composer(scene).sample(generator=seeded(seed), num_inference_steps=2, output_type="latent", progress=False)
        for seed in (0, 1)
    ]
    torch.testing.assert_close(both, torch.cat(alone), rtol=0, atol=1e-4)


@torch.no_grad()
def test_a_region_and_an_interval_are_followed(case: Case) -> None:
    model, sample = case.model, torch.randn(1, 4, 16, 16, generator=seeded())
    cat, dog = model("a cat"), model("a dog")
    halves = Composer(region("left half") * cat + region("right half") * dog)
    timestep = torch.tensor([500.0])
    left, right = (Composer(leaf + 0).eps(sample, timestep) for leaf in (cat, dog))
    got = halves.eps(sample, timestep)
    torch.testing.assert_close(got[..., :8], left[..., :8], rtol=0, atol=1e-5)
    torch.testing.assert_close(got[..., 8:], right[..., 8:], rtol=0, atol=1e-5)
    one_after_another = Composer(during(0.0, 0.4) * cat + during(0.4, 1.0) * dog)
    torch.testing.assert_close(one_after_another.eps(sample, torch.tensor([900.0])), Composer(cat + 0).eps(
        sample, torch.tensor([900.0])), rtol=0, atol=1e-5)  # fmt: skip
    with count_rows() as spent:
        latents(one_after_another, None)
    assert spent.rows == STEPS  # one prompt at a time


@pytest.mark.parametrize("sampler", ["mixture", "perpendicular", "smc"])
def test_or_and_corrected_samplers(case: Case, sampler: str) -> None:
    cat, dog = case.model("a cat"), case.model("a dog")
    scene = cat | dog if sampler == "mixture" else cat & dog
    with count_rows() as spent:
        samples = latents(scene, None, 2, sampler=sampler)
    assert samples.shape == (2, 4, 16, 16)
    assert bool(samples.isfinite().all())
    assert spent.rows >= STEPS * 2 * 2


def test_masks_of_another_shape(case: Case) -> None:
    with pytest.raises(InputError, match="mask"):
        region(torch.zeros(2, 16, 16)) * case.model("a cat")


def test_prompts_that_are_too_long(case: Case) -> None:
    with pytest.raises(InputError, match=r"got a prompt of [0-9]+ (tokens|ids).*compose several prompts with &"):
        case.model("a cat " * 100)


# Read and ranked


def test_infer_over_four_concepts(case: Case) -> None:
    image = torch.rand(3, SIZE, SIZE, generator=seeded())
    with count_rows() as spent:
        solution = infer(image, case.model, count=2, generator=0)
    named = [case.model.conditioner.describe(value)["concept"] for value in solution.conditions]
    assert len(set(named)) == 2
    assert set(named) <= set(PETS)
    assert spent.rows == solution.rows
    # 4 draws choose among the concepts, 4 compare the two best sets, and 16 measure the best against u.
    assert 4 * len(PETS) + 4 * 3 + 16 * 3 <= solution.rows <= 4 * len(PETS) + 4 * 4 + 16 * 3


def test_rank(case: Case) -> None:
    images, model = torch.rand(3, 3, SIZE, SIZE, generator=seeded()), case.model
    ranking = rank(images, model("a cat") & model("a dog"), model=model, draws=4)
    assert sorted(ranking.order) == [0, 1, 2]
    assert ranking.rows == 3 * 4 * 3  # images, draws, two prompts and u


# Memory and precision


def test_half_precision_changes_little(case: Case) -> None:
    half = energycomp.load(case.folder, dtype="bfloat16", **OPTIONS[case.name])
    assert {p.dtype for p in half.denoiser.network.parameters()} == {torch.bfloat16}
    sample, timestep = torch.randn(1, 4, 16, 16, generator=seeded()), torch.tensor([500.0])
    one, other = (Composer(m("a cat") & m("a dog")).eps(sample, timestep) for m in (case.model, half))
    assert other.dtype == torch.float32
    assert float((one - other).abs().max()) < 0.1 * float(one.abs().max())


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


# Another package's family


def test_a_family_of_ones_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import diffusers

    class OwnPipeline(diffusers.PixArtSigmaPipeline):  # type: ignore[misc]
        pass

    def family() -> Family:
        return attrs.evolve(pixart.family(), pipeline="OwnPipeline", guidance_scale=2.0)

    tiny = tiny_pixart()
    monkeypatch.setattr(diffusers, "OwnPipeline", OwnPipeline, raising=False)
    monkeypatch.setitem(KNOWN, "OwnPipeline", family)
    pipe = OwnPipeline(**tiny.components)
    pipe.save_pretrained(tmp_path / "own")
    file = tmp_path / "own/model_index.json"
    assert json.loads(file.read_text())["_class_name"] == "OwnPipeline"
    for model in (energycomp.load(tmp_path / "own"), from_pipeline(pipe)):
        assert model.defaults.guidance_scale == 2.0
        assert model("a cat").condition.mask is not None


def test_families_are_found_by_the_class_of_their_pipeline() -> None:
    found = {name: make() for name, make in families().items()}
    assert [one.pipeline for one in found.values()] == list(found)
    assert sum(isinstance(one.build, Prompted) for one in found.values()) == 5


def test_another_package_adds_a_family_by_an_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("OwnPipeline", "energycomp_text.families.flux:family", GROUP)
    monkeypatch.setattr("energycomp_text.families.entry_points", lambda group: [point] if group == GROUP else [])
    assert families()["OwnPipeline"]().pipeline == "FluxPipeline"


def test_the_page_links_to_the_file_of_a_family() -> None:
    root = Path(__file__).parents[3]
    file = Path(zimage.__file__).resolve().relative_to(root)
    assert f"/blob/main/{file.as_posix()})" in (root / "docs/pipelines.md").read_text(encoding="utf-8")
