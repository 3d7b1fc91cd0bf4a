"""Components on parts of a larger sample: by hand, in the algebra, in one batch, and in closed form."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from energycomp import Composer, during, per_sample, region
from energycomp.components import Gaussian, Part, crop, frames, items, native_type, on, window
from energycomp.denoisers import count_rows
from energycomp.errors import CompositionError, InputError
from energycomp.seeds import seeded
from energycomp.testing import tiny_model
from energycomp_samplers import Canvas

WIDE = (3, 16, 40)
WINDOWS = (window(0, 16), window(12, 16), window(24, 16))


def leaves(kind: str = "sample") -> tuple[Any, Any, Any]:
    model = tiny_model(rule="product", prediction_type=kind)
    return model(0.2, 0.2), model(0.8, 0.7), model.unconditional


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, atol=2e-5, rtol=1e-5)


X, AT = torch.randn(2, *WIDE, generator=seeded(3)), torch.tensor([900.0, 300.0])


@torch.no_grad()
@pytest.mark.parametrize("kind", ["epsilon", "sample", "v_prediction", "flow"])
def test_a_part_is_predicted_and_the_rest_has_no_noise(kind: str) -> None:
    a, b, _ = leaves(kind)
    got = on(window(12, 16), 2 * a - b, WIDE).eps(X, AT)
    close(got[..., 12:28], (2 * a - b).eps(X[..., 12:28].contiguous(), AT))
    assert float(got[..., :12].abs().max()) < 1e-4
    assert float(got[..., 28:].abs().max()) < 1e-4


@pytest.mark.parametrize(
    ("part", "shape", "own"),
    [
        (window(1, 2), (13,), (2,)),
        (window(4, 8, axis=0), (16, 2), (8, 2)),
        (crop(2, 3, 4, 5), (3, 8, 9), (3, 4, 5)),
        (frames(1, 2), (3, 8, 4, 4), (3, 2, 4, 4)),
        (items(3, 0), (5, 2), (2, 2)),
        (items(2), (5,), (1,)),
    ],
)
def test_selections_and_their_transpose(part: Part, shape: tuple[int, ...], own: tuple[int, ...]) -> None:
    """<P x, y> = <x, P^T y>."""
    assert part.shape(shape) == own
    x, y, levels = torch.randn(2, *shape), torch.randn(2, *own), (torch.ones(()), torch.ones(()))
    seen, placed = part.seen(x, levels), part.placed(y, torch.zeros(2, *shape))
    assert tuple(seen.shape) == (2, *own)
    assert float((seen * y).sum()) == pytest.approx(float((x * placed).sum()), rel=1e-5)
    gaussian = Gaussian(0.5, 0.3, sample_shape=own)
    whole, at = on(part, gaussian, shape), torch.tensor([500.0, 100.0])
    x = x.double().requires_grad_()
    (gradient,) = torch.autograd.grad(whole.energy(x, at).sum(), x)
    _, noise = whole.noised_space.levels(at, torch.float64)
    torch.testing.assert_close(whole.eps(x, at), noise * gradient)


@torch.no_grad()
def test_leaves_of_one_denoiser_on_all_parts_are_one_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b, u = leaves()
    network, calls = a.denoiser.network, []
    head = network.head
    monkeypatch.setattr(network, "head", lambda *given: (calls.append(1), head(*given))[1])
    canvas = Canvas(WIDE, WINDOWS, u)
    whole = canvas.join([3 * a & u, 2 * b & u, u])
    with count_rows() as spent:
        got = whole.eps(X, AT)
    assert (len(calls), spent.rows, spent.trunks) == (1, 2 * 5, 2 * 3)  # u has the weights -2, -1 and 1 in the parts
    parts = [c.eps(X[..., s : s + 16].contiguous(), AT) for c, s in ((3 * a & u, 0), (2 * b & u, 12), (u, 24))]
    by_hand, total = torch.zeros_like(X), torch.zeros(40)
    ramp = torch.minimum(torch.arange(1.0, 17), torch.arange(1.0, 17).flip(0))
    for start, part in zip((0, 12, 24), parts, strict=True):
        by_hand[..., start : start + 16] += ramp * part
        total[start : start + 16] += ramp
    close(got, by_hand / total)
    assert native_type(whole) == "sample"  # mass 1 everywhere


@torch.no_grad()
def test_components_on_parts_are_added_to_the_background() -> None:
    """on(P, a) & on(Q, b) = U + on(P, R(a)) + on(Q, R(b)), and ~on(P, a) = U - on(P, R(a))."""
    a, b, u = leaves()
    canvas = Canvas(WIDE, WINDOWS, u)
    background, (p, _, q) = canvas.background.eps(X, AT), WINDOWS
    one, other = on(p, a - u, WIDE).eps(X, AT), on(q, b - u, WIDE).eps(X, AT)
    both = canvas.on(p, a) & canvas.on(q, b)
    close(both.eps(X, AT), background + one + other)
    close((~canvas.on(p, a)).eps(X, AT), background - one)
    close((4 * both & canvas.background).eps(X, AT), background + 4 * (one + other))
    close(canvas.on(p, 2 * a + b).eps(X, AT), (2 * canvas.on(p, a) + canvas.on(p, b)).eps(X, AT))
    assert not (canvas.on(p, a) - canvas.on(p, a)).terms  # the same leaves cancel
    with count_rows() as spent:
        both.eps(X, AT)
    assert (spent.rows, spent.trunks) == (2 * 5, 2 * 3)  # three u, a and b, on three parts


@torch.no_grad()
def test_weights_that_vary_are_those_of_the_part() -> None:
    a, b, u = leaves()
    left, part, inside = region("left half"), WINDOWS[1], slice(12, 28)
    seen = X[..., inside].contiguous()
    close(on(part, left * a + b, WIDE).eps(X, AT)[..., inside], (left * a + b).eps(seen, AT))
    early = on(part, during(until=0.5) * a, WIDE)
    assert early.mass == during(until=0.5)
    expected = a.eps(seen, AT) * torch.tensor([1.0, 0.0]).view(2, 1, 1, 1)
    close(early.eps(X, AT)[..., inside], expected)
    close((left * on(part, a, WIDE)).eps(X, AT)[..., :20], on(part, a, WIDE).eps(X, AT)[..., :20])
    canvas = Canvas(WIDE, WINDOWS, u)
    close(canvas.on(part, left * a + (1 - left) * u).mass.at(torch.zeros(1), WIDE), torch.ones(1, *WIDE).double())


@torch.no_grad()
def test_each_sample_has_parts_of_its_own_and_copies_a_canvas() -> None:
    a, b, u = leaves()
    canvas = Canvas(WIDE, WINDOWS, u)
    scenes = [canvas.join([a, u, b]), canvas.join([u, b, u])]
    whole = per_sample(scenes)
    with count_rows() as spent:
        got = whole.eps(X, AT)
    assert spent.rows == 6
    close(got, torch.cat([one.eps(X[i : i + 1], AT[i : i + 1]) for i, one in enumerate(scenes)]))
    a, _, u = leaves()
    whole = Canvas(WIDE, WINDOWS, u).on(WINDOWS[0], a)
    copied = copy.deepcopy(whole)
    assert copied.unconditional is not whole.unconditional
    close((~copied).eps(X, AT), (~whole).eps(X, AT))


def test_mixtures_on_parts_and_of_parts() -> None:
    a, b = (Gaussian(mean, 0.2, name, sample_shape=(2,)) for mean, name in ((-1.0, "a"), (1.0, "b")))
    x, at = torch.randn(3, 4), torch.full((3,), 200.0)
    part = window(1, 2)
    seen = part.seen(x)
    torch.testing.assert_close(on(part, a | b, (4,)).eps(x, at)[:, 1:3], (a | b).eps(seen, at))
    torch.testing.assert_close((on(part, a, (4,)) | on(part, b, (4,))).eps(x, at)[:, 1:3], (a | b).eps(seen, at))


@pytest.mark.parametrize("shape", [(13,), (2, 64), (3, 4, 8, 8)])
def test_gaussians_of_any_shape_are_sampled(shape: tuple[int, ...]) -> None:
    mean = torch.linspace(-1.0, 1.0, shape[-1]).expand(shape)
    u = Gaussian(0.0, 0.5, name="u", sample_shape=shape, unconditional="self")
    a = Gaussian(mean, 0.5, sample_shape=shape, unconditional=u)
    scene = region("left half") * a & during(0.0, 1.0) * u
    for whole, expected in (
        (Composer(a & u), mean),
        (Composer(scene & u), mean * (torch.arange(shape[-1]) < shape[-1] // 2)),
    ):
        x = whole.sample(500, generator=0, output_type="latent", progress=False)
        assert tuple(x.shape) == (500, *shape)
        off = (x.mean(0) - expected).abs()
        off[..., shape[-1] // 2] = 0.0  # a pixel that the region cuts
        assert float(off.max()) < 0.16
        assert float(x.var(0).mean()) == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("sampler", ["smc", "mala", "hmc", "langevin", "mixture", "perpendicular", "rejection"])
def test_every_sampler_takes_samples_of_any_shape(sampler: str) -> None:
    """All as wide as u: `a & b` has the sum of the means, `a | b` their mean, and b in `a & ~b` is along a."""
    shape = (2, 64)
    u = Gaussian(0.0, 0.5, "u", sample_shape=shape, unconditional="self")
    a, b = (Gaussian(mean, 0.5, sample_shape=shape, unconditional=u) for mean in (0.4, 0.2))
    whole, mean = {
        "mixture": (a | b, 0.3), "perpendicular": (a & ~b, 0.4), "rejection": (a & ~b, 0.4)
    }.get(sampler, (a & b, 0.6))  # fmt: skip
    x = Composer(whole).sample(
        60, sampler=sampler, num_inference_steps=10, generator=0, output_type="pt", progress=False
    )
    assert tuple(x.shape) == (60, *shape)
    assert float(x.mean()) == pytest.approx(mean, abs=0.15)


def test_a_bethe_cover_of_independent_numbers_is_their_product() -> None:
    """Two windows of N(m_i, v_i) that share a number: the product of the marginals over that of the number."""
    mean, variance = torch.tensor([0.5, -1.0, 2.0]), torch.tensor([0.3, 0.5, 0.2])
    pairs = [Gaussian(mean[i : i + 2], variance[i : i + 2], sample_shape=(2,)) for i in (0, 1)]
    separator = (items(1), Gaussian(mean[1:2], variance[1:2], sample_shape=(1,)))
    canvas = Canvas((3,), [window(0, 2), window(1, 2)], cover="bethe", separators=[separator])
    x, at = torch.randn(4, 3), torch.full((4,), 300.0)
    whole, expected = canvas.join(pairs), Gaussian(mean, variance, sample_shape=(3,))
    torch.testing.assert_close(whole.eps(x, at), expected.eps(x, at))
    torch.testing.assert_close(whole.energy(x, at), expected.energy(x, at))
    assert whole.mass == 1.0


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda a, u: on(window(30, 16), a, WIDE), InputError, "expected a part inside them"),
        (lambda a, u: window(0, 16, "x"), InputError, "expected the number of an axis"),
        (lambda a, u: on(window(0, 8), a, WIDE), CompositionError, r"has the shape \(3, 16, 8\)"),
        (lambda a, u: Canvas(("wide",), WINDOWS), InputError, "whole numbers of at least 1"),
        (lambda a, u: Canvas(WIDE, WINDOWS).on(window(0, 16), a), CompositionError, "got a canvas without"),
        (lambda a, u: on(window(0, 16), a, WIDE) & u, CompositionError, "no unconditional leaf"),
        (lambda a, u: Canvas(WIDE, WINDOWS[:2], u), InputError, "in 0 to 2 parts more than separators; expected parts"),
        (lambda a, u: Canvas(WIDE, WINDOWS, u, cover="bethe"), InputError, "expected every number in one part more"),
        (
            lambda a, u: Canvas(WIDE, WINDOWS, u, separators=[(window(12, 4), a)]),
            InputError,
            "and no separators for the cover 'mean'",
        ),
        (lambda a, u: Canvas(WIDE, WINDOWS, u).join([a]), InputError, "got 1 components for 3 parts"),
        (lambda a, u: window(-1, 4), InputError, "whole numbers"),
        (lambda a, u: items(1, 1), InputError, "different places"),
    ],
)
def test_what_is_no_part_is_refused(make: Any, error: Any, text: str) -> None:
    a, _, u = leaves()
    with pytest.raises(error, match=text):
        make(a, u)
