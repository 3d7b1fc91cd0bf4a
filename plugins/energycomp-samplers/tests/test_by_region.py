"""Components that see their region only: what they see, the algebra, the cost, and samples in closed form."""

from typing import Any
from unittest.mock import Mock

import attrs
import pytest
import torch
from torch import Tensor

from energycomp import Composer, Composition, during, per_sample, ramp, region
from energycomp.components import native_type, predict
from energycomp.denoisers import count_rows
from energycomp.errors import CompositionError, InputError
from energycomp.sampling import AttributeGuidance
from energycomp.seeds import seeded
from energycomp.testing import Gaussian, labels_model, tinted_model, tiny_model
from energycomp_samplers import regional, within
from energycomp_samplers.by_region import _mean

LEFT, RIGHT = region("left half"), region("right half")
COLUMN = torch.arange(16).expand(16, 16)
GROUND = torch.zeros(3, 16, 16)


def leaves(kind: str = "sample") -> tuple[Any, Any, Any]:
    model = tiny_model(rule="product", prediction_type=kind)
    return model(0.2, 0.2), model(0.8, 0.7), model.unconditional


def close(a: Tensor, b: Tensor) -> None:
    assert float((a - b).abs().max() / b.abs().max()) < 1e-5


@pytest.mark.parametrize("kind", ["epsilon", "sample", "v_prediction"])
def test_a_component_sees_a_noised_background_outside(kind: str) -> None:
    a, _, u = leaves(kind)
    ground = torch.rand(3, 16, 16)
    seen = within("left half", 2 * a & u, background=ground)
    x, at = torch.randn(2, 3, 16, 16), torch.tensor([900.0, 300.0])
    alphas = u.noised_space.alphas_cumprod[at.long()].reshape(-1, 1, 1, 1)
    noise = torch.randn(3, 16, 16, generator=seeded(0))
    mixed = torch.where(COLUMN < 8, x, alphas.sqrt() * ground + (1 - alphas).sqrt() * noise)
    with torch.no_grad():
        got = predict(seen, x, at, prediction_type=kind)
        close(got, predict(2 * a & u, mixed, at, prediction_type=kind))
        outside = torch.where(COLUMN < 8, x, torch.randn(2, 3, 16, 16))
        assert torch.equal(predict(seen, outside, at, prediction_type=kind), got)


def test_regional_is_what_it_says_at_every_step() -> None:
    a, b, u = leaves()
    whole = regional([("left half", 3 * a), ("right half", 2 * b)], apart_until=0.5, background=GROUND)
    left, right = (within(m, c, background=GROUND) for m, c in ((LEFT, 3 * a & u), (RIGHT, 2 * b & u)))
    x = torch.randn(2, 3, 16, 16)
    for timestep, expected in ((900.0, LEFT * left + RIGHT * right), (100.0, 3 * LEFT * a & 2 * RIGHT * b)):
        at = torch.full((2,), timestep)
        close(whole.eps(x, at).detach(), expected.eps(x, at).detach())
    assert native_type(whole) == "sample"  # mass 1


def test_what_no_region_covers_is_unconditional_and_overlaps_are_added() -> None:
    a, _, u = leaves()
    whole = regional([("0.25,0.25,0.5,0.5", a)], background=GROUND)
    x, at = torch.randn(1, 3, 16, 16), torch.tensor([900.0])
    assert torch.allclose(whole.eps(x, at)[..., 8:], u.eps(x, at)[..., 8:], atol=1e-5)
    assert native_type(whole) == "sample"
    a, b, _ = leaves()
    x, at = torch.randn(1, 3, 16, 16), torch.tensor([100.0])
    got = regional([("all", 2 * a), ("all", b)], background=GROUND).eps(x, at)
    close(got.detach(), (2 * a & b).eps(x, at).detach())


@pytest.mark.parametrize(("until", "rows"), [(0.0, 3 * 10), (0.4, 4 * 4 + 3 * 6), (1.0, 4 * 10)])
def test_it_costs_one_more_row_while_components_are_apart(until: float, rows: int) -> None:
    a, b, _ = leaves()
    whole = regional([("left half", 3 * a), ("right half", 3 * b)], apart_until=until, background=GROUND)
    reports: list[Any] = []
    with count_rows() as spent:
        Composer(whole).sample(num_inference_steps=10, progress=False, report=reports.append)
    assert spent.rows == reports[0].evaluations == rows


def test_components_of_all_regions_are_one_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b, _ = leaves()
    whole = regional([("left half", 3 * a), ("right half", 2 * b)], background=GROUND)
    head = Mock(side_effect=a.denoiser.network.head)
    monkeypatch.setattr(a.denoiser.network, "head", head)
    with count_rows() as spent:
        whole.eps(torch.randn(2, 3, 16, 16), torch.tensor([900.0, 800.0]))
    assert (head.call_count, spent.rows, spent.trunks) == (1, 2 * 4, 2 * 2)  # a trunk per sample and view


def test_leaves_with_one_value_per_sample_are_in_regions() -> None:
    model = tiny_model(rule="product")
    values = torch.tensor([[0.1, 0.2], [0.5, 0.6], [0.9, 0.3]])
    ground = torch.rand(3, 16, 16)
    x, at = torch.randn(3, 3, 16, 16), torch.tensor([900.0, 800.0, 700.0])

    def whole(leaf: Any) -> Composition:
        return regional([("left half", 3 * leaf), ("right half", 2 * model(0.4, 0.4))], background=ground)

    got = whole(model.leaf(values)).eps(x, at).detach()
    for i, value in enumerate(values):
        close(got[i : i + 1], whole(model.leaf(value[None])).eps(x[i : i + 1], at[i : i + 1]).detach())
    with pytest.raises(InputError, match="got a condition of 3 rows for a batch of 4"):
        whole(model.leaf(values)).eps(x[:2], at[:2])


def test_regional_compositions_are_batched_and_guided() -> None:
    a, b, u = leaves()
    parts = [regional([(LEFT, one), (RIGHT, other)], background=GROUND) for one, other in ((a, b), (b, a), (3 * a, u))]
    x, at = torch.randn(3, 3, 16, 16), torch.tensor([900.0, 500.0, 100.0])
    expected = torch.cat([part.eps(x[i : i + 1], at[i : i + 1]) for i, part in enumerate(parts)])
    close(per_sample(parts).eps(x, at).detach(), expected.detach())
    guided = 3 * parts[0] & u  # relative to u that sees the whole image
    close(guided.eps(x, at).detach(), (3 * parts[0] - 2 * u).eps(x, at).detach())


def test_the_background_is_the_mean_sample() -> None:
    u = Gaussian(0.3, 0.25, name="u", unconditional="self", sample_shape=(1, 4, 4))
    mean = _mean(Composition.of(u))
    assert mean.shape == (1, 4, 4)
    assert float(mean.mean()) == pytest.approx(0.3, abs=0.1)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda a: within(during(until=0.5), a), "varies over pixels only"),
        (lambda a: within(LEFT * ramp(), a), "varies over pixels only"),
        (lambda a: within("left half", a, background=torch.zeros(3, 8, 8)), r"got a background of shape \(3, 8, 8\)"),
        (lambda a: within("left side", a), "got the region 'left side'"),
        (lambda a: within("left half", a, background=[0.0]), "got an object of list as the background"),
        (lambda a: regional([]), "expected a list of pairs"),
        (lambda a: regional([a, a]), "expected a list of pairs"),
        (lambda a: regional([("left half",)]), "expected a list of pairs"),
        (lambda a: regional({"left half": a}), "expected a list of pairs"),
        (lambda a: regional([(torch.ones(2, 4, 4), a)]), r"got a mask of shape \(2, 4, 4\)"),
        (lambda a: regional([(during(until=0.5), a)], apart_until=0.0), "varies over pixels only"),
        (lambda a: regional([("left half", a)], apart_until=2.0), "got apart_until=2.0"),
        (lambda a: regional([("left half", a)], apart_until="all"), "got apart_until='all'"),
        (lambda a: regional([("all", a)], background=torch.zeros(3, 8, 8)), r"got a background of shape \(3, 8, 8\)"),
        (lambda a: regional([("left half", Gaussian(0.5))]), "no unconditional leaf"),
    ],
)
def test_what_has_no_meaning_is_refused(make: Any, text: str) -> None:
    a, _, _ = leaves()
    with count_rows() as spent, pytest.raises((InputError, CompositionError), match=text):
        make(a)
    assert spent.rows == 0


@torch.no_grad()
def test_components_in_regions_are_guided_and_sampled_as_their_model_says() -> None:
    """By hand: 2 c - c with its attributes open, each in its region; the default is the guidance of the model."""
    model = tinted_model(attribute_guidance=2.0, num_inference_steps=4)
    parts = [model(0.2, 0.3, tint="red"), model(0.7, 0.7, tint="blue")]
    opened = [attrs.evolve(leaf, condition=leaf.opened, opened=None) for leaf in parts]
    asked, free = (
        regional(list(zip(["left half", "right half"], leaves, strict=True)), apart_until=1.0, background=GROUND)
        for leaves in (parts, opened)
    )
    x, at = torch.randn(2, 3, 16, 16), torch.tensor([900.0, 400.0])
    close(AttributeGuidance(2.0, start=0.0).weighted(asked).eps(x, at), 2 * asked.eps(x, at) - free.eps(x, at))
    options = {"generator": 0, "output_type": "latent", "progress": False}
    default, said = (
        Composer(asked).sample(**options, **more)
        for more in ({}, {"num_inference_steps": 4, "guidance": "attributes", "guidance_scale": 2.0})
    )
    assert torch.equal(default, said)


SOFT = torch.linspace(1, 0, 16).expand(16, 16)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["sample", "epsilon", "v_prediction"])
@pytest.mark.parametrize(
    ("regions", "until"), [((SOFT, 1 - SOFT), 0.7), (("0,0,0.47,1", "0.47,0,1,1"), 0.7), ((SOFT, 1 - SOFT), 1.0)]
)
def test_soft_masks_and_cut_pixels_do_not_depend_on_the_prediction_type(kind: Any, regions: Any, until: float) -> None:
    """Images N(m_k, 0.2^2) in two regions, of which pixels have shares w_k: by hand N(sum w_k m_k, 0.2^2) there."""
    model = labels_model(3, spread=0.2, prediction_type=kind)
    network: Any = model.denoiser.network
    parts = [model(k) for k in (0, 1)]
    means = [network.background + network.pattern(leaf.condition.rows[:, 0])[0] for leaf in parts]
    shares = [region(where).at(torch.zeros(1), (16, 16))[0] for where in regions]
    whole = regional(list(zip(regions, parts, strict=True)), apart_until=until, background=GROUND)
    x, at = torch.randn(2, 3, 16, 16), torch.tensor([900.0, 300.0])
    signal, noise = whole.noised_space.levels(at, torch.float64)
    mean = sum(share * mean for share, mean in zip(shares, means, strict=True))
    exact = noise * (x - signal * mean) / (0.04 * signal**2 + noise**2)
    torch.testing.assert_close(whole.eps(x, at).double(), exact.double(), atol=1e-4, rtol=1e-4)
    samples = Composer(whole).sample(50, generator=0, output_type="latent", progress=False)
    assert float(samples.std(0).mean()) == pytest.approx(0.2, abs=0.02)
    assert float((samples.mean(0) - mean).square().mean().sqrt()) < 1.5 * 0.2 / 50**0.5
