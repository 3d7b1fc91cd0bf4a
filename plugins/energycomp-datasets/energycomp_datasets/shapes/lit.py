"""Images of one lit object on a coloured ground, rendered from five independent factors of the whole image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import torch
from PIL import Image
from torch import Tensor

from energycomp.errors import InputError
from energycomp.files import atomic_file
from energycomp.images import save_image, to_bytes
from energycomp_datasets.pictures import IMAGES, image_files
from energycomp_datasets.shapes.shapes import DISTANCES
from energycomp_datasets.synthetic import HELD_OUT, WRITTEN
from energycomp_lab.evaluation import Example, Generated

if TYPE_CHECKING:
    from torchmetrics import MetricCollection

FACTORS = ("light", "ground", "colour", "shape", "size")
SHAPES = ("circle", "square", "triangle")
SIZES = (0.4, 0.75)  # radius of the circle around the object, over half the image's side
GROUNDS = ((-0.75, -0.35, 0.45), (0.75, 0.35, -0.35))  # colours of the ground at factors 0 and 1
COLOURS = ((-0.6, 0.75, -0.5), (0.85, -0.55, 0.7))
AMBIENT = 0.35  # brightness where no light falls, of 1
TABLE = "factors.csv"


def factors(count: int, seed: int) -> Tensor:
    """Factors (count, 5) of images, each uniform and independent of the others, in the order of `FACTORS`.

    The light comes from the left (-1) to the right (1); ground and colour go from 0 to 1 between two colours; the shape
    is 0, 1 or 2; the size goes from 0 to 1.
    """
    drawn = torch.rand(count, len(FACTORS), generator=torch.Generator().manual_seed(seed))
    drawn[:, 0] = 2 * drawn[:, 0] - 1
    drawn[:, 3] = (drawn[:, 3] * len(SHAPES)).floor()
    return drawn


def render(values: Tensor, *, size: int = 32) -> Tensor:
    """Images (B, 3, size, size) in [-1, 1] of factors (B, 5).

    The object bulges and is shaded by Lambert's law; the ground is brighter where the light comes from, and darker in
    the shadow on the other side.
    """
    light, ground, colour, shape, radius = (column[:, None, None] for column in values.unbind(1))
    radius = SIZES[0] + (SIZES[1] - SIZES[0]) * radius
    axis = (torch.arange(size) + 0.5) / size * 2 - 1
    v, u = torch.meshgrid(axis, axis, indexing="ij")
    distance = _distance(u / radius, v / radius, shape)
    inside = (0.5 - distance * radius * size / 2).clamp(0, 1)
    height = (1 - (1 + distance / 0.6).clamp(0, 1) ** 2).clamp(min=0).sqrt() * radius * 0.6
    slope_y, slope_x = torch.gradient(height, spacing=2 / size, dim=(1, 2))
    toward = torch.stack([torch.sin(1.2 * light), torch.full_like(light, -0.4), torch.cos(1.2 * light)])
    toward = toward / toward.norm(dim=0)
    facing = (-slope_x * toward[0] - slope_y * toward[1] + toward[2]) / (slope_x**2 + slope_y**2 + 1).sqrt()
    shade = AMBIENT + (1 - AMBIENT) * facing.clamp(min=0)
    cast = _distance((u + 0.45 * radius * light) / radius, (v - 0.12 * radius) / radius, shape)
    shadow = (0.5 - cast * radius * size / 4).clamp(0, 1)
    floor = (0.75 + 0.25 * light * u) * (1 - 0.45 * shadow)
    return torch.lerp(_light(GROUNDS, ground, floor), _light(COLOURS, colour, shade), inside[:, None])


def _distance(x: Tensor, y: Tensor, shape: Tensor) -> Tensor:
    every = torch.stack([DISTANCES[name](x, y) for name in SHAPES])
    chosen = shape.long().expand_as(every[0])
    return every.gather(0, chosen[None])[0]


def _light(ends: tuple[tuple[float, ...], tuple[float, ...]], place: Tensor, brightness: Tensor) -> Tensor:
    """A colour between two, under a brightness (B, H, W) in [0, 1]: (B, 3, H, W)."""
    a, b = (torch.tensor(end).view(1, 3, 1, 1) for end in ends)
    albedo = (torch.lerp(a, b, place[:, None]) + 1) / 2
    return albedo * brightness[:, None] * 2 - 1


@attrs.frozen
class LitSource:
    """Images of one lit object with their factors, (5,).

    >>> (example,) = LitSource().examples("synthetic", count=1, seed=0)
    >>> example.image.shape, example.factors.shape
    (torch.Size([3, 32, 32]), torch.Size([5]))
    """

    def examples(self, spec: str, *, count: int, seed: int) -> Sequence[Example]:
        """Rendered images for "synthetic" (32x32, held out from training), or a folder that `write` wrote."""
        if spec == "synthetic":
            values = factors(count, HELD_OUT + seed)
            return Generated(count, partial(_draw_example, values=values))
        paths = image_files(spec)
        values = _table(Path(spec))
        if len(values) != len(paths):
            raise InputError(
                f"got {spec} with {len(values)} rows in {TABLE} and {len(paths)} images; expected a row for each image"
            )
        pairs = zip(paths[:count], values, strict=False)
        return [Example(path, name=path.name, factors=row) for path, row in pairs]

    def write(self, folder: Path, *, count: int, seed: int, options: str, progress: Callable[[int], None]) -> None:
        """Images in `images/`, and `factors.csv`, one line per image in the order of names; there are no `options`."""
        if options:
            raise InputError(f"got the option {options!r}; expected none; leave it out")
        values = factors(count, WRITTEN + seed)
        for index in range(count):
            array = to_bytes(render(values[index : index + 1])[0]).permute(1, 2, 0).numpy()
            save_image(Image.fromarray(array), folder / IMAGES / f"{index + 1:06d}.png")
            progress(index + 1)
        with atomic_file(folder / TABLE) as temporary:
            lines = [",".join(FACTORS), *(",".join(f"{value:.6g}" for value in row) for row in values.tolist())]
            temporary.write_text("\n".join(lines) + "\n")

    def metrics(self) -> MetricCollection:
        """How latents and factors correspond: MIG and MCC, in which the shape counts as a number from 0 to 2."""
        from torchmetrics import MetricCollection

        from energycomp_datasets.shapes.disentanglement import MeanCorrelation, MutualInformationGap

        metrics = {"mig": MutualInformationGap(), "mcc": MeanCorrelation()}
        return MetricCollection(metrics, compute_groups=False)  # type: ignore[arg-type]


def _draw_example(index: int, *, values: Tensor) -> Example:
    return Example(render(values[index : index + 1])[0], name=f"image {index}", factors=values[index])


def _table(folder: Path) -> Tensor:
    try:
        lines = (folder / TABLE).read_text().splitlines()
        rows = [[float(number) for number in line.split(",")] for line in lines[1:]]
        values = torch.tensor(rows).view(len(rows), len(FACTORS))
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(
            f"got {folder} without a legal {TABLE} ({error}); expected one line per image; make one: "
            "energycomp data lit -o FOLDER"
        ) from error
    return values
