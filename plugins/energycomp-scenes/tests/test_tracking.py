"""Objects of videos in closed form: they move, are hidden, come back, are new and leave."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from energycomp import Model, load, plugins
from energycomp.components import value_of
from energycomp.errors import InputError
from energycomp.seeds import seeded
from energycomp.testing import bumps_model, labels_model, planted, stripes_model, tinted_model
from energycomp_datasets.clevr.scenes import ATTRIBUTES
from energycomp_datasets.clevr.videos import parse_videos, video_of
from energycomp_scenes import Track, track
from energycomp_scenes.sighting import DRAWS
from energycomp_scenes.tracked import START, Tracked
from energycomp_scenes.tracking import TrackedFrame, track_frame

GIVEN: dict[str, Any] = {"solver": "pursuit", "counts": (1, 3), "beta": 300.0}
RED, BLUE = {"tint": "red", "width": "narrow"}, {"tint": "blue", "width": "narrow"}


@pytest.fixture(scope="module")
def model() -> Model:
    return tinted_model(**GIVEN)


def clip(model: Model, frames: Sequence[Sequence[tuple[float, float, dict[str, str]]]]) -> list[Tensor]:
    """Images in [0, 1] of the objects of each frame."""
    values = [[model.conditioner.parse(x, y, **words) for x, y, words in objects] for objects in frames]
    return [planted(model, torch.cat(objects))[0] / 2 + 0.5 for objects in values]


def one(found: Track, frame: int, tint: str) -> dict[str, Any]:
    (row,) = [row for row in found.table() if row["frame"] == frame and row["tint"] == tint]
    return row


def test_objects_that_cross_keep_their_identities(model: Model) -> None:
    frames = [[(0.2 + 0.06 * k, 0.45, RED), (0.8 - 0.06 * k, 0.55, BLUE)] for k in range(11)]
    found = track(clip(model, frames), model)
    for k, objects in enumerate(frames):
        for (x, y, words), identity in zip(objects, (1, 2), strict=True):
            row = one(found, k, words["tint"])
            assert (row["identity"], row["visible"], row["width"]) == (identity, True, "narrow")
            assert abs(row["x"] - x) < 0.02 > abs(row["y"] - y)
    assert found.frames[-1].known == 2


def test_network_evaluations_are_those_that_are_documented(model: Model) -> None:
    found = track(clip(model, [[(0.3, 0.3, RED), (0.7, 0.6, BLUE)]] * 4), model)
    objects, screen = 2, 1 + 64
    second, *later = found.rows[1:]
    least = DRAWS * (objects + 2) + DRAWS * 3 * objects + screen  # both banks and u; one step; one draw of the lattice
    most = least + DRAWS * 3 * objects + 5 * DRAWS + 3 * DRAWS  # another step; the words of an attribute; a candidate
    assert all(least <= rows <= most <= 300 for rows in later)
    around = 25 * objects + DRAWS * objects  # where no velocity is known
    assert least + around <= second <= most + around


def test_a_hidden_object_keeps_its_identity_and_moves_on(model: Model) -> None:
    frames = [[(0.2 + 0.05 * k, 0.4, RED)] * (k not in (4, 5, 6)) + [(0.7, 0.8, BLUE)] for k in range(10)]
    found = track(clip(model, frames), model)
    for k in range(10):
        row = one(found, k, "red")
        assert (row["identity"], row["visible"]) == (1, k not in (4, 5, 6))
        assert abs(row["x"] - (0.2 + 0.05 * k)) < 0.03
    assert all(one(found, k, "blue")["visible"] for k in range(10))


def test_an_object_that_comes_back_elsewhere_is_known_by_its_words(model: Model) -> None:
    frames = [[(0.2, 0.3, RED), (0.7, 0.8, BLUE)]] * 3 + [[(0.7, 0.8, BLUE)]] * 2
    frames += [[(0.55, 0.3, RED), (0.7, 0.8, BLUE)]] * 8
    found = track(clip(model, frames), model)
    last = one(found, len(frames) - 1, "red")
    assert (last["identity"], last["visible"]) == (1, True)
    assert abs(last["x"] - 0.55) < 0.03
    assert found.frames[-1].known == 2


def test_all_objects_that_jump_at_once_are_found_again_in_that_frame(model: Model) -> None:
    before = [(0.2, 0.25, RED), (0.8, 0.75, BLUE), (0.2, 0.8, {"tint": "green", "width": "narrow"})]
    after = [(0.55, 0.2, RED), (0.5, 0.7, BLUE), before[2]]
    found = track(clip(model, [before] * 3 + [after] * 2), model)
    for tint, place in (("red", (0.55, 0.2)), ("blue", (0.5, 0.7))):
        row = one(found, 3, tint)
        assert row["visible"]
        assert (row["x"], row["y"]) == pytest.approx(place, abs=0.03)
    assert found.frames[-1].known == 3


def seen_before(where: tuple[float, float], std: float, *certainty: float, **state: Any) -> TrackedFrame:
    """A red and wide object, with the posterior of both words, as a frame before left it."""
    words = [torch.tensor([p] + [(1 - p) / (n - 1)] * (n - 1)).log() for p, n in zip(certainty, (3, 2), strict=True)]
    object_ = Tracked.new(1, torch.tensor(where), [words[0], words[1].flip(0)], 50.0)
    spread = torch.tensor([std**2, 0.0, 0.0]).repeat(2, 1)
    return TrackedFrame(0, (), 0, 1, (attrs.evolve(object_, spread=spread, **state),))


@pytest.mark.parametrize("far", [0.2, 0.25])
def test_an_object_that_moves_far_before_its_velocity_is_known_is_followed(model: Model, far: float) -> None:
    (image,) = clip(model, [[(0.3 + far, 0.5, RED)]])
    before = seen_before((0.3, 0.5), 0.1, 0.99, 0.01)
    frame = track_frame(image, model, before)
    (row,) = frame.objects
    assert (row["identity"], row["visible"], frame.known) == (1, True, 1)
    assert (row["x"], row["y"]) == pytest.approx((0.3 + far, 0.5), abs=0.01)


def test_a_hidden_object_is_known_by_its_words_that_are_sure(model: Model) -> None:
    (image,) = clip(model, [[(0.4, 0.5, RED)]])
    for wide, known in ((0.6, 1), (0.999, 2)):  # it is narrow
        hidden = seen_before((0.3, 0.5), 0.05, 0.99, wide, visible=False, unseen=1)
        frame = track_frame(image, model, hidden)
        assert frame.known == known
        assert frame.objects[-1]["visible"]
        assert (frame.objects[-1]["x"], frame.objects[-1]["y"]) == pytest.approx((0.4, 0.5), abs=0.02)


def test_a_new_object_is_found_and_read(model: Model) -> None:
    new = (0.6, 0.3, {"tint": "green", "width": "wide"})
    found = track(clip(model, [[(0.3, 0.7, RED)]] * 2 + [[(0.3, 0.7, RED), new]] * 5), model)
    row = one(found, 6, "green")
    assert (row["identity"], row["visible"], row["width"]) == (2, True, "wide")
    assert abs(row["x"] - 0.6) < 0.03 > abs(row["y"] - 0.3)
    assert [frame.known for frame in found.frames[:2]] == [1, 1]


def test_an_object_that_leaves_the_image_is_gone(model: Model) -> None:
    frames = [[(0.7 + 0.1 * k, 0.4, RED)] * (k < 3) + [(0.4, 0.7, BLUE)] for k in range(7)]
    found = track(clip(model, frames), model)
    assert [row["tint"] for row in found.frames[-1].objects] == ["blue"]


def test_what_is_hidden_for_long_is_given_up() -> None:
    still = Tracked.new(1, torch.tensor([0.5, 0.5]), [], 50.0)
    hidden = [still]
    while not hidden[-1].gone:
        hidden.append(hidden[-1].predict().hide(0.0))
    assert len(hidden) == 6  # seen once


def test_places_alone_are_tracked() -> None:
    model = bumps_model(**GIVEN)
    values = [torch.tensor([[0.3, 0.3 + 0.04 * k], [0.7, 0.6]]) for k in range(5)]
    found = track([planted(model, value)[0] / 2 + 0.5 for value in values], model)
    assert [row["identity"] for row in found.table()] == [1, 2] * 5
    assert abs(found.table()[-2]["y"] - 0.46) < 0.02


def test_the_filter_is_that_of_kalman() -> None:
    generator = seeded(0)
    object_ = attrs.evolve(Tracked.new(1, torch.tensor([0.4, 0.5]), [], 9.0), velocity=torch.tensor([0.02, 0.0]))
    mean, spread = np.array([0.4, 0.02]), np.diag(np.square(START))
    step = np.array([[1.0, 1.0], [0.0, 1.0]])
    for _ in range(5):
        object_ = object_.predict()
        noise = 0.003**2 * np.array([[0.25, 0.5], [0.5, 1.0]])
        mean, spread = step @ mean, step @ spread @ step.T + noise
        seen, precision = 0.4 + 0.1 * float(torch.rand(1, generator=generator)), 4e4
        gain = spread[:, 0] / (spread[0, 0] + 1 / precision)
        mean, spread = mean + gain * (seen - mean[0]), spread - np.outer(gain, spread[0])
        object_ = object_.update(torch.tensor([mean[0], 0.5]).float(), torch.full((2,), precision), 9.0)
        assert np.allclose([object_.place[0], object_.velocity[0]], mean, atol=1e-5)
        assert np.allclose(object_.spread[0], spread[[0, 0, 1], [0, 1, 1]], rtol=1e-3)


def test_what_is_covered_in_part_moves_its_prediction_less() -> None:
    before = Tracked.new(1, torch.tensor([0.4, 0.5]), [], 100.0).predict()
    place, precision = torch.tensor([0.44, 0.5]), torch.full((2,), 1e3)
    whole, half, tenth = (float(before.update(place, precision, nats).place[0]) - 0.4 for nats in (100, 50, 10))
    assert whole == pytest.approx(0.04)
    assert whole > half > tenth > 0


def test_a_record_continues_the_same_track(model: Model) -> None:
    first, second, third = clip(model, [[(0.3 + 0.03 * k, 0.4, RED), (0.7, 0.8, BLUE)] for k in range(3)])
    before = track_frame(second, model, track_frame(first, model))
    again = TrackedFrame.of(json.loads(json.dumps(before.record())))
    assert track_frame(third, model, again).record() == track_frame(third, model, before).record()


def test_a_track_shows_itself(model: Model, tmp_path: Path) -> None:
    found = track(clip(model, [[(0.3, 0.4, RED)], [(0.33, 0.4, RED)]]), model, progress=False)
    assert list(found.table()[0]) == [
        "frame", "identity", "x", "y", "tint", "width", "certainty", "visible", "evidence",
    ]  # fmt: skip
    assert found.picture(0).size == (320, 320)
    assert "2 frames, 1 objects" in str(found)
    assert "0-1" in str(found)
    found.save(tmp_path / "track.gif")
    with Image.open(tmp_path / "track.gif") as written:
        assert written.n_frames == 2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: track([torch.zeros(3, 16, 16)], tinted_model(**GIVEN)), "got 1 frames .* at least two"),
        (lambda: track([], tinted_model(**GIVEN)), "got 0 frames of no pixels"),
        (
            lambda: track([torch.zeros(3, 16, 16), torch.zeros(3, 16, 8)], tinted_model(**GIVEN)),
            "got 2 frames of 16x16 and 8x16 pixels; expected at least two of one size",
        ),
        (lambda: track([torch.full((3, 16, 16), torch.nan)] * 2, tinted_model(**GIVEN)), "(?i)nan|finite"),
        (lambda: track([torch.zeros(3, 16, 16)] * 2, labels_model()), "labels, which has no objects to track"),
        (lambda: track([torch.zeros(3, 16, 16)] * 2, stripes_model()), "stripes, which has no objects to track"),
        (
            lambda: track([torch.zeros(3, 16, 16)] * 2, bumps_model(beta=9.0, log_errors=True)),
            "of log errors; expected",
        ),
        (lambda: track([torch.zeros(3, 16, 16)] * 2, bumps_model(), generator=-1), "expected a seed"),
    ],
)
def test_what_cannot_be_tracked(make: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


@pytest.fixture(scope="module")
def clevr() -> Model:
    return load("clevr")


def test_objects_of_clevr_are_followed(clevr: Model) -> None:
    video = video_of(11, 0, parse_videos("4"))
    true = [video.objects(index) for index in range(3)]
    objects = []
    for row in true[0]:
        value = value_of(clevr.conditioner, {name: row[name] for name in ("x", "y", *ATTRIBUTES)})[0]
        words = [
            torch.nn.functional.one_hot(code.long() - 1, n).float()
            for code, n in zip(value[2:6], (2, 8, 2, 3), strict=True)
        ]
        objects.append(
            Tracked.new(row["identity"], value[:2], [torch.log_softmax(9 * each, 0) for each in words], 100.0)
        )
    frame = TrackedFrame(0, (), 0, 4, tuple(objects))
    for index in (1, 2):
        frame = track_frame(video.frame(index), clevr, frame)
        for row, expected in zip(frame.objects, true[index], strict=True):
            assert {name: row[name] for name in ATTRIBUTES} == {name: expected[name] for name in ATTRIBUTES}
            assert abs(row["x"] - expected["x"]) + abs(row["y"] - expected["y"]) < 0.03
        assert frame.rows <= 300 + 29 * len(true[0]) * (index == 1)  # no velocity is known yet


def test_the_command_continues_and_refuses_other_frames(
    model: Model, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugins.register("models", "tinted", lambda: model)
    monkeypatch.setattr("energycomp.models.load", lambda *_, **__: model)
    images = clip(model, [[(0.3 + 0.03 * k, 0.4, RED)] for k in range(3)])
    for k, image in enumerate(images):
        Image.fromarray((image * 255).byte().permute(1, 2, 0).numpy()).save(f"{k}.png")
    command, more = ["track", "tinted"], ["-o", "out", "--json"]
    code, whole, err = run(*command, "0.png", "1.png", "2.png", *more)
    assert code == 0, err
    lines = Path("out/track.jsonl").read_text().splitlines(keepends=True)
    Path("out/track.jsonl").write_text("".join(lines[:2]))
    assert run(*command, "0.png", "1.png", "2.png", *more)[1] == whole
    assert Path("out/track.jsonl").read_text() == "".join(lines)
    assert [json.loads(line)["objects"][0]["identity"] for line in whole.splitlines()] == [1, 1, 1]
    Path("none").mkdir()
    for frames, said in (
        (["2.png", "1.png", "0.png"], "other frames or settings"),
        (["0.png"], "got 1 frames of 16x16 pixels; expected from 2"),
        (["none"], "without an image"),
    ):
        code, _, err = run(*command, *frames, *more)
        assert (code, said in err) == (2, True)
