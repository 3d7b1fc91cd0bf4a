"""Composing and sampling: products of Gaussians are Gaussian, and their mean and variance are known."""

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
from energycomp.sampling.notes import check_count
from energycomp.testing import Gaussian, Halved, cosine_schedule, tiny_model

U = Gaussian(0.0, variance=1.0, name="u", unconditional="self")
TIME = torch.tensor([100.0, 500.5, 900.0])


def gaussians(*specification: tuple[float, float]) -> list[Gaussian]:
    return [Gaussian(mean, variance=variance, unconditional=U) for mean, variance in specification]


def drawn(component: Any, n: int = 1, **options: Any) -> Any:
    options = {"num_inference_steps": 2, "generator": 0, "output_type": "latent", "progress": False} | options
    return Composer(component).sample(n, **options)


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
EQUAL_WIDTHS: dict[str, tuple[Composer, float, float]] = {
    **{
        f"guidance {w}": (Composer(w * Gaussian(0.4, 0.25, unconditional=NARROW) & NARROW), 0.4 * w, 0.25)
        for w in (1, 2, 3.5)
    },
    "product": (Composer([Gaussian(m, 0.5, unconditional=WIDE) for m in (0.5, -0.2, 0.6)], rule="product"), 0.9, 0.5),
    "mean": (Composer(gaussians((1.0, 0.3), (0.0, 0.3)), rule="mean"), 0.5, 0.3),
}


@pytest.mark.parametrize("case", EQUAL_WIDTHS)
def test_samples_of_equal_widths_have_the_closed_form(case: str) -> None:
    """Gaussians as wide as u stay so under guidance and in a conjunction, for every t: the precisions cancel."""
    composer, mean, variance = EQUAL_WIDTHS[case]
    x = drawn(composer, 4000, num_inference_steps=100)
    assert float(x.mean()) == pytest.approx(mean, abs=0.03)
    assert float(x.var()) == pytest.approx(variance, rel=0.1)


def test_more_components_than_the_model_knows_are_warned_of() -> None:
    """Counted in one sample: alternatives, scenes of a batch and negated components do not add up."""
    model = tiny_model(counts=(0, 2))
    a, b, c, d = (model(x, 0.5) for x in (0.1, 0.4, 0.6, 0.9))
    left = region("left half")
    few = [a & b, a & b & ~c, (a & b) | (c & d), per_sample([a & b, c & d]), left * a & (1 - left) * b, 3 * a & b]
    many = {3: [a & b & c, a & (b | c) & d, per_sample([a & b, b & c & d]), left * a & b & c], 4: [a & b & c & d]}
    assert [check_count(Composition.of(one)) for one in few] == [[]] * len(few)
    for count, scenes in many.items():
        for scene in scenes:
            said = f"got {count} components, more than the 2 that tiny knows, so some may be missing; compose fewer"
            assert check_count(Composition.of(scene)) == [said]
    with pytest.warns(EnergycompWarning, match="more than the 2 that tiny knows") as caught:
        Composer(a & b & c).sample(num_inference_steps=1, progress=False)
    assert [Path(one.filename) for one in caught] == [Path(__file__)]


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (2, None), (3, "RGB"), (4, None), (5, None)])
def test_output_types_of_any_number_of_channels(channels: int, mode: str | None) -> None:
    """As VaeImageProcessor denormalizes."""
    wide = Gaussian(0.1, 1.0, sample_shape=(channels, 4, 6), value_range=(-1.0, 1.0))
    latent, tensor, array = (drawn(wide, 2, output_type=kind) for kind in ("latent", "pt", "np"))
    assert tensor.shape == (2, channels, 4, 6)
    assert torch.equal(tensor, latent.clamp(-1, 1).add(1).div(2))
    assert np.array_equal(array, tensor.permute(0, 2, 3, 1).numpy())
    if mode is None:
        with pytest.raises(InputError, match=f"'pil' for samples of {channels} channels; .*use output_type 'np' or"):
            drawn(wide, output_type="pil")
    else:
        pictures = drawn(wide, 2, output_type="pil")
        assert [(type(one), one.mode, one.size) for one in pictures] == [(Image.Image, mode, (6, 4))] * 2
        values = np.stack([np.asarray(one) for one in pictures]).reshape(array.shape)
        np.testing.assert_allclose(values, array * 255, atol=0.51)
    with pytest.raises(InputError, match="'pil' for samples without a value range"):
        drawn(Gaussian(sample_shape=(channels, 4, 6)), output_type="pil")


def test_samples_of_ancestral_steps_can_be_read_back() -> None:
    """Euler's ancestral steps do not clip x0."""
    far = Gaussian(1.0, variance=0.5, sample_shape=(3, 4, 4), value_range=(-1.0, 1.0))
    steps: Any = {"scheduler": "eulerancestraldiscrete", "num_inference_steps": 5}
    assert drawn(far, 4, **steps).max() > 1.0
    images = drawn(far, 4, output_type="pt", **steps)
    assert images.max() == 1.0
    assert to_unit(ImageProcessor(size=(4, 4))(from_unit(images))).allclose(images)


@pytest.mark.parametrize(("value_range", "expected"), [(None, 3.0), ((-1.0, 1.0), 1.0), ((-2.0, 2.0), 1.0)])
def test_samples_are_clipped_to_the_value_range_only(value_range: Any, expected: float) -> None:
    far = Gaussian(3.0, variance=1e-6, space="pixels", value_range=value_range)
    for kind in ("pt", "np"):
        values = drawn(far, 2, num_inference_steps=20, output_type=kind).flatten().tolist()
        assert values == pytest.approx([expected] * 2, abs=0.01)


def test_bfloat16_is_of_the_networks_only_and_float16_is_refused() -> None:
    model = tiny_model()
    both = model(0.2, 0.2) & model(0.8, 0.8)
    seen: list[torch.dtype] = []
    model.denoiser.network.base.register_forward_hook(lambda _module, _given, made: seen.append(made.dtype))
    exact, fast = (drawn(both, 2, num_inference_steps=3, mixed_precision=kind) for kind in ("no", "bf16"))
    assert seen == [torch.float32] * 3 + [torch.bfloat16] * 3
    assert fast.dtype == torch.float32
    assert 0 < (fast - exact).abs().mean() < 0.04
    model.denoiser.network.half()
    with pytest.raises(InputError, match=r"mixed_precision='bf16' for .* is in float16; expected float32"):
        drawn(both, mixed_precision="bf16")


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


WHOLE = "^got n=.*; expected whole numbers of at least 1, such as n=4$"


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        *(("n", value, WHOLE) for value in (0, "2", 2.5, True)), ("num_inference_steps", "5", WHOLE),
        ("num_inference_steps", 0, "expected"), ("output_type", "jpg", "expected"),
        ("mixed_precision", "int8", "expected"), ("scheduler", "Nothing", "expected"), ("height", 512, "expected"),
        ("negative_prompt", "rain", "expected"), ("num_images_per_prompt", 4, "expected"),
        ("steps", 4, "num_inference_steps="), ("seed", 4, "generator="),
        ("callback_on_step_end", 3, "expected"), ("report", True, "expected"),
    ],
)  # fmt: skip
def test_options_that_cannot_be_run_no_row(option: str, value: Any, said: str) -> None:
    with count_rows() as spent, pytest.raises(InputError, match=said):
        Composer([tiny_model()(0.4, 0.4)]).sample(progress=False, **{option: value})
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


def both_orders(a: Composable, b: Composable, **options: Any) -> tuple[Any, Any]:
    first, second = (drawn(one, 2, num_inference_steps=4, **options) for one in (0.5 * a + 0.5 * b, 0.5 * b + 0.5 * a))
    return first, second


@pytest.mark.parametrize("prediction_type", ["epsilon", "sample"])
def test_latents_are_decoded_whatever_the_order_of_terms(prediction_type: str) -> None:
    denoiser = attrs.evolve(tiny_model(prediction_type=prediction_type).denoiser, codec=Halved())
    leaf = Conditional(denoiser, Condition(torch.rand(1, 1, 2)))
    gaussian = Gaussian(0.3, sample_shape=(3, 16, 16), space="halved")
    latents, again = both_orders(leaf, gaussian, output_type="latent")
    assert latents.shape == (2, 3, 16, 16)
    assert torch.equal(latents, again)
    for images in both_orders(leaf, gaussian, output_type="pt"):
        assert torch.equal(images, to_unit(Halved().decode(latents).clamp(-1.0, 1.0)))
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
    denoiser = attrs.evolve(tiny_model().denoiser, codec=Halved()).to("cuda")
    leaf = Conditional(denoiser, Condition(torch.rand(1, 1, 2)))
    first, second = both_orders(leaf, Gaussian(0.3, sample_shape=(3, 16, 16), space="halved"), output_type="pt")
    assert first.device.type == second.device.type == "cuda"
    torch.testing.assert_close(first, second)


def test_the_callback_of_diffusers_gets_the_composer_and_latents() -> None:
    composer = Composer([tiny_model()(0.4, 0.4)])
    seen: list[Any] = []

    def callback(pipe: Any, step: int, timestep: Any, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        seen.append((pipe is composer, step, timestep > 0))
        return {"latents": torch.full_like(tensors["latents"], 0.25)} if step == 1 else tensors

    out = composer.sample(num_inference_steps=2, output_type="latent", progress=False, callback_on_step_end=callback)
    assert seen == [(True, 0, True), (True, 1, True)]
    assert torch.equal(out, torch.full((1, 3, 16, 16), 0.25))


def test_return_dict_is_that_of_diffusers() -> None:
    leaf = tiny_model()(0.4, 0.4)
    assert torch.equal(drawn([leaf], return_dict=True).images, drawn([leaf]))
    assert torch.equal(drawn([leaf], return_dict=False)[0], drawn([leaf]))


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
