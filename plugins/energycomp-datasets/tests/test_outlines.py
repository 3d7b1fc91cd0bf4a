"""Readers of CLEVR scenes: the network, and the judge of shapes by outlines."""

from pathlib import Path

import attrs
import pytest
import torch

from energycomp.images import ImageProcessor, from_bytes
from energycomp_datasets.clevr.geometry import SHAPES
from energycomp_datasets.clevr.layout import object_values, read, record_of, render_objects, scene_of, turns_of
from energycomp_datasets.clevr.outlines import in_view, judge
from energycomp_datasets.clevr.reader import SIZE, load_reader
from energycomp_datasets.clevr.renderer import instance_map, render
from energycomp_datasets.clevr.scenes import ATTRIBUTES, Scene
from energycomp_datasets.synthetic import HELD_OUT

REAL = Path(__file__).resolve().parents[4] / "shared/data/clevr_real_dev"


def small_or_large(large: bool) -> Scene:
    """A scene with one small or large object alone, whose shape and turn are varied."""
    scene = scene_of(3, 0, (1, 1))
    size = torch.tensor([0.7 if large else 0.35])
    places = torch.cat([torch.zeros(1, 2), size[:, None]], 1)
    return attrs.evolve(scene, sizes=size, positions=places)


@pytest.mark.parametrize(("large", "size"), [(False, (128, 192)), (True, (128, 128))], ids=["small", "squashed"])
def test_it_names_what_is_rendered(large: bool, size: tuple[int, int]) -> None:
    scene = small_or_large(large)
    for index, shape in enumerate(SHAPES):
        drawn = attrs.evolve(scene, shapes=torch.tensor([index]))
        # The words are those of another shape: only the place and the size are looked at.
        (found,) = judge(render(drawn, size), object_values(scene))
        assert found.shape == shape
        assert max(found.overlaps, key=found.overlaps.__getitem__) == shape
        assert found.overlaps[shape] > 0.9
        assert (found.turn is None) == (shape != "cube")


@pytest.mark.parametrize("turn", [10, 85])
def test_it_reads_the_turn_of_a_cube(turn: int) -> None:
    scene = attrs.evolve(small_or_large(True), shapes=torch.tensor([0]), rotations=torch.tensor([turn]).deg2rad())
    (found,) = judge(render(scene, (128, 192)), object_values(scene))
    true = turns_of(record_of(scene, "", 0, ""), object_values(scene)[:, :2])
    assert abs((found.turn - float(true) + 45) % 90 - 45) <= 5


def test_objects_in_view_are_seen_whole() -> None:
    """Brute force: they have as many pixels in the scene as alone."""
    judged = 0
    for index in range(6):
        scene = scene_of(1, index, (4, 8))
        ids, seen = instance_map(scene, (80, 120)), in_view(object_values(scene))
        assert seen.any()
        judged += int(seen.sum())
        for k in seen.nonzero()[:, 0].tolist():
            kept = {name: getattr(scene, name)[k : k + 1] for name in ("positions", "sizes", "shapes", "rotations")}
            alone = instance_map(attrs.evolve(scene, **kept), (80, 120))
            assert int((ids == k).sum()) == int((alone == 0).sum())
    assert judged > 12


def test_an_object_that_is_not_whole_is_not_judged() -> None:
    values = torch.tensor([[0.5, 0.5, 2.0], [0.52, 0.6, 2.0], [0.01, 0.5, 1.0]])
    found = judge(torch.zeros(3, 32, 48), values)
    assert [one is not None for one in found] == [False, True, False]
    assert judge(torch.zeros(3, 32, 48), values[:0]) == []


@pytest.mark.skipif(not REAL.is_dir(), reason="official images are not part of the repository")
def test_it_names_what_official_images_show() -> None:
    right = []
    for record in read(REAL)[:6]:
        sizes = torch.tensor([[ATTRIBUTES["size"].index(words["size"]) + 1.0] for words in record.attributes])
        found = judge(ImageProcessor(size=(128, 192))(record.path)[0], torch.cat([record.coordinates, sizes], 1))
        right += [one.shape == words["shape"] for one, words in zip(found, record.attributes, strict=True) if one]
    assert len(right) > 12
    assert sum(right) >= len(right) - 1


def test_it_reads_renders() -> None:
    images, true = render_objects(6, objects=(2, 5), seed=HELD_OUT, size=(SIZE, SIZE))
    found = load_reader().read(from_bytes(images))
    assert [len(one) for one in found] == [len(one) for one in true]
    right = []
    for one, other in zip(found, true, strict=True):
        distance, nearest = torch.cdist(other[:, :2], one[:, :2]).min(1)
        assert distance.max() < 0.02
        right.append((one[nearest, 2:] == other[:, 2:]).all(1))
    assert torch.cat(right).float().mean() > 0.9
