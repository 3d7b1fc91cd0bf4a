"""Training: no held-out pair is seen, captions are true, encoder and network learn, and what cannot be is refused."""

import re
from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch

from energycomp.errors import InputError
from energycomp.images import ImageProcessor
from energycomp.models import Model, from_pretrained, load_weights, save_pretrained
from energycomp.seeds import seeded, torch_seed
from energycomp.testing import stripes_model
from energycomp_datasets.solids.solids import CONCEPTS, held_out_pairs, seen_pairs
from energycomp_datasets.solids.source import TextSource, read
from energycomp_lab.checks import check_recipe
from energycomp_lab.training import Step, augment
from energycomp_text import recipe
from energycomp_text.model import own_words, small
from energycomp_text.recipe import ALONE, BOTH, EMPTY, captions, scene
from energycomp_text.rivals import Concepts
from energycomp_text.text import Text


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pictures")
    TextSource().write(path, count=33, seed=0, options="seen", progress=lambda _: None)
    return path


def made(folder: Path | None, init: Model | None = None, cache: Path = Path("nowhere"), **options: Any) -> Any:
    return recipe.text(data=folder, init=init, preset="default", cache=cache, **options)


@pytest.mark.parametrize(("alone", "three"), [(ALONE, 0.0), (0.25, 0.5)])
def test_no_scene_of_training_shows_a_held_out_pair(
    monkeypatch: pytest.MonkeyPatch, alone: float, three: float
) -> None:
    monkeypatch.setattr(recipe, "picture", lambda names, rng: torch.zeros(3, 64, 64))
    scenes = [tuple(scene(index, alone=alone, three=three)[0]) for index in range(300)]
    shown = {frozenset(pair) for names in scenes for pair in combinations(names, 2)}
    assert shown.isdisjoint(map(frozenset, held_out_pairs()))
    assert shown <= set(map(frozenset, seen_pairs()))
    assert {name for names in scenes for name in names} == set(CONCEPTS)
    shares = Counter(map(len, scenes))
    assert shares[1] / 300 == pytest.approx(alone, abs=0.08)
    assert shares[3] / 300 == pytest.approx(three, abs=0.08)


def test_a_scene_depends_on_its_number_and_seed_alone() -> None:
    (names, image), (again, same), (_, other) = scene(4), scene(4), scene(4, seed=1)
    assert names == again
    assert image.equal(same)
    assert not image.equal(other)


def test_captions_name_what_is_shown_and_nothing_else() -> None:
    generator = seeded(0)
    first = torch.randint(12, (4000,), generator=generator)
    second = torch.where(torch.arange(4000) % 3 == 0, -1, (first + 1 + torch.arange(4000) % 11) % 12)
    concepts = torch.stack([first, second], 1)
    said = captions(concepts, CONCEPTS, generator)
    assert len(said) == 4000
    for both, number in ((0.0, 1), (1.0, 2)):
        named = captions(concepts[second >= 0], CONCEPTS, generator, both=both)
        assert {len(words.split(" and ")) for words in named if words is not None} == {number}
    kinds: Counter[str] = Counter()
    for shown, words in zip(concepts.tolist(), said, strict=True):
        if words is None:
            kinds["none"] += 1
            continue
        known = [CONCEPTS[index] for index in shown if index >= 0]
        named = [part.removeprefix("a ") for part in words.split(" and ")]
        assert re.fullmatch(r"a \w+ \w+( and a \w+ \w+)?", words)
        assert set(named) <= set(known)
        assert len(set(named)) == len(named)
        if len(known) == 2:
            kinds["both" if len(named) == 2 else "one"] += 1
            kinds["turned"] += named[0] == known[1]
    assert kinds["none"] / 4000 == pytest.approx(EMPTY, abs=0.03)
    pairs = kinds["both"] + kinds["one"]
    assert kinds["both"] / pairs == pytest.approx(BOTH, abs=0.04)
    assert kinds["turned"] / pairs == pytest.approx(0.5, abs=0.04)
    concepts = torch.tensor([[0, 5, 10]] * 300)
    named = [words.split(" and ") for words in captions(concepts, CONCEPTS, seeded(0)) if words]
    assert Counter(map(len, named)).keys() == {1, 3}
    assert {words[0] for words in named if len(words) == 1} == {f"a {CONCEPTS[k]}" for k in (0, 5, 10)}


def test_pictures_are_flipped_and_lit_otherwise() -> None:
    ramp = torch.linspace(0, 255, 64).byte().expand(400, 3, 64, 64)
    shown, flipped = augment(ramp, seeded(0), tint=0.0)
    rising = shown[:, 0, 0, 63] > shown[:, 0, 0, 0]
    assert float(rising.float().mean()) == pytest.approx(0.5, abs=0.1)
    assert torch.equal(rising, ~flipped)
    upright = torch.where(rising[:, None, None, None], shown, shown.flip(3))
    exposure = (upright[:, 0, 0, 20] + 1) / (ramp[:, 0, 0, 20].float() / 127.5)
    assert float(exposure.std()) == pytest.approx(0.05, abs=0.01)
    expected = (ramp.float() / 127.5 * exposure[:, None, None, None] - 1).clamp(-1, 1)
    torch.testing.assert_close(upright, expected, rtol=0, atol=1e-4)


def test_it_conforms_and_is_repeatable(folder: Path) -> None:
    run = made(folder)
    check_recipe(attrs.evolve(run, config=attrs.evolve(run.config, batch_size=8)))
    with torch_seed(1):
        one = made(folder).model.trained.state_dict()
        state = torch.get_rng_state()
        torch.manual_seed(2)
        other = made(folder).model.trained.state_dict()
        torch.manual_seed(1)
        assert torch.equal(torch.get_rng_state(), state)
    assert [name for name, first in one.items() if not first.equal(other[name])] == []


def test_encoder_and_network_learn_and_are_saved(folder: Path, tmp_path: Path) -> None:
    run = made(folder)
    before = {name: tensor.clone() for name, tensor in run.model.trained.state_dict().items()}
    result = run.run(tmp_path / "run", steps=3, seed=0, mixed_precision="no", batch_size=8, progress=False)
    changed = {name for name, tensor in result.ema_state.items() if not torch.equal(tensor, before[name])}
    assert {"conditioner.embedding.weight", "conditioner.layers.layers.1.linear2.weight"} <= changed
    assert any(name.startswith("network.") for name in changed)
    load_weights(run.model.trained, result.ema_state, "here")
    save_pretrained(run.model, tmp_path / "model")
    again = from_pretrained(tmp_path / "model")
    for name, tensor in again.trained.state_dict().items():
        assert tensor.equal(result.ema_state[name])
    more = made(folder, init=again)
    assert more.model is again
    assert all(weight.requires_grad for weight in again.conditioner.module.parameters())


def test_the_loss_is_that_of_one_caption_a_picture(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, calls = made(folder), list[tuple[Any, ...]]()
    said = [["a red cube", None, "a blue sphere and a red cube"][k % 3] for k in range(6)]
    monkeypatch.setattr(recipe, "captions", lambda *_, **__: said)
    monkeypatch.setattr(recipe, "denoising_loss", lambda *args, **options: calls.append((*args, options)) or 0.0)
    batch = {"image": torch.full((6, 3, 64, 64), 128, dtype=torch.uint8), "concepts": torch.full((6, 2), -1)}
    run.loss(run.model.trained, batch, Step(0, 1, seeded(0)))
    ((denoiser, images, condition, owner, options),) = calls
    assert denoiser is run.model.denoiser
    assert options["module"] is denoiser.network
    assert images.shape == (6, 3, 64, 64)
    assert float(images.abs().max()) < 0.3
    assert not condition.null.any()
    assert owner.tolist() == [0, 2, 3, 5]  # an image without a caption is left to u
    for row, words in zip(condition.rows, filter(None, said), strict=True):
        expected = run.model(words).condition.rows[0]
        torch.testing.assert_close(row, expected, rtol=0, atol=1e-6)
    assert condition.rows.requires_grad  # the encoder learns


def test_composed_images_have_a_row_for_each_concept_and_rivals(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, calls = made(folder, composed="0.5", contrast="3", timestep_power="1"), list[tuple[Any, ...]]()
    monkeypatch.setattr(recipe, "contrastive_loss", lambda *args, **options: calls.append((*args, options)) or 0.0)
    batch = {"image": torch.full((40, 3, 64, 64), 128, dtype=torch.uint8), "concepts": torch.tensor([[0, 1]] * 40)}
    run.loss(run.model.trained, batch, Step(0, 1, seeded(0)))
    ((_, _, condition, owner, rivals, options),) = calls
    assert (options["weight"], options["beta"], options["timestep_power"]) == (3.0, recipe.BETA, 1.0)
    composed = rivals.owner.unique().tolist()
    assert 12 <= len(composed) <= 28
    assert run.model.defaults.guidance_scale == 1.0
    assert made(folder).model.defaults.guidance_scale == 3.0
    names = [record for record in read(str(folder)) if len(record.concepts) <= 2]
    known = list(dict.fromkeys(name for record in names for name in record.concepts))[:2]
    for image in composed:
        rows = (owner == image).nonzero()[:, 0]
        for row, name in zip(rows.tolist(), known, strict=True):
            expected = run.model(f"a {name}").condition.rows[0]
            torch.testing.assert_close(condition.rows[row], expected, rtol=0, atol=1e-6)
        dropped = rivals.dropped[rivals.owner == image]
        assert {int(row) for row in dropped if row >= 0} == set(rows.tolist())


def test_a_batch_without_captions(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipe, "captions", lambda *_, **__: [None, None])
    batch = {"image": torch.full((2, 3, 64, 64), 128, dtype=torch.uint8), "concepts": torch.full((2, 2), -1)}
    for run in (made(folder), made(folder, composed=0.9, contrast=1)):
        assert run.loss(run.model.trained, batch, Step(0, 1, seeded(0))).isfinite()


def test_only_pictures_of_one_or_two_concepts_are_taken(tmp_path: Path) -> None:
    source = TextSource()
    source.write(tmp_path / "three", count=2, seed=0, options="3", progress=lambda _: None)
    with pytest.raises(InputError, match="without pictures of one or two concepts"):
        made(tmp_path / "three")
    source.write(tmp_path / "three", count=3, seed=0, options="", progress=lambda _: None)
    pictures = made(tmp_path / "three").data
    assert len(pictures) == 3
    records = [record for record in read(str(tmp_path / "three")) if len(record.concepts) == 2]
    names = tuple(dict.fromkeys(name for record in records for name in record.concepts))
    for k, record in enumerate(records):
        assert tuple(names[index] for index in pictures[k]["concepts"].tolist()) == record.concepts
        image = ImageProcessor(size=(64, 64))(record.path)[0]
        assert ((image + 1) * 127.5).round().byte().equal(pictures[k]["image"])


def test_pictures_are_drawn_once_for_each_mix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipe, "DRAWN", 6)
    for alone, three in ((0.5, 0.4), (0.5, 0.0), (1.0, 0.0)):
        pictures = made(None, cache=tmp_path / "new", alone=str(alone), three=str(three)).data
        assert len(pictures) == 6
        for index in range(6):
            names, image = scene(index, alone=alone, three=three)
            item = pictures[index]
            assert [CONCEPTS[k] for k in item["concepts"].tolist() if k >= 0] == names
            assert float((item["image"].float() / 127.5 - 1 - image).abs().max()) <= 0.51 / 127.5
    assert {int((item["concepts"] >= 0).sum()) for item in (pictures[k] for k in range(6))} == {1}
    monkeypatch.setattr(recipe, "scene", lambda *_, **__: pytest.fail("drawn again"))
    again = made(None, cache=tmp_path / "new", alone="1").data
    assert all(again[index]["image"].equal(pictures[index]["image"]) for index in range(6))
    assert len(list((tmp_path / "new").iterdir())) == 3


def test_minilm_takes_the_place_of_the_words(folder: Path, tmp_path: Path) -> None:
    run = made(folder, encoder="minilm")
    assert isinstance(run.model.conditioner, Text)
    assert run.model.conditioner.module is None
    assert run.model.trained is run.model.denoiser.network
    result = run.run(tmp_path, steps=1, seed=0, mixed_precision="no", batch_size=4, progress=False)
    assert result.step == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "paper"}, "expected 'default'"),
        ({"colour": "red"}, "the option 'colour'; expected encoder"),
        ({"encoder": "clip"}, "'words' or 'minilm'"),
        ({"alone": "0.6", "three": "0.5"}, "alone=0.6 and three=0.5; expected shares that add up to 1 at most"),
        ({"three": "-0.1"}, "three=-0.1; expected a number from 0 to 1"),
        ({"alone": "1.5"}, "alone=1.5; expected a number from 0 to 1"),
        ({"both": "half"}, "both=half; expected a number"),
        ({"both": "nan"}, "both=nan; expected a number"),
        ({"composed": "2"}, "composed=2; expected a number from 0 to 1"),
        ({"contrast": "-1"}, "contrast=-1; expected a number of 0 or more"),
        ({"timestep_power": "low"}, "timestep_power=low; expected a number"),
        ({"init": "text", "encoder": "words"}, "'encoder' with a model to start from"),
        ({"init": "stripes"}, "expected one on text"),
        ({"data": "nowhere"}, "which is not a folder"),
    ],
)
def test_what_cannot_be_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: Any, message: str) -> None:
    """And before any picture is drawn."""
    monkeypatch.setattr(recipe, "_draw_pictures", lambda *_: pytest.fail("drawn"))
    given: dict[str, Any] = {"data": None, "init": None, "preset": "default", "cache": tmp_path, **options}
    given["init"] = {"text": small, "stripes": stripes_model, None: lambda: None}[given["init"]]()
    given["data"] = given["data"] and tmp_path / given["data"]
    with pytest.raises(InputError, match=message):
        recipe.text(**given)


SEEN_PAIRS = torch.tensor([[CONCEPTS.index(name) for name in pair] for pair in seen_pairs()])
KNOWN = Concepts.of(SEEN_PAIRS, CONCEPTS)


def drawn(shown: torch.Tensor, known: Concepts = KNOWN) -> list[tuple[int, tuple[int, ...], tuple[int, ...]]]:
    """The image of each rival, its concepts without what is added, and what is added."""
    words, rows = own_words(), torch.full_like(shown, -1)
    rows[shown >= 0] = torch.arange(int((shown >= 0).sum()))
    rivals = known.rivals(shown, rows, words, seeded(0))
    of_row = {int(row): int(concept) for row, concept in zip(rows.flatten(), shown.flatten(), strict=True)}
    prompts = words(words.enumerate_support()).rows
    found = []
    for image, gone, came in zip(*(t.tolist() for t in (rivals.owner, rivals.dropped, rivals.added)), strict=True):
        kept = tuple(concept for concept in shown[image].tolist() if concept >= 0 and concept != of_row.get(gone, -2))
        added = ()
        if came >= 0:
            same = (prompts == rivals.condition.rows[came]).flatten(1).all(1).nonzero()[:, 0]
            added = (int(same),)
        found.append((image, kept, added))
    return found


def test_every_concept_is_left_out_and_each_of_its_words_replaced_and_one_is_too_many() -> None:
    found = drawn(torch.tensor([[0, 2], [3, -1], [-1, -1]]))
    assert [image for image, _, _ in found].count(0) == 6  # a red sphere beside a red cylinder is held out
    assert [image for image, _, _ in found].count(1) == 3
    assert {image for image, _, _ in found} == {0, 1}
    assert {kept for image, kept, added in found if image == 0 and not added} == {(0,), (2,)}
    assert [len(kept) + len(added) for image, kept, added in found if image == 1] == [1, 1, 2]


def test_no_rival_is_a_held_out_pair_or_the_truth() -> None:
    shown = SEEN_PAIRS.repeat(8, 1)
    held_out = {tuple(sorted(CONCEPTS.index(name) for name in pair)) for pair in held_out_pairs()}
    alike = others = 0
    for image, kept, added in drawn(shown):
        rival, true = tuple(sorted(kept + added)), tuple(sorted(shown[image].tolist()))
        assert rival != true
        assert rival not in held_out
        assert len(set(rival)) == len(rival)
        if len(rival) == 2:
            gone = CONCEPTS[next(iter(set(true) - set(kept)))]
            shares = bool(set(gone.split()) & set(CONCEPTS[added[0]].split()))
            alike, others = alike + shares, others + (not shares)
    assert alike / (alike + others) > 0.7  # most differ in their shape or their colour alone
    known = Concepts.of(torch.tensor([[0, 1]]), ("red cube", "blue sphere"))
    assert drawn(torch.tensor([[0, 1]]), known) == [(0, (1,), ()), (0, (0,), ())]
