"""What a user loads: leaves, compositions, encoding."""

import json
from importlib.resources import files
from pathlib import Path
from typing import Any, get_args

import attrs
import pytest
import torch
from PIL import Image

from energycomp import Composer, load
from energycomp.components import Rule
from energycomp.denoisers import Conditional, count_rows
from energycomp.errors import InputError
from energycomp.models import Defaults, given
from energycomp.plugins import find
from energycomp.sampling import AttributeGuidance
from energycomp.testing import Halved, tinted_model, tiny_model


def test_calling_a_model_makes_a_leaf() -> None:
    model = tiny_model()
    leaf = model(0.25, 0.5)
    assert isinstance(leaf, Conditional)
    assert leaf.condition.rows.tolist() == [[[0.25, 0.5]]]
    assert repr(leaf) == "tiny(0.25, 0.5)"
    with pytest.raises(InputError):
        model(2, 3)
    assert repr(model.leaf(torch.tensor([[0.123456, 1.0]]))) == "tiny(0.123, 1)"
    assert repr(model.leaf(torch.rand(4, 2))).endswith(", ...)")
    assert len(model.leaf(torch.rand(4, 2)).condition) == 4
    assert repr(model.leaf(torch.rand(1, 2), name="cat")) == "cat"


def test_compose() -> None:
    model, averaged = tiny_model(), tiny_model(rule="mean")
    assert sorted(model.compose(torch.rand(3, 2)).terms.values()) == [-2.0, 1.0, 1.0, 1.0]
    assert dict(model.compose(torch.zeros(0, 2)).terms) == {model.unconditional: 1.0}
    (leaf,) = model.compose(torch.rand(1, 2)).terms
    assert leaf is not model.unconditional
    assert list(averaged.compose(torch.rand(4, 2)).terms.values()) == [0.25] * 4
    with pytest.raises(InputError, match="no values under the rule 'mean'"):
        averaged.compose(torch.zeros(0, 2))


def test_guidance_draws_attributes_more_strongly() -> None:
    model = tinted_model()
    values = torch.tensor([[0.2, 0.3, 1.0, 2.0], [0.6, 0.5, 0.0, 0.0]])
    x, timestep = torch.randn(1, *model.denoiser.sample_shape), torch.tensor([400.0])
    plain, opened = (model.compose(v).eps(x, timestep) for v in (values, values * torch.tensor([1.0, 1.0, 0.0, 0.0])))
    guided = AttributeGuidance(2.5).weighted(model.compose(values))
    torch.testing.assert_close(guided.eps(x, timestep), 2.5 * plain - 1.5 * opened, rtol=1e-4, atol=1e-4)
    assert guided.mass == 1.0
    early = torch.tensor([800.0])  # at first, nothing is guided
    torch.testing.assert_close(guided.eps(x, early), model.compose(values).eps(x, early), rtol=1e-4, atol=1e-4)
    with count_rows() as spent:
        guided.eps(x, timestep)
    assert spent.rows == 4  # both objects, the first with its attributes left open, and u
    for same in (model.compose(values[1:]), tiny_model().compose([(0.3, 0.4)])):
        assert dict(AttributeGuidance(2.5).weighted(same).terms) == dict(same.terms)


@pytest.mark.parametrize("device", ["quantum", "xla", "meta", "", None, 3])
def test_a_device_that_is_not_there_is_refused(device: Any) -> None:
    with pytest.raises(InputError, match="expected cpu, cuda, cuda:0 or mps; leave it out for the CPU"):
        tiny_model().to(device)
    assert tiny_model().to("cpu").denoiser.device == torch.device("cpu")
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="got device 'cuda', which cannot be used here"):
            tiny_model().to("cuda")


def test_encode_and_decode() -> None:
    model = tiny_model()
    samples = model.encode([Image.new("RGB", (48, 32), "white"), Image.new("RGB", (5, 5), "black")])
    assert samples.shape == (2, 3, 16, 16)
    assert samples[0].min() == 1
    assert samples[1].max() == -1
    assert model.decode(samples)[0].getpixel((3, 3)) == (255, 255, 255)
    assert torch.equal(model.decode(samples, "pt"), (samples + 1) / 2)


def test_a_codec_is_used_on_both_ways() -> None:
    model = tiny_model()
    processor = attrs.evolve(model.processor, size=(32, 32))
    coded = attrs.evolve(model, denoiser=attrs.evolve(model.denoiser, codec=Halved()), processor=processor)
    assert coded.denoiser.space == "halved"
    samples = coded.encode(Image.new("RGB", (32, 32), "white"))
    assert (samples.shape, float(samples.max())) == ((1, 3, 16, 16), 0.5)
    assert coded.decode(samples, "pt").min() == 1


NAN = float("nan")
SCALE = "a number above 0"


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("draws", (0,), "a whole number from 1"), ("num_inference_steps", (0,), "a whole number from 1"),
        ("reading_rule", ("max",), "expected 'sum' or 'mean' or 'product', or None"), ("gamma", (True,), SCALE),
        ("guidance_scale", (0.0, -1.0, None, "7", NAN), SCALE),
        ("attribute_guidance", (0.0, -1.0, None, "7", NAN), SCALE),
        ("aspect", (0, -1.5, 11.0, None, "3:2", NAN), "a number from 0.1 to 10"),
    ],
)  # fmt: skip
def test_defaults_that_cannot_be(name: str, values: tuple[Any, ...], message: str) -> None:
    for value in values:
        with pytest.raises(InputError, match=message):
            Defaults(**{name: value})


def test_defaults() -> None:
    assert Defaults(timesteps=[1, 2], counts=[0, 3]).counts == (0, 3)
    assert (Defaults().reading_rule, Defaults().guidance_scale) == (None, 1.0)
    assert [Defaults(reading_rule=rule).reading_rule for rule in get_args(Rule)] == [*get_args(Rule)]


@pytest.mark.parametrize(
    ("package", "folder", "name", "options"),
    [
        ("energycomp_clevr", "places", "clevr-places", {}), ("energycomp_clevr", "small", "clevr-small", {}),
        ("energycomp_clevr", "places_flow", "clevr-places", {"preset": "flow"}),
        ("energycomp_faces", "", "faces", {}), ("energycomp_decomp", "a", "decomp", {}),
        ("energycomp_slots", "arrow", "slots", {}), ("energycomp_text", "text", "text", {}),
    ],
)  # fmt: skip
def test_shipped_defaults_stand_in_the_folder_of_a_model_alone(
    package: str, folder: str, name: str, options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change of its config.json changes what is loaded, and what training anew begins with: no code says it again."""
    pytest.importorskip(package)
    config = json.loads((files(package) / "weights" / folder / "config.json").read_text())
    changed = {"draws": 7, "gamma": 2.5, "num_inference_steps": 9, "guidance_scale": 1.5, "beta": 3.0}
    config["defaults"] |= changed
    (tmp_path / "weights" / folder).mkdir(parents=True)
    (tmp_path / "weights" / folder / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr(given, "files", lambda _: tmp_path)
    made = find("models", name)(pretrained=False, **options).defaults
    assert made == Defaults(**config["defaults"]).unfitted()


def test_a_model_has_a_guidance_of_its_own(tmp_path: Path) -> None:
    plain = tiny_model()
    model = attrs.evolve(plain, defaults=attrs.evolve(plain.defaults, guidance="apg", guidance_scale=7.5))
    options: dict[str, Any] = {"generator": 0, "num_inference_steps": 3, "output_type": "latent", "progress": False}
    model.save_pretrained(tmp_path / "apg")
    samples = Composer([load(str(tmp_path / "apg"))(0.3, 0.4)]).sample(**options)
    expected = Composer([plain(0.3, 0.4)]).sample(**options, guidance="apg", guidance_scale=7.5)
    torch.testing.assert_close(samples, expected, atol=1e-3, rtol=1e-2)
    assert not samples.equal(Composer([plain(0.3, 0.4)]).sample(**options))
    with pytest.raises(InputError, match="got guidance=3 for Defaults"):
        attrs.evolve(plain.defaults, guidance=3)
