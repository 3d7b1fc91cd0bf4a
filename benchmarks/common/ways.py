"""Shared by the benchmarks of composed samples: options, ways to draw one, and results that are taken up again."""

from __future__ import annotations

import argparse
import glob
import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from benchmarks.common.options import parser
from energycomp import Composer, Model, load
from energycomp.denoisers import count_rows
from energycomp.files import atomic_file, fingerprint
from energycomp.images import grid, to_output
from energycomp.sampling import compatible_schedulers
from energycomp_samplers import sample_best

HELD_OUT = 2_000_000_000  # added to the seed: scenes that neither training nor `energycomp evaluate` has
SHOWN = 8  # samples of a row of a picture
GUIDANCE = (0.0, "scale of the guidance `attributes`; the model's own")
PICTURE = (None, f"an image of the first {SHOWN} samples of each line")
Z = 1.96


@attrs.frozen
class Way:
    """How a composition is drawn: a scheduler or a sampler, its steps, and of how many samples the best is kept.

    >>> Way.parsed("ddpm@100x4")
    Way(name='ddpm', steps=100, best_of=4, until_complete=False)
    >>> str(Way.parsed("DDIMScheduler@50")), str(Way.parsed("ddpm@100+4"))
    ('ddim@50', 'ddpm@100+4')
    """

    name: str
    steps: int
    best_of: int = 1
    until_complete: bool = False

    @classmethod
    def parsed(cls, text: str) -> Way:
        """From NAME@STEPS, NAME@STEPSxBEST, or NAME@STEPS+BEST, which stops at the first complete sample."""
        if (found := re.fullmatch(r"([\w-]+)@(\d+)(?:([x+])(\d+))?", text)) is None:
            raise argparse.ArgumentTypeError(f"got {text!r}; expected NAME@STEPS or NAME@STEPSxBEST, as ddpm@100x4")
        return cls(found[1].lower().removesuffix("scheduler"), int(found[2]), int(found[4] or 1), found[3] == "+")

    @classmethod
    def of(cls, model: Model) -> Way:
        """What `energycomp sample` does where nothing is chosen."""
        return cls.parsed(f"{model.defaults.scheduler}@{model.defaults.num_inference_steps}")

    def __str__(self) -> str:
        best = f"{'+' if self.until_complete else 'x'}{self.best_of}" if self.best_of > 1 else ""
        return f"{self.name}@{self.steps}{best}"

    @property
    def options(self) -> dict[str, Any]:
        """Keywords of `Composer.sample`."""
        schedulers = {name.lower().removesuffix("scheduler") for name in compatible_schedulers()}
        by = "scheduler" if self.name in schedulers else "sampler"
        return {by: self.name, "num_inference_steps": self.steps}

    def draw(self, model: Model, composition: Any, seed: int) -> Tensor:
        """A sample (C, H, W), in [0, 1], of a composition of the model's components."""
        generator = torch.Generator().manual_seed(seed)
        options: dict[str, Any] = {**self.options, "progress": False}
        options |= {"guidance": "attributes", "guidance_scale": model.defaults.attribute_guidance}
        if self.best_of == 1:
            images = Composer(composition).sample(1, generator=generator, output_type="pt", **options)
        else:
            options |= {"best_of": self.best_of, "until_complete": self.until_complete, "model": model}
            images = sample_best(composition, generator=generator, output_type="pt", **options).images
        return torch.as_tensor(images[0])


def sampling_options(description: str | None, *, scenes: str, **given: Any) -> argparse.ArgumentParser:
    """The options that benchmarks of composed scenes share, and those that are their own.

    >>> options = sampling_options(None, scenes="layouts", records="runs/some").parse_args(["-n", "2"])
    >>> options.n, options.counts, options.ways, options.records.name
    (2, '3,5,8', None, 'some')
    """
    shared = {"n": (64, f"{scenes} for each count"), "counts": ("3,5,8", "numbers of objects"), "seed": 0}
    made = parser(description, **{**shared, **given}, o=PICTURE)
    made.add_argument("--ways", nargs="+", type=Way.parsed, help="of drawing; the model's own scheduler and steps")
    return made


def guided(name: str, scale: float) -> Model:
    """The model of a name, with a scale of the guidance `attributes`; 0 for its own."""
    model = load(name)
    return attrs.evolve(model, defaults=attrs.evolve(model.defaults, attribute_guidance=scale)) if scale else model


def identity(name: str, model: Model) -> str:
    """The name of a model or its folder with a digest of its weights and defaults, for records of this model only.

    >>> from energycomp.testing import tiny_model
    >>> identity("folder/tiny", tiny_model()) == identity("tiny", tiny_model())
    True
    """
    told = f"{fingerprint(model.trained.state_dict())} {model.defaults}"
    return f"{Path(name).name}-{hashlib.blake2b(told.encode(), digest_size=4).hexdigest()}"


def folder_of(records: Path, name: str, model: Model, count: int, way: Way, seed: int) -> Path:
    """The folder of the single results of scenes of `count` objects."""
    return records / f"{identity(name, model)}-{count}-{way}-{seed}"


def write_rows(
    path: Path | None, images: Sequence[Image.Image | Path], *, columns: int = SHOWN, side: int = 1, **texts: Any
) -> None:
    """Writes images in rows as a PNG file, enlarged to `side` px, where a path is given; `texts` as of `grid`."""
    if path is not None:
        opened = [Image.open(image) if isinstance(image, Path) else image for image in images]
        with atomic_file(path) as temporary:
            grid(opened, columns=columns, side=side, **texts).save(temporary, format="PNG")


def first(folder: Path, n: int, most: int = SHOWN) -> list[Path]:
    """The images of the first of n samples."""
    return [folder / f"{k}.png" for k in range(min(most, n))]


def spent(rows: Sequence[Mapping[str, Any]]) -> float:
    """Network evaluations of a sample."""
    return round(sum(row["rows"] for row in rows) / len(rows), 1)


def all_recorded(
    folder: Path,
    way: Way,
    model: Model,
    compositions: Sequence[Any],
    seed: int,
    read: Callable[[int, Tensor], Any],
    title: str,
) -> list[dict[str, Any]]:
    """What is `recorded` of compositions, each with a seed of its own; `read` is given its number and its sample."""
    return [
        recorded(folder / str(k), way, model, composition, seed + k, partial(read, k))
        for k, composition in enumerate(tqdm(compositions, desc=title))
    ]


def drawn(path: Path, way: Way, model: Model, composition: Any, seed: int) -> Path:
    """PATH.png, the sample that `recorded` draws for the same arguments; it is drawn if the file does not exist."""
    picture = path.with_suffix(".png")
    if not picture.exists():
        _save(way.draw(model, composition, seed), picture)
    return picture


def recorded(
    path: Path, way: Way, model: Model, composition: Any, seed: int, read: Callable[[Tensor], Any]
) -> dict[str, Any]:
    """Draws and reads one sample: what is "read", and the network evaluations of drawing it, "rows".

    Both are written to PATH.json, and the sample to PATH.png; they are taken from there if they exist. What was read in
    the same image for another way is not read again: its folder is named as that of PATH, but for the way.
    """
    record = path.with_suffix(".json")
    if not record.exists():
        with count_rows() as counted:
            image = way.draw(model, composition, seed)
        _save(image, path.with_suffix(".png"))
        ways = "*".join(map(glob.escape, path.parent.name.split(str(way))))  # of the same models, read by the same one
        same = [other for other in path.parent.parent.glob(f"{ways}/{path.name}.json") if _shows(other, path)]
        answer = json.loads(same[0].read_text())["read"] if same else read(image)
        with atomic_file(record) as temporary:
            temporary.write_text(json.dumps({"read": answer, "rows": counted.rows}))
    found: dict[str, Any] = json.loads(record.read_text())
    return found


def _save(image: Tensor, file: Path) -> None:
    """Writes a sample (C, H, W) in [0, 1] as a PNG file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(file) as temporary:
        to_output(image[None], "pil", (0.0, 1.0))[0].save(temporary, format="PNG")


def _shows(record: Path, path: Path) -> bool:
    """Whether a record of another way is that of the same image."""
    return record.with_suffix(".png").read_bytes() == path.with_suffix(".png").read_bytes()


def mean_interval(values: Tensor) -> tuple[float, float]:
    """The mean of independent values, and half the width of its 95 % interval.

    >>> mean_interval(torch.tensor([0.0, 1.0, 1.0, 1.0]))
    (0.75, 0.49)
    """
    values = values.double()
    return round(float(values.mean()), 4), round(float(Z * values.std() / len(values) ** 0.5), 4)
