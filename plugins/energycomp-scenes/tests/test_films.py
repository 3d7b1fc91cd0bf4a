"""Films: places between keys, frames that share their noise, and files of frames."""

import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from energycomp import Model, load
from energycomp.errors import InputError
from energycomp.testing import tiny_model
from energycomp_clevr.viewpoint import AXES
from energycomp_datasets.clevr.geometry import CAMERA_POSITION, project, unproject
from energycomp_datasets.clevr.layout import turns_of
from energycomp_scenes import draw, film, read_frames, scene
from energycomp_scenes.films import _face, _see, interpolate


@pytest.fixture(scope="module")
def small() -> Model:
    return load("clevr-small")


def test_what_is_open_stays_the_same_in_all_frames(turned: Model) -> None:
    """A turn, camera and lamp are drawn once, for each seed."""
    shown = [
        film(turned, ["red cube at 0.4,0.5 -> 0.4,0.5"], frames=2, generator=seed, progress=False) for seed in (0, 1)
    ]
    assert shown[0][0].size == (480, 320)
    assert shown[0][0].tobytes() == shown[0][1].tobytes() != shown[1][0].tobytes()
    first, second = film(turned, ["red cube at 0.4,0.5"], frames=2, camera="0,0,0 -> 1,0,0", progress=False)
    assert first.tobytes() != second.tobytes()


def test_graphs_are_drawn_with_turns(turned: Model) -> None:
    asked = scene("a: red cube turned 30 at 0.3,0.5; b: sphere at 0.7,0.5; c: cube; c behind b")
    one, again = (draw(asked, turned, tries=1, generator=0, progress=False)[0] for _ in range(2))
    assert one.image.size == (24, 16)
    assert one.image.tobytes() == again.image.tobytes()
    assert one.values.shape == (3, 7)
    assert one.values[:, 6].tolist() == [31, 0, 0]


def test_keys_take_equal_times_and_objects_get_places(small: Model) -> None:
    assert interpolate("0,0 -> 1,0 -> 1,1", 5, 2).tolist() == [[0, 0], [0.5, 0], [1, 0], [1, 0.5], [1, 1]]
    assert interpolate("0.25 0.5", 2, 2).tolist() == [[0.25, 0.5]] * 2
    script = ["large red metal cube", "small metal sphere at 0.7,0.6 -> 0.7,0.6"]
    first, second = film(small, script, frames=2, num_inference_steps=2, progress=False)
    assert np.abs(np.asarray(first).astype(int) - np.asarray(second)).max() <= 1  # rows of a batch are rounded apart


def test_what_does_not_move_stays_as_it_is(small: Model) -> None:
    script = ["large red rubber cube at 0.3,0.5", "small blue metal sphere at 0.7,0.6 -> 0.7,0.6"]
    first, second = film(small, script, frames=2, num_inference_steps=3, progress=False)
    assert np.array_equal(np.asarray(first), np.asarray(second))
    script[1] = "small blue metal sphere at 0.7,0.6 -> 0.5,0.75"
    third, fourth = film(small, script, frames=2, num_inference_steps=3, progress=False)
    assert np.array_equal(np.asarray(first), np.asarray(third))
    assert not np.array_equal(np.asarray(third), np.asarray(fourth))


def test_a_camera_sees_objects_elsewhere() -> None:
    value = torch.tensor([[0.4, 0.5, 2.0, 0.0, 0.0, 0.0]]).repeat(3, 1)
    still, right, forward = _see(value, torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 3.0]])).tolist()
    assert still == pytest.approx([0.4, 0.5], abs=1e-4)
    assert right[0] != pytest.approx(0.4, abs=1e-3)
    assert abs(forward[0] - 0.5) > abs(0.4 - 0.5)  # what is nearer is further from the middle


@pytest.mark.parametrize("path", ["0,0,0 -> 0,0,0", "-2,0,0 -> 3,1,-1"])
def test_cubes_slide_without_turning(turned: Model, path: str) -> None:
    """Their turn is measured from the line of sight, which moves: records of such scenes say the same turns."""
    start = turned.conditioner.parse(0.2, 0.5, size="large", shape="cube", turn=80).repeat(3, 1)
    start[:, :2] = interpolate("0.2,0.5 -> 0.7,0.6", 3, 2)
    offsets = interpolate(path, 3, 3)
    faced = _face(start, offsets)
    # The rotation of the cube in the scene, and turns by the record of each frame.
    home = torch.tensor(CAMERA_POSITION)
    points = unproject(start[:, :2], torch.full((3,), 0.7), home)
    places = project(points[:1], home)
    behind = {"behind": (-home).tolist()}
    unturned = {"directions": behind, "objects": [{"shape": "cube", "rotation": 0.0}]}
    rotation = (80 - turns_of(unturned, places)).deg2rad()
    for point, offset, value in zip(points, offsets, faced, strict=True):
        camera = home + offset @ torch.tensor(AXES)
        record = {"directions": {"behind": (-camera).tolist()}, "objects": [{"shape": "cube", "rotation": rotation}]}
        apart = turns_of(record, project(point[None], camera)) - (value[6] - 1)
        assert abs((float(apart) + 45) % 90 - 45) < 1.0
    assert faced[:, :6].equal(start[:, :6])
    sphere = turned.conditioner.parse(0.2, 0.5, shape="sphere").repeat(3, 1)
    assert _face(sphere, offsets).equal(sphere)


REFUSED: list[tuple[list[str], dict[str, Any], str]] = [
    (["red cube at 0.3,0.5 -> 1.2,0.5"], {}, "place outside of the image"),
    (["red cube at 0.3,0.5 -> there"], {}, "expected 2 numbers"),
    (["red thing at 0.3,0.5 -> 0.7,0.5"], {}, "the word 'thing'"),
    ([], {}, "got 0 objects"),
    (["red cube"], {"frames": 1}, "frames=1"),
    (["red cube"], {"frames": 2.5}, "frames=2.5"),
    (["red cube at 0.2,0.5", "sphere"], {}, "nothing moves; expected where an object goes, such as 'red cube at"),
    (["red cube"], {"camera": "0,0,0 -> 1,0,0"}, "takes no viewpoint; expected clevr"),
]


@pytest.mark.parametrize(("script", "options", "message"), REFUSED)
def test_what_cannot_be_drawn(small: Model, script: list[str], options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        film(small, script, **options)


def test_what_is_no_key_and_no_model_of_objects() -> None:
    for text in ("0,0 -> 1", "a,b", "0,0,0", "nan,0 -> 1,1", "0,0 ->"):
        with pytest.raises(InputError, match="expected 2 numbers"):
            interpolate(text, 4, 2)
    with pytest.raises(InputError, match="tiny, which reads no objects"):
        film(tiny_model(), ["0.3,0.5"])


def test_the_command_writes_a_film(small: Model, run: Any, answer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("energycomp.models.load", lambda *_, **__: small)
    script = ["large red rubber cube at 0.3,0.5 -> 0.6,0.5", "--frames", 3, "--steps", 2, "-o", "film.gif"]
    assert run("film", "clevr-small", *script)[:2] == (0, "film.gif\n")
    assert len(read_frames([Path("film.gif")])) == 3
    shown = answer("show", "film.gif")
    assert shown["formula"]["options"] == {"frames": 3, "steps": 2}
    words = ["film", "clevr-small", script[0], "--frames", "3", "--steps", "2", "--seed", "0", "-o", "again.gif"]
    assert shlex.split(shown["shell"]) == ["energycomp", *words]
    assert run("film", "clevr-small", *script, "--no-metadata")[0] == 0
    assert b"energycomp" not in Path("film.gif").read_bytes()
    refused = run("film", "clevr-small", "red cube", "-o", "film.png")
    assert "expected the name of a GIF or MP4 file" in refused[2]
