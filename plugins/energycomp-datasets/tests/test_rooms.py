"""Rooms with solids, and Arrow Room: what is drawn is what the numbers say, and nearer solids hide those behind."""

import numpy as np
import pytest
import torch
from torch import Tensor

from energycomp_datasets.rooms.arrow_room import (
    SHAPES as ARROW_SHAPES,
    arrow_rooms,
    layout as arrow_layout,
    render as arrow_render,
)
from energycomp_datasets.rooms.rooms import MOST, SIZE, SOLIDS, layout, render


def drawn(seed: int, count: int) -> tuple[Tensor, Tensor]:
    room, solids = (torch.from_numpy(part).float()[None] for part in layout(np.random.default_rng(seed), count))
    return room, solids


@pytest.mark.parametrize("count", range(MOST + 1))
def test_a_room_is_what_its_numbers_say(count: int) -> None:
    for seed in range(5):
        room, solids = drawn(seed, count)
        assert room.shape == (1, 9)
        assert solids.shape == (1, MOST, 8)
        assert int(solids[0, :, 7].sum()) == count
        images, masks = render(room, solids)
        assert images.shape == (1, 3, SIZE, SIZE)
        assert bool((images.abs() <= 1).all())
        assert not bool((masks.sum(1) > 1).any())
        assert masks.any((2, 3))[0].tolist() == [True] * count + [False] * (MOST - count)
        for mask, (_, x, foot, half, *_) in zip(masks[0, :count], solids[0].tolist(), strict=False):
            v, u = ((mask.nonzero().float() + 0.5) / SIZE).unbind(1)
            assert float((u - x).abs().max()) <= half + 1 / SIZE
            assert float(v.max()) <= foot + 1 / SIZE
            assert float(v.min()) >= foot - 2.4 * half - 1 / SIZE


@pytest.mark.parametrize(
    ("name", "area"),
    [
        ("sphere", np.pi),
        ("box", 1.5 * 1.45 + 0.5 * 1.45 + 0.5 * 1.5),  # front, side, top: parallelograms
        ("cylinder", 1.6 * 1.35 + np.pi * 0.8 * 0.25),  # the body and two halves of an ellipse
        ("cone", 0.9 * 1.95 + np.pi * 0.9 * 0.25 / 2),
    ],
)
def test_a_solid_covers_its_area(name: str, area: float) -> None:
    half, size = 0.2, 256
    solids = torch.tensor([[[list(SOLIDS).index(name), 0.5, 0.9, half, 1.0, 0.0, 0.0, 1.0]]])
    masks = render(drawn(0, 0)[0], solids, size=size)[1]
    assert float(masks.sum()) / (half * size) ** 2 == pytest.approx(area, rel=0.02)


def test_a_solid_is_lit_from_above_on_the_left_and_in_its_colour() -> None:
    solids = torch.tensor([[[0.0, 0.5, 0.9, 0.3, 0.2, -0.4, -1.0, 1.0]]])
    images, masks = render(drawn(0, 0)[0], solids, size=64)
    bright = (images[0] + 1).mean(0)
    v, u = masks[0, 0].nonzero().unbind(1)
    left, above = u < 32, v < v.float().mean()
    assert bright[v, u][left & above].mean() > 1.5 * bright[v, u][~left & ~above].mean()
    red, green, _ = images[0, :, 50, 32] + 1  # no gloss below the middle
    assert float(red / green) == pytest.approx(1.2 / 0.6, rel=1e-3)


def test_what_stands_in_front_hides_what_is_behind() -> None:
    far, near = [1.0, 0.45, 0.7, 0.12, 1.0, -1.0, -1.0, 1.0], [1.0, 0.5, 0.9, 0.16, -1.0, 1.0, -1.0, 1.0]
    room = drawn(0, 0)[0]
    _, both = render(room, torch.tensor([[far, near]]))
    alone = torch.cat([render(room, torch.tensor([[solid]]))[1] for solid in (far, near)], 1)
    assert torch.equal(both[0, 1], alone[0, 1])
    assert 10 < int(both[0, 0].sum()) < int(alone[0, 0].sum())
    # a pixel at the edge that both share in halves may belong to neither
    assert int(((alone[0, 0] & ~alone[0, 1]) ^ both[0, 0]).sum()) <= 5


def test_solids_in_layouts_stand_apart_and_the_farthest_come_first() -> None:
    for seed in range(50):
        _, solids = drawn(seed, 3)
        foot = solids[0, :, 2]
        assert bool((foot.diff() >= 0).all())
        _, masks = render(*drawn(seed, 3))
        assert int(masks.sum((2, 3)).min()) >= 12


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
    rooms = arrow_render(arrow_layout(np.random.default_rng(0), shapes, np.array([2, 0, 0, 0])))
    assert rooms.right.tolist() == [True, False, False, False]
    assert len(ARROW_SHAPES) == 3
    numbers = arrow_layout(np.random.default_rng(0), shapes[:1], np.array([2]))
    numbers[0, 1, 7] = 0
    assert arrow_render(numbers).masks.flatten(2).any(2)[0].tolist() == [True, False, True, True]
