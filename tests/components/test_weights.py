"""Weights that vary: their arithmetic, their values at pixels and noise levels, and what takes numbers only."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from energycomp import Composer, Composition, during, ramp, region
from energycomp.components import Mixture, Weight, combine, native_type, per_sample
from energycomp.components.weight_values import bounds, is_constant, noise_share
from energycomp.components.weights import positive
from energycomp.denoisers import count_rows
from energycomp.errors import CompositionError, InputError
from energycomp.sampling import Target
from energycomp.testing import Gaussian, tiny_model
from energycomp_samplers import rank, sample_best

U = Gaussian(0.0, 1.0, name="u", unconditional="self")
A, B = (Gaussian(mean, 0.5, name=name, unconditional=U) for mean, name in ((1.0, "a"), (-1.0, "b")))
LEFT, RIGHT, EARLY = region("left half"), region("right half"), during(until=0.4)
SHARES = torch.tensor([0.0, 0.2, 0.4, 0.7], dtype=torch.float64)


def values(weight: Any, size: tuple[int, int] = (1, 4), share: torch.Tensor = SHARES) -> torch.Tensor:
    return weight.at(share, (1, *size)).expand(len(share), 1, *size)[:, 0]


def test_arithmetic_is_that_of_the_values() -> None:
    mask = region(torch.rand(1, 4, generator=torch.Generator().manual_seed(0)))
    rising = ramp(0.1, 0.6)
    left, m, e, r = map(values, (LEFT, mask, EARLY, rising))
    cases: list[tuple[Any, torch.Tensor]] = [
        (2 * LEFT * mask * EARLY, 2 * left * m * e),
        (1 - np.float32(0.5) * LEFT, 1 - 0.5 * left),
        (LEFT + mask - EARLY / 2, left + m - e / 2),
        ((LEFT + rising) * (mask - 3), (left + r) * (m - 3)),
        (-LEFT - rising, -left - r),
        (torch.tensor(2.0).item() / (1 + LEFT), 2 / (1 + left)),
    ]
    for weight, expected in cases:
        assert isinstance(weight, Weight)
        torch.testing.assert_close(values(weight), expected)


def test_what_is_constant_is_a_float() -> None:
    for constant, value in ((LEFT - LEFT, 0.0), (LEFT * 0, 0.0), (LEFT + 1 - region("0,0,0.5,1"), 1.0)):
        assert (type(constant), constant) == (float, value)
    assert during(0.0, 0.4) == EARLY
    assert LEFT + EARLY == EARLY + LEFT != LEFT
    assert hash(LEFT + EARLY) == hash(EARLY + LEFT)
    mask = torch.ones(2, 2)
    assert region(mask) != region(mask)  # masks are compared by identity


@pytest.mark.parametrize("broken", [lambda: LEFT + "a", lambda: LEFT * [1], lambda: A + LEFT, lambda: A / LEFT])
def test_what_a_weight_is_not_added_to(broken: Callable[[], object]) -> None:
    with pytest.raises(TypeError):
        broken()
    with pytest.raises(InputError, match="divided by 0"):
        LEFT / 0


def test_boxes_cover_a_part_of_a_pixel_and_halves_sum_to_one() -> None:
    box = region((0.25, 0.5, 0.6, 1.0))
    assert values(box, (2, 5), SHARES[:1]).flatten().tolist() == pytest.approx([0] * 6 + [0.75, 1.0, 0, 0])
    for one, other in (("left half", "right half"), ("top half", "bottom half"), ("0,0,.3,1", ".3,0,1,1")):
        whole = values(region(one) + region(other), (7, 9))
        assert torch.allclose(whole, torch.ones(7, 9, dtype=torch.float64), atol=1e-12, rtol=0)
    assert (values(region("all"), (3, 5)) == 1).all()


def test_a_mass_is_1_everywhere_only_if_its_polynomial_is() -> None:
    """1 + r (1 - r) (1 - 2 r) is 1 at the beginning, the middle and the end of the ramp r, and 1.09 at a quarter."""
    r: Any = ramp()
    assert not is_constant(1 + r * (1 - r) * (1 - 2 * r), 1.0)
    assert is_constant(1 + r * (1 - r) - r + r * r, 1.0)


@pytest.mark.parametrize(("until", "steep"), [(1.0, 4), (0.35, 1.5)])
def test_a_mean_whose_sum_changes_its_sign_is_refused(until: float, steep: float) -> None:
    """1 - 4 s is 0 at a quarter of the trajectory, and 1 - 1.5 s / 0.35 near the end of its ramp."""
    with pytest.raises(CompositionError, match="under the rule 'mean', whose sum changes its sign"):
        Composer([(1 - steep * ramp(0.0, until)) * A, 1e-4 * B], rule="mean")
    Composer([(1 - 0.9 * ramp(0.0, until)) * A, 1e-4 * B], rule="mean")


def test_the_span_of_a_weight_is_that_of_many_noise_levels() -> None:
    """Products of ramps, masks and samples, beside 20,001 noise levels."""
    mask: Any = region(torch.rand(3, 4, generator=torch.Generator().manual_seed(0)))
    r, later, numbers = ramp(), ramp(0.2, 0.7), next(iter(per_sample([A, 0.3 * A]).terms.values()))
    for weight in (r * later * (mask - 0.6 * r), (r - mask) * (later - 0.3) * (r - 0.9), numbers * (r - mask) * r):
        dense = weight.at(torch.linspace(0, 1 - 1e-9, 20001).repeat_interleave(2), (1, 3, 4))
        expected = pytest.approx((float(dense.min()), float(dense.max())), abs=2e-3)
        assert weight.span((1, 3, 4)) == expected
        assert bounds(weight, (1, 3, 4)) == expected
    square = (r - 0.777) * (r - 0.777)
    with pytest.raises(CompositionError, match="under the rule 'mean', whose sum is 0"):
        combine([(r - 0.75) * (r - 0.75) * A], "mean")
    clamped: Any = positive(square - 1e-3, (1, 1, 1))
    assert clamped.at(torch.tensor([0.777, 0.877]), (1, 1, 1)).flatten().tolist() == pytest.approx([0, 9e-3])


def test_bounds_that_are_reached_are_not_rounded() -> None:
    """A sum that is 1 at all noise levels, and a product that is 0 at both ends, are compared with 1 and 0."""
    whole: Any = 0.3 * ramp() + 0.3 * (1 - ramp()) + 0.7 * during(until=0.4) + 0.7 * during(from_=0.4)
    rising: Any = ramp() * (1 - ramp()) * ramp(0.2, 0.7)
    assert bounds(whole, (1, 3, 4)) == (1.0, 1.0)
    assert bounds(rising, (1, 3, 4))[0] == 0.0


def test_masks_of_all_kinds_are_averaged_over_pixels() -> None:
    hard = np.zeros((4, 8), dtype=np.uint8)
    hard[:, :3] = 255
    expected = torch.tensor([[1.0, 0.5, 0.0, 0.0]] * 2, dtype=torch.float64)
    for mask in (
        hard, torch.from_numpy(hard), hard > 0, (hard / 255.0), torch.from_numpy(hard > 0)[None],
        Image.fromarray(hard), Image.fromarray(hard).convert("RGB"),
        hard // 255, torch.from_numpy(hard // 255), Image.fromarray(hard // 255),  # 0 and 1, as of segmentation
        Image.fromarray((hard // 255).astype(np.uint16)),
    ):  # fmt: skip
        assert torch.equal(values(region(mask), (2, 4))[0], expected)
    given = torch.ones(2, 2)
    kept = region(given)
    given.zero_()
    assert (values(kept, (2, 2)) == 1).all()  # a copy
    assert values(region(torch.eye(2)), (4, 4))[0].tolist() == [[1, 1, 0, 0]] * 2 + [[0, 0, 1, 1]] * 2


@pytest.mark.parametrize("kind", [np.float32, np.uint16, np.int32], ids=lambda kind: kind.__name__)
def test_masks_of_images_with_more_than_8_bits(kind: Any) -> None:
    """Pillow's `convert` clips them to bytes, and would take 0.5 for 0 or for 1."""
    top = 1.0 if kind is np.float32 else 65535
    image = Image.fromarray(np.full((4, 4), 0.5 * top).astype(kind))
    assert image.mode in ("F", "I;16", "I")
    assert float(values(region(image), (1, 1))[0]) == pytest.approx(0.5, abs=1e-4)
    with pytest.raises(InputError, match="got a mask with values from"):
        region(Image.fromarray(np.full((4, 4), -1).astype(np.int32)))


def test_a_mask_is_resized_once_for_each_size() -> None:
    (((mask,), _),) = region(torch.rand(9, 9)).parts
    assert mask.at(SHARES, (3, 4, 4)) is mask.at(SHARES, (3, 4, 4))
    assert mask.at(SHARES, (3, 2, 4)).shape == (1, 1, 2, 4)


@pytest.mark.parametrize("steps", [1, 3, 7, 10, 30, 50, 61, 1000])
def test_a_schedule_counts_steps_as_they_are_written(steps: int) -> None:
    timesteps = Target(A).timesteps(steps)
    for share in (0.1, 0.25, 1 / 3, 0.4, 0.5, 2 / 3, 0.9):
        count = sum(i / steps + 0.0005 < share for i in range(steps))  # to half a timestep of 1000
        early = during(until=share).at(noise_share(timesteps, 1000), (1, 1)).flatten()
        assert early.tolist() == [1.0] * count + [0.0] * (steps - count)
        late = during(from_=share).at(noise_share(timesteps, 1000), (1, 1)).flatten()
        assert (early + late == 1).all()
    assert (during().at(noise_share(torch.tensor([1000.0, 999.5, 0.0]), 1000), (1, 1)) == 1).all()


def test_the_operators_hold_at_every_pixel_and_noise_level() -> None:
    assert repr(2 * LEFT * A & RIGHT * EARLY * B) == (
        "(1 - 2 [left half] - [0 to 0.4] [right half]) u + 2 [left half] a + [0 to 0.4] [right half] b"
    )
    assert (LEFT * A & RIGHT * B).mass == 1.0
    assert (LEFT * A + RIGHT * B).mass == LEFT + RIGHT
    assert repr(~(LEFT * A)) == "(1 + [left half]) u - [left half] a"
    assert dict(((LEFT * A & B) - LEFT * A).terms) == {B: 1.0, U: -LEFT}
    assert repr(combine([LEFT * A, EARLY * B], "sum")) == "[left half] a + [0 to 0.4] b"
    assert repr(region(torch.ones(3, 5)) * A) == "[mask 5x3] a"
    assert repr(Composer(-ramp(0.2, 0.6) * A)) == "Composer(-[ramp 0.2 to 0.6] a)"
    mean = combine([LEFT * A, 3 * B], "mean")
    torch.testing.assert_close(values(mean.terms[A])[0, 0], torch.tensor([0.25, 0.25, 0.0, 0.0]).double())
    torch.testing.assert_close(values(mean.terms[B])[0, 0], torch.tensor([0.75, 0.75, 1.0, 1.0]).double())


def test_the_type_that_is_summed_follows_the_mass_everywhere() -> None:
    model = tiny_model(prediction_type="sample")
    a, b = model(0.2, 0.2), model(0.8, 0.8)
    mask = region(torch.rand(16, 16))
    for whole in (LEFT * a & b, LEFT * a + RIGHT * b, EARLY * a + during(from_=0.4) * b, mask * a + (1 - mask) * b):
        assert native_type(whole) == "sample"
    for whole in (LEFT * a + EARLY * b, LEFT * a, EARLY * a + during(from_=0.41) * b):
        assert native_type(whole) == "epsilon"


NUMBERS_ONLY: dict[str, Callable[[], object]] = {
    "an energy": lambda: (LEFT * A).energy(torch.zeros(1, 1, 1, 1), torch.zeros(1)),
    "a part of a mixture": lambda: (EARLY * A) | B,
    "a ranking": lambda: rank(torch.zeros(1, 3, 16, 16), LEFT * tiny_model()(0.1, 0.2)),
    "this sampler": lambda: Target(LEFT * A & B).weights,
}


def test_weights_in_a_mixture_may_vary_over_the_noise_level() -> None:
    """A component that is a until 0.4, and b from there on."""
    late = during(from_=0.4)
    turned = Mixture([EARLY * A + late * B, Composition.of(B)], torch.tensor([1.0, 3.0]).log())
    sample = torch.randn(2, 1, 1, 1, generator=torch.Generator().manual_seed(0))
    times = torch.tensor([900.0, 100.0])
    before, after = (Mixture([one, B], torch.tensor([1.0, 3.0]).log()) for one in (A, B))
    for name in ("eps", "energy", "shares"):
        made = getattr(turned, name)(sample, times)
        first, last = getattr(before, name)(sample, times), getattr(after, name)(sample, times)
        batch = 1 if name == "shares" else 0
        expected = torch.cat([first.narrow(batch, 0, 1), last.narrow(batch, 1, 1)], dim=batch)
        torch.testing.assert_close(made.to(expected), expected)


@pytest.mark.parametrize("user", NUMBERS_ONLY)
def test_what_needs_numbers_says_so(user: str) -> None:
    with pytest.raises(InputError, match=f"varies over pixels or the noise level; expected a number.* {user} takes; "):
        NUMBERS_ONLY[user]()


def test_nothing_is_sampled_before_a_weight_is_refused() -> None:
    model = tiny_model()
    with count_rows() as spent, pytest.raises(InputError, match="a ranking"):
        sample_best(LEFT * model(0.1, 0.2) & model(0.3, 0.4), best_of=2)
    assert spent.rows == 0
    with pytest.raises(InputError, match="a part of a mixture"):
        Mixture([Composition.of(LEFT * A)])
    assert repr(LEFT * (A | B)) == "[left half] (a | b)"
    with pytest.raises(CompositionError, match=r"\[left half\] under the rule 'mean', whose sum is 0"):
        combine([LEFT * Gaussian(sample_shape=(1, 1, 2))], "mean")
    with pytest.raises(CompositionError, match="whose sum is 0"):
        combine([during(0.2, 0.6) * A, EARLY * B], "mean")


@pytest.mark.parametrize(
    ("where", "got"),
    [
        ("left", "got the region 'left'"), ("0,0,1", "got the region '0,0,1'"), ("0,0,2,1", "got the region"),
        ((0.5, 0, 0.5, 1), "got the region"), ((0, 0, float("nan"), 1), "got the region"), (None, "got the region"),
        (5, "got the region 5"), (torch.ones(3, 4, 4), "got a mask of shape (3, 4, 4)"),
        (torch.ones(4), "got a mask of shape (4,)"), (np.zeros((0, 4)), "got a mask of shape (0, 4)"),
        (torch.full((2, 2), 1.5), "got a mask with values from 1.5 to 1.5"),
        (torch.full((2, 2), float("nan")), "got a mask with values from nan"), (np.array([["a"]]), "got a mask of <U1"),
    ],
)  # fmt: skip
def test_what_is_no_region(where: Any, got: str) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(got)}.*; expected"):
        region(where)


@pytest.mark.parametrize("make", [during, ramp])
@pytest.mark.parametrize("part", [(0.4, 0.4), (0.6, 0.2), (-0.1, 0.5), (0.0, 1.1), (float("nan"), 1.0), ("0", 1.0)])
def test_what_is_no_part_of_the_trajectory(make: Callable[..., Weight], part: tuple[Any, Any]) -> None:
    with pytest.raises(InputError, match=rf"^got {make.__name__}\(.*; expected shares of the trajectory"):
        make(*part)
