"""Models of grey images and of points in the plane: made, trained, sampled, saved and loaded."""

from pathlib import Path
from typing import Any, ClassVar

import attrs
import pytest
import torch
from torch import Tensor, nn

import energycomp
from energycomp import plugins
from energycomp.components import Condition, cosine_schedule
from energycomp.denoisers import configured
from energycomp.errors import CheckpointError, InputError, NotFoundError
from energycomp.images import ImageProcessor
from energycomp.models import Model, load, save_pretrained
from energycomp.plugins import registry
from energycomp.testing import Labels, UnitSquare, tiny_model
from energycomp_lab.checks import check_model
from energycomp_lab.training import denoising_loss


class Pointwise(nn.Module):
    """Every place of a sample by itself, under a condition (1, 2)."""

    def __init__(self, *, channels: int) -> None:
        super().__init__()
        self.config = {"channels": channels}
        self.inner = nn.Conv2d(channels + 4, 16, 1)
        self.out = nn.Conv2d(16, channels, 1)

    def forward(self, sample: Tensor, timestep: Tensor, condition: Condition) -> Tensor:
        known = torch.cat([condition.rows[:, 0], condition.null[:, None], timestep[:, None] / 1000], dim=1)
        planes = known.to(sample.dtype)[..., None, None].expand(-1, -1, *sample.shape[2:])
        out: Tensor = self.out(torch.nn.functional.silu(self.inner(torch.cat([sample, planes], dim=1))))
        return out


def other(shape: tuple[int, int, int], *, bounded: bool, rule: Any = "product") -> Model:
    denoiser = energycomp.Denoiser(
        network=Pointwise(channels=shape[0]),
        alphas_cumprod=cosine_schedule(),
        prediction_type="sample",
        rule=rule,
        sample_shape=shape,
        token_shape=(1, 2),
        value_range=(-1.0, 1.0) if bounded else None,
    )
    processor = ImageProcessor(size=shape[1:], channels=shape[0], bounded=bounded)
    return Model("other", denoiser, UnitSquare(), processor, network_name="pointwise", conditioner_name="square")


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_own", {})
    plugins.register("networks", "pointwise", Pointwise)
    plugins.register("conditioners", "square", UnitSquare)


SHAPES = [((1, 8, 8), True), ((1, 1, 2), False), ((2, 1, 1), False), ((5, 4, 4), True)]


@pytest.mark.parametrize(("shape", "bounded"), SHAPES)
def test_made_saved_loaded_sampled_and_trained(shape: tuple[int, int, int], bounded: bool) -> None:
    """What sample() returns for other numbers of channels is in test_composer.py."""
    model = other(shape, bounded=bounded)
    check_model(model)
    both = energycomp.Composer([model(0.2, 0.3), model(0.8, 0.6)])
    tensor = both.sample(3, num_inference_steps=3, output_type="pt", progress=False)
    assert tensor.shape == (3, *shape)
    if shape == (1, 8, 8):
        pictures = both.sample(3, num_inference_steps=3, progress=False)
        assert [picture.mode for picture in pictures] == ["L"] * 3
        assert model.decode(model.encode(pictures), "pil")[0].size == (8, 8)
    else:
        assert model.decode(tensor, "np").shape == (3, *shape[1:], shape[0])
    samples, owner = model.encode(tensor * (1.0 if bounded else 3.0)), torch.tensor([0, 2, 2])
    denoising_loss(model.denoiser, samples, model.conditioner(torch.rand(3, 2)), owner, generator=0).backward()
    assert all(parameter.grad.any() for parameter in model.denoiser.network.parameters())


def test_points_are_not_clipped_and_images_are() -> None:
    for bounded in (True, False):
        model = other((1, 1, 2), bounded=bounded)
        nn.init.zeros_(model.denoiser.network.out.weight)
        nn.init.constant_(model.denoiser.network.out.bias, 3.0)
        x = energycomp.Composer([model(0.5, 0.5)]).sample(num_inference_steps=10, output_type="pt", progress=False)
        torch.testing.assert_close(x, torch.full((1, 1, 1, 2), 1.0 if bounded else 3.0), rtol=0, atol=1e-3)


@attrs.frozen
class Spectrogram:
    """A codec by a stranger: waves (B, N) as real and imaginary parts of their Fourier transform (B, 2, N / 2 + 1)."""

    length: int
    registered_name: ClassVar[str] = "spectrogram"
    identity: ClassVar[str] = "spectrogram"

    @property
    def latent_shape(self) -> tuple[int, ...]:
        return (2, self.length // 2 + 1)

    def encode(self, images: Tensor) -> Tensor:
        found = torch.fft.rfft(images, norm="ortho")
        return torch.stack([found.real, found.imag], 1)

    def decode(self, latents: Tensor) -> Tensor:
        return torch.fft.irfft(torch.complex(*latents.unbind(1)), n=self.length, norm="ortho")

    def config(self) -> dict[str, Any]:
        return attrs.asdict(self)


@attrs.frozen
class Waves:
    """A processor by a stranger: lists of N numbers to waves (B, N)."""

    length: int
    registered_name: ClassVar[str] = "waves"
    bounded: ClassVar[bool] = False

    @property
    def sample_shape(self) -> tuple[int, ...]:
        return (self.length,)

    def __call__(self, given: Any) -> Tensor:
        return torch.as_tensor(given).float().reshape(-1, self.length)

    def config(self) -> dict[str, Any]:
        return attrs.asdict(self)


@configured
class Tone(nn.Module):
    """Predicts as x0 the spectrum of a cosine whose frequency is the label plus 1."""

    def forward(self, sample: Tensor, timestep: Tensor, condition: Condition) -> Tensor:
        frequency = 1 + condition.rows[:, 0].argmax(1)
        at = torch.arange(16) / 16
        return Spectrogram(16).encode(torch.cos(2 * torch.pi * frequency[:, None] * at)) + 0 * sample


def test_a_codec_and_a_processor_of_a_plugin_are_saved_and_loaded_by_name(tmp_path: Path) -> None:
    plugins.register("networks", "tone", Tone)
    plugins.register("conditioners", "tones", Labels)
    codec = Spectrogram(16)
    denoiser = energycomp.Denoiser(Tone(), cosine_schedule(), "sample", "product", (2, 9), (1, 3), codec=codec)
    model = Model("tones", denoiser, Labels(3), Waves(16), "tone", "tones")
    save_pretrained(model, tmp_path / "model")
    with pytest.raises(NotFoundError, match="No codec is named 'spectrogram'"):
        load(tmp_path / "model")
    plugins.register("codecs", "spectrogram", Spectrogram)
    plugins.register("processors", "waves", Waves)
    again = load(tmp_path / "model")
    assert (again.denoiser.codec, again.processor) == (codec, Waves(16))
    x = energycomp.Composer([again(1)]).sample(2, num_inference_steps=3, output_type="pt", progress=False)
    expected = torch.cos(2 * torch.pi * 2 * torch.arange(16) / 16)
    torch.testing.assert_close(x, expected.expand(2, 16), atol=1e-2, rtol=0)
    torch.testing.assert_close(again.decode(again.encode(expected), "pt")[0], expected)
    assert repr(again).startswith("Model('tones', samples (2, 9), Labels,")

    class Nameless(Spectrogram):
        registered_name = property()  # type: ignore[assignment]

    nameless = attrs.evolve(model, denoiser=attrs.evolve(denoiser, codec=Nameless(16)))
    with pytest.raises(InputError, match="got the codec Nameless to save; expected the attribute registered_name"):
        save_pretrained(nameless, tmp_path / "other")


def test_a_saved_config_without_the_new_keys_loads(tmp_path: Path, rewrite: Any) -> None:
    """Files that were written before there were value ranges and grey images."""

    def older(config: dict[str, Any], _: Any) -> None:
        assert config["denoiser"].pop("value_range") == [-1.0, 1.0]
        processor = config["processor"]["config"]
        assert (processor.pop("channels"), processor.pop("bounded")) == (3, True)

    save_pretrained(other((3, 8, 8), bounded=True), tmp_path / "model")
    rewrite(tmp_path / "model", older)
    old = load(tmp_path / "model")
    assert old.processor == ImageProcessor(size=(8, 8))
    assert old.denoiser.value_range == (-1.0, 1.0)
    for value in ([0.0, 1.0], 1.0, "all", [-1.0, float("nan")]):
        rewrite(tmp_path / "model", lambda config, _, value=value: config["denoiser"].update(value_range=value))
        with pytest.raises((CheckpointError, InputError), match="value_range"):
            load(tmp_path / "model")


def test_a_processor_that_does_not_fit_is_refused() -> None:
    model = tiny_model()
    with pytest.raises(InputError, match=r"shape \(1, 16, 16\); expected \(3, 16, 16\)"):
        Model("x", model.denoiser, model.conditioner, ImageProcessor((16, 16), channels=1), "two_stage", "coordinates")
