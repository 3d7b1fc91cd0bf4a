"""Objects by colour and place, whose masks are known, and weights of parts, which are least squares."""

import pytest
import torch
from torch import Tensor

from energycomp.denoisers import count_rows
from energycomp.errors import InputError
from energycomp.seeds import seeded
from energycomp.testing import stripes_model, tiny_model
from energycomp.testing.models import BACKGROUND
from energycomp_decomp import masks_by_color
from energycomp_decomp.part_weights import part_weights

RED, GREEN = (0.9, -0.6, -0.6), (-0.6, 0.9, -0.6)
SIDE = 64


def disc(x: float, y: float, radius: float) -> Tensor:
    """A mask (64, 64)."""
    v, u = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    return (u - x).square() + (v - y).square() <= radius**2


def painted(*objects: tuple[Tensor, tuple[float, float, float]]) -> Tensor:
    """Objects over each other on a ground that is lit from one side, with a little noise, (1, 3, 64, 64)."""
    noise = torch.randn(3, SIDE, SIDE, generator=seeded(0))
    image = torch.linspace(-0.3, 0.1, SIDE).expand(3, SIDE, -1) + 0.02 * noise
    for mask, color in objects:
        image = torch.where(mask, torch.tensor(color)[:, None, None], image)
    return image[None]


def overlap(found: Tensor, true: Tensor) -> float:
    """The greatest intersection over union of a mask with found ones."""
    return float(((found & true).sum((1, 2)) / (found | true).sum((1, 2))).max())


def test_objects_that_hide_each_other_are_divided_by_colour() -> None:
    behind, front = disc(18, 22, 9), disc(30, 22, 9)
    found = masks_by_color(painted((behind, RED), (front, GREEN)))[0]
    assert len(found) == 2
    assert not found.all(0).any()
    assert overlap(found, front) > 0.85
    assert overlap(found, behind & ~front) > 0.85


def test_objects_of_one_colour_are_divided_by_their_form() -> None:
    one, other = disc(20, 28, 9), disc(37, 28, 9)
    found = masks_by_color(painted((one | other, RED)))[0]
    assert len(found) == 2
    assert min(overlap(found, one), overlap(found, other)) > 0.85


def test_a_pattern_divides_no_object() -> None:
    whole = disc(24, 24, 12)
    stripes = (torch.arange(SIDE) // 2 % 2 == 0).expand(SIDE, -1)
    found = masks_by_color(painted((whole, RED), (whole & stripes, GREEN)))[0]
    assert len(found) == 1
    assert overlap(found, whole) > 0.95


def test_the_ground_alone_has_no_objects_and_masks_repeat() -> None:
    assert masks_by_color(painted())[0].sum() <= 2
    image = painted((disc(18, 22, 9), RED), (disc(30, 22, 9), GREEN))
    one, two = masks_by_color(torch.cat([image, image]), seed=3)
    assert one.equal(two)


def test_what_is_no_batch_of_images_and_no_encoder() -> None:
    for given in (torch.zeros(3, 8, 8), torch.zeros(1, 1, 8, 8), "image.png"):
        with pytest.raises(InputError, match=r"expected images \(B, 3, H, W\)"):
            masks_by_color(given)
    with pytest.raises(InputError, match="no encoder"):
        part_weights(torch.zeros(1, 3, 16, 16), tiny_model())


def striped(colours: torch.Tensor) -> torch.Tensor:
    """Pictures (B, 3, 16, 16) of four stripes with brightness (B, 4)."""
    return colours.repeat_interleave(4, 1)[:, None, None].expand(-1, 3, 16, -1)


def test_weights_are_least_squares() -> None:
    brightness = torch.full((2, 4), BACKGROUND)
    brightness[:, 0], brightness[1, 2] = 0.9, 0.7
    with count_rows() as spent:
        found = part_weights(striped(brightness), stripes_model(), draws=3, generator=seeded(0))
    assert torch.allclose(found.weights[[0, 2]], torch.ones(2), atol=1e-4)
    assert torch.allclose(found.needed_by_image[0], torch.tensor([1.0, 0.0, 0.0, 0.0]), atol=1e-4)
    first, second = 1.1**2, 0.9**2  # squares of what the stripes of the second picture add
    expected = torch.tensor([first, 0.0, second, 0.0]) / (first + second)
    assert torch.allclose(found.needed_by_image[1], expected, atol=1e-4)
    assert (found.needed > 0.05).tolist() == [True, False, True, False]
    assert torch.allclose(found.needed.sum(), torch.tensor(1.0), atol=1e-4)
    assert spent.rows == 2 * 3 * (4 + 1)


def test_draws_of_weights_are_those_of_the_generator() -> None:
    image, used = striped(torch.tensor([[0.9, BACKGROUND, 0.1, 0.4]])), seeded(0)
    by_number, by_generator, first, second = (
        part_weights(image, stripes_model(), draws=2, generator=one).needed for one in (0, seeded(0), used, used)
    )
    assert torch.equal(by_number, by_generator)
    assert torch.equal(by_number, first)
    assert not torch.equal(first, second)  # a generator that is used twice
