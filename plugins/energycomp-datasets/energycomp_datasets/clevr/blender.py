"""CLEVR scenes rendered by Blender with the meshes, materials and lights of the official generator.

Blender is not a dependency: it is a Python environment of its own with the package bpy (GPL, 1 GB), which a separate
process runs. The assets are those of facebookresearch/clevr-dataset-gen, image_generation/data (BSD).
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, TypeAlias, cast

import attrs
import torch

from energycomp.errors import InputError
from energycomp.files import atomic_file
from energycomp_datasets.clevr import in_blender
from energycomp_datasets.clevr.geometry import SHAPES
from energycomp_datasets.clevr.layout import record_of, scene_of
from energycomp_datasets.clevr.requests import parse_request
from energycomp_datasets.clevr.scenes import COLORS, MATERIALS, Scene

VARIABLE = "ENERGYCOMP_BLENDER"  # the Python that has bpy
HOME = Path("~/.cache/energycomp/blender")
INSTALL = f'python3.11 -m venv {HOME} && {HOME}/bin/pip install "bpy==5.0.1" "numpy<2"'
SETTINGS = "render.json"  # in the folder of images: what they were rendered with
JITTER = 1.0  # scene units, by which each lamp moves along each axis
SAMPLES = 24  # per pixel; Cycles removes the noise
TOGETHER = 16  # images that one start of Blender renders on another machine
FILES = ("base_scene.blend", *(f"shapes/{name}.blend" for name in in_blender.SHAPES.values()),
         *(f"materials/{name}.blend" for name in in_blender.MATERIALS.values()))  # fmt: skip

Spread: TypeAlias = Callable[[Sequence[Any], Callable[[], Callable[[Any], Any]]], Iterable[Any]]
"""`spread(items, make)`: the answers to items, by processes that each call `make` for the function that gives them."""


def render_folder(
    folder: Path,
    *,
    count: int,
    seed: int,
    options: str,
    assets: Path | None,
    progress: Callable[[int], None],
    spread: Spread | None = None,
) -> None:
    """Renders scenes into CLEVR's layout. What is there already is not rendered again, so that a run can go on.

    Args:
        options: "3-5", "wide:0-5" or "crowded:3-10:128x128": the kind of scenes, the range of counts and the size.
        assets: the folder with base_scene.blend, shapes and materials.
        spread: maps the scenes over other machines, to which the paths of folder and assets must lead, too.
    """
    wanted = parse_request(options, in_blender.FRAME)
    if wanted.textured:
        raise InputError("got textured scenes for Blender; expected plain, wide or crowded; take --renderer own")
    python = _python()
    found = _assets(assets)
    settings = {"seed": seed, **attrs.asdict(wanted), "samples": SAMPLES}
    _claim(folder, settings)
    images = folder / "images" / "train"
    images.mkdir(parents=True, exist_ok=True)
    scenes = [scene_of(seed, index, wanted.objects, variety=wanted.variety) for index in range(count)]
    paths = [images / f"CLEVR_train_{index:06d}.png" for index in range(count)]
    lights = [_lights(seed, index) for index in range(count)]
    missing = [index for index, path in enumerate(paths) if not path.exists()]
    progress(count - len(missing))
    lines = [_line(scenes[index], lights[index], paths[index]) for index in missing]
    blender = _Blender(python, found, wanted.size)
    if spread is None:
        rendered = blender.each(lines)
    else:
        together = [lines[first : first + TOGETHER] for first in range(0, len(lines), TOGETHER)]
        rendered = chain.from_iterable(spread(together, blender))
    for done, _ in enumerate(rendered, start=count - len(missing) + 1):
        progress(done)
    records = [
        {**record_of(scene, "train", index, path.name), "camera": scene.camera.tolist(), "lights": lights[index]}
        for index, (scene, path) in enumerate(zip(scenes, paths, strict=True))
    ]
    target = folder / "scenes" / "CLEVR_train_scenes.json"
    target.parent.mkdir(exist_ok=True)
    with atomic_file(target) as temporary:
        temporary.write_text(json.dumps({"info": {"split": "train", **settings}, "scenes": records}))


def _python() -> Path:
    python = Path(os.environ.get(VARIABLE) or HOME / "bin" / "python").expanduser()
    if not python.is_file():
        raise InputError(
            f"got no Blender at {python}; expected a Python with the package bpy, at another place by {VARIABLE}; "
            f"make it: {INSTALL}"
        )
    return python


def _assets(folder: Path | None) -> Path:
    if folder is None:
        raise InputError("got no --assets; expected the folder image_generation/data of clevr-dataset-gen")
    if missing := [name for name in FILES if not (folder / name).is_file()]:
        raise InputError(
            f"got --assets {folder} without {missing[0]}; expected image_generation/data of clevr-dataset-gen"
        )
    return folder.resolve()


def _claim(folder: Path, settings: dict[str, Any]) -> None:
    """Says in the folder what its images are; raises `InputError` where it holds others."""
    file = folder / SETTINGS
    if file.is_file():
        kept = json.loads(file.read_text(encoding="utf-8"))
        if kept != json.loads(json.dumps(settings)):
            raise InputError(
                f"got -o {folder} with images of {kept}; expected {settings}, or a new folder; name another"
            )
    elif folder.exists() and any(folder.iterdir()):
        raise InputError(f"got -o {folder}, which holds other files; expected a new or empty folder; name another")
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_file(file) as temporary:
        temporary.write_text(json.dumps(settings))


def _lights(seed: int, index: int) -> list[list[float]]:
    """How far each of the three lamps moves; camera and objects do not depend on it."""
    generator = torch.Generator().manual_seed((seed * 1_000_003 + index) % 2**63)
    jitter: list[list[float]] = ((torch.rand(3, 3, generator=generator) * 2 - 1) * JITTER).tolist()
    return jitter


def _line(scene: Scene, lights: list[list[float]], path: Path) -> str:
    colors = list(COLORS.values())
    objects = [
        {
            "position": scene.positions[k].tolist(),
            "extent": float(scene.sizes[k]),
            "rotation": float(scene.rotations[k].rad2deg()),
            "shape": SHAPES[int(scene.shapes[k])],
            "material": MATERIALS[int(scene.materials[k])],
            "color": [channel / 255 for channel in colors[int(scene.colors[k])]],
        }
        for k in range(len(scene.sizes))
    ]
    line = {"path": str(path.resolve()), "camera": scene.camera.tolist(), "lights": lights, "objects": objects}
    return json.dumps(line)


@attrs.frozen
class _Blender:
    """Blender with what it needs."""

    python: Path
    assets: Path
    size: Sequence[int]

    def __call__(self) -> Callable[[Sequence[str]], list[str]]:
        return lambda lines: list(self.each(lines))

    def each(self, lines: Sequence[str]) -> Iterator[str]:
        """The paths of the images of the lines, each once it is there."""
        if not lines:
            return
        settings = ["--assets", self.assets, "--size", *self.size, "--samples", SAMPLES]
        command = [str(self.python), str(in_blender.__file__), *map(str, settings)]
        command += ["--threads", str(torch.get_num_threads())]
        with (
            TemporaryFile() as errors,
            subprocess.Popen(  # noqa: S603 - the person's own Python
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
            ) as process,
        ):
            try:
                for line in lines:
                    yield _answer(process, line, errors)
            finally:
                process.kill()


def _answer(process: subprocess.Popen[str], line: str, errors: IO[bytes]) -> str:
    """The path of the image of one line, which Blender says among other things."""
    into, out = cast("IO[str]", process.stdin), cast("IO[str]", process.stdout)
    with suppress(BrokenPipeError):  # its reason follows
        into.write(line + "\n")
        into.flush()
    for said in out:
        if said.startswith("done "):
            return said.removeprefix("done ").strip()
    errors.seek(0)
    last = [text for text in errors.read().decode(errors="replace").splitlines() if text.strip()][-1:] or ["no reason"]
    raise InputError(f"got no image from Blender ({last[0]}); expected a Python with bpy; make it: {INSTALL}")
