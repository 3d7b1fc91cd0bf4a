"""Models on disk: what is written loads, and what is damaged, foreign or unknown is refused with its reason."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch

from energycomp import plugins
from energycomp.components import predict
from energycomp.denoisers import TwoStageUNet
from energycomp.errors import CheckpointError, InputError, NotFoundError
from energycomp.files import atomic_directory, write_tensors
from energycomp.images import ImageProcessor
from energycomp.models import HubSource, Model, VAECodec, from_pretrained, load, save_pretrained, shipped, sources
from energycomp.testing import UnitSquare

Rewrite = Callable[..., None]
WEIGHTS = "model.safetensors"


def test_subfolders_and_misspelt_keys(tmp_path: Path, model: Model, rewrite: Rewrite) -> None:
    model.save_pretrained(tmp_path / "all" / "small")
    assert load(tmp_path / "all", subfolder="small").name == load(f"{tmp_path}/all/small").name
    for subfolder in ("..", "/etc", "", 3):
        with pytest.raises(InputError, match="expected the name of a folder inside the model's"):
            load(tmp_path / "all", subfolder=subfolder)
    with pytest.raises(InputError, match="with the registered model clevr"):
        load("clevr", subfolder="small")
    for part, key, right in (("denoiser", "rulee", "rule"), ("defaults", "drawss", "draws")):
        rewrite(tmp_path / "all" / "small", lambda config, _, part=part, key=key: config[part].update({key: 3}))
        with pytest.raises(CheckpointError, match=rf"(?i){key}'\W+did you mean '{right}'\?\)"):
            load(tmp_path / "all" / "small")
        rewrite(tmp_path / "all" / "small", lambda config, _, part=part, key=key: config[part].pop(key))


@pytest.mark.parametrize("dtype", [None, torch.float16])
@torch.no_grad()
def test_round_trip(tmp_path: Path, model: Model, dtype: torch.dtype | None) -> None:
    save_pretrained(model, tmp_path / "m", dtype=dtype, extra={"README.md": "# A model"})
    again = load(str(tmp_path / "m"))
    assert (again.name, again.defaults, again.processor) == (model.name, model.defaults, model.processor)
    for name in ("prediction_type", "rule", "sample_shape", "token_shape", "null_trained", "codec"):
        assert getattr(again.denoiser, name) == getattr(model.denoiser, name)
    assert torch.equal(again.denoiser.alphas_cumprod, model.denoiser.alphas_cumprod)
    assert {p.dtype for p in again.denoiser.network.parameters()} == {torch.float32}
    assert not again.denoiser.network.training
    sample, timestep = torch.randn(2, 3, 16, 16), torch.tensor([100.0, 800.5])
    before, after = (predict(m(0.2, 0.3) & m(0.7, 0.6), sample, timestep) for m in (model, again))
    tolerance = 1e-5 if dtype is None else 0.02
    assert float((after - before).abs().max() / before.abs().max()) < tolerance
    assert {f.name for f in (tmp_path / "m").iterdir()} == {"README.md", "config.json", "manifest.json", WEIGHTS}
    full = sum(4 * p.numel() for p in model.denoiser.network.parameters())
    assert ((tmp_path / "m" / WEIGHTS).stat().st_size < 0.7 * full) == (dtype is torch.float16)


def test_a_model_over_latents_of_images_that_are_not_square_is_saved(
    tmp_path: Path, model: Model, rewrite: Rewrite
) -> None:
    network = TwoStageUNet(sample_size=(16, 24), channels=(8, 16), head_channels=8, groups=(4, 8, 2)).eval()
    codec = VAECodec("some/vae", image_size=(128, 192), channels=3)
    denoiser = attrs.evolve(model.denoiser, network=network, codec=codec, sample_shape=codec.latent_shape)
    wide = attrs.evolve(model, denoiser=denoiser, processor=ImageProcessor(size=(128, 192), resize="squash"))
    save_pretrained(wide, tmp_path / "m")
    again = load(tmp_path / "m")
    assert json.dumps(again.config()) == json.dumps(wide.config())
    assert isinstance(again.denoiser.codec, VAECodec)
    assert again.denoiser.codec.latent_shape == again.denoiser.sample_shape == (3, 16, 24)
    known = network.state_dict()
    assert all(tensor.equal(known[name]) for name, tensor in again.denoiser.network.state_dict().items())
    rewrite(tmp_path / "m", lambda config, _: config["codec"]["config"].update(image_size=[128]))
    with pytest.raises(InputError, match=r"image_size=\[128\].* a whole number, or height and width"):
        load(tmp_path / "m")


def test_a_folder_from_before_groups_could_be_chosen(tmp_path: Path, model: Model, rewrite: Rewrite) -> None:
    save_pretrained(model, tmp_path / "m")
    rewrite(tmp_path / "m", lambda config, _: config["network"]["config"].pop("groups"))
    again = load(tmp_path / "m")
    assert again.denoiser.network.config["groups"] == 8
    sample, timestep = torch.randn(1, 3, 16, 16), torch.tensor([300.0])
    torch.testing.assert_close(again(0.2, 0.3).eps(sample, timestep), model(0.2, 0.3).eps(sample, timestep))


DAMAGES: dict[str, tuple[Callable[[dict[str, Any], dict[str, torch.Tensor]], Any], type[Exception], str]] = {
    "missing weight": (lambda c, t: t.pop("network.null"), CheckpointError, "1 missing tensors, 'null'"),
    "extra weight": (lambda c, t: t.update(other=torch.zeros(1)), CheckpointError, "1 extra tensors, 'other'"),
    "misshapen": (lambda c, t: t.update({"network.null": torch.zeros(2)}), CheckpointError, r"'null' of shape \(2,\)"),
    "nan": (lambda c, t: t["network.null"].fill_(float("nan")), CheckpointError, "'null' .* not finite"),
    "no schedule": (lambda c, t: t.pop("alphas_cumprod"), CheckpointError, "alphas_cumprod"),
    "bad schedule": (lambda c, t: t.update(alphas_cumprod=torch.ones(3)), InputError, "alphas_cumprod"),
    "unknown network": (lambda c, t: c["network"].update(name="nothing"), NotFoundError, "two_stage"),
    "python path": (lambda c, t: c["network"].update(name="os:system"), NotFoundError, "'os:system'"),
    "dotted path": (lambda c, t: c["conditioner"].update(name="os.path.join"), NotFoundError, "'os.path.join'"),
    "complex": (lambda c, t: t.update({"network.null": t["network.null"].cfloat()}), CheckpointError, "complex64"),
    "whole numbers": (lambda c, t: t.update({"network.null": t["network.null"].int()}), CheckpointError, "int32"),
    "no codec": (lambda c, t: c.pop("codec"), CheckpointError, "KeyError: 'codec'"),
    "no network": (lambda c, t: c.pop("network"), CheckpointError, "KeyError: 'network'"),
    "unknown key": (lambda c, t: c.update(auto_map={"AutoModel": "x.Y"}), CheckpointError, "'auto_map'"),
    "odd codec": (lambda c, t: c.update(codec={"nothing": 1}), CheckpointError, "KeyError: 'name'"),
    "unknown codec": (lambda c, t: c.update(codec={"name": "x", "config": {}}), NotFoundError, "numbers, vae"),
    "odd argument": (lambda c, t: c.update(codec={"name": "vae", "config": {"x": 1}}), CheckpointError, "TypeError"),
    "unknown processor": (lambda c, t: c["processor"].update(name="x"), NotFoundError, "image, numbers"),
    "odd network": (lambda c, t: c["network"]["config"].update(nothing=1), CheckpointError, "TypeError"),
    "odd rule": (lambda c, t: c["denoiser"].update(rule="max"), InputError, "rule"),
    "odd default": (lambda c, t: c["defaults"].update(draws=0), InputError, "draws"),
    "huge default": (lambda c, t: c["defaults"].update(draws=10**15), InputError, "draws"),
    "no flag": (lambda c, t: c["denoiser"].pop("null_trained"), InputError, "null_trained"),
    "odd flag": (lambda c, t: c["denoiser"].update(null_trained="false"), InputError, "null_trained"),
    "other tokens": (lambda c, t: c["denoiser"].update(token_shape=[1, 3]), InputError, r"\(1, 3\)"),
    "other samples": (lambda c, t: c["denoiser"].update(sample_shape=[3, 16, 8]), InputError, r"\(3, 16, 8\)"),
    "huge samples": (lambda c, t: c["denoiser"].update(sample_shape=[3, 2**20, 2**20]), InputError, "at most"),
    "huge pictures": (lambda c, t: c["processor"]["config"].update(size=[2**20, 2**20]), InputError, "at most"),
    "other folding": (lambda c, t: c["network"]["config"].update(patch=2, sample_channels=12), CheckpointError,
                      "RuntimeError"),
    "argument that is dropped": (lambda c, t: c["conditioner"]["config"].update(value_shape=[3]), CheckpointError,
                                 "'value_shape'"),
    "format": (lambda c, t: c.update(format=99), CheckpointError, "of format 99; expected 2"),
    "no format": (lambda c, t: c.pop("format"), CheckpointError, "of format None"),
}  # fmt: skip


@pytest.mark.parametrize("damage", list(DAMAGES))
def test_what_does_not_fit_is_refused(tmp_path: Path, model: Model, rewrite: Rewrite, damage: str) -> None:
    change, error, message = DAMAGES[damage]
    save_pretrained(model, tmp_path / "m")
    rewrite(tmp_path / "m", change)
    with pytest.raises(error, match=message):
        load(tmp_path / "m")


def test_folders_that_are_no_models(tmp_path: Path) -> None:
    with atomic_directory(tmp_path / "m") as temporary:
        (temporary / "images.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"got .*m without config\.json; expected what save_pretrained writes"):
        load(tmp_path / "m")
    for text in ("no json", "[1, 2]", "[" * 100_000, '"x"'):
        with atomic_directory(tmp_path / "m") as temporary:
            (temporary / "config.json").write_text(text)
            write_tensors(temporary / WEIGHTS, {"a": torch.zeros(1)})
        with pytest.raises(CheckpointError, match="expected"):
            load(tmp_path / "m")


@pytest.mark.parametrize("change", [{"channels": [80_000, 80_000]}, {"blocks": 10**9}, {"channels": [16] * 10_000}])
def test_no_network_is_larger_than_its_weights(
    tmp_path: Path, model: Model, rewrite: Rewrite, change: dict[str, Any]
) -> None:
    save_pretrained(model, tmp_path / "m")
    rewrite(tmp_path / "m", lambda config, _: config["network"]["config"].update(change, sample_size=2**12000))
    with pytest.raises(CheckpointError, match="larger than its weights"):
        load(tmp_path / "m")


def test_names_paths_and_hub_ids(tmp_path: Path, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    hub = r"'nobody/nothing', which is no folder and could not be read from the hub"
    for read, source, said in (
        (load, "no-such-model", "no-such-model"), (load, tmp_path / "absent", "which is no folder"),
        (load, "./a/b/c", "which is no folder"), (from_pretrained, tmp_path / "absent", "which is no folder"),
        (load, "nobody/nothing", hub),
    ):  # fmt: skip
        with pytest.raises(NotFoundError, match=said):
            read(source)
    save_pretrained(model, tmp_path / "m")
    with pytest.raises(InputError, match="got preset"):
        load(tmp_path / "m", preset="paper")
    with pytest.raises(InputError, match=r"got an object of int; .* call energycomp_text\.from_pipeline"):
        load(3)
    with pytest.raises(InputError, match=r"a single file of weights; .* from_single_file"):
        load("sdxl.safetensors")


@pytest.mark.parametrize(
    ("option", "said"), [("torch_dtype", "expected dtype="), ("use_safetensors", "no other weights")]
)
def test_an_option_of_diffusers_names_what_does_it_here(option: str, said: str) -> None:
    with pytest.raises(InputError, match=f"got {option}= with owner/name; .*{said}"):  # before the hub is asked
        load("owner/name", **{option: True})


def test_a_registered_name_gets_the_options(monkeypatch: pytest.MonkeyPatch, model: Model) -> None:
    monkeypatch.setattr(sources, "names", lambda kind: ("toy",))
    monkeypatch.setattr(sources, "find", lambda kind, name: lambda **options: attrs.evolve(model, **options))
    assert load("toy", name="other").name == "other"


def test_a_pipeline_is_read_by_the_loader_of_its_marker_file(
    tmp_path: Path, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model_index.json").write_text("{}")
    asked: list[tuple[Any, ...]] = []

    def find(*wanted: str) -> Any:
        return lambda source, **options: asked.append((*wanted, source, options)) or model

    known = {"loaders": ("model_index.json", "other.yaml")}
    monkeypatch.setattr(sources, "names", lambda kind: known.get(kind, ()))
    monkeypatch.setattr(sources, "find", find)
    assert load(tmp_path, dtype="bfloat16").name == model.name
    monkeypatch.setattr(HubSource, "download", lambda *_: tmp_path)
    load("owner/name")
    (tmp_path / "other.yaml").touch()
    (tmp_path / "model_index.json").unlink()
    load(tmp_path)
    assert asked == [
        ("loaders", "model_index.json", str(tmp_path), {"dtype": "bfloat16"}),
        ("loaders", "model_index.json", "owner/name", {}),
        ("loaders", "other.yaml", str(tmp_path), {}),
    ]
    (tmp_path / "model_index.json").touch()
    known.clear()
    for source in (tmp_path, "owner/name"):
        with pytest.raises(NotFoundError, match=r"a pipeline of diffusers.*pip install energycomp-text"):
            load(source)


def test_a_device_that_is_not_there_is_refused(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*_: object, **__: object) -> None:
        raise AssertionError("Torch not compiled with CUDA enabled")

    save_pretrained(model, tmp_path / "m")
    monkeypatch.setattr("energycomp.models.sources.torch.zeros", absent)
    with pytest.raises(InputError, match=r"got device 'cuda', .*CUDA enabled\); expected cpu, cuda"):
        load(tmp_path / "m", device="cuda")


@pytest.mark.parametrize("config", [{"_class_name": "UNet2DConditionModel"}, {"architectures": ["CLIPTextModel"]}])
def test_a_part_of_a_pipeline_is_named(tmp_path: Path, config: dict[str, Any]) -> None:
    """It is no model of ours that is damaged, and must not be deleted."""
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(NotFoundError, match=r"without manifest\.json .* a whole pipeline"):
        load(tmp_path)


def test_nothing_is_left_of_a_model_that_cannot_be_saved(tmp_path: Path, model: Model) -> None:
    """Such as one with a codec without a place."""

    class Odd(UnitSquare):
        def config(self) -> dict[str, Any]:
            return {"not": object()}

    with pytest.raises(TypeError):
        save_pretrained(attrs.evolve(model, conditioner=Odd()), tmp_path / "m")
    for source in ("in memory 1", "nowhere", "../vae"):
        codec = VAECodec(source, image_size=128, channels=3)
        with pytest.raises(InputError, match="was read from a folder or the hub"):
            save_pretrained(attrs.evolve(model, denoiser=attrs.evolve(model.denoiser, codec=codec)), tmp_path / "m")
    assert not list(tmp_path.iterdir())


class Counted(torch.nn.Module):
    """A network that counts how often it is built; `grid` is not saved, and with `tied` two layers share weights."""

    built = 0

    def __init__(self, *, sample_size: int = 16, grid: bool = False, tied: bool = False) -> None:
        super().__init__()
        type(self).built += 1
        self.config = {"sample_size": sample_size, "grid": grid, "tied": tied}
        self.first, self.last = torch.nn.Conv2d(3, 3, 1), torch.nn.Conv2d(3, 3, 1)
        if tied:
            self.last.weight = self.first.weight
        if grid:
            self.register_buffer("grid", torch.linspace(0, 1, sample_size), persistent=False)
            self.places = [torch.ones(sample_size)]

    def features(self, sample: torch.Tensor, timestep: torch.Tensor) -> tuple[torch.Tensor]:
        shift = self.grid + self.places[0] if self.config["grid"] else 0.0
        return (self.last(self.first(sample)) + shift,)

    def head(self, features: tuple[torch.Tensor], condition: Any, owner: torch.Tensor) -> torch.Tensor:
        return features[0][owner] + condition.rows.sum((1, 2))[:, None, None, None]


@pytest.mark.parametrize(("options", "builds"), [({}, 1), ({"grid": True}, 2), ({"tied": True}, 2)])
@torch.no_grad()
def test_a_network_is_built_once_unless_it_holds_what_is_not_saved(
    tmp_path: Path, model: Model, monkeypatch: pytest.MonkeyPatch, options: dict[str, bool], builds: int
) -> None:
    plugins.register("networks", "counted", Counted)
    network = Counted(**options)
    own = attrs.evolve(model, denoiser=attrs.evolve(model.denoiser, network=network), network_name="counted")
    save_pretrained(own, tmp_path / "m")
    Counted.built = 0
    again = load(tmp_path / "m")
    assert Counted.built == builds
    loaded = again.denoiser.network
    assert (loaded.first.weight is loaded.last.weight) == bool(options.get("tied"))  # type: ignore[union-attr]
    assert not any(tensor.is_meta for tensor in (*loaded.parameters(), *loaded.buffers()))
    assert all(p.requires_grad for p in loaded.parameters())
    sample, timestep = torch.randn(2, 3, 16, 16), torch.tensor([100.0, 800.5])
    before, after = (predict(m(0.2, 0.3) & m(0.7, 0.6), sample, timestep) for m in (own, again))
    torch.testing.assert_close(after, before)


def test_weights_do_not_follow_their_file(tmp_path: Path, model: Model) -> None:
    save_pretrained(model, tmp_path / "m")
    weights = load(tmp_path / "m").denoiser.network.state_dict()
    before = {name: tensor.clone() for name, tensor in weights.items()}
    file = tmp_path / "m" / "model.safetensors"
    with file.open("r+b") as stream:
        stream.write(bytes(file.stat().st_size))
    assert all(torch.equal(weights[name], tensor) for name, tensor in before.items())


def test_weights_of_a_package(tmp_path: Path, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "carrier" / "weights").mkdir(parents=True)
    (tmp_path / "carrier" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    save_pretrained(model, tmp_path / "carrier" / "weights" / "one")
    assert shipped("carrier", "one").name == model.name
    with pytest.raises(NotFoundError, match="without manifest"):
        shipped("carrier")
