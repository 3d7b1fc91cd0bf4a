"""Drawn shapes, and one lit object: areas, places, colours, masks and factors; sources read what they write."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from energycomp.errors import InputError
from energycomp_datasets.pictures import image_files
from energycomp_datasets.shapes.lit import LitSource, factors, render as render_lit
from energycomp_datasets.shapes.shapes import DISTANCES, GROUND, SIZE, WORLDS, layout, render, scene
from energycomp_datasets.shapes.source import draw, shapes_source
from energycomp_datasets.synthetic import HELD_OUT

# Of a shape in a circle of radius 1.
AREAS = {
    "circle": math.pi * 0.85**2,
    "square": (2 * 0.72) ** 2,
    "triangle": 3 * math.sqrt(3) * 0.55**2,
    "cross": 2 * (2 * 0.95) * (2 * 0.32) - (2 * 0.32) ** 2,
    "ring": math.pi * (0.95**2 - 0.45**2),
    "star": math.pi * (0.68**2 + 0.3**2 / 2),
}


@pytest.mark.parametrize("name", DISTANCES)
def test_a_shape_covers_its_area(name: str) -> None:
    world = next(key for key, kind in WORLDS.items() if name in kind.shapes)
    index, radius, size = WORLDS[world].shapes.index(name), 0.3, 256
    objects = torch.tensor([[[index, 0.5, 0.45, radius, 1.0, 1.0, 1.0]]])
    images, masks = render(objects, world=world, size=size)
    ground = torch.tensor(GROUND)[:, None, None]
    covered = float(((images[0] - ground) / (1 - ground)).mean(0).sum()) / (radius * size) ** 2
    assert covered == pytest.approx(AREAS[name], rel=0.02)
    assert float(masks.sum()) / (radius * size) ** 2 == pytest.approx(AREAS[name], rel=0.02)
    v, u = masks[0, 0].nonzero().float().mean(0).tolist()
    assert ((u + 0.5) / size, (v + 0.5) / size) == pytest.approx((0.5, 0.45), abs=0.02)


def test_edges_are_smooth_and_the_later_object_is_in_front() -> None:
    back = [0.0, 0.5, 0.5, 0.2, 0.9, -0.6, -0.6]
    front = [0.0, 0.6, 0.5, 0.2, -0.6, 0.75, -0.5]
    images, masks = render(torch.tensor([[back, front]]))
    assert not bool((masks[0, 0] & masks[0, 1]).any())
    at = masks[0, 1].nonzero().float().mean(0).long()
    assert torch.allclose(images[0, :, at[0], at[1]], torch.tensor(front[4:]))
    values = images[0, 1].unique()
    assert len(values) > 10  # between ground and objects there are shades


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("count", [0, 1, 4])
def test_a_scene_is_what_its_numbers_say(world: str, count: int) -> None:
    for index in range(5):
        made = scene(np.random.default_rng([index, count]), count, world=world)
        assert made.image.shape == (3, SIZE, SIZE)
        assert made.masks.shape == (count, SIZE, SIZE)
        assert made.factors.shape == (count, 7)
        assert bool((made.image.abs() <= 1).all())
        for mask, (_, x, y, radius, *colour) in zip(made.masks, made.factors.tolist(), strict=True):
            inside = mask.nonzero().float() + 0.5
            away = torch.hypot(inside[:, 1] - x * SIZE, inside[:, 0] - y * SIZE)
            assert float(away.max()) <= radius * SIZE + 0.75
            assert len(inside) > 10
            off = (made.image[:, mask] - torch.tensor(colour)[:, None]).abs().amax(0)
            assert float(off.min()) < 0.1  # edges are mixed with the ground


def test_objects_hardly_hide_each_other() -> None:
    for index in range(50):
        objects = layout(np.random.default_rng(index), 4)
        alone = torch.from_numpy(objects).float()[:, None]
        together = render(alone.transpose(0, 1))[1][0].sum((1, 2))
        separate = render(alone)[1][:, 0].sum((1, 2))
        assert float((together / separate).min()) > 0.6


def test_the_worlds_share_neither_shapes_nor_colours() -> None:
    a, b = WORLDS["a"], WORLDS["b"]
    assert not set(a.shapes) & set(b.shapes)
    assert min(math.dist(one, two) for one in a.palette for two in b.palette) > 0.5


def test_examples_have_the_world_and_the_counts_that_are_asked_for() -> None:
    source = shapes_source()
    counts = {len(example.masks) for example in source.examples("synthetic:2-4", count=30, seed=0)}
    assert counts == {2, 3, 4}
    other = source.examples("synthetic:b:3", count=1, seed=0)[0]
    assert len(other.masks) == 3
    assert torch.equal(other.image, draw(0, HELD_OUT, world="b", counts=(3, 3)).image)


def test_pictures_of_ones_own(tmp_path: Path) -> None:
    for name in ("b.jpg", "a.PNG", "notes.txt"):
        Image.new("RGB", (40, 20)).save(tmp_path / name, format="PNG")
    assert [path.name for path in image_files(tmp_path)] == ["a.PNG", "b.jpg"]
    (one, _) = shapes_source().examples(str(tmp_path), count=5, seed=0)
    assert one.masks.shape == (0, 1, 1)


def test_masks_that_cannot_be_read(tmp_path: Path) -> None:
    shapes_source().write(tmp_path, count=1, seed=0, options="", progress=lambda _: None)
    (tmp_path / "masks" / "000001.png").write_text("no picture")
    with pytest.raises(InputError, match=r"000001\.png"):
        shapes_source().examples(str(tmp_path), count=1, seed=0)


def test_factors_are_independent_and_uniform() -> None:
    drawn = factors(4000, seed=0)
    low, high = torch.tensor([-1.0, 0, 0, 0, 0]), torch.tensor([1.0, 1, 1, 2, 1])
    assert bool(((drawn >= low) & (drawn <= high)).all())
    assert torch.allclose(torch.corrcoef(drawn.T), torch.eye(5), atol=0.06)
    assert torch.allclose(drawn.mean(0), (low + high) / 2, atol=0.05)
    assert drawn[:, 3].unique().tolist() == [0, 1, 2]


@pytest.mark.parametrize("factor", range(5))
def test_every_factor_changes_the_picture(factor: int) -> None:
    values = torch.tensor([0.0, 0.5, 0.5, 1.0, 0.5]).repeat(3, 1)
    values[:, factor] = torch.tensor([[-1.0, 0.0, 1.0], [0, 0.5, 1], [0, 0.5, 1], [0, 1, 2], [0, 0.5, 1]])[factor]
    pictures = render_lit(values)
    assert bool((pictures.abs() <= 1).all())
    assert float((pictures[0] - pictures[2]).square().mean()) > 0.002
    assert float((pictures[0] - pictures[1]).abs().mean()) > 0.005


def test_the_light_comes_from_its_side() -> None:
    left, right = render_lit(torch.tensor([[-1.0, 0.5, 0.5, 0, 0.5], [1.0, 0.5, 0.5, 0, 0.5]]))
    assert float(left[..., :4].mean()) > float(left[..., -4:].mean()) + 0.1
    assert float(right[..., -4:].mean()) > float(right[..., :4].mean()) + 0.1


def test_factors_that_do_not_fit_their_images(tmp_path: Path) -> None:
    source = LitSource()
    source.write(tmp_path, count=3, seed=1, options="", progress=lambda _: None)
    (tmp_path / "images" / "000001.png").unlink()
    with pytest.raises(InputError, match=r"3 rows in factors.csv and 2 images; expected a row for each image"):
        source.examples(str(tmp_path), count=2, seed=0)
    (tmp_path / "factors.csv").write_text("light\n1,2\n")
    with pytest.raises(InputError, match=r"factors\.csv"):
        source.examples(str(tmp_path), count=2, seed=0)
    with pytest.raises(InputError, match="leave it out"):
        source.write(tmp_path, count=1, seed=1, options="b", progress=lambda _: None)
