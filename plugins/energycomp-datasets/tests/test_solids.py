"""Coloured solids: what a picture shows is what was said, nothing is hidden, and the held-out pairs are even."""

from collections import Counter
from itertools import chain, combinations, pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from energycomp.errors import InputError
from energycomp_datasets.clevr.scenes import Scene
from energycomp_datasets.solids import solids
from energycomp_datasets.solids.solids import CONCEPTS, REACH, SIZES, caption, held_out_pairs, picture, seen_pairs

# The channels that a tint has much of, less those that it has little of.
TINTED = {"red": (1, -1, -1), "blue": (-1, -1, 1), "green": (-1, 1, -1), "yellow": (1, 1, -2)}


def test_pairs_are_parted() -> None:
    pairs = set(combinations(CONCEPTS, 2))
    held, seen = set(held_out_pairs()), set(seen_pairs())
    assert len(CONCEPTS) == 12
    assert held | seen == pairs
    assert not held & seen
    assert len(held) == round(0.3 * len(pairs)) == len(held_out_pairs())
    uses = Counter(chain.from_iterable(held))
    assert set(uses) == set(CONCEPTS)
    assert set(uses.values()) == {2, 3, 4}


@pytest.mark.parametrize("concept", CONCEPTS)
def test_a_picture_shows_its_colour(concept: str) -> None:
    tint, _ = concept.split()
    weights = {name: torch.tensor(part, dtype=torch.float32) for name, part in TINTED.items()}
    shown = picture([concept], np.random.default_rng(7))
    assert shown.shape == (3, 64, 64)
    assert float(shown.min()) >= -1
    assert float(shown.max()) <= 1
    strongest = {name: float((shown * part[:, None, None]).sum(0).max()) for name, part in weights.items()}
    assert max(strongest, key=strongest.__getitem__) == tint


def test_shapes_differ() -> None:
    shown = [picture([f"red {shape}"], np.random.default_rng(3)) for shape in solids.SHAPES]
    assert all(float((one - other).abs().max()) > 0.2 for one, other in pairwise([*shown, shown[0]]))


def test_a_picture_is_repeatable_and_of_its_generator_alone() -> None:
    state = torch.get_rng_state()
    first, second, other = (picture(CONCEPTS[:2], np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first.equal(second)
    assert not first.equal(other)
    assert torch.equal(state, torch.get_rng_state())
    small = picture(CONCEPTS[:2], np.random.default_rng(1), size=32)
    assert small.shape == (3, 32, 32)
    assert float((torch.nn.functional.avg_pool2d(first[None], 2)[0] - small).abs().mean()) < 0.03


def test_every_object_is_whole_and_none_hides_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the scenes that are drawn, whatever the number of objects."""
    scenes: list[Scene] = []

    def recorded(scene: Scene, size: tuple[int, int], **_: object) -> Tensor:
        scenes.append(scene)
        return torch.zeros(3, *size)

    monkeypatch.setattr(solids, "render", recorded)
    for seed, count in enumerate((0, 1, 2, 3, 4) * 3):
        names = [CONCEPTS[int(k)] for k in np.random.default_rng(seed).permutation(12)[:count]]
        picture(names, np.random.default_rng(seed))
        scene = scenes[-1]
        assert [
            f"{list(solids.COLORS)[c]} {solids.SHAPES[s]}" for c, s in zip(scene.colors, scene.shapes, strict=True)
        ] == (names)
        ids = solids.id_buffer(scene, 64, 96)[0][..., 16:80]
        assert all(int((ids == k).sum()) >= 64 for k in range(count))
        assert ((scene.sizes >= SIZES[0]) & (scene.sizes <= SIZES[1])).all()
        assert (scene.positions[:, :2].abs() <= REACH).all()
        assert scene.positions[:, 2].equal(scene.sizes)  # they stand on the ground
        for i, j in combinations(range(count), 2):
            apart = float((scene.positions[i, :2] - scene.positions[j, :2]).norm())
            assert apart > float(scene.sizes[i] + scene.sizes[j])


def test_captions() -> None:
    assert caption([]) == ""
    assert caption(["red cube"]) == "a red cube"
    assert caption(CONCEPTS[:3]) == "a red cube and a red sphere and a red cylinder"


@pytest.mark.parametrize("names", [["red cone"], ["cube"], ["purple cube"], ["red cube", "cat"]])
def test_concepts_that_cannot_be_drawn(names: list[str]) -> None:
    with pytest.raises(InputError, match="expected some of red cube"):
        picture(names, np.random.default_rng(0))
    with pytest.raises(InputError, match="at most 4"):
        picture(CONCEPTS[:5], np.random.default_rng(0))
