"""A sheet of photos and of samples of the marks of other photos, mixed, to be sorted by eye; the key is beside it.

python benchmarks/worlds/sheet.py --model cells --data PHOTOS [-n 24] [--seed 0]

Half of the pictures are photos at the resolution of the model, the others samples.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import torch
from PIL import Image

from benchmarks.common.options import parser
from energycomp import Composer, load
from energycomp.errors import InputError
from energycomp.images import grid, to_output
from energycomp.models import Model
from energycomp.progress import progress
from energycomp_objects.conditioner import Objects
from energycomp_objects.formats import MarkedPhoto, read_marks
from energycomp_objects.photos import drop_points, values_of


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes the sheet and its key."""
    options = parser(
        __doc__,
        model="cells",
        data=(None, "marked photos"),
        n=(24, "pictures, half of them photos"),
        seed=0,
        out="runs/benchmarks/sheet",
    ).parse_args(arguments)
    if options.data is None:
        raise InputError("got no --data; expected marked photos")
    model = load(options.model)
    photos = list(drop_points(read_marks(options.data)))
    if len(photos) < options.n:
        raise InputError(f"got {len(photos)} photos; expected {options.n}, of which half are shown; pass a smaller -n")
    generator = torch.Generator().manual_seed(options.seed)
    order = torch.randperm(len(photos), generator=generator)[: options.n].tolist()
    is_photo = torch.randperm(options.n, generator=generator) < options.n // 2
    pictures = [
        draw_picture(model, photos[k], is_photo=real, seed=options.seed + k)
        for k, real in progress(list(zip(order, is_photo.tolist(), strict=True)), "drawing")
    ]
    options.out.mkdir(parents=True, exist_ok=True)
    sheet = grid(pictures, columns=6, padding=4, side=240, captions=[str(number + 1) for number in range(options.n)])
    sheet.save(options.out / "sheet.png")
    key = {str(number + 1): "photo" if real else "sample" for number, real in enumerate(is_photo.tolist())}
    (options.out / "key.json").write_text(json.dumps(key, indent=2) + "\n", encoding="utf-8")
    print(options.out / "sheet.png")


def draw_picture(model: Model, photo: MarkedPhoto, *, is_photo: bool, seed: int) -> Image.Image:
    """A photo at the resolution of a model, or a sample of what is marked in it."""
    if not isinstance(model.conditioner, Objects):
        raise InputError(f"got the model {model.name!r}; expected one of `energycomp train objects`")
    if is_photo:
        return to_output(model.encode(photo.image()), "pil")[0]  # type: ignore[no-any-return]
    return Composer(model.compose(values_of(photo, model.conditioner))).sample(generator=seed)[0]  # type: ignore[no-any-return]


if __name__ == "__main__":
    main()
