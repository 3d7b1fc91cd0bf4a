"""Pipelines of other families, their folders and options that are refused, each in one line."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub.utils._paths import filter_repo_objects
from safetensors.torch import load_file, save_file

import energycomp
from energycomp import Composer
from energycomp.errors import CompositionError, EnergycompError, InputError, NotFoundError
from energycomp.models import save_pretrained
from energycomp_text import from_pipeline
from energycomp_text.families import flux
from energycomp_text.families.reading import files_of
from energycomp_text.testing import OPTIONS, TINY, tiny_flux, tiny_pixart, tiny_sdxl

SIZE = 32


@pytest.fixture(scope="module")
def pipe() -> Any:
    return tiny_sdxl()


def seeded(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def refused(error: type[Exception], message: str, act: Callable[[], object]) -> None:
    with pytest.raises(error, match=message) as caught:
        act()
    assert "\n" not in str(caught.value)


def test_pipelines_of_no_family(pipe: Any, folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "other")
    file = tmp_path / "other/model_index.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "_class_name": "KolorsPipeline"}))
    refused(InputError, "a KolorsPipeline; expected a pipeline of one of the families FluxPipeline",
            lambda: energycomp.load(tmp_path / "other"))  # fmt: skip
    kolors = type("KolorsPipeline", (type(pipe).__mro__[1],), {})
    refused(InputError, "got a KolorsPipeline; expected", lambda: from_pipeline(object.__new__(kolors)))
    for given in ("FluxPipeline", "StableDiffusion3Pipeline"):
        file.write_text(json.dumps({**json.loads(file.read_text()), "_class_name": given}))
        refused(NotFoundError, "without transformer.*expected the folders", lambda: energycomp.load(tmp_path / "other"))


@pytest.mark.parametrize("part", ["unet", "vae", "scheduler", "text_encoder_2", "tokenizer_2"])
def test_missing_parts(folder: Path, tmp_path: Path, part: str) -> None:
    shutil.copytree(folder, tmp_path / "sdxl")
    shutil.rmtree(tmp_path / "sdxl" / part)
    refused(NotFoundError, f"without {part}; expected the folders", lambda: energycomp.load(tmp_path / "sdxl"))


def test_missing_shards_and_pickles(pipe: Any, folder: Path, tmp_path: Path) -> None:
    changed = tmp_path / "sdxl"
    shutil.copytree(folder, changed)
    weights = changed / "unet/diffusion_pytorch_model.safetensors"
    torch.save(load_file(weights), weights.with_suffix(".bin"))
    weights.unlink()
    refused(NotFoundError, "no file named diffusion_pytorch_model.safetensors", lambda: energycomp.load(changed))
    pipe.unet.save_pretrained(changed / "unet", max_shard_size="100KB")
    assert len(list((changed / "unet").glob("*-of-*.safetensors"))) > 1
    whole = energycomp.load(changed)
    sample, timestep = torch.randn(1, 4, 16, 16, generator=seeded()), torch.tensor([500.0])
    torch.testing.assert_close(whole("a cat").eps(sample, timestep), from_pipeline(pipe)("a cat").eps(sample, timestep))
    next((changed / "unet").glob("*-00002-of-*.safetensors")).unlink()
    refused(NotFoundError, "no file named diffusion_pytorch_model-00002", lambda: energycomp.load(changed))


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("model_index.json", {"_class_name": "a\nb" * 10**5}, "got .*, a a ba ba b"),
        ("model_index.json", {"_class_name": 10**30}, "got .*, a 1000000"),
        ("model_index.json", {"force_zeros_for_empty_prompt": 10**30}, "expected true or false"),
        ("tokenizer/tokenizer_config.json", {"model_max_length": "a"}, "got model_max_length 'a'"),
        ("tokenizer/tokenizer_config.json", {"model_max_length": -1}, "got model_max_length -1"),
        ("vae/config.json", {"scaling_factor": -1}, "a scale above 0"),
        ("vae/config.json", {"shift_factor": "a"}, "shift_factor='a'"),
        ("scheduler/scheduler_config.json", {"beta_start": float("nan")}, "between nan and nan"),
    ],
)
def test_values_of_another_kind(folder: Path, tmp_path: Path, file: str, changes: dict[str, Any], message: str) -> None:
    shutil.copytree(folder, tmp_path / "sdxl")
    changed = tmp_path / "sdxl" / file
    changed.write_text(json.dumps({**json.loads(changed.read_text()), **changes}))
    refused(EnergycompError, message, lambda: energycomp.load(tmp_path / "sdxl"))


@pytest.mark.parametrize(
    "changes", [{"base_shift": "a"}, {"base_image_seq_len": 4096}, {"max_shift": 1e9, "max_image_seq_len": 257}]
)
def test_shifts_that_are_none(changes: dict[str, Any]) -> None:
    pipe = tiny_flux()
    pipe.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config, **changes)
    refused(InputError, "got a shift from .*; expected numbers", lambda: from_pipeline(pipe, image_size=128))


@pytest.mark.parametrize("part", ["unet", "text_encoder_2", "vae"])
def test_configs_that_are_larger_than_their_weights(folder: Path, tmp_path: Path, part: str) -> None:
    shutil.copytree(folder, tmp_path / "sdxl")
    file = tmp_path / "sdxl" / part / "config.json"
    change = {"num_hidden_layers": 10**9} if part == "text_encoder_2" else {"block_out_channels": [1024, 2**16]}
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    refused(NotFoundError, "larger than its weights", lambda: energycomp.load(tmp_path / "sdxl"))


def test_weights_that_are_missing(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "sdxl")
    file = tmp_path / "sdxl/text_encoder_2/model.safetensors"
    weights = load_file(file)
    weights.pop(min(weights))
    save_file(weights, file, metadata={"format": "pt"})
    refused(NotFoundError, "1 weights of CLIPTextModelWithProjection are missing",
            lambda: energycomp.load(tmp_path / "sdxl"))  # fmt: skip


@pytest.mark.parametrize("name", ["sd", "sdxl", "flux"])
def test_float16_on_the_cpu(name: str) -> None:
    pipe = TINY[name]().to(dtype=torch.float16)
    model = from_pipeline(pipe, **OPTIONS[name])
    refused(
        InputError, "float16 on the CPU; expected bfloat16",
        lambda: Composer(model.unconditional + 0).sample(1, num_inference_steps=1, progress=False),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 30}, "image_size 30; expected a multiple of 4"),
        ({"image_size": "large"}, "image_size='large' for Settings; expected a whole number"),
        ({"max_sequence_length": 0}, "max_sequence_length=0 for Settings; expected a whole number"),
        ({"embedded_guidance": -1.0}, "embedded_guidance=-1.0 for Settings; expected a number"),
        ({"guidance": 1.0}, "the option 'guidance' with a FluxPipeline; expected image_size, max_sequence_length"),
    ],
)
def test_options_that_are_none(options: dict[str, Any], message: str) -> None:
    refused(InputError, message, lambda: from_pipeline(tiny_flux(), **options))


def test_options_of_the_command_line_are_texts() -> None:
    model = from_pipeline(tiny_flux(), image_size="32", embedded_guidance="2.5")
    assert model.denoiser.sample_shape == (4, 16, 16)


@pytest.mark.parametrize("name", [name for name in TINY if name != "sd"])
def test_only_models_of_registered_networks_are_saved(name: str, tmp_path: Path) -> None:
    model = from_pipeline(TINY[name](), **OPTIONS[name])
    refused(
        InputError, "with its own save_pretrained, and load that folder", lambda: save_pretrained(model, tmp_path / "m")
    )
    assert not (tmp_path / "m").exists()


def test_models_of_other_latents_do_not_compose(pipe: Any) -> None:
    other = from_pipeline(tiny_pixart(seed=5), max_sequence_length=40)
    with pytest.raises(CompositionError, match="with space vae"):
        _ = from_pipeline(pipe)("a cat") + other("a dog")


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
