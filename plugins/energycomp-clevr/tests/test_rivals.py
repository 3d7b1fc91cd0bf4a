"""Wrong descriptions differ from the right one in what they say they do; a removed object leaves no scrap."""

from typing import Any

import attrs
import numpy as np
import torch
from scipy.ndimage import median_filter

import energycomp
import energycomp_edit
from energycomp.components import Condition
from energycomp.images import to_output
from energycomp.inference import Solution
from energycomp.seeds import seeded
from energycomp_clevr.codes import CUBE, SHAPE, TURN
from energycomp_clevr.coordinates import Coordinates
from energycomp_clevr.objects import Objects
from energycomp_clevr.rivals import SWAPS, TURNED, WORDS, draw_rivals
from energycomp_datasets.clevr.source import ClevrSource
from energycomp_lab.evaluation import true_values
from energycomp_lab.training import Rivals
from energycomp_solvers.pursuit import Pursuit


class _Recorded(Objects):
    """Keeps the values that it was asked for."""

    values: torch.Tensor

    def __call__(self, values: torch.Tensor) -> Condition:
        object.__setattr__(self, "values", values)
        return super().__call__(values)


def drawn(values: torch.Tensor, owner: torch.Tensor, scenes: int, seed: int) -> tuple[Rivals, torch.Tensor]:
    objects = _Recorded(turns=values.shape[1] > TURN)
    rivals = draw_rivals(values, owner, scenes, objects, seeded(seed))
    assert len(rivals.condition) == len(objects.values)
    return rivals, objects.values


def test_rivals_differ_in_one_thing() -> None:
    values = torch.rand(40, 6)
    values[:, 2:] = 1 + (torch.rand(40, 4) * torch.tensor(WORDS[:4])).long()
    values[:, 5] *= torch.rand(40) < 0.5
    owner = torch.arange(40) // 4
    left_out = swapped = added = moved = 0
    for seed in range(5):
        rivals, new = drawn(values, owner, 12, seed)
        for scene, gone, came in zip(*(t.tolist() for t in (rivals.owner, rivals.dropped, rivals.added)), strict=True):
            assert gone < 0 or int(owner[gone]) == scene
            if came < 0:
                left_out += 1
            elif gone < 0:
                added += 1
            elif new[came, :2].equal(values[gone, :2]):
                swapped += 1
                column = (new[came] != values[gone]).nonzero()[:, 0]
                assert len(column) == 1
                assert values[gone, column] > 0  # what is open has no wrong word
                assert 1 <= new[came, column] <= WORDS[int(column) - 2]
            else:
                moved += 1
                assert (new[came, 2:] == values[gone, 2:]).all()
        assert ((new[:, :2] >= 0) & (new[:, :2] <= 1)).all()
    assert left_out == 5 * 40  # each object once
    assert 0 < swapped <= 5 * 10 * SWAPS
    assert added + moved == 5 * 12  # one of them in each scene, even in empty ones
    assert min(added, moved) > 5


def test_a_wrong_turn_is_far_from_the_right_one_and_of_a_cube() -> None:
    values = torch.rand(60, 7)
    values[:, 2:] = 1 + (torch.rand(60, 5) * torch.tensor(WORDS)).long()
    values[:, TURN] *= values[:, SHAPE] == CUBE
    owner, turned = torch.arange(60) // 3, 0
    for seed in range(3):
        rivals, new = drawn(values, owner, 20, seed)
        assert (new[:, TURN] * (new[:, SHAPE] != CUBE)).eq(0).all()
        assert ((new[:, TURN] >= 0) & (new[:, TURN] <= 90)).all()
        replaced = (rivals.dropped >= 0) & (rivals.added >= 0)
        old, other = values[rivals.dropped[replaced]], new[rivals.added[replaced]]
        only = (old[:, :TURN] == other[:, :TURN]).all(1) & (old[:, TURN] != other[:, TURN])
        away = (old[only, TURN] - other[only, TURN]).abs()
        assert torch.minimum(away, 90 - away).ge(TURNED[0]).all()
        turned += int(only.sum())
    assert turned >= 5


def test_scenes_without_objects() -> None:
    rivals, new = drawn(torch.zeros(0, 6), torch.zeros(0, dtype=torch.long), 3, 0)
    assert rivals.owner.tolist() == [0, 1, 2]
    assert rivals.dropped.tolist() == [-1] * 3
    assert len(new) == 3


def test_places_have_no_words() -> None:
    owner = torch.arange(40) // 4
    rivals = draw_rivals(torch.rand(40, 2), owner, 12, Coordinates(), seeded(0))
    assert rivals.dropped[:40].tolist() == list(range(40))
    assert rivals.added[:40].tolist() == [-1] * 40
    assert rivals.owner[40:].tolist() == list(range(12))  # one object too many or moved in each scene
    assert len(rivals.condition) == 12


def test_a_removed_object_leaves_no_scrap_of_itself_or_its_shadow() -> None:
    loaded = energycomp.load("clevr-small")
    model = attrs.evolve(loaded, defaults=attrs.evolve(loaded.defaults, draws=4))
    scene = ClevrSource().examples("synthetic:3-4", count=1, seed=5)[0]
    values, image = true_values(scene, model.conditioner), to_output(scene.image[None].float(), "pil")[0]
    answer = Solution(values, len(values), 0.0, 0.0, 0)
    quick: Any = {"solver": Pursuit(budget=0), "tries": 1, "num_inference_steps": 1}  # what is read says nothing here
    edited = energycomp_edit.edit(image, model, remove=[0], solution=answer, progress=False, **quick)
    light, (y, x) = np.asarray(image, dtype=float).mean(2), np.mgrid[:64, :64] / 64
    places = [model.conditioner.describe(value) for value in values]
    own, *others = (np.hypot(x - place["x"], y - place["y"]) for place in places)
    seen = (median_filter(light, 25) - light > 10) & (own < 0.2) & (np.min(others, axis=0) > 0.13)
    assert seen.sum() > 50
    assert not (seen & ~edited.mask[0, 0].bool().numpy()).any()
    assert torch.equal(edited.values, values[1:])
