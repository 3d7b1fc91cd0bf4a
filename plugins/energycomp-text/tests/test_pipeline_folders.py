"""Folders and pipelines of Stable Diffusion that are refused, each in one line."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file, save_file

import energycomp
from energycomp.errors import EnergycompError, InputError, NotFoundError
from energycomp.models import Model, save_pretrained
from energycomp_text import from_pipeline, with_concepts
from energycomp_text.model import text
from energycomp_text.pipelines import load_model
from energycomp_text.testing import tiny_sdxl


def without(name: str) -> Callable[[Path], object]:
    return lambda path: shutil.rmtree(path / name)


def index(**changes: Any) -> Callable[[Path], object]:
    def change(path: Path) -> None:
        file = path / "model_index.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))

    return change


def pickled(file: str) -> Callable[[Path], object]:
    def change(path: Path) -> None:
        weights = load_file(path / file)
        (path / file).unlink()
        torch.save(
            weights, (path / file).with_name("pytorch_model.bin" if "text" in file else "diffusion_pytorch_model.bin")
        )

    return change


def lacking(file: str) -> Callable[[Path], object]:
    def change(path: Path) -> None:
        weights = load_file(path / file)
        weights.pop(min(weights))
        save_file(weights, path / file, metadata={"format": "pt"})

    return change


def config(part: str, **changes: Any) -> Callable[[Path], object]:
    def change(path: Path) -> None:
        file = next((path / part).glob("*config.json"))
        file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))

    return change


JSON = (
    "model_index.json", "unet/config.json", "vae/config.json", "text_encoder/config.json",
    "scheduler/scheduler_config.json",
)  # fmt: skip
UNET, VAE, ENCODER = (
    "unet/diffusion_pytorch_model.safetensors",
    "vae/diffusion_pytorch_model.safetensors",
    ("text_encoder/model.safetensors"),
)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        *((without(name), NotFoundError, f"without {name}; expected the folders") for name in (
            "text_encoder", "tokenizer", "unet", "vae", "scheduler")),
        (lambda path: (path / "model_index.json").unlink(), NotFoundError, "without model_index.json"),
        (lambda path: (path / "model_index.json").write_text("{"), InputError, "which is no JSON"),
        (lambda path: (path / "model_index.json").write_text("[]"), InputError, "expected a pipeline of one of"),
        (index(_class_name="KolorsPipeline"), InputError, "a KolorsPipeline; expected a pipeline of one of the"),
        (index(_class_name="StableDiffusionXLPipeline"), NotFoundError, "without text_encoder_2, tokenizer_2"),
        (index(_class_name=["own", "Pipeline"]), InputError, "expected a pipeline of one of"),
        (pickled(UNET), NotFoundError, "no file named diffusion_pytorch_model.safetensors"),
        (pickled(VAE), NotFoundError, "no file named diffusion_pytorch_model.safetensors"),
        (pickled(ENCODER), NotFoundError, "no file named model.safetensors"),
        (lacking(UNET), NotFoundError, "1 weights of UNet2DConditionModel are missing, 'conv_in.bias'"),
        (lacking(VAE), NotFoundError, "1 weights of AutoencoderKL are missing"),
        (lacking(ENCODER), NotFoundError, "1 weights of CLIPTextModel are missing"),
        (lambda path: (path / "tokenizer/tokenizer.json").unlink(), InputError, "knows no letter"),
        (lambda path: (path / "unet/config.json").write_text("{}"), NotFoundError, "larger than its weights"),
        (config("unet", sample_size=None), InputError, "sample_size None.*add it to its config"),
        (config("unet", sample_size=[16, 0]), InputError, "sample_size .16, 0."),
        (config("unet", block_out_channels=[1024, 2**16]), NotFoundError, "larger than its weights"),
        (config("vae", block_out_channels=[1024, 2**16]), NotFoundError, "larger than its weights"),
        (config("text_encoder", num_hidden_layers=10**9), NotFoundError, "larger than its weights"),
        (config("scheduler", prediction_type="flow"), InputError, "'flow'.*set prediction_type in its config"),
        *((config("scheduler", num_train_timesteps=steps), NotFoundError, "expected 1 to 100,000")
          for steps in (10**12, 0, 10.5, None)),
        *((lambda path, file=file: (path / file).write_text("[" * 10**5), EnergycompError, "no JSON")
          for file in JSON),
        *((lambda path, file=file: (path / file).write_text(" " * 10**6 + "{}"), EnergycompError, "1,000,002 bytes")
          for file in JSON),
    ],
)  # fmt: skip
def test_folders_that_are_no_pipeline(
    folder: Path, tmp_path: Path, change: Callable[[Path], object], error: type[Exception], message: str
) -> None:
    shutil.copytree(folder, tmp_path / "sd")
    change(tmp_path / "sd")
    with pytest.raises(error, match=message):
        text(model=str(tmp_path / "sd"))


def test_an_empty_folder_says_what_to_get(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"give a hub id, such as .*, or a folder that save_pretrained"):
        text(model=str(tmp_path))
    with pytest.raises(NotFoundError, match="no folder and no hub id"):
        text(model=str(tmp_path / "nowhere"))
    with pytest.raises(NotFoundError, match="no folder and no hub id"):
        load_model("x" * 300)


def test_classes_that_a_folder_names_are_never_imported(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(folder, tmp_path / "sd")
    ran = tmp_path / "ran"
    for place in (tmp_path, tmp_path / "sd", tmp_path / "sd/unet", tmp_path / "sd/text_encoder"):
        (place / "own_classes.py").write_text(f"open({str(ran)!r}, 'w')\nclass Own: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    names = {name: ["own_classes", "Own"] for name in ("unet", "vae", "text_encoder", "tokenizer", "scheduler")}
    index(**names, safety_checker=["own_classes", "Own"])(tmp_path / "sd")
    for name in ("unet", "vae", "text_encoder"):
        file = tmp_path / "sd" / name / "config.json"
        own = {"auto_map": {"AutoModel": "own_classes.Own", "AutoConfig": "own_classes.Own"}, "_class_name": "Own"}
        file.write_text(json.dumps({**json.loads(file.read_text()), **own}))
    sd = energycomp.load(tmp_path / "sd")
    assert type(sd.denoiser.network.unet) is diffusers.UNet2DConditionModel
    assert not ran.exists()
    assert "own_classes" not in sys.modules


@pytest.mark.parametrize("load", [energycomp.load, lambda name: text(model=name)], ids=["load", "text"])
def test_a_hub_id_without_a_network(monkeypatch: pytest.MonkeyPatch, load: Callable[[str], Model]) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(NotFoundError, match=r"'nobody/nothing-of-the-kind'.*could not be read from the hub") as refused:
        load("nobody/nothing-of-the-kind")
    assert "\n" not in str(refused.value)


def test_models_that_take_no_text(tmp_path: Path) -> None:
    from energycomp_faces.model import faces

    save_pretrained(faces(pretrained=False), tmp_path / "faces")
    with pytest.raises(InputError, match="not conditioned on text"):
        text(model=str(tmp_path / "faces"))
    with pytest.raises(InputError, match="expected one on text"):
        with_concepts(faces(pretrained=False), ["cat"])


def test_concepts_are_not_taken_apart(pipe: Any) -> None:
    for made in (from_pipeline, lambda pipe, concepts: from_pipeline(tiny_sdxl(), concepts=concepts)):
        with pytest.raises(InputError, match="got the concepts 'cat'; expected a list of words"):
            made(pipe, concepts="cat")


class Parts:
    """What `from_pipeline` asks a pipeline for, with some of it replaced."""

    def __init__(self, pipe: Any, **replaced: Any) -> None:
        for name in ("unet", "vae", "scheduler", "text_encoder", "tokenizer"):
            setattr(self, name, replaced.get(name, getattr(pipe, name)))


def test_pipelines_that_lack_a_part_or_have_another(pipe: Any) -> None:
    assert from_pipeline(Parts(pipe))("a cat").condition.shape == (32, 32)
    assert not any(p.requires_grad for part in (pipe.unet, pipe.vae, pipe.text_encoder) for p in part.parameters())
    with pytest.raises(InputError, match="Parts without vae, text_encoder"):
        from_pipeline(Parts(pipe, text_encoder=None, vae=None))
    for given, message in (
        (None, "an object of NoneType; expected a pipeline of one of the families"),
        ({"unet": pipe.unet}, "an object of dict; expected a pipeline"),
        ("sdxl", "got 'sdxl'; expected a pipeline that is in memory; .* energycomp.load"),
        (Path("sdxl"), "got 'sdxl'; .* energycomp.load"),
        (type(pipe), "the class StableDiffusionPipeline; expected a pipeline; make one"),
    ):
        with pytest.raises(InputError, match=message):
            from_pipeline(given)
    with pytest.raises(InputError, match=r"without alphas_cumprod.*flow matching"):
        from_pipeline(Parts(pipe, scheduler=diffusers.FlowMatchEulerDiscreteScheduler()))
    inpainting = diffusers.UNet2DConditionModel.from_config({**pipe.unet.config, "in_channels": 9})
    with pytest.raises(InputError, match=r"9 channels over a VAE of 4.*inpainting"):
        from_pipeline(Parts(pipe, unet=inpainting))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "large"}, "expected 'default'"),
        ({"encoder": "words"}, "pretrained=False"),
        ({"pretrained": False, "dtype": "bfloat16"}, "expected encoder"),
        ({"pretrained": False, "encoder": "clip"}, "'words' or 'minilm'"),
        ({"model": "here", "encoder": "words"}, "expected dtype"),
    ],
)
def test_options_that_are_none(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        text(**options)
