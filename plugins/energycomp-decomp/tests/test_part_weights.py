"""Which parts are needed: stripes, whose least squares are known."""

import pytest
import torch

from energycomp.denoisers import count_rows
from energycomp.errors import InputError
from energycomp.testing import stripes_model, tiny_model
from energycomp.testing.models import BACKGROUND
from energycomp_decomp.part_weights import part_weights


def striped(colours: torch.Tensor) -> torch.Tensor:
    """Pictures (B, 3, 16, 16) of four stripes with brightness (B, 4)."""
    return colours.repeat_interleave(4, 1)[:, None, None].expand(-1, 3, 16, -1)


def test_weights_are_least_squares() -> None:
    brightness = torch.full((2, 4), BACKGROUND)
    brightness[:, 0], brightness[1, 2] = 0.9, 0.7
    with count_rows() as spent:
        found = part_weights(striped(brightness), stripes_model(), draws=3, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(found.weights[[0, 2]], torch.ones(2), atol=1e-4)
    assert torch.allclose(found.needed_by_image[0], torch.tensor([1.0, 0.0, 0.0, 0.0]), atol=1e-4)
    first, second = 1.1**2, 0.9**2  # squares of what the stripes of the second picture add
    expected = torch.tensor([first, 0.0, second, 0.0]) / (first + second)
    assert torch.allclose(found.needed_by_image[1], expected, atol=1e-4)
    assert (found.needed > 0.05).tolist() == [True, False, True, False]
    assert torch.allclose(found.needed.sum(), torch.tensor(1.0), atol=1e-4)
    assert spent.rows == 2 * 3 * (4 + 1)


def test_the_same_seed_gives_the_same_weights() -> None:
    pictures = striped(torch.rand(2, 4))
    one, two = (
        part_weights(pictures, stripes_model(), draws=2, generator=torch.Generator().manual_seed(1)) for _ in range(2)
    )
    assert torch.equal(one.needed, two.needed)


def test_a_model_without_an_encoder() -> None:
    with pytest.raises(InputError, match="no encoder"):
        part_weights(torch.zeros(1, 3, 16, 16), tiny_model())


def test_a_number_seeds() -> None:
    image = striped(torch.tensor([[0.9, BACKGROUND, 0.1, BACKGROUND]]))
    found = [
        part_weights(image, stripes_model(), generator=one).weights for one in (0, torch.Generator().manual_seed(0))
    ]
    assert torch.equal(*found)


def test_a_generator_that_is_used_twice_gives_other_draws() -> None:
    image, generator = striped(torch.tensor([[0.9, BACKGROUND, 0.1, 0.4]])), torch.Generator().manual_seed(0)
    one, two = (part_weights(image, stripes_model(), draws=2, generator=generator).needed for _ in range(2))
    assert not torch.equal(one, two)
