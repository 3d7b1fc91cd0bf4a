"""Arrow Room shows what it was drawn from."""

import numpy as np
import torch

from energycomp_datasets.rooms.arrow_room import SHAPES, arrow_rooms, layout, render


def test_the_arrow_points_at_the_odd_one_out() -> None:
    rooms = arrow_rooms(np.random.default_rng(0), 200)
    assert bool(rooms.right.all())
    assert sorted(rooms.target.unique().tolist()) == [0, 1, 2]
    assert {tuple(row) for row in rooms.shapes.tolist()} >= {(0, 0, 1), (2, 1, 1), (0, 2, 0)}
    large = arrow_rooms(np.random.default_rng(0), 60, size=128)
    v, u = torch.meshgrid(torch.arange(128.0), torch.arange(128.0), indexing="ij")
    centres = torch.stack([(large.masks * axis).sum((2, 3)) for axis in (u, v)], 2) / large.masks.sum((2, 3))[..., None]
    for mask, places, target in zip(large.masks[:, 3], centres, large.target, strict=True):
        cells = torch.stack([u[mask], v[mask]], 1) - places[3]
        axis = torch.linalg.eigh(cells.T @ cells).eigenvectors[:, 1]  # of the greatest spread
        axis = axis * -axis[1].sign()  # upwards
        seen = torch.nn.functional.cosine_similarity(axis[None], places[:3] - places[3], dim=1)
        assert int(seen.argmax()) == int(target)


def test_every_object_is_seen_and_stands_apart() -> None:
    rooms = arrow_rooms(np.random.default_rng(1), 100)
    assert rooms.images.abs().max() <= 1
    assert rooms.masks.flatten(2).sum(2).min() >= 20
    assert rooms.masks.sum(1).max() == 1
    larger, rooms = (arrow_rooms(np.random.default_rng(1), 4, size=size) for size in (64, 32))
    assert larger.images.shape[2:] == (64, 64)
    assert torch.allclose(larger.masks.float().mean((2, 3)), rooms.masks.float().mean((2, 3)), atol=0.015)


def test_rooms_that_are_wrong_say_so() -> None:
    shapes = np.array([[0, 0, 1], [0, 0, 1], [0, 0, 0], [0, 1, 2]])
    rooms = render(layout(np.random.default_rng(0), shapes, np.array([2, 0, 0, 0])))
    assert rooms.right.tolist() == [True, False, False, False]
    assert len(SHAPES) == 3
    numbers = layout(np.random.default_rng(0), shapes[:1], np.array([2]))
    numbers[0, 1, 7] = 0
    assert render(numbers).masks.flatten(2).any(2)[0].tolist() == [True, False, True, True]
