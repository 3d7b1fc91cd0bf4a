"""Folders, pipelines in memory and options, of the hub and of older versions: read, or refused in one line."""

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import diffusers
import huggingface_hub
import pytest
import torch
from huggingface_hub.utils._paths import filter_repo_objects
from safetensors.torch import load_file, save_file

import energycomp
from energycomp import Composer, infer
from energycomp.components import Composition, predict
from energycomp.errors import CompositionError, EnergycompError, InputError, NotFoundError
from energycomp.models import Model, save_pretrained
from energycomp.seeds import seeded
from energycomp_lab.checks import check_model
from energycomp_text import from_pipeline, with_concepts
from energycomp_text.encoders import encoded_text
from energycomp_text.families import flux
from energycomp_text.families.reading import files_of
from energycomp_text.model import text
from energycomp_text.pipelines import load_model
from energycomp_text.testing import OPTIONS, TINY, tiny_flux, tiny_lora, tiny_pipeline, tiny_pixart, tiny_sdxl

Change = Callable[[Path], object]
Copied = Callable[[str], Path]
PETS = ("cat", "dog", "rabbit", "cow")
UNET, VAE = (f"{part}/diffusion_pytorch_model.safetensors" for part in ("unet", "vae"))
ENCODER = "text_encoder/model.safetensors"


@pytest.fixture(scope="module")
def sd(pipe: Any) -> Model:
    return from_pipeline(pipe, concepts=PETS, template="a {}")


def refused(error: type[Exception], message: str, act: Callable[[], object]) -> None:
    with pytest.raises(error, match=message) as caught:
        act()
    assert "\n" not in str(caught.value)


def test_a_folder_is_the_pipeline_that_it_is_of(folder: Path, sd: Model) -> None:
    sample, timestep = torch.randn(1, 4, 16, 16, generator=seeded(3)), torch.tensor([300.0])
    image = torch.rand(1, 3, 32, 32, generator=seeded(3)) * 2 - 1
    expected = predict(Composition.of(sd("a cat")), sample, timestep)
    loads = (energycomp.load, lambda path: text(model=str(path)), load_model)
    for read in (load(folder) for load in loads):
        assert predict(Composition.of(read("a cat")), sample, timestep).equal(expected)
        assert read.unconditional.denoiser.token_shape == (32, 32)
        assert read.encode(image).equal(sd.encode(image))
        assert (read.denoiser.rule, read.defaults.reading_rule) == ("product", "mean")
        assert read.defaults.guidance_scale == 7.5


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
    refused(CompositionError, "expected one space", lambda: other("a cat") + sd("a dog"))
    save = lambda: save_pretrained(other, tmp_path / "mine")  # noqa: E731
    refused(InputError, "with its own save_pretrained, and load that folder", save)
    assert not (tmp_path / "mine").exists()
    pixart = from_pipeline(tiny_pixart(seed=5), max_sequence_length=40)
    refused(CompositionError, "with space vae", lambda: sd("a cat") + pixart("a dog"))


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
    assert again.denoiser.codec.config()["source"] == str(tmp_path / "mine" / "vae")
    assert text(model="mine", dtype="bfloat16").denoiser.network.unet.dtype == torch.bfloat16


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
    copied: Copied, sd: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = copied("sd")
    for name in ("big.ckpt", "unet/diffusion_pytorch_model.bin", "safety_checker/model.safetensors"):
        (changed / name).parent.mkdir(exist_ok=True)
        (changed / name).touch()
    fetched = hub(monkeypatch, {"owner/sd": changed})
    text_ = encoded_text(source="owner/sd")
    assert {Path(name).parts[0] for name in fetched} == {"model_index.json", "text_encoder", "tokenizer"}
    read = text(model="owner/sd")
    assert text_(text_.parse("a cat")).rows.equal(read("a cat").condition.rows)
    assert read("a cat").condition.rows.equal(sd("a cat").condition.rows)
    assert read.denoiser.space == sd.denoiser.space
    assert read.denoiser.codec.config()["source"] == "owner/sd"
    assert not {name for name in fetched if name.endswith(("ckpt", "bin")) or "safety" in name}


def test_a_saved_model_of_the_hub(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = with_concepts(energycomp.load(folder), PETS)
    save_pretrained(saved, tmp_path / "mine")
    hub(monkeypatch, {"owner/mine": tmp_path / "mine"})
    for load in (energycomp.load, load_model):
        assert load("owner/mine").conditioner.config() == saved.conditioner.config()
    assert load_model("owner/mine", dtype="float16").denoiser.network.unet.dtype == torch.float16


def test_what_was_saved_is_loaded_without_the_pipelines_own_unet(folder: Path, tmp_path: Path) -> None:
    sd = with_concepts(energycomp.load(folder), PETS, template="the {}")
    sd = attrs.evolve(sd, defaults=attrs.evolve(sd.defaults, draws=4))
    save_pretrained(sd, tmp_path / "mine")
    again = energycomp.load(tmp_path / "mine")
    assert (again.conditioner.config(), again.defaults) == (sd.conditioner.config(), sd.defaults)
    image = torch.rand(3, 32, 32, generator=seeded(3))
    assert infer(image, sd).conditions.equal(infer(image, again).conditions)
    check_model(sd)


def test_names_of_older_files_are_known(copied: Copied, sd: Model) -> None:
    """Stable Diffusion 1.5 was saved when both libraries called some weights otherwise."""
    old = copied("sd")
    encoder = {f"text_model.{name}": tensor for name, tensor in load_file(old / ENCODER).items()}
    encoder["text_model.embeddings.position_ids"] = torch.arange(32)[None]
    save_file(encoder, old / ENCODER, metadata={"format": "pt"})
    vae = load_file(old / VAE)
    for new, former in (("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")):
        vae = {name.replace(new, former): tensor for name, tensor in vae.items()}
    save_file(vae, old / VAE, metadata={"format": "pt"})
    read, image = energycomp.load(old), torch.rand(1, 3, 32, 32, generator=seeded(3))
    assert read("a cat").condition.rows.equal(sd("a cat").condition.rows)
    assert read.encode(image).equal(sd.encode(image))


def test_any_scheduler_of_the_process_tells_its_schedule(copied: Copied, sd: Model) -> None:
    changed = copied("sd")
    shutil.rmtree(changed / "scheduler")
    betas = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    scheduler = diffusers.EulerDiscreteScheduler(**betas, prediction_type="v_prediction")
    scheduler.save_pretrained(changed / "scheduler")
    read = energycomp.load(changed)
    assert read.denoiser.prediction_type == "v_prediction"
    torch.testing.assert_close(read.denoiser.alphas_cumprod, sd.denoiser.alphas_cumprod, rtol=0, atol=1e-6)


def test_shards_are_one_model(copied: Copied) -> None:
    pipe, changed = tiny_sdxl(), copied("sdxl")
    (changed / UNET).unlink()
    pipe.unet.save_pretrained(changed / "unet", max_shard_size="100KB")
    assert len(list((changed / "unet").glob("*-of-*.safetensors"))) > 1
    whole = energycomp.load(changed)
    sample, timestep = torch.randn(1, 4, 16, 16, generator=seeded(3)), torch.tensor([500.0])
    torch.testing.assert_close(whole("a cat").eps(sample, timestep), from_pipeline(pipe)("a cat").eps(sample, timestep))
    next((changed / "unet").glob("*-00002-of-*.safetensors")).unlink()
    refused(NotFoundError, "no file named diffusion_pytorch_model-00002", lambda: energycomp.load(changed))


def test_of_a_repository_only_the_parts_are_fetched() -> None:
    wanted = [
        "model_index.json", "scheduler/scheduler_config.json", "tokenizer_2/spiece.model", "transformer/config.json",
        "transformer/diffusion_pytorch_model-00001-of-00003.safetensors", "text_encoder/model.safetensors",
        "transformer/diffusion_pytorch_model.safetensors.index.json", "vae/diffusion_pytorch_model.safetensors",
        "text_encoder_2/model-00002-of-00002.safetensors",
    ]  # fmt: skip
    others = [
        "flux1-dev.safetensors", "README.md", "text_encoder_2/model-00002-of-00002.fp16.safetensors",
        "vae/diffusion_pytorch_model.fp16.safetensors", "vae/diffusion_pytorch_model.bin", "image_encoder/config.json",
        "transformer/own_code.py",
    ]  # fmt: skip
    page = (Path(__file__).parents[3] / "docs/pipelines.md").read_text()
    for patterns in (list(files_of(flux.family())), re.findall(r'--include "([^"]+)"', page)):
        found = set(filter_repo_objects([*wanted, *others], allow_patterns=patterns))
        assert found - {"image_encoder/config.json"} == set(wanted)


def without(name: str) -> Change:
    return lambda path: (shutil.rmtree if (path / name).is_dir() else Path.unlink)(path / name)


def written(file: str, content: str) -> Change:
    return lambda path: (path / file).write_text(content)


def changed(file: str, **changes: Any) -> Change:
    """Of the JSON in a file, or in the config of a part."""

    def change(path: Path) -> None:
        json_file = next((path / file).glob("*config.json")) if (path / file).is_dir() else path / file
        json_file.write_text(json.dumps({**json.loads(json_file.read_text()), **changes}))

    return change


def pickled(file: str) -> Change:
    def change(path: Path) -> None:
        name = "pytorch_model.bin" if "text" in file else "diffusion_pytorch_model.bin"
        torch.save(load_file(path / file), (path / file).with_name(name))
        (path / file).unlink()

    return change


def lacking(file: str) -> Change:
    def change(path: Path) -> None:
        weights = load_file(path / file)
        weights.pop(min(weights))
        save_file(weights, path / file, metadata={"format": "pt"})

    return change


INDEX, LARGE, NO_FILE = (
    "model_index.json",
    "larger than its weights",
    "no file named diffusion_pytorch_model.safetensors",
)
WIDE = {"block_out_channels": [1024, 2**16]}
JSON = (INDEX, "unet/config.json", "vae/config.json", "text_encoder/config.json", "scheduler/scheduler_config.json")
FOLDERS: list[tuple[str, Change, type[Exception], str]] = [
    *(("sd", without(name), NotFoundError, f"without {name}; expected the folders")
      for name in ("text_encoder", "tokenizer", "unet", "vae", "scheduler")),
    *(("sdxl", without(name), NotFoundError, f"without {name}; expected the folders")
      for name in ("unet", "vae", "scheduler", "text_encoder_2", "tokenizer_2")),
    ("sd", without(INDEX), NotFoundError, "without model_index.json"),
    ("sd", written(INDEX, "{"), InputError, "which is no JSON"),
    ("sd", written(INDEX, "[]"), InputError, "expected a pipeline of one of"),
    ("sd", changed(INDEX, _class_name="KolorsPipeline"), InputError, "a KolorsPipeline; expected a pipeline of one"),
    ("sd", changed(INDEX, _class_name="StableDiffusionXLPipeline"), NotFoundError, "without text_encoder_2, tokenizer"),
    ("sd", changed(INDEX, _class_name=["own", "Pipeline"]), InputError, "expected a pipeline of one of"),
    *(("sdxl", changed(INDEX, _class_name=name), NotFoundError, "without transformer.*expected the folders")
      for name in ("FluxPipeline", "StableDiffusion3Pipeline")),
    ("sdxl", changed(INDEX, _class_name="a\nb" * 10**5), EnergycompError, "got .*, a a ba ba b"),
    ("sdxl", changed(INDEX, _class_name=10**30), EnergycompError, "got .*, a 1000000"),
    ("sdxl", changed(INDEX, force_zeros_for_empty_prompt=10**30), EnergycompError, "expected true or false"),
    ("sd", pickled(UNET), NotFoundError, NO_FILE),
    ("sd", pickled(ENCODER), NotFoundError, "no file named model.safetensors"),
    ("sd", lacking(UNET), NotFoundError, "1 weights of UNet2DConditionModel are missing, 'conv_in.bias'"),
    ("sdxl", lacking("text_encoder_2/model.safetensors"), NotFoundError, "1 weights of CLIPTextModelWithProj"),
    ("sd", without("tokenizer/tokenizer.json"), InputError, "knows no letter"),
    *(("sdxl", changed("tokenizer/tokenizer_config.json", model_max_length=length), EnergycompError,
       f"got model_max_length {length!r}") for length in ("a", -1)),
    ("sd", written("unet/config.json", "{}"), NotFoundError, LARGE),
    ("sd", changed("unet", sample_size=None), InputError, "sample_size None.*add it to its config"),
    ("sd", changed("unet", sample_size=[16, 0]), InputError, "sample_size .16, 0."),
    ("sd", changed("unet", **WIDE), NotFoundError, LARGE),
    ("sdxl", changed("vae", **WIDE), NotFoundError, LARGE),
    ("sdxl", changed("text_encoder_2", num_hidden_layers=10**9), NotFoundError, LARGE),
    ("sdxl", changed("vae", scaling_factor=-1), EnergycompError, "a number above 0"),
    ("sdxl", changed("vae", shift_factor="a"), EnergycompError, "shift_factor='a'"),
    ("sdxl", changed("scheduler", beta_start=float("nan")), EnergycompError, "between nan and nan"),
    ("sd", changed("scheduler", prediction_type="flow"), InputError, "'flow'.*set prediction_type in its config"),
    *(("sd", changed("scheduler", num_train_timesteps=steps), NotFoundError, "expected 1 to 100,000")
      for steps in (10**12, 0, None)),
    *(("sd", written(file, "[" * 10**5), EnergycompError, "no JSON") for file in JSON),
    ("sd", written(INDEX, " " * 10**6 + "{}"), EnergycompError, "1,000,002 bytes"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "change", "error", "message"), FOLDERS)
def test_folders_that_are_no_pipeline(
    copied: Copied, name: str, change: Change, error: type[Exception], message: str
) -> None:
    path = copied(name)
    change(path)
    refused(error, message, lambda: text(model=str(path)) if name == "sd" else energycomp.load(path))


def test_classes_that_a_folder_names_are_never_imported(
    copied: Copied, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, ran = copied("sd"), tmp_path / "ran"
    for place in (tmp_path, path, path / "unet", path / "text_encoder"):
        (place / "own_classes.py").write_text(f"open({str(ran)!r}, 'w')\nclass Own: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    parts = ("unet", "vae", "text_encoder", "tokenizer", "scheduler", "safety_checker")
    changed(INDEX, **{name: ["own_classes", "Own"] for name in parts})(path)
    for name in parts[:3]:
        own = {"AutoModel": "own_classes.Own", "AutoConfig": "own_classes.Own"}
        changed(f"{name}/config.json", auto_map=own, _class_name="Own")(path)
    sd = energycomp.load(path)
    assert type(sd.denoiser.network.unet) is diffusers.UNet2DConditionModel
    assert not ran.exists()
    assert "own_classes" not in sys.modules


class Parts:
    """What `from_pipeline` asks a pipeline for, with some of it replaced."""

    def __init__(self, pipe: Any, **replaced: Any) -> None:
        for name in ("unet", "vae", "scheduler", "text_encoder", "tokenizer"):
            setattr(self, name, replaced.get(name, getattr(pipe, name)))


def test_pipelines_that_lack_a_part_or_have_another(pipe: Any) -> None:
    assert from_pipeline(Parts(pipe))("a cat").condition.shape == (32, 32)
    assert not any(p.requires_grad for part in (pipe.unet, pipe.vae, pipe.text_encoder) for p in part.parameters())
    kolors = type("KolorsPipeline", (type(pipe).__mro__[1],), {})
    inpainting = diffusers.UNet2DConditionModel.from_config({**pipe.unet.config, "in_channels": 9})
    own = {name: value for name, value in pipe.unet.config.items() if not name.startswith("_")}
    distilled = diffusers.UNet2DConditionModel(**{**own, "time_cond_proj_dim": 8})
    own = {name: value for name, value in pipe.vae.config.items() if not name.startswith("_")}
    standardised = diffusers.AutoencoderKL(**{**own, "latents_mean": [0.0] * 4})
    flow = diffusers.FlowMatchEulerDiscreteScheduler()
    for given, message in (
        (None, "an object of NoneType; expected a pipeline of one of the families"),
        ({"unet": pipe.unet}, "an object of dict; expected a pipeline"),
        ("sdxl", "got 'sdxl'; expected a pipeline that is in memory; .* energycomp.load"),
        (Path("sdxl"), "got 'sdxl'; .* energycomp.load"),
        (type(pipe), "the class StableDiffusionPipeline; expected a pipeline; make one"),
        (object.__new__(kolors), "got a KolorsPipeline; expected"),
        (Parts(pipe, text_encoder=None, vae=None), "Parts without vae, text_encoder"),
        (Parts(pipe, scheduler=flow), r"without alphas_cumprod.*flow matching"),
        (Parts(pipe, unet=inpainting), r"9 channels over a VAE of 4.*inpainting"),
        (Parts(pipe, unet=distilled), "takes the guidance scale as an input .* latent consistency"),
        (Parts(pipe, vae=standardised), "a VAE with latents_mean"),
    ):
        refused(InputError, message, lambda given=given: from_pipeline(given))


def shifted(**changes: Any) -> Model:
    """Of a pipeline whose scheduler has another config."""
    pipe = tiny_flux()
    pipe.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config, **changes)
    return from_pipeline(pipe, image_size=128)


def faces_model() -> Model:
    return energycomp.load("faces", pretrained=False)


SHIFT, GET = "got a shift from .*; expected numbers", r"give a hub id, such as .*, or a folder that save_pretrained"
REFUSED: dict[str, tuple[Callable[[], object], type[Exception], str]] = {
    "an empty folder": (lambda: text(model=str(Path.cwd())), NotFoundError, GET),
    "no folder": (lambda: text(model=str(Path.cwd() / "nowhere")), NotFoundError, "no folder and no hub id"),
    "no name": (lambda: text(model="x" * 300), NotFoundError, "no folder and no hub id"),
    "no network, load": (lambda: energycomp.load("nobody/nothing"), NotFoundError, "'nobody/nothing'.*from the hub"),
    "no network, text": (lambda: text(model="nobody/nothing"), NotFoundError, "could not be read from the hub"),
    "no text": (lambda: with_concepts(faces_model(), ["cat"]), InputError, "expected one on text"),
    "preset": (lambda: text(preset="large"), InputError, "expected 'default'"),
    "encoder of weights": (lambda: text(encoder="words"), InputError, "pretrained=False"),
    "type of no pipeline": (lambda: text(pretrained=False, dtype="bfloat16"), InputError, "expected encoder"),
    "encoder": (lambda: text(pretrained=False, encoder="clip"), InputError, "'words' or 'minilm'"),
    "encoder of a folder": (lambda: text(model="here", encoder="words"), InputError, "expected dtype"),
    **{f"concepts of {make.__name__}": (lambda make=make: from_pipeline(make(), concepts="cat"), InputError,
       "got the concepts 'cat'; expected a list of words") for make in (tiny_pipeline, tiny_sdxl)},
    **{f"shift {changes}": (lambda changes=changes: shifted(**changes), InputError, SHIFT) for changes in (
       {"base_shift": "a"}, {"base_image_seq_len": 4096}, {"max_shift": 1e9, "max_image_seq_len": 257})},
    **{f"flux {options}": (lambda options=options: from_pipeline(tiny_flux(), **options), InputError, message)
       for options, message in (
        ({"image_size": 30}, "image_size 30; expected a multiple of 4"),
        ({"image_size": "large"}, "image_size.'large'.* expected a whole number"),
        ({"max_sequence_length": 0}, "max_sequence_length.0.* expected a whole number"),
        ({"embedded_guidance": -1.0}, "embedded_guidance.-1.0.* expected a number"),
        ({"guidance": 1.0}, "the option 'guidance' with a FluxPipeline; expected image_size, max_sequence_length"))},
}  # fmt: skip


@pytest.mark.parametrize(("call", "error", "message"), REFUSED.values(), ids=REFUSED)
def test_names_and_options_that_are_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, call: Callable[[], object], error: type[Exception], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    refused(error, message, call)


def test_models_that_take_no_text(tmp_path: Path) -> None:
    save_pretrained(faces_model(), tmp_path / "faces")
    refused(InputError, "not conditioned on text", lambda: text(model=str(tmp_path / "faces")))


def test_options_of_the_command_line_are_texts_and_types_are_known(folder: Path) -> None:
    model = from_pipeline(tiny_flux(), image_size="32", embedded_guidance="2.5")
    assert model.denoiser.sample_shape == (4, 16, 16)
    for dtype in ("int8", "half", 3, torch.int64):
        load = lambda dtype=dtype: energycomp.load(folder, dtype=dtype)  # noqa: E731
        refused(InputError, "float32, bfloat16, float16", load)


@pytest.mark.parametrize("name", ["sd", "sdxl", "flux"])
def test_float16_on_the_cpu(name: str) -> None:
    model = from_pipeline(TINY[name]().to(dtype=torch.float16), **OPTIONS[name])
    composer = Composer(model.unconditional + 0)
    sample = lambda: composer.sample(1, num_inference_steps=1, progress=False)  # noqa: E731
    refused(InputError, "float16 on the CPU; expected bfloat16", sample)


@pytest.mark.parametrize("name", ["sdxl", "flux"])  # with a UNet, and with a transformer
def test_only_models_of_registered_networks_are_saved(name: str, tmp_path: Path) -> None:
    model = from_pipeline(TINY[name](), **OPTIONS[name])
    save = lambda: save_pretrained(model, tmp_path / "m")  # noqa: E731
    refused(InputError, "with its own save_pretrained, and load that folder", save)
    assert not (tmp_path / "m").exists()


def test_loras_of_models_that_take_none_and_files_that_are_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sdxl = tiny_sdxl()
    base, pixart = from_pipeline(sdxl), from_pipeline(tiny_pixart(), max_sequence_length=8)
    weights = tiny_lora(sdxl)
    refused(InputError, "got LoRA weights for text; expected a pipeline", lambda: pixart.with_lora(tmp_path))
    refused(InputError, "expected a pipeline of diffusers", lambda: energycomp.load("text").with_lora(tmp_path))
    refused(InputError, "scale 'much'; expected a number", lambda: base.with_lora(tmp_path, scale="much"))
    monkeypatch.setattr("energycomp_text.lora.find_spec", lambda _: object())
    refused(NotFoundError, "with 0 safetensors files", lambda: base.with_lora(tmp_path))
    refused(NotFoundError, "expected a safetensors file", lambda: base.with_lora(tmp_path / "none.safetensors"))
    monkeypatch.setattr("energycomp_text.lora.find_spec", lambda _: None)
    refused(NotFoundError, r"pip install 'energycomp-text\[lora\]'", lambda: base.with_lora(weights))
