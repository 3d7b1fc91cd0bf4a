"""Coloured solids: what pictures show, pictures with their concepts, held-out pairs, folders, and metrics of sets."""

from collections import Counter
from itertools import chain, combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from energycomp.errors import InputError
from energycomp.seeds import seeded
from energycomp_datasets.clevr.scenes import Scene
from energycomp_datasets.solids import solids, source as source_module
from energycomp_datasets.solids.metrics import ConceptRecall
from energycomp_datasets.solids.solids import CONCEPTS, REACH, SIZES, held_out_pairs, picture, seen_pairs
from energycomp_datasets.solids.source import KINDS, TextSource, draw, read
from energycomp_datasets.synthetic import HELD_OUT
from energycomp_lab.evaluation import ExactSet, Example, bootstrap


def said(example: Example) -> set[str]:
    """The concepts of an example."""
    return {condition["concept"] for condition in example.conditions or ()}


@pytest.fixture
def unrendered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures that say nothing: only what they are of is looked at."""
    monkeypatch.setattr(source_module, "picture", lambda names, rng: torch.full((3, 64, 64), float(rng.random())))


def test_pictures_are_of_the_sets_that_their_kind_promises(unrendered: None) -> None:
    source, held, seen = TextSource(), set(held_out_pairs()), set(seen_pairs())
    found = {kind: [said(example) for example in source.examples(kind, count=300, seed=0)] for kind in KINDS}
    pairs = {
        kind: [tuple(name for name in CONCEPTS if name in names) for names in sets] for kind, sets in found.items()
    }
    assert set(pairs["synthetic"]) == held  # all twenty, in 300
    assert set(pairs["synthetic:seen"]) == seen
    assert set(pairs["synthetic:1"]) == {(name,) for name in CONCEPTS}
    assert {source.concepts(kind) for kind in KINDS} == {CONCEPTS}
    for triple in pairs["synthetic:3"]:
        assert len(triple) == 3
        assert any(pair in held for pair in combinations(triple, 2))
    assert len(set(pairs["synthetic:3"])) > 100


def test_examples_have_names_and_metrics_take_sets_in_any_order() -> None:
    names, _ = draw(1, HELD_OUT + 1)
    assert TextSource().examples("synthetic", count=2, seed=1)[1].name == " and ".join(names)
    metrics: Any = TextSource().metrics()
    cat, dog = torch.tensor([1, 2, 0]), torch.tensor([1, 3, 0])
    found: list[Tensor] = [torch.stack([cat, dog]), cat[None]]
    metrics.update(found, [torch.stack([dog, cat]), torch.stack([dog, cat])])
    assert {name: float(value) for name, value in metrics.compute().items()} == {"exact_match": 0.5, "recall": 0.75}


def pictures(root: Path, *names: str) -> Path:
    for name in names:
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((8, 8, 3), dtype=np.uint8)).save(file)
    return root


def test_folders_are_named_for_what_they_show(tmp_path: Path) -> None:
    root = pictures(tmp_path, "cat,dog/1.png", "cat,dog/2.JPG", "cat+ dog + fox/1.webp", "fox,fox/1.bmp", ".git/1.png")
    (root / "cat,dog" / "notes.txt").write_text("no picture")
    (root / "none").mkdir()
    pictures(root, "at the top.png")
    records = read(str(root))
    assert [(record.path.name, record.concepts) for record in records] == [
        ("1.webp", ("cat", "dog", "fox")),
        ("1.png", ("cat", "dog")),
        ("1.bmp", ("fox",)),
        ("2.JPG", ("cat", "dog")),
    ]
    assert TextSource().concepts(str(root)) == ("cat", "dog", "fox")


@pytest.mark.parametrize("files", [[], ["1.png"], ["cat/notes.txt"], [".cat/1.png"]], ids=str)
def test_folders_without_pictures(tmp_path: Path, files: list[str]) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    with pytest.raises(InputError, match=r"without folders of images.*cat,dog/1.jpg"):
        TextSource().examples(str(tmp_path), count=1, seed=0)


GENERATOR = seeded(0)


def sets(count: int) -> list[Tensor]:
    """Sets of one to three of five prompts, in any order."""
    prompts = torch.tensor([[k, 2 * k, 0] for k in range(5)])
    sizes = torch.randint(1, 4, (count,), generator=GENERATOR).tolist()
    return [prompts[torch.randperm(5, generator=GENERATOR)[:size]] for size in sizes]


def test_against_sets_of_python() -> None:
    found, true = sets(200), sets(200)
    true[:50] = [value.flip(0) for value in found[:50]]  # the same in another order
    f, t = ([{tuple(row) for row in value.tolist()} for value in values] for values in (found, true))
    exact, recall = ExactSet(), ConceptRecall()
    for start in range(0, 200, 30):
        exact.update(found[start : start + 30], true[start : start + 30])
        recall.update(found[start : start + 30], true[start : start + 30])
    right = sum(a == b for a, b in zip(f, t, strict=True))
    assert 50 <= right < 200
    assert float(exact.compute()) == pytest.approx(right / 200)
    assert float(recall.compute()) == pytest.approx(
        sum(len(a & b) for a, b in zip(f, t, strict=True)) / sum(map(len, t))
    )


def test_a_subset_and_a_superset_are_not_the_set() -> None:
    cat, dog = torch.tensor([[1, 2], [1, 3]])
    both, one, none = torch.stack([cat, dog]), cat[None], cat[None][:0]
    for found, true, right, share in ((one, both, 0, 0.5), (both, one, 0, 1), (none, one, 0, 0), (none, none, 1, None)):
        exact, recall = ExactSet(), ConceptRecall()
        exact.update([found], [true])
        recall.update([found], [true])
        assert float(exact.compute()) == right
        assert torch.isnan(recall.compute()) if share is None else float(recall.compute()) == share


def test_they_are_functions_of_sums() -> None:
    """So that they have bootstrap intervals."""
    for metric in (ExactSet(), ConceptRecall()):
        parts = [metric.clone() for _ in range(40)]
        for part, found, true in zip(parts, sets(40), sets(40), strict=True):
            part.update([found], [true])
            metric.update([found], [true])
        ends = bootstrap(parts, float(metric.compute()))
        assert ends[0] <= float(metric.compute()) <= ends[1]


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


def test_pictures_of_any_size_are_alike_and_shapes_differ() -> None:
    state = torch.get_rng_state()
    first = picture(CONCEPTS[:2], np.random.default_rng(1))
    assert torch.equal(state, torch.get_rng_state())
    small = picture(CONCEPTS[:2], np.random.default_rng(1), size=32)
    assert small.shape == (3, 32, 32)
    assert float((torch.nn.functional.avg_pool2d(first[None], 2)[0] - small).abs().mean()) < 0.03
    shown = [picture([f"red {shape}"], np.random.default_rng(3)) for shape in solids.SHAPES]
    assert all(float((one - other).abs().max()) > 0.2 for one, other in pairwise([*shown, shown[0]]))


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
