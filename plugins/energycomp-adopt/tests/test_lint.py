"""What `energycomp lint` opens, and what it says of models that were not adopted, such as those of latents."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import diffusers
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from energycomp.components import Classes, Condition, cosine_schedule
from energycomp.denoisers import Denoiser
from energycomp.errors import CheckpointError, EnergycompError, InputError, NotFoundError
from energycomp.images import ImageProcessor
from energycomp.models import Defaults, Model, VAECodec
from energycomp.seeds import seeded, torch_seed
from energycomp.testing import Ideal, tiny_model
from energycomp_adopt import adopt, check_adoption
from energycomp_adopt.adapter import network_of
from energycomp_adopt.opened import in_folder, open_model

SIDE = 16
UNET = {
    "sample_size": SIDE, "block_out_channels": (8, 8), "layers_per_block": 1, "norm_num_groups": 4,
    "down_block_types": ("DownBlock2D", "DownBlock2D"), "up_block_types": ("UpBlock2D", "UpBlock2D"),
}  # fmt: skip


class Known(nn.Module):
    """A network of the library that knows its training samples by heart, and takes no conditions."""

    def __init__(self, samples: Tensor) -> None:
        super().__init__()
        self.ideal = Ideal(samples, 0.05)
        self.config: dict[str, Any] = {}

    def forward(self, sample: Tensor, timestep: Tensor, _: Condition) -> Tensor:
        out: Tensor = self.ideal(sample, timestep)
        return out


def pictures(count: int = 48) -> Tensor:
    """Smooth images (N, 3, 16, 16) in [0, 1], which no mirror or turn leaves as they are."""
    coarse = torch.rand(count, 3, 3, 3, generator=seeded(0))
    coarse[:, 0, 0] += 1.0  # the upper row is red
    return nn.functional.interpolate(coarse / 2, size=(SIDE, SIDE), mode="bilinear")


def native(samples: Tensor, processor: Any, codec: VAECodec | None = None) -> Model:
    """A model of the library whose network is right: it predicts the noise on these samples."""
    conditioner = Classes(["any"])
    denoiser = Denoiser(
        Known(samples), cosine_schedule(), "epsilon", "product", tuple(samples.shape[1:]), conditioner.token_shape,
        codec=codec,
    )  # fmt: skip
    return Model("known", denoiser, conditioner, processor, "known", "classes", Defaults(counts=(0, 1)))


def named(model: Model, x: Tensor) -> tuple[str, str]:
    found = check_adoption(model, x)
    assert found.near_miss is not None, str(found)
    return found.near_miss.option, found.near_miss.change


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Path]:
    """Writes the folder of a pipeline of a UNet with random weights."""

    def write(scheduler: Any = None, **config: Any) -> Path:
        with torch_seed(0):
            unet = diffusers.UNet2DModel(**{**UNET, **config})
        out = tmp_path / "pipeline"
        unet.save_pretrained(out / "unet")
        if scheduler is not None:
            scheduler.save_pretrained(out / "scheduler")
        return out

    return write


@pytest.mark.parametrize(
    ("scheduler", "expected"),
    [
        (None, ("eps", "linear", "timestep")),
        (diffusers.DDIMScheduler(), ("eps", "linear", "timestep")),
        (diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction"),
         ("v", "cosine", "timestep")),
        (diffusers.PNDMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"),
         ("eps", "stable diffusion", "timestep")),
        (diffusers.EDMEulerScheduler(), ("edm", (0.002, 80.0), "log sigma / 4")),
        (diffusers.FlowMatchEulerDiscreteScheduler(), ("flow", "flow", "unit")),
        (diffusers.ScoreSdeVeScheduler(), ("score", (0.01, 1348.0), "sigma")),
    ],
    ids=lambda one: type(one).__name__,
)  # fmt: skip
def test_a_scheduler_says_what_a_network_predicts(
    folder: Callable[..., Path], scheduler: Any, expected: tuple[Any, ...]
) -> None:
    options = network_of(open_model(str(folder(scheduler)))).options
    assert (options.predicts, options.process, options.clock) == expected


def test_betas_without_a_name_are_a_table(folder: Callable[..., Path]) -> None:
    scheduler = diffusers.DDPMScheduler(beta_end=0.015)
    process = network_of(open_model(str(folder(scheduler)))).options.process
    assert torch.allclose(torch.tensor(process["alphas_cumprod"]).float(), scheduler.alphas_cumprod)


def test_a_network_of_labels_takes_them(folder: Callable[..., Path]) -> None:
    model = open_model(str(folder(num_class_embeds=4)))
    assert isinstance(model.conditioner, Classes)
    assert len(model.conditioner.names) == 4
    with pytest.raises(InputError, match="got sample_size None"):
        open_model(str(folder(sample_size=None)))
    assert open_model(str(folder(num_class_embeds=4) / "unet")).denoiser.sample_shape == (3, SIDE, SIDE)


def test_a_transformer_of_latents_has_a_null_and_a_codec(tmp_path: Path) -> None:
    with torch_seed(0):
        network = diffusers.DiTTransformer2DModel(
            num_attention_heads=2,
            attention_head_dim=8,
            in_channels=4,
            num_layers=1,
            sample_size=8,
            num_embeds_ada_norm=5,
        )
        vae = autoencoder()
    network.save_pretrained(tmp_path / "transformer")
    vae.save_pretrained(tmp_path / "vae")
    diffusers.DDIMScheduler().save_pretrained(tmp_path / "scheduler")
    model = open_model(str(tmp_path))
    assert (model.denoiser.sample_shape, model.processor.size, network_of(model).options.null) == (
        (4, 8, 8),
        (16, 16),
        5,
    )
    found = check_adoption(model, pictures(), [n % 5 for n in range(48)], evaluations=100)
    assert not found.ok


def autoencoder() -> Any:
    return diffusers.AutoencoderKL(
        block_out_channels=(8, 8), down_block_types=("DownEncoderBlock2D",) * 2, norm_num_groups=4,
        up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=4, sample_size=SIDE,
    ).eval()  # fmt: skip


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("unet/config.json", "{", "which is no JSON"),
        (
            "unet/config.json",
            '{"_class_name": "UNet2DModel", "block_out_channels": 3}',
            "expected that of a UNet2DModel",
        ),
        ("scheduler/scheduler_config.json", "[]", "with a list; expected an object"),
        ("scheduler/scheduler_config.json", '{"_class_name": "os"}', "expected the scheduler of its training"),
        ("scheduler/scheduler_config.json", '{"_class_name": "DDPMScheduler", "prediction_type": "w"}', "type 'w'"),
        ("scheduler/scheduler_config.json", " " * 1_100_000, "expected at most 1,000,000"),
    ],
)
def test_a_damaged_folder_is_one_message(folder: Callable[..., Path], file: str, text: str, message: str) -> None:
    out = folder(diffusers.DDPMScheduler())
    (out / file).write_text(text)
    with pytest.raises(InputError, match=message):
        open_model(str(out))


def test_a_config_that_is_larger_than_its_weights_takes_no_memory(folder: Callable[..., Path]) -> None:
    out = folder()
    config = json.loads((out / "unet" / "config.json").read_text())
    (out / "unet" / "config.json").write_text(json.dumps({**config, "block_out_channels": [80_000, 80_000]}))
    with pytest.raises(CheckpointError):
        open_model(str(out))


def test_weights_with_a_recipe(tmp_path: Path) -> None:
    with torch_seed(0):
        unet = diffusers.UNet2DModel(**UNET)
    save_file(unet.state_dict(), tmp_path / "net.safetensors")
    recipe = tmp_path / "net.toml"
    said = 'network = "diffusers:UNet2DModel"\narguments = { sample_size = 16, block_out_channels = [8, 8], '
    said += 'layers_per_block = 1, norm_num_groups = 4, down_block_types = ["DownBlock2D", "DownBlock2D"], '
    said += (
        'up_block_types = ["UpBlock2D", "UpBlock2D"] }\nshape = [3, 16, 16]\npredicts = "edm"\nprocess = [0.002, 80]\n'
    )
    source = str(tmp_path / "net.safetensors")
    for text, kind, message in (
        (None, NotFoundError, "without net.toml; expected a recipe"),
        ("network = ", InputError, "which is no TOML"),
        ('network = "diffusers"', InputError, "expected network = 'package:Class'"),
        (said.replace("UNet2DModel", "UNet"), InputError, "install or correct it"),
        (said.replace("diffusers:UNet2DModel", "os:system"), InputError, "expected a class of torch.nn.Module"),
        (said.replace("layers_per_block", "layers"), InputError, "expected those of diffusers:UNet2DModel"),
        (said + "sharp = 3\n", InputError, "got defaults=\\['sharp'\\]"),
        (said.replace("[8, 8]", "[8, 16]"), CheckpointError, "missing tensors"),
    ):
        if text is not None:
            recipe.write_text(text)
        with pytest.raises(kind, match=message):
            open_model(source)
    recipe.write_text(said)
    assert network_of(open_model(source)).options.process == (0.002, 80)


def test_a_function_of_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_net.py").write_text(
        "from energycomp_adopt import adopt\nimport torch\n\n\nclass Net(torch.nn.Module):\n"
        "    def forward(self, x, t):\n        return 0.1 * x\n\n\n"
        "def make():\n    return adopt(Net(), shape=(1, 8, 8))\n\n\ndef other():\n    return 3\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert open_model("own_net:make").denoiser.sample_shape == (1, 8, 8)
    for name, message in (
        ("own_net:other", "got a int"), ("own_net:none", "cannot be called"), ("no_net:make", "cannot be called"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=message):
            open_model(name)
    del sys.modules["own_net"]


def test_a_model_of_the_library_is_checked_as_it_is() -> None:
    x = pictures()
    model = native(2 * x - 1, ImageProcessor(size=(SIDE, SIDE)))
    assert check_adoption(model, x).ok
    wrong = attrs.evolve(model, denoiser=attrs.evolve(model.denoiser, prediction_type="v_prediction"))
    assert named(wrong, x) == ("predicts", "predicts='eps'")
    assert named(model, x.flip(1)) == ("samples", "the images: their channels in reverse")
    assert not check_adoption(tiny_model(), pictures(16)).ok  # random weights


@pytest.mark.parametrize("wrong", [0.18215, 1.0])
def test_the_scale_of_latents(wrong: float) -> None:
    with torch_seed(0):
        vae = autoencoder()
    x = pictures()
    z = VAECodec.of(vae, latent_size=8).encode(2 * x - 1) / 0.18215
    vae.register_to_config(scaling_factor=float(1 / z.std()))
    codec = VAECodec.of(vae, latent_size=8)
    model = native(codec.encode(2 * x - 1), ImageProcessor(size=(SIDE, SIDE)), codec)
    assert check_adoption(model, x).ok
    assert not check_adoption(model, 1 - x).ok
    scaled = attrs.evolve(codec, scaling_factor=wrong).holding(vae)
    option, change = named(attrs.evolve(model, denoiser=attrs.evolve(model.denoiser, codec=scaled)), x)
    assert option == "scaling of latents"
    assert float(change.partition("=")[2].partition(",")[0]) == pytest.approx(codec.scaling_factor, rel=0.01)
    assert in_folder(change).endswith("in vae/config.json")


def test_changes_are_lines_of_a_folder() -> None:
    assert in_folder("predicts='x0'") == '"prediction_type": "sample" in scheduler/scheduler_config.json'
    both = in_folder("predicts='v', process='cosine'")
    assert both.count("scheduler_config.json") == 2
    assert in_folder("network.eval()") == "network.eval()"


def test_the_command_names_the_line_of_a_folder(
    folder: Callable[..., Path], tmp_path: Path, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "photos"
    place.mkdir()
    for n, image in enumerate(pictures(16)):
        Image.fromarray((255 * image.permute(1, 2, 0)).byte().numpy().astype(np.uint8)).save(place / f"{n}.png")
    out = folder(diffusers.DDPMScheduler())
    code, said, err = run("lint", str(out), str(place), "--evaluations", "100", "--json")
    assert code == 1, err
    assert {"slope", "explained"} <= {one["what"] for one in json.loads(said) if one["verdict"] == "wrong"}

    known = adopt(
        Ideal(2 * pictures(16) - 1, 0.05, "v"), shape=(3, SIDE, SIDE), process="cosine", predicts="eps", null=0
    )
    monkeypatch.setattr("energycomp_adopt.opened.open_model", lambda *_: known)
    code, said, err = run("lint", str(out), str(place), "--json")
    assert code == 1, err
    assert '"prediction_type": "v_prediction" in scheduler' in " ".join(one["change"] for one in json.loads(said))


@pytest.mark.parametrize(
    ("captions", "message"),
    [
        ("{", "expected a line of JSON"),
        ('{"file_name": "0.png", "text": "a"}\n', "without a line in"),
        ("3\n", "expected"),
    ],
)
def test_captions_that_do_not_fit(tmp_path: Path, run: Any, captions: str, message: str) -> None:
    for n in range(2):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{n}.png")
    (tmp_path / "metadata.jsonl").write_text(captions)
    code, _, err = run("lint", "clevr-places", str(tmp_path))
    assert (code, message in err) == (2, True), err


def test_unknown_sources_are_named(tmp_path: Path) -> None:
    for source in ("no-such-model", str(tmp_path / "none"), str(tmp_path)):
        with pytest.raises(EnergycompError, match=r"expected|Known"):
            open_model(source)
