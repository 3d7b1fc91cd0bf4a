"""Composing and sampling: products of Gaussians are Gaussian, and their mean and variance are known."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from energycomp.components import Composable, Composition, Condition, combine, per_sample, region
from energycomp.denoisers import Conditional, count_rows
from energycomp.errors import CompositionError, EnergycompWarning, InputError
from energycomp.images import ImageProcessor, from_unit, to_unit
from energycomp.sampling import Composer
from energycomp.sampling.notes import crowded
from energycomp.testing import Gaussian, bumps_model, cosine_schedule, planted, tiny_model

U = Gaussian(0.0, variance=1.0, name="u", unconditional="self")
TIME = torch.tensor([100.0, 500.5, 900.0])


def gaussians(*specification: tuple[float, float]) -> list[Gaussian]:
    return [Gaussian(mean, variance=variance, unconditional=U) for mean, variance in specification]


def product_of(terms: list[tuple[float, float, float]], timestep: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and precision at x_t of prod N(sqrt(a) m, a v + 1 - a)^w over (w, m, v), where a = alpha_bar_t."""
    a = cosine_schedule().double()[timestep.long()]
    precision = sum(torch.as_tensor(w) / (a * v + 1 - a) for w, _, v in terms)
    mean = sum(w * a.sqrt() * m / (a * v + 1 - a) for w, m, v in terms) / precision
    return torch.as_tensor(mean), torch.as_tensor(precision)


@pytest.mark.parametrize(
    ("terms", "rule"),
    [
        ([(1.0, 1.0, 0.5), (1.0, -0.5, 0.25)], "sum"),
        ([(0.5, 1.0, 0.5), (0.5, -0.5, 0.25)], "mean"),
        ([(1.0, 1.0, 0.5), (1.0, -0.5, 0.25), (-1.0, 0.0, 1.0)], "product"),
    ],
)
def test_eps_and_energy_of_a_product_of_gaussians(terms: list[tuple[float, float, float]], rule: Any) -> None:
    timestep = TIME.floor()
    composer = Composer(gaussians((1.0, 0.5), (-0.5, 0.25)), rule=rule)
    mean, precision = product_of(terms, timestep)
    sigma = (1 - cosine_schedule().double()[timestep.long()]).sqrt()
    x = torch.tensor([0.3, -1.0, 2.0]).view(3, 1, 1, 1)
    offset = x.double().view(3) - mean
    torch.testing.assert_close(
        composer.eps(x, timestep).view(3).double(), sigma * precision * offset, rtol=1e-5, atol=1e-6
    )
    gap = composer.energy(x, timestep) - composer.energy(torch.zeros_like(x), timestep)
    expected = precision * (offset.square() - mean.square()) / 2
    torch.testing.assert_close(gap.double(), expected, rtol=1e-4, atol=1e-5)


NARROW = Gaussian(0.0, variance=0.25, name="u", unconditional="self")
WIDE = Gaussian(0.0, variance=0.5, unconditional="self")


@pytest.mark.parametrize(
    ("composer", "mean", "variance"),
    [
        *(
            (Composer(w * Gaussian(0.4, variance=0.25, unconditional=NARROW) & NARROW), 0.4 * w, 0.25)
            for w in (1, 2, 3.5)
        ),
        (Composer([Gaussian(m, variance=0.5, unconditional=WIDE) for m in (0.5, -0.2, 0.6)], rule="product"), 0.9, 0.5),
        (Composer(gaussians((1.0, 0.3), (0.0, 0.3)), rule="mean"), 0.5, 0.3),
    ],
    ids=["guidance 1", "guidance 2", "guidance 3.5", "conjunction", "mean"],
)
def test_samples_of_equal_widths_have_the_closed_form(composer: Composer, mean: float, variance: float) -> None:
    """Gaussians as wide as u stay so under guidance and in a conjunction, for every t: the precisions cancel."""
    x = composer.sample(4000, generator=0, num_inference_steps=100, output_type="latent", progress=False)
    assert float(x.mean()) == pytest.approx(mean, abs=0.03)
    assert float(x.var()) == pytest.approx(variance, rel=0.1)


def test_a_network_of_bumps_samples_its_picture() -> None:
    model, places = bumps_model(), torch.tensor([[0.3, 0.3], [0.7, 0.6]])
    picture = Composer([model.leaf(place[None]) for place in places]).sample(
        2, num_inference_steps=10, output_type="pt", progress=False
    )
    expected = to_unit(planted(model, places)).expand(2, -1, -1, -1)
    torch.testing.assert_close(picture, expected, rtol=0, atol=1e-4)


def test_more_components_than_the_model_knows_are_warned_of() -> None:
    """Counted in one sample: alternatives, scenes of a batch and negated components do not add up."""
    model = tiny_model(counts=(0, 2))
    a, b, c, d = (model(x, 0.5) for x in (0.1, 0.4, 0.6, 0.9))
    left = region("left half")
    few = [a & b, a & b & ~c, (a & b) | (c & d), per_sample([a & b, c & d]), left * a & (1 - left) * b, 3 * a & b]
    many = {3: [a & b & c, a & (b | c) & d, per_sample([a & b, b & c & d]), left * a & b & c], 4: [a & b & c & d]}
    assert [crowded(Composition.of(one)) for one in few] == [[]] * len(few)
    for count, scenes in many.items():
        for scene in scenes:
            said = f"got {count} components, more than the 2 that tiny knows, so some may be missing; compose fewer"
            assert crowded(Composition.of(scene)) == [said]
    with pytest.warns(EnergycompWarning, match="more than the 2 that tiny knows") as caught:
        Composer(a & b & c).sample(num_inference_steps=1, progress=False)
    assert [Path(one.filename) for one in caught] == [Path(__file__)]


def test_output_types() -> None:
    model = tiny_model()
    composer = Composer([model(0.2, 0.2), model(0.7, 0.7)])

    def run(kind: str) -> Any:
        generator = torch.Generator().manual_seed(0)
        return composer.sample(3, generator=generator, num_inference_steps=2, output_type=kind, progress=False)

    tensor, array, pictures, latent = (run(kind) for kind in ("pt", "np", "pil", "latent"))
    assert tensor.shape == (3, 3, 16, 16)
    assert torch.equal(tensor, latent.clamp(-1, 1).add(1).div(2))  # as VaeImageProcessor denormalizes
    assert array.shape == (3, 16, 16, 3)
    assert array.min() >= 0
    assert array.max() <= 1
    assert np.array_equal(array, tensor.permute(0, 2, 3, 1).numpy())
    assert all(isinstance(picture, Image.Image) and picture.size == (16, 16) for picture in pictures)
    np.testing.assert_allclose(np.stack([np.asarray(picture) for picture in pictures]), array * 255, atol=0.51)


def test_samples_of_ancestral_steps_can_be_read_back() -> None:
    """Euler's ancestral steps do not clip x0."""
    far = Gaussian(1.0, variance=0.5, sample_shape=(3, 4, 4), value_range=(-1.0, 1.0))
    options: Any = {"scheduler": "eulerancestraldiscrete", "generator": 0, "num_inference_steps": 5, "progress": False}
    assert Composer(far).sample(4, output_type="latent", **options).max() > 1.0
    images = Composer(far).sample(4, output_type="pt", **options)
    assert images.max() == 1.0
    assert to_unit(ImageProcessor(size=(4, 4))(from_unit(images))).allclose(images)


@pytest.mark.parametrize(("value_range", "expected"), [(None, 3.0), ((-1.0, 1.0), 1.0), ((-2.0, 2.0), 1.0)])
def test_samples_are_clipped_to_the_value_range_only(value_range: Any, expected: float) -> None:
    far = Gaussian(3.0, variance=1e-6, space="pixels", value_range=value_range)

    def run(kind: str) -> Any:
        return Composer(far).sample(2, num_inference_steps=20, output_type=kind, progress=False)

    assert run("pt").flatten().tolist() == pytest.approx([expected] * 2, abs=0.01)
    assert run("np").flatten().tolist() == pytest.approx([expected] * 2, abs=0.01)


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (2, None), (3, "RGB"), (4, None), (5, None)])
def test_output_types_of_any_number_of_channels(channels: int, mode: str | None) -> None:
    composer = Composer(Gaussian(0.1, 0.01, sample_shape=(channels, 4, 6), value_range=(-1.0, 1.0)))

    def run(kind: str) -> Any:
        return composer.sample(2, num_inference_steps=2, output_type=kind, progress=False)

    assert (run("pt").shape, run("np").shape) == ((2, channels, 4, 6), (2, 4, 6, channels))
    if mode is not None:
        assert [(picture.mode, picture.size) for picture in run("pil")] == [(mode, (6, 4))] * 2
    else:
        with pytest.raises(InputError, match=f"'pil' for samples of {channels} channels; .*use output_type 'np' or"):
            run("pil")
    with pytest.raises(InputError, match="'pil' for samples without a value range"):
        Composer(Gaussian(sample_shape=(channels, 4, 6))).sample(num_inference_steps=2, progress=False)


def test_bfloat16_is_of_the_networks_only() -> None:
    model = tiny_model()
    composer = Composer([model(0.2, 0.2), model(0.8, 0.8)])
    seen: list[torch.dtype] = []
    model.denoiser.network.base.register_forward_hook(lambda _module, _given, made: seen.append(made.dtype))

    def sample(**options: Any) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        return composer.sample(2, num_inference_steps=3, output_type="pt", generator=generator, **options)

    exact, fast = sample(), sample(mixed_precision="bf16")
    assert seen == [torch.float32] * 3 + [torch.bfloat16] * 3
    assert fast.dtype == torch.float32
    assert 0 < (fast - exact).abs().mean() < 0.02


def test_autocast_does_not_take_float16() -> None:
    model = tiny_model()
    model.denoiser.network.half()
    with pytest.raises(
        InputError, match=r"got mixed_precision='bf16' for .*, whose network is in float16; expected float32"
    ):
        Composer(model(0.2, 0.2)).sample(mixed_precision="bf16", progress=False)


def test_a_callback_ends_a_run_as_with_a_pipeline_of_diffusers() -> None:
    seen: list[Tensor] = []

    def callback(pipe: Any, step: int, timestep: Any, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        seen.append(tensors["latents"])
        pipe._interrupt = step == 1
        return {}

    composer = Composer([tiny_model()(0.4, 0.4)])
    for _ in range(2):  # the next run is whole again, up to its own interruption
        seen.clear()
        out = composer.sample(num_inference_steps=4, callback_on_step_end=callback, output_type="latent", generator=0)
        assert len(seen) == 2
        assert out.equal(seen[-1])


@pytest.mark.parametrize(
    "options",
    [
        {"n": 0},
        {"num_inference_steps": 0},
        {"output_type": "jpg"},
        {"mixed_precision": "int8"},
        {"scheduler": "Nothing"},
        {"callback_on_step_end": 3},
        {"report": True},
        {"height": 512},
        {"negative_prompt": "rain"},
        {"num_images_per_prompt": 4},
        {"steps": 4},
    ],
)
def test_options_that_cannot_be_run_no_row(options: dict[str, Any]) -> None:
    with count_rows() as spent, pytest.raises(InputError, match="expected"):
        Composer([tiny_model()(0.4, 0.4)]).sample(progress=False, **options)
    assert spent.rows == 0


def test_what_cannot_be_composed() -> None:
    model = tiny_model()
    a = model(0.2, 0.2)
    for components, message in (([], "no components"), (a - a, "without components"), ([model], "got Model")):
        with pytest.raises(CompositionError, match=message):
            Composer(components)
    with pytest.raises(CompositionError, match="leave the rule out"):
        Composer(a, rule="sum")
    other = tiny_model(rule="mean")(0.1, 0.1)
    with pytest.raises(CompositionError, match="'mean', 'product'"):
        Composer([a, other])
    assert len(Composer([a, other], rule="sum").composition.terms) == 2
    with pytest.raises(CompositionError, match=r"tiny\(0\.2, 0\.2\), which has no energy"):
        Composer([a]).energy(torch.zeros(1, 3, 16, 16), torch.zeros(1))


def test_the_rule_is_the_denoisers() -> None:
    for rule in ("product", "mean"):
        model = tiny_model(rule=rule)
        leaves = [model(0.2, 0.2), model(0.7, 0.7)]
        assert dict(Composer(leaves).composition.terms) == dict(combine(leaves, rule).terms)


@attrs.frozen
class Enlarging:
    """A codec whose latents are images of half the size."""

    latent_shape: tuple[int, int, int] = (3, 16, 16)
    identity: str = "halves"

    def encode(self, images: Tensor) -> Tensor:
        return images[:, :, ::2, ::2]

    def decode(self, latents: Tensor) -> Tensor:
        return latents.repeat_interleave(2, 2).repeat_interleave(2, 3)

    def config(self) -> dict[str, Any]:
        return {}


def both_orders(a: Composable, b: Composable, **options: Any) -> tuple[Any, Any]:
    first, second = (
        Composer(composition).sample(
            2, generator=torch.Generator().manual_seed(0), num_inference_steps=4, progress=False, **options
        )
        for composition in (0.5 * a + 0.5 * b, 0.5 * b + 0.5 * a)
    )
    return first, second


@pytest.mark.parametrize("prediction_type", ["epsilon", "sample"])
def test_latents_are_decoded_whatever_the_order_of_terms(prediction_type: str) -> None:
    denoiser = attrs.evolve(tiny_model(prediction_type=prediction_type).denoiser, codec=Enlarging())
    leaf = Conditional(denoiser, Condition(torch.rand(1, 1, 2)))
    gaussian = Gaussian(0.3, sample_shape=(3, 16, 16), space="halves")
    latents, again = both_orders(leaf, gaussian, output_type="latent")
    assert latents.shape == (2, 3, 16, 16)
    assert torch.equal(latents, again)
    for images in both_orders(leaf, gaussian, output_type="pt"):
        assert torch.equal(images, to_unit(Enlarging().decode(latents).clamp(-1.0, 1.0)))
    arrays = both_orders(gaussian, leaf, output_type="np")
    assert np.array_equal(*arrays)


def test_schedules_that_differ_by_rounding_do_not_depend_on_the_order_of_terms() -> None:
    exact = cosine_schedule()
    a, b = Gaussian(1.0), Gaussian(0.4, alphas_cumprod=exact.double() + 5e-7)
    assert (a + b).noised_space.alphas_cumprod is (b + a).noised_space.alphas_cumprod is a.alphas_cumprod
    assert torch.equal(*both_orders(a, b, output_type="latent"))


def on(device: str) -> Gaussian:
    @attrs.frozen(eq=False)
    class Group:
        device: torch.device
        prediction_type = "epsilon"
        rule = None
        decode = None

    @attrs.frozen(eq=False)
    class Grouped(Gaussian):
        group: Group = attrs.field(factory=lambda: Group(torch.device(device)), kw_only=True)

    return Grouped()


def test_components_of_two_devices_are_refused_by_name() -> None:
    for composition in (on("cpu") + on("meta"), on("meta") + on("cpu")):
        with pytest.raises(CompositionError, match=r"devices \['cpu', 'meta'\]; expected one"):
            Composer(composition).sample(progress=False)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_samples_are_on_the_device_of_the_network_whatever_the_order_of_terms() -> None:
    denoiser = attrs.evolve(tiny_model().denoiser, codec=Enlarging()).to("cuda")
    leaf = Conditional(denoiser, Condition(torch.rand(1, 1, 2)))
    gaussian = Gaussian(0.3, sample_shape=(3, 16, 16), space="halves")
    first, second = both_orders(leaf, gaussian, output_type="pt")
    assert first.device.type == second.device.type == "cuda"
    torch.testing.assert_close(first, second)


def test_the_callback_of_diffusers_gets_the_composer_and_latents() -> None:
    composer = Composer([tiny_model()(0.4, 0.4)])
    seen: list[Any] = []

    def callback(pipe: Any, step: int, timestep: Any, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        seen.append((pipe is composer, step, timestep > 0))
        return {"latents": torch.full_like(tensors["latents"], 0.25)} if step == 1 else tensors

    options: Any = {"num_inference_steps": 2, "output_type": "latent", "progress": False}
    out = composer.sample(callback_on_step_end=callback, **options)
    assert seen == [(True, 0, True), (True, 1, True)]
    assert torch.equal(out, torch.full((1, 3, 16, 16), 0.25))


def test_return_dict_is_that_of_diffusers() -> None:
    composer = Composer([tiny_model()(0.4, 0.4)])
    options: Any = {"num_inference_steps": 2, "generator": 0, "output_type": "latent", "progress": False}
    plain = composer.sample(**options)
    assert torch.equal(composer.sample(return_dict=True, **options).images, plain)
    assert torch.equal(composer.sample(return_dict=False, **options)[0], plain)


@pytest.mark.parametrize("sampler", ["scheduler", "perpendicular"])
def test_a_bar_takes_the_options_of_tqdm(sampler: str, capsys: pytest.CaptureFixture[str]) -> None:
    composer = Composer([tiny_model()(0.4, 0.4)])

    def shown(progress: bool = True, **options: Any) -> str:
        composer.set_progress_bar_config(**options)
        composer.sample(num_inference_steps=2, sampler=sampler, progress=progress)
        return capsys.readouterr().err

    assert shown() == ""  # a short run
    assert re.search(r"images: 100%.*\| 2/2 .*step.*\n$", shown(desc="images", leave=True, delay=0, unit="step"))
    assert shown(disable=True, delay=0) == ""
    assert "sampling" in shown(delay=0)
    assert shown(progress=False, delay=0) == ""


def test_a_bar_option_that_tqdm_does_not_have_is_one_line() -> None:
    composer = Composer([tiny_model()(0.4, 0.4)])
    for name in ("colr", "total"):
        with pytest.raises(InputError, match=rf"^got {name} for a progress bar; expected options of tqdm: .*desc, .*$"):
            composer.set_progress_bar_config(**{name: 1})


@pytest.mark.parametrize("options", [{"n": "2"}, {"n": 2.5}, {"num_inference_steps": "5"}, {"n": True}])
def test_numbers_in_text_are_one_line(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"^got n=.*; expected whole numbers of at least 1, such as n=4$"):
        Composer([tiny_model()(0.4, 0.4)]).sample(**options)
