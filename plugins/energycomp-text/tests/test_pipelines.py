"""Stable Diffusion pipelines as models: sampled as the pipeline samples, read under the rule mean."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import attrs
import diffusers
import huggingface_hub
import pytest
import torch
from huggingface_hub.utils._paths import filter_repo_objects
from safetensors.torch import load_file, save_file
from torch import Tensor

import energycomp
from energycomp import Composer, infer
from energycomp.components import Composition
from energycomp.denoisers import count_rows, predict
from energycomp.errors import CompositionError, InputError
from energycomp.images import to_unit
from energycomp.inference import make_problem
from energycomp.models import Model, save_pretrained
from energycomp_lab.checks import check_component, check_model
from energycomp_text import from_pipeline, with_concepts
from energycomp_text.encoders import encoded_text
from energycomp_text.model import text
from energycomp_text.pipelines import load_model
from energycomp_text.testing import tiny_pipeline

PETS = ("cat", "dog", "rabbit", "cow")
SCALE = 7.5
STEPS = {"DDIMScheduler": 10}  # and 3 of the others
SCHEDULERS = {
    "DDIMScheduler": {},
    "PNDMScheduler": {"skip_prk_steps": True},
    "EulerDiscreteScheduler": {},
    "EulerAncestralDiscreteScheduler": {},
    "DPMSolverMultistepScheduler": {},
}


@pytest.fixture(scope="module")
def sd(pipe: Any) -> Model:
    return from_pipeline(pipe, concepts=PETS, template="a {}")


def seeded(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def latents(composition: Any, scheduler: Any, steps: int = 3) -> Tensor:
    samples: Tensor = Composer(composition).sample(
        generator=seeded(), num_inference_steps=steps, scheduler=scheduler, output_type="latent", progress=False
    )
    return samples


# Sampling: the pipeline itself is the oracle


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_guidance_is_that_of_the_pipeline(scheduler: str, prediction_type: str) -> None:
    pipe = tiny_pipeline(prediction_type=prediction_type)
    made = getattr(diffusers, scheduler).from_config(pipe.scheduler.config, **SCHEDULERS[scheduler])
    pipe.scheduler = made
    sd = from_pipeline(pipe)
    assert sd.denoiser.prediction_type == prediction_type
    steps = STEPS.get(scheduler, 3)
    expected = pipe(
        "a cat", num_inference_steps=steps, guidance_scale=SCALE, generator=seeded(), output_type="latent"
    ).images
    got = latents(SCALE * sd("a cat") & sd.unconditional, pipe.scheduler, steps)
    size = expected.std()  # of samples of trained weights it is about 1
    torch.testing.assert_close(got / size, expected / size, rtol=0, atol=1e-4)
    assert float(((latents(sd("a cat"), pipe.scheduler, steps) - expected) / size).abs().max()) > 0.05


def test_pictures_are_those_of_the_pipeline(pipe: Any, sd: Model) -> None:
    expected = pipe("a cat", num_inference_steps=3, guidance_scale=SCALE, generator=seeded(), output_type="pt").images
    got = Composer(SCALE * sd("a cat") & sd.unconditional).sample(
        generator=seeded(), num_inference_steps=3, scheduler=pipe.scheduler, output_type="pt", progress=False
    )
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-4)


def test_a_negative_prompt_is_the_difference_of_two(pipe: Any, sd: Model) -> None:
    """Diffusers moves away from the negative prompt in place of u: n + s (a - n), of mass 1 as a composition is."""
    expected = pipe(
        "a cat", negative_prompt="rain", num_inference_steps=3, guidance_scale=3.0, generator=seeded(),
        output_type="latent",
    ).images  # fmt: skip
    got = latents(3.0 * sd("a cat") - 2.0 * sd("rain"), pipe.scheduler)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_compositions_are_sums_of_what_the_unet_predicts(prediction_type: str) -> None:
    pipe = tiny_pipeline(prediction_type=prediction_type)
    sd = from_pipeline(pipe)
    sample, timestep = torch.randn(2, 4, 16, 16, generator=seeded()), torch.tensor([120.0, 777.0])

    def said(prompt: str) -> Tensor:
        states, _ = pipe.encode_prompt(prompt, "cpu", 1, False)
        out: Tensor = pipe.unet(sample, timestep, encoder_hidden_states=states.expand(2, -1, -1)).sample
        return out

    cat, dog, rain, u = (said(prompt) for prompt in ("a cat", "a dog", "rain", ""))
    composition = sd("a cat") & 2.0 * sd("a dog") & ~(0.5 * sd("rain"))
    expected = u + (cat - u) + 2.0 * (dog - u) - 0.5 * (rain - u)
    with count_rows() as spent:
        got = predict(composition, sample, timestep, prediction_type=prediction_type)  # type: ignore[arg-type]
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-4)
    assert spent.rows == 2 * 4  # three prompts and u, for two samples
    twice = predict(sd("a cat") & sd("a cat"), sample, timestep, prediction_type=prediction_type)  # type: ignore[arg-type]
    torch.testing.assert_close(twice, 2 * cat - u, rtol=0, atol=1e-4)


def test_it_is_a_component_like_others(sd: Model) -> None:
    check_component(SCALE * sd("a cat") & ~sd("rain"), tolerance=1e-3)
    assert repr(sd("a cat") & sd("a dog")) == "-u + text(a cat) + text(a dog)"


# From disk


def test_a_folder_is_the_pipeline_that_it_is_of(folder: Path, sd: Model) -> None:
    sample, timestep = torch.randn(1, 4, 16, 16, generator=seeded()), torch.tensor([300.0])
    picture = torch.rand(1, 3, 32, 32, generator=seeded()) * 2 - 1
    for read in (
        energycomp.load(folder),
        energycomp.load(str(folder)),
        text(model=str(folder)),
        load_model(str(folder)),
    ):
        assert predict(Composition.of(read("a cat")), sample, timestep).equal(
            predict(Composition.of(sd("a cat")), sample, timestep)
        )
        assert read.unconditional.denoiser.token_shape == (32, 32)
        assert read.encode(picture).equal(sd.encode(picture))
        assert (read.defaults.reading_rule, read.denoiser.rule, read.defaults.guidance_scale) == (
            "mean",
            "product",
            7.5,
        )


def test_loading_writes_nothing(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from diffusers.utils import logging as of_diffusers
    from huggingface_hub.utils import are_progress_bars_disabled
    from transformers.utils import logging as of_transformers

    def settings() -> tuple[Any, ...]:
        bars = [library.is_progress_bar_enabled() for library in (of_diffusers, of_transformers)]
        return (*bars, are_progress_bars_disabled(), of_diffusers.get_verbosity())

    before = settings()
    energycomp.load(folder)
    encoded_text(source=str(folder))
    assert capfd.readouterr().err == ""
    assert settings() == before


def test_a_pipeline_in_memory_is_known_by_its_vae(folder: Path, sd: Model, tmp_path: Path) -> None:
    """Wherever it was read from: its parts may be others by now."""
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(folder, safety_checker=None, use_safetensors=True)
    same = from_pipeline(pipe)
    assert same.denoiser.space == sd.denoiser.space
    assert len(Composer(same("a cat") + sd("a dog")).sample(1, num_inference_steps=1, progress=False)) == 1
    with torch.no_grad():
        pipe.vae.decoder.conv_out.bias[0] += 1
    other = from_pipeline(pipe)
    assert other.denoiser.space != sd.denoiser.space
    with pytest.raises(CompositionError, match="expected one space"):
        _ = other("a cat") + sd("a dog")
    with pytest.raises(InputError, match="with its own save_pretrained, and load that folder"):
        save_pretrained(other, tmp_path / "mine")
    assert not (tmp_path / "mine").exists()


def test_a_folder_is_remembered_from_wherever_it_was_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(folder.parent)
    sd = text(model="sd/../sd")
    save_pretrained(sd, tmp_path / "mine")
    monkeypatch.chdir(tmp_path)
    again = text(model="mine")
    assert again("a cat").condition.rows.equal(sd("a cat").condition.rows)
    assert again.denoiser.space == sd.denoiser.space
    assert again.denoiser.codec.config()["source"] == str(folder.resolve())  # type: ignore[union-attr]
    assert text(model="mine", dtype="bfloat16").denoiser.network.unet.dtype == torch.bfloat16  # type: ignore[union-attr]


def hub(monkeypatch: pytest.MonkeyPatch, repos: dict[str, Path]) -> list[str]:
    """Stands for the hub; the files that were fetched are in the list."""
    fetched: list[str] = []

    def snapshot(repo: str, *, allow_patterns: list[str]) -> str:
        files = [file.relative_to(repos[repo]).as_posix() for file in repos[repo].rglob("*") if file.is_file()]
        kept = list(filter_repo_objects(files, allow_patterns=allow_patterns))
        cache = repos[repo].parent / "cache" / repo
        for name in kept:
            (cache / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(repos[repo] / name, cache / name)
        fetched.extend(kept)
        return str(cache)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    return fetched


def test_of_a_pipeline_of_the_hub_what_is_needed_is_fetched(
    folder: Path, tmp_path: Path, sd: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(folder, tmp_path / "sd")
    for name in ("big.ckpt", "unet/diffusion_pytorch_model.bin", "safety_checker/model.safetensors"):
        (tmp_path / "sd" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "sd" / name).touch()
    fetched = hub(monkeypatch, {"owner/sd": tmp_path / "sd"})
    text_ = encoded_text(source="owner/sd")
    assert {Path(name).parts[0] for name in fetched} == {"model_index.json", "text_encoder", "tokenizer"}
    read = text(model="owner/sd")
    assert text_(text_.parse("a cat")).rows.equal(read("a cat").condition.rows)
    assert read("a cat").condition.rows.equal(sd("a cat").condition.rows)
    assert read.denoiser.space == sd.denoiser.space
    assert read.denoiser.codec.config()["source"] == "owner/sd"  # type: ignore[union-attr]
    assert not {name for name in fetched if name.endswith(("ckpt", "bin")) or "safety" in name}


def test_a_saved_model_of_the_hub(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = with_concepts(energycomp.load(folder), PETS)
    save_pretrained(saved, tmp_path / "mine")
    hub(monkeypatch, {"owner/mine": tmp_path / "mine"})
    for load in (energycomp.load, load_model):
        assert load("owner/mine").conditioner.config() == saved.conditioner.config()
    assert load_model("owner/mine", dtype="float16").denoiser.network.unet.dtype == torch.float16  # type: ignore[union-attr]


def test_what_was_saved_is_loaded_without_the_pipelines_own_unet(folder: Path, tmp_path: Path) -> None:
    sd = with_concepts(energycomp.load(folder), PETS, template="the {}")
    save_pretrained(sd, tmp_path / "mine")
    again = energycomp.load(tmp_path / "mine")
    assert again.conditioner.config() == sd.conditioner.config()
    assert again.defaults == sd.defaults
    picture = torch.rand(3, 32, 32, generator=seeded()) * 2 - 1
    first, second = (
        infer(to_unit(picture), attrs.evolve(m, defaults=attrs.evolve(m.defaults, draws=4))) for m in (sd, again)
    )
    assert first.conditions.equal(second.conditions)
    assert first.error == pytest.approx(second.error, rel=1e-5)
    check_model(sd)


def test_names_of_older_files_are_known(folder: Path, sd: Model, tmp_path: Path) -> None:
    """Stable Diffusion 1.5 was saved when both libraries called some weights otherwise."""
    old = tmp_path / "old"
    shutil.copytree(folder, old)
    encoder = load_file(old / "text_encoder/model.safetensors")
    encoder = {f"text_model.{name}": tensor for name, tensor in encoder.items()}
    encoder["text_model.embeddings.position_ids"] = torch.arange(32)[None]
    save_file(encoder, old / "text_encoder/model.safetensors", metadata={"format": "pt"})
    vae = load_file(old / "vae/diffusion_pytorch_model.safetensors")
    for new, former in (("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")):
        vae = {name.replace(new, former): tensor for name, tensor in vae.items()}
    save_file(vae, old / "vae/diffusion_pytorch_model.safetensors", metadata={"format": "pt"})
    read, picture = energycomp.load(old), torch.rand(1, 3, 32, 32, generator=seeded())
    assert read("a cat").condition.rows.equal(sd("a cat").condition.rows)
    assert read.encode(picture).equal(sd.encode(picture))


@pytest.mark.parametrize("scheduler", ["PNDMScheduler", "EulerDiscreteScheduler"])
def test_any_scheduler_of_the_process_tells_its_schedule(
    folder: Path, tmp_path: Path, scheduler: str, sd: Model
) -> None:
    shutil.copytree(folder, tmp_path / "sd")
    shutil.rmtree(tmp_path / "sd/scheduler")
    pipe_scheduler = getattr(diffusers, scheduler)(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type="v_prediction"
    )
    pipe_scheduler.save_pretrained(tmp_path / "sd/scheduler")
    read = energycomp.load(tmp_path / "sd")
    assert read.denoiser.prediction_type == "v_prediction"
    torch.testing.assert_close(read.denoiser.alphas_cumprod, sd.denoiser.alphas_cumprod, rtol=0, atol=1e-6)


def test_a_schedule_that_ends_in_pure_noise() -> None:
    """Zero terminal SNR: the last alpha is 0, and v is predicted."""
    pipe = tiny_pipeline(prediction_type="v_prediction")
    pipe.scheduler = diffusers.DDIMScheduler.from_config(
        pipe.scheduler.config, rescale_betas_zero_snr=True, timestep_spacing="trailing"
    )
    assert float(pipe.scheduler.alphas_cumprod[-1]) == 0
    expected = pipe("a cat", num_inference_steps=3, guidance_scale=SCALE, generator=seeded(), output_type="latent")
    sd = from_pipeline(pipe)
    got = latents(SCALE * sd("a cat") & sd.unconditional, pipe.scheduler)
    size = expected.images.std()
    torch.testing.assert_close(got / size, expected.images / size, rtol=0, atol=1e-3)


# Reading


def few(model: Model, draws: int = 4) -> Model:
    return attrs.evolve(model, defaults=attrs.evolve(model.defaults, draws=draws))


def test_a_concept_is_one_row_a_draw(sd: Model) -> None:
    observation = sd.encode(torch.rand(1, 3, 32, 32, generator=seeded()))
    problem = make_problem(observation, sd, count=2)
    bank = problem.draw(5, seeded())
    with count_rows() as spent:
        form = problem.quadratic(sd.conditioner.enumerate_support(), bank)  # type: ignore[attr-defined]
    assert spent.rows == problem.rows == 5 * len(PETS)  # and none for u: the rule is mean
    values = sd.conditioner.enumerate_support()[[1, 3]]  # type: ignore[attr-defined]
    composed = make_problem(observation, attrs.evolve(sd, denoiser=attrs.evolve(sd.denoiser, rule="mean")))
    expected = composed.errors(values[None], bank)[0].double()
    got = form.errors([1, 3], 0.5)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=0)


def test_infer_costs_what_it_says_and_encodes_once(sd: Model, pipe: Any) -> None:
    pictures: list[int] = []
    hook = pipe.vae.encoder.register_forward_pre_hook(lambda _, args: pictures.append(len(args[0])))
    with count_rows() as spent:
        solution = infer(torch.rand(3, 48, 64, generator=seeded()), few(sd), count=2)
    hook.remove()
    assert pictures == [1]
    assert solution.runner_up is not None
    judged = len({*map(tuple, solution.conditions.tolist()), *map(tuple, solution.runner_up.tolist())})
    assert judged in (3, 4)
    # 4 draws choose among all concepts, 4 compare the two best sets, and 16 measure the best against u.
    assert spent.rows == solution.rows
    assert solution.rows in (4 * len(PETS) + 4 * 2 * 2 + 16 * 3, 4 * len(PETS) + 4 * judged + 16 * 3)


def test_infer_is_brute_force_over_sets(sd: Model) -> None:
    """The set whose mean prediction is nearest to the noise, over the same draws, one UNet call a set and draw."""
    picture = torch.rand(3, 32, 32, generator=seeded()) * 2 - 1
    solution = infer(to_unit(picture), few(sd, 6), count=2, generator=seeded(1))
    observation = sd.encode(picture)
    bank = make_problem(observation, sd).draw(6, seeded(1))
    errors: dict[tuple[str, ...], float] = {}
    for first in range(4):
        for second in range(first):
            names = (PETS[second], PETS[first])
            mean = 0.5 * sd(concept=names[0]) + 0.5 * sd(concept=names[1])
            noised = bank.noised(observation, sd.denoiser.alphas_cumprod)
            off = predict(mean, noised, bank.timestep) - bank.noise
            errors[names] = float(off.square().sum((1, 2, 3)).mean())
    found = {sd.conditioner.describe(value)["concept"] for value in solution.conditions}
    assert found == set(min(errors.items(), key=lambda item: item[1])[0])


@pytest.mark.parametrize(("concepts", "counts"), [(["cat", "dog"], {1, 2}), (["cat"], {1})])
def test_fewer_concepts_than_the_greatest_count(sd: Model, concepts: list[str], counts: set[int]) -> None:
    solution = infer(torch.zeros(3, 32, 32), few(with_concepts(sd, concepts)))
    assert solution.count in counts
    with pytest.raises(InputError, match="components that differ"):
        infer(torch.zeros(3, 32, 32), few(with_concepts(sd, concepts)), count=3)


def test_without_concepts_there_is_nothing_to_look_for(pipe: Any) -> None:
    with pytest.raises(InputError, match=r"energycomp_text.with_concepts"):
        infer(torch.zeros(3, 32, 32), from_pipeline(pipe))


# Half precision


def test_half_precision_changes_little(folder: Path, sd: Model) -> None:
    half = with_concepts(energycomp.load(folder, dtype="bfloat16"), PETS, template="a {}")
    assert {p.dtype for p in half.denoiser.network.parameters()} == {torch.bfloat16}
    sample, timestep = torch.randn(2, 4, 16, 16, generator=seeded()), torch.tensor([120.0, 777.0])
    one, other = (predict(m("a cat") & m("a dog"), sample, timestep) for m in (sd, half))
    assert other.dtype == torch.float32
    assert float((one - other).abs().max()) < 0.05 * float(one.abs().max())
    picture = torch.rand(3, 32, 32, generator=seeded()) * 2 - 1
    assert infer(to_unit(picture), few(half), count=1).error == pytest.approx(
        infer(to_unit(picture), few(sd), count=1).error, rel=0.01
    )
    assert len(Composer(half("a cat") & half("a dog")).sample(2, num_inference_steps=2, progress=False)) == 2


@pytest.mark.parametrize("dtype", ["int8", "half", 3, torch.int64])
def test_types_that_are_none(folder: Path, dtype: Any) -> None:
    with pytest.raises(InputError, match="float32, bfloat16, float16"):
        energycomp.load(folder, dtype=dtype)
