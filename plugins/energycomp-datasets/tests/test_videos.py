"""Drawn videos: what is true of their objects, and the files."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from energycomp.errors import InputError
from energycomp.plugins import find
from energycomp_datasets.clevr.renderer import render
from energycomp_datasets.clevr.scenes import id_buffer, sample_scene
from energycomp_datasets.clevr.videos import VideoOptions, VideosSource, parse_videos, video_of, visible_shares


def test_a_video_is_what_its_text_seed_and_number_say() -> None:
    assert parse_videos("") == VideoOptions()
    assert parse_videos("moving:5:64x48:12f") == VideoOptions(moving=True, objects=(5, 5), size=(64, 48), frames=12)
    first, second = (video_of(5, 2, parse_videos("3:8f")) for _ in range(2))
    assert torch.equal(render(first.scenes[3], (32, 32)), render(second.scenes[3], (32, 32)))
    assert first.objects(3) == second.objects(3) != video_of(5, 3, parse_videos("3:8f")).objects(3)


@pytest.mark.parametrize("text", ["4:10f", "moving:5:10f"])
def test_objects_never_touch_and_one_is_hidden(text: str) -> None:
    video = video_of(3, 1, parse_videos(text))
    assert bool((video.visible[1:-1] == 0).any() & (video.visible[0] >= 0.9).all() & (video.visible[-1] > 0).all())
    for scene in video.scenes:
        apart = torch.cdist(scene.positions[:, :2], scene.positions[:, :2])
        reach = scene.sizes[:, None] + scene.sizes
        assert bool((apart + 9 * torch.eye(len(reach)) > reach).all())
    cameras = torch.stack([scene.camera for scene in video.scenes])
    assert bool((cameras[0] == cameras[-1]).all()) != text.startswith("moving")


def test_visible_shares_are_those_of_pixels() -> None:
    video = video_of(3, 0, parse_videos("4:10f"))
    hidden = (video.visible == 0).nonzero()[0]
    frame, k = int(hidden[0]), int(hidden[1])
    ids = id_buffer(video.scenes[frame], 128, 128)[0]
    assert not bool((ids == k).any())
    assert bool(((ids[None] == torch.arange(4)[:, None, None]).flatten(1).sum(1) > 0)[video.visible[frame] > 0].all())
    assert visible_shares([sample_scene(0, torch.Generator())] * 2).shape == (2, 0)  # nothing is there to be seen


def test_files_are_read_again(tmp_path: Path) -> None:
    source, done = find("datasets", "clevr-videos")(), []
    assert isinstance(source, VideosSource)
    source.write(tmp_path, count=2, seed=0, options="2:32x32:8f", progress=done.append)
    assert done == [1, 2]
    examples = source.examples(str(tmp_path), count=10, seed=0)
    assert [example.name for example in examples[7:]] == [
        "video_0000/007.png", "video_0001/000.png", "video_0001/001.png",
    ]  # fmt: skip
    record = json.loads((tmp_path / "video_0001/video.json").read_text())
    seen = [one for one in record["frames"][1]["objects"] if one["visible"] > 0]
    assert [one["x"] for one in examples[9].conditions or ()] == [one["x"] for one in seen]
    with Image.open(tmp_path / "video_0001/001.png") as image:
        assert image.size == (32, 32)
    with pytest.raises(InputError, match="energycomp data clevr-videos"):
        source.examples(str(tmp_path / "none"), count=1, seed=0)
    assert {"perception_rate", "count_accuracy"} <= source.metrics().keys()
