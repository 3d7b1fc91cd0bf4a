"""Drawn videos of CLEVR's objects that slide, cross and hide each other, with what is true in every frame."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import torch
from PIL import Image
from torch import Tensor

from energycomp.errors import InputError
from energycomp.fields import parse_range
from energycomp.images import from_bytes, save_image, to_bytes
from energycomp_datasets.clevr.geometry import CAMERA_POSITION, SHAPES
from energycomp_datasets.clevr.layout import describe_objects, generator_of
from energycomp_datasets.clevr.lighting import sample_lighting
from energycomp_datasets.clevr.renderer import render
from energycomp_datasets.clevr.scenes import ATTRIBUTES, SIZES, Scene, id_buffer
from energycomp_datasets.synthetic import HELD_OUT, WRITTEN, synthetic
from energycomp_lab.evaluation import Example, Generated

if TYPE_CHECKING:
    from torchmetrics import MetricCollection

RECORD = "video.json"  # in the folder of each video
FIELD = 2.8  # scene units from the origin within which objects stay
GAP = 0.1  # scene units between objects
PATHS = 60  # that are tried for an object
TRIES = 400  # scenes that are tried for a video
HIDDEN = 1e-9  # share of visible pixels of what is hidden
SEEN = 0.9  # of what is seen in the first frame
CAMERA = 0.4  # scene units, how far a moving camera is from its usual place along each axis at most


@attrs.frozen
class VideoOptions:
    """The videos that are asked for: whether the camera moves, counts of objects, size (width, height), frames."""

    moving: bool = False
    objects: tuple[int, int] = (4, 6)
    size: tuple[int, int] = (128, 128)
    frames: int = 20


def parse_videos(text: str) -> VideoOptions:
    """What a text such as "moving:4-6:128x128:20f" asks for; each part may be left out.

    >>> parse_videos("moving:4-6:64x64:8f")
    VideoOptions(moving=True, objects=(4, 6), size=(64, 64), frames=8)
    """
    found: dict[str, Any] = {}
    for part in filter(None, text.split(":")):
        width, cross, height = part.partition("x")
        if part == "moving":
            found["moving"] = True
        elif cross and width.isdecimal() and height.isdecimal() and 16 <= int(width) <= 1024 >= int(height) >= 16:
            found["size"] = int(width), int(height)
        elif part.endswith("f") and part[:-1].isdecimal() and 6 <= int(part[:-1]) <= 1000:
            found["frames"] = int(part[:-1])
        elif part.replace("-", "").isdecimal():
            found["objects"] = parse_range(part, least=2, greatest=8)
        else:
            expected = "moving, two counts from 2 to 8, a size from 16 to 1024 and a number of frames from 6 to 1000"
            raise InputError(f"got {part!r} in {text!r}; expected {expected}, such as moving:4-6:128x128:20f")
    return VideoOptions(**found)


@attrs.frozen(eq=False)
class Video:
    """A drawn video: the scenes of F frames, and the share (F, K) of the pixels of each object that no other covers."""

    scenes: tuple[Scene, ...]
    visible: Tensor

    def frame(self, index: int, size: tuple[int, int] = (128, 128)) -> Image.Image:
        """A frame as an image of a size (width, height)."""
        return Image.fromarray(to_bytes(render(self.scenes[index], size[::-1])).permute(1, 2, 0).numpy())

    def objects(self, index: int) -> list[dict[str, Any]]:
        """What is true in a frame: identity, x, y, the words, and the visible share of each object."""
        rows = []
        for k, one in enumerate(describe_objects(self.scenes[index])):
            place = {"x": round(one["x"], 5), "y": round(one["y"], 5)}
            rows.append({"identity": k + 1, **one, **place, "visible": round(float(self.visible[index, k]), 4)})
        return rows


@lru_cache(maxsize=4)
def video_of(seed: int, index: int, wanted: VideoOptions | None = None) -> Video:
    """Video number `index` of `seed`, which depends on its arguments alone.

    Objects slide along straight lines and never touch. One of them passes behind a large one, which hides it fully for
    a frame or more between the first and the last one. In the first frame all of them are seen.
    """
    wanted = wanted or VideoOptions()
    generator = generator_of(seed, index)
    low, high = wanted.objects
    for _ in range(TRIES):
        count = int(torch.randint(low, high + 1, (), generator=generator))
        made = _draw_scenes(count, wanted, generator)
        if made is None:
            continue
        visible = visible_shares(made)
        if (visible[1:-1] <= HIDDEN).any() and (visible[0] >= SEEN).all() and (visible[-1] > HIDDEN).all():
            return Video(tuple(made), visible)
    raise InputError(f"got objects {low}-{high}, for which no video was found; expected fewer of them, such as 4-6")


def visible_shares(scenes: Sequence[Scene], size: tuple[int, int] = (128, 128)) -> Tensor:
    """The share of the pixels of each object that no other one covers, (F, K); 0 where it is outside of the image."""
    shares = torch.zeros(len(scenes), len(scenes[0].sizes) if scenes else 0)
    for frame, scene in enumerate(scenes):
        ids = id_buffer(scene, *size[::-1])[0]
        for k in range(len(scene.sizes)):
            alone = attrs.evolve(scene, **{name: getattr(scene, name)[[k]] for name in _OF_OBJECTS})
            whole = (id_buffer(alone, *size[::-1])[0] >= 0).sum()
            shares[frame, k] = (ids == k).sum() / whole.clamp(min=1)
    return shares


_OF_OBJECTS = ("positions", "sizes", "shapes", "colors", "materials", "rotations")


def _draw_scenes(count: int, wanted: VideoOptions, generator: torch.Generator) -> list[Scene] | None:
    """The scenes of all frames; None where an object found no path."""

    def uniform(*shape: int) -> Tensor:
        return 2 * torch.rand(shape, generator=generator) - 1

    time = torch.linspace(0, 1, wanted.frames)[:, None]
    ends = torch.tensor(CAMERA_POSITION) + CAMERA * uniform(2, 3)
    camera = ends[0] + (ends[1] - ends[0]) * time * wanted.moving
    sizes = torch.tensor(list(SIZES.values()))[torch.randint(2, (count,), generator=generator)]
    sizes[:2] = torch.tensor([SIZES["large"], SIZES["small"]])
    shapes = torch.randint(len(SHAPES), (count,), generator=generator)
    shapes[0] = (0, 2)[int(shapes[0]) % 2]  # a sphere hides little
    paths: list[Tensor] = []  # (F, 2) each
    for k in range(count):
        for _ in range(PATHS):
            start, end = FIELD * uniform(2, 2)
            path = start + (end - start) * time
            if k == 1:  # passes behind the first one
                when = int(wanted.frames * (0.5 + 0.2 * float(uniform(1))))
                away = torch.nn.functional.normalize(-camera[when, :2], dim=0)
                behind = paths[0][when] + away * float(sizes[:2].sum() + GAP + 0.3 * (1 + uniform(1)))
                path = behind + (end - behind) * (time - time[when]) / max(float(time[when]), 1 - float(time[when]))
            reach = [float(sizes[k] + sizes[j]) + GAP for j in range(len(paths))]
            apart = all(bool(((path - other).norm(dim=1) > far).all()) for other, far in zip(paths, reach, strict=True))
            if apart and bool((path.abs() <= FIELD).all()):
                paths.append(path)
                break
        else:
            return None
    places = torch.stack(paths, dim=1)
    base: dict[str, Any] = {
        "sizes": sizes, "shapes": shapes, "lighting": sample_lighting(count, generator),
        "colors": torch.randint(len(ATTRIBUTES["color"]), (count,), generator=generator),
        "materials": torch.randint(2, (count,), generator=generator),
        "rotations": torch.rand(count, generator=generator) * 2 * math.pi,
    }  # fmt: skip
    return [
        Scene(positions=torch.cat([at, sizes[:, None]], 1), camera=eye, **base)
        for at, eye in zip(places, camera, strict=True)
    ]


@attrs.frozen
class VideosSource:
    """Videos, for `energycomp data clevr-videos`; as examples, their frames with the objects that are seen.

    >>> examples = VideosSource().examples("synthetic:2:32x32:8f", count=2, seed=0)
    >>> [example.name for example in examples]
    ['video 0, frame 0', 'video 0, frame 1']
    """

    def examples(self, spec: str, *, count: int, seed: int) -> Sequence[Example]:
        """Frames of videos that are drawn, for "synthetic:4-6", or of a folder that `write` made."""
        options = synthetic(spec)
        if options is not None:
            wanted = parse_videos(options)

            def drawn(index: int) -> Example:
                number, frame = divmod(index, wanted.frames)
                video = video_of(HELD_OUT + seed, number, wanted)
                picture = from_bytes(to_bytes(render(video.scenes[frame], wanted.size[::-1])))
                return _example(picture, f"video {number}, frame {frame}", video.objects(frame))

            return Generated(count, drawn)
        records = sorted(Path(spec).glob(f"*/{RECORD}"))
        if not records:
            raise InputError(f"got {spec} without */{RECORD}; expected a folder of: energycomp data clevr-videos")
        frames = ((file.parent, frame) for file in records for frame in json.loads(file.read_text())["frames"])
        return [
            _example(at / one["file"], f"{at.name}/{one['file']}", one["objects"]) for at, one in islice(frames, count)
        ]

    def write(self, folder: Path, *, count: int, seed: int, options: str, progress: Callable[[int], None]) -> None:
        """A folder for each video, with its frames 000.png, 001.png, ... and what is true of them in `RECORD`."""
        wanted = parse_videos(options)
        for number in range(count):
            video = video_of(WRITTEN + seed, number, wanted)
            own = folder / f"video_{number:04d}"
            frames = []
            for index, scene in enumerate(video.scenes):
                save_image(video.frame(index, wanted.size), own / f"{index:03d}.png")
                frames.append(
                    {"file": f"{index:03d}.png", "camera": scene.camera.tolist(), "objects": video.objects(index)}
                )
            (own / RECORD).write_text(json.dumps({"seed": WRITTEN + seed, "index": number, "frames": frames}))
            progress(number + 1)

    def metrics(self) -> MetricCollection:
        from energycomp_datasets.clevr.source import ClevrSource

        return ClevrSource().metrics()


def _example(image: Any, name: str, objects: Sequence[Mapping[str, Any]]) -> Example:
    seen = [one for one in objects if one["visible"] > HIDDEN]
    return Example(image, name=name, conditions=[{k: one[k] for k in ("x", "y", *ATTRIBUTES)} for one in seen])
