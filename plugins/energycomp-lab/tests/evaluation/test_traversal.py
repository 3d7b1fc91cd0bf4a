"""What the dimensions of a latent change, on stripes, whose latents are known."""

import pytest
import torch

from energycomp.errors import InputError
from energycomp.testing import stripes_model
from energycomp_decomp import DiffusionDecomposer
from energycomp_lab.evaluation import strongest_dimensions, traverse_dimension


def stripes() -> DiffusionDecomposer:
    return DiffusionDecomposer(stripes_model(parts=4))


LATENTS = stripes().encode(torch.full((1, 3, 16, 16), 0.3))


def test_a_dimension_changes_its_own_part_alone() -> None:
    found = traverse_dimension(stripes(), LATENTS, 1, 2, [0.0, 0.3, 0.6])
    assert found.dim == 2
    assert found.parts.whole.shape == (3, 3, 16, 16)
    assert found.changed == pytest.approx(0.6 / 3 / 2, abs=1e-5)  # one channel of three, of a range of 2
    assert found.outside == pytest.approx(0, abs=1e-6)


def test_the_strongest_dimensions_are_those_of_colour() -> None:
    dims = strongest_dimensions(stripes(), LATENTS, 3, (0.0, 0.5), count=3)
    assert len(dims) == 3
    changes = [traverse_dimension(stripes(), LATENTS, 3, dim, [0.0, 0.5]).parts.whole for dim in range(4)]
    moved = torch.stack([(whole[1] - whole[0]).abs().mean() for whole in changes])
    assert set(dims) == set(moved.topk(3).indices.tolist())


@pytest.mark.parametrize(
    ("part", "dim", "message"), [(4, 0, "got part 4 of 4"), (-1, 0, "got part -1"), (0, 4, "got dimension 4 of 4")]
)
def test_what_is_not_there(part: int, dim: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        traverse_dimension(stripes(), LATENTS, part, dim, [0.0, 1.0])
