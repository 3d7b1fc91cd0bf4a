"""Decompose textured scenes without labels: ARI-FG and mean IoU, of images with a normalised ground, or of pixels.

energycomp data clevr --objects textured:3-5:64x64 -n 1200 -o runs/parts/scenes
python benchmarks/decomposition/textured.py --normalise runs/parts/scenes/images/train -o runs/parts/normalised
energycomp train slots --data runs/parts/normalised --init slots-sprites --steps 4000 --learning-rate 4e-4
    --option batch_size=16 -o runs/parts/slots
energycomp train decomp --data runs/parts/normalised --init decomp --steps 600 --learning-rate 5e-4 --precision bf16
    --option batch_size=8 -o runs/parts/decomp
energycomp train slots --data runs/parts/normalised --option plain=yes --steps 3000 --option batch_size=16
    -o runs/parts/attention
python benchmarks/decomposition/textured.py [--models components by-color runs/parts/slots/model ...] [--pixels]
    [-n 100] [--seed 0] [--threads 1]

Prints one JSON line per model: ARI-FG and mean IoU of held-out scenes of 64x64 pixels with 3 to 5 objects, 95 %
intervals by the bootstrap over images, the parameters that encode and decode an image, and the steps and wall seconds
of the training run. Images are resized to the model, and its masks to 64x64 pixels. With `--pixels` models see the
scenes as they are. Three ways have no network: "components" are the connected components of normalised images, and
"components-32" those of normalised images of 32x32 pixels, the size of the models. "by-color" is `masks_by_color` of
energycomp-decomp.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import interpolate
from tqdm import tqdm

from benchmarks.common.options import parser
from energycomp import load
from energycomp.decomposition import Decomposer, decomposer_of
from energycomp.images import save_image, to_output
from energycomp_cli import read_lines
from energycomp_datasets.clevr.layout import scene_of
from energycomp_datasets.clevr.renderer import instance_map, render
from energycomp_datasets.pictures import image_files
from energycomp_datasets.shapes.shapes import GROUND
from energycomp_datasets.synthetic import HELD_OUT
from energycomp_decomp.by_color import find_components, from_ground, masks_by_color
from energycomp_decomp.diffusion import MASK_THRESHOLD
from energycomp_lab.evaluation import ForegroundARI, MaskIoU, bootstrap

SIZE, OBJECTS, CHUNK, STEPS = 64, (3, 5), 25, 10
NEAR, RANGE = 3.0, 2.0  # standard deviations of the ground, and of objects
COMPONENTS = {"components": SIZE, "components-32": 32}
BY_COLOR = "by-color"
DARK = torch.tensor(GROUND)[:, None, None]
SCENES = {"enter", "global_head", "leave", "own", "prior"}  # of a SlotVAE: what generates scenes


def normalise(images: Tensor) -> Tensor:
    """Images (B, 3, H, W) in [-1, 1] as bright objects on the dark ground that the included models know.

    Pixels within three standard deviations of the ground become dark, and others a colour that encodes the direction in
    which they differ.
    """
    z = from_ground(images)
    share = ((z.norm(dim=1, keepdim=True) - NEAR) / RANGE).clamp(min=0).tanh()
    bright = 0.35 + 0.65 * z / z.abs().amax(1, keepdim=True).clamp(min=1e-6)
    return torch.lerp(DARK.expand_as(z), bright, share)


def components(images: Tensor, side: int) -> list[Tensor]:
    """Masks (K, 64, 64) of the connected pixels of normalised images, resized to a side, that are not of the ground."""
    differs, found = interpolate(images, (side, side), mode="area").sub(DARK).abs().amax(1) > MASK_THRESHOLD, []
    for some in differs:
        masks = torch.stack(find_components(some) or [torch.zeros_like(some)])
        found.append(interpolate(masks[None].float(), (SIZE, SIZE))[0].bool())
    return found


def scenes(n: int, seed: int) -> tuple[Tensor, list[Tensor]]:
    """Held-out images (n, 3, 64, 64), and the masks (K, 64, 64) of the visible objects of each."""
    images, masks = [], []
    for index in tqdm(range(n), desc="rendering", leave=False):
        drawn = scene_of(HELD_OUT + seed, index, OBJECTS, textured=True)
        images.append(render(drawn, (SIZE, SIZE)))
        ids = instance_map(drawn, (SIZE, SIZE))
        masks.append(ids == ids.unique()[ids.unique() >= 0][:, None, None])
    return torch.stack(images), masks


def taken_apart(decomposer: Decomposer, images: Tensor, seed: int, ground: Tensor | None) -> list[Tensor]:
    """The masks (K, 64, 64) of the parts of each image.

    All slots can show a plain ground (3, 1, 1), and chance decides which of them wins its pixels: masks do without.
    """
    generator, found = torch.Generator().manual_seed(seed), list[Tensor]()
    for some in tqdm(images.split(CHUNK), desc="decomposing", leave=False):
        parts = decomposer.parts(decomposer.encode(some), generator=generator, num_inference_steps=STEPS)
        masks = cast("Tensor", parts.masks)
        if ground is not None:
            masks = masks & ((parts.images - ground).abs().amax(2) > MASK_THRESHOLD)
        found += interpolate(masks.float(), (SIZE, SIZE)).bool()
    return found


def scores(found: Sequence[Tensor], true: Sequence[Tensor], seed: int) -> dict[str, Any]:
    """ARI-FG and mean IoU, with 95 % intervals."""
    line: dict[str, Any] = {}
    for name, make in (("ari_fg", ForegroundARI), ("miou", MaskIoU)):
        metric, each = make(), [make() for _ in found]
        metric.update(found, true)
        for one, masks, objects in zip(each, found, true, strict=True):
            one.update([masks], [objects])
        value = float(metric.compute())
        low, high = bootstrap(each, value, seed=seed) or (np.nan, np.nan)
        line |= {name: round(value, 3), f"{name}_interval": [round(low, 3), round(high, 3)]}
    return line


def size(module: nn.Module) -> int:
    """The number of parameters, without those that generate scenes."""
    return sum(p.numel() for name, p in module.named_parameters() if not SCENES & set(name.split(".")))


def training(name: str) -> dict[str, float]:
    """Steps and seconds of the run whose folder holds a model, from its log, or from those of its phases."""
    logs = Path(name).parent.rglob("log.jsonl") if Path(name).is_dir() else ()
    ends = [lines[-1] for path in logs if (lines := read_lines(path))]
    return {key: round(sum(line[key] for line in ends)) for key in ("step", "seconds")} if ends else {}


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the lines, or writes normalised images."""
    given: dict[str, Any] = {
        "normalise": (None, "folder of images, whose normalised ones are written to -o; nothing is measured"),
        "pixels": (False, "show models the scenes as they are"),
        "out": "runs/parts/normalised",
    }
    options = parser(__doc__, models=[*COMPONENTS, BY_COLOR], n=100, seed=0, threads=1, **given).parse_args(arguments)
    torch.set_num_threads(options.threads)
    if options.normalise:
        for path in tqdm(image_files(options.normalise), desc="normalising"):
            pixels = torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1)[None]
            save_image(to_output(normalise(pixels / 127.5 - 1), "pil")[0], options.out / path.name)
        return
    images, true = scenes(options.n, options.seed)
    normalised = normalise(images)
    for name in options.models:
        if name in COMPONENTS:
            line = scores(components(normalised, COMPONENTS[name]), true, options.seed)
        elif name == BY_COLOR:
            line = scores(masks_by_color(images), true, options.seed)
        else:
            model = load(name)
            shown, ground = (images, None) if options.pixels else (normalised, DARK)
            line = scores(taken_apart(decomposer_of(model), shown, options.seed, ground), true, options.seed)
            line |= {"pixels": options.pixels, "parameters": size(model.trained), **training(name)}
        print(json.dumps({"model": name, **line, "images": options.n, "seed": options.seed}), flush=True)


if __name__ == "__main__":
    with torch.no_grad():
        main()
