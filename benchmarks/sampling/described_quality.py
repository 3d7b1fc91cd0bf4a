"""Compare samples of described scenes with renders of the same descriptions: FID, KID and sharpness.

python benchmarks/sampling/described_quality.py [--models clevr clevr-places] [-n 64] [--counts 3,5,8] [-o quality.png]

Prints one JSON line for each number of objects and kind of image, and one over all numbers of objects. The kinds are
the samples of each model and way, and two floors: new renders of the same descriptions, with other rotations, lights
and cameras, and renders of other descriptions. FID and KID are in the features of the network of `scene_features.py`,
which is trained first where it is missing. They can be compared within one run only: the FID of few images is too
large, and other features give other numbers. `gradient` is the mean magnitude of the image gradient over that of the
renders; soft samples have less than 1, noisy ones may have more.

`--data` compares with the renders of a folder in CLEVR's layout, such as those of Blender, in place of our own; the
floor is then between two halves of them, at the size of 64 pixels of the network.

Descriptions, seeds and `--records` are those of `described_scenes.py`: a sample that either drew is not drawn twice. A
model of places, such as `clevr-places`, is given the places only.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torchmetrics import Metric
from tqdm import tqdm

from benchmarks.common import ways
from benchmarks.common.perceptual import FrechetDistance, KernelDistance
from benchmarks.common.ways import HELD_OUT, SHOWN, Way, drawn, folder_of, write_rows
from benchmarks.sampling.described_scenes import descriptions
from benchmarks.sampling.scene_features import DRAWN, FOLDER, SIZE, STEPS, SceneFeatures, scene_features
from energycomp import Model
from energycomp.errors import InputError
from energycomp.images import ImageProcessor, from_bytes, to_bytes, to_output
from energycomp.seeds import derived_seed
from energycomp_datasets.clevr.geometry import CAMERA_POSITION, unproject
from energycomp_datasets.clevr.layout import read, render_objects
from energycomp_datasets.clevr.lighting import sample_lighting
from energycomp_datasets.clevr.renderer import render
from energycomp_datasets.clevr.scenes import CLEVR, SIZES, Scene
from energycomp_lab.evaluation import bootstrap

OTHERS = 50_000_000  # added to the seed: renders of other descriptions
SUBSETS = 100
RENDERS = ("renders", "")


class GradientRatio(Metric):
    """The mean gradient magnitude of images over that of their counterparts.

    >>> ratio = GradientRatio()
    >>> edge = torch.tensor([0.0, 1.0]).expand(1, 3, 4, 2)
    >>> ratio.update(edge / 2, edge)
    >>> round(ratio.compute().item(), 4)
    0.5
    """

    full_state_update = False
    images: Tensor
    renders: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("images", "renders"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, images: Tensor, renders: Tensor) -> None:
        """Adds images, (B, 3, H, W) each."""
        self.images += gradient(images).sum()
        self.renders += gradient(renders).sum()

    def compute(self) -> Tensor:
        """At least 0; 1 for images that are as sharp."""
        return self.images / self.renders


def gradient(images: Tensor) -> Tensor:
    """The mean over pixels of the length of the gradient over x, y and channels, of each image (B, C, H, W).

    >>> gradient(torch.arange(4.0).expand(1, 1, 4, 4)).tolist()
    [1.0]
    """
    return lengths(images).mean((1, 2))


def lengths(images: Tensor) -> Tensor:
    """The lengths (B, H - 1, W - 1) of the gradient over x, y and channels, of images (B, C, H, W)."""
    x = images[:, :, :-1, 1:] - images[:, :, :-1, :-1]
    y = images[:, :, 1:, :-1] - images[:, :, :-1, :-1]
    return (x.square() + y.square()).sum(1).double().sqrt()


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the lines."""
    given = {"models": ["clevr"], "records": "runs/described_scenes", "data": (None, "folder in CLEVR's layout")}
    features = (str(FOLDER), "folder of the network of `scene_features.py`")
    feature_steps, feature_scenes = (STEPS, "of the training of that network"), (DRAWN, "that it is trained on")
    options = ways.sampling_options(
        __doc__, scenes="scenes", features=features, feature_steps=feature_steps, feature_scenes=feature_scenes,
        guidance=ways.GUIDANCE, **given,
    ).parse_args(arguments)  # fmt: skip
    models = {name: ways.guided(name, options.guidance) for name in options.models}
    network, features = scene_features(
        Path(options.features), steps=options.feature_steps, drawn=options.feature_scenes
    )
    found: list[dict[tuple[str, str], Tensor]] = []
    for count in map(int, options.counts.split(",")):
        described = descriptions(options.data, count, options.n, options.seed)
        kinds = (
            floors(options.n, count, options.seed) if options.data is None else halves(options.data, count, options.n)
        )
        for name, model in models.items():
            for way in options.ways or [Way.of(model)]:
                records = options.records / (options.data.name if options.data else "")
                folder = folder_of(records, name, model, count, way, options.seed)
                kinds[name, str(way)] = samples(folder, way, model, described, options.seed)
        found.append(kinds)
        report(network, kinds, {"objects": count, "features": features, "seed": options.seed})
    if len(found) > 1:
        everything = {kind: torch.cat([kinds[kind] for kinds in found]) for kind in found[0]}
        report(network, everything, {"objects": "all", "features": features, "seed": options.seed})
    shown = torch.cat([images[:SHOWN] for kinds in found for images in kinds.values()])
    write_rows(options.o, to_output(shown, "pil"), columns=min(SHOWN, options.n), side=128)


def floors(n: int, count: int, seed: int) -> dict[tuple[str, str], Tensor]:
    """Renders of the descriptions, new renders of them, and renders of other descriptions, (n, 3, 64, 64) each."""
    renders, described = render_objects(n, objects=(count, count), seed=HELD_OUT + seed, size=SIZE)
    others, _ = render_objects(n, objects=(count, count), seed=HELD_OUT + OTHERS + seed, size=SIZE)
    again = [
        rendered_again(values, derived_seed(seed, "again", count, index)) for index, values in enumerate(described)
    ]
    return {
        RENDERS: from_bytes(renders),
        ("renders of the same descriptions", ""): from_bytes(torch.stack(again)),
        ("renders of other descriptions", ""): from_bytes(others),
    }


def halves(data: Path, count: int, n: int) -> dict[tuple[str, str], Tensor]:
    """The renders of n scenes of a folder, and of as many others of it, (n, 3, 64, 64) each."""
    paths = [record.path for record in read(data) if record.count == count]
    if len(paths) < 2 * n:
        got = f"got {len(paths)} scenes of {count} objects in {data} and -n {n}"
        raise InputError(f"{got}; expected twice as many scenes as -n; take -n {len(paths) // 2}, or another folder")
    processor = ImageProcessor(size=(SIZE, SIZE), resize="squash")
    one, other = (processor([Image.open(path) for path in part]) for part in (paths[:n], paths[n : 2 * n]))
    return {RENDERS: one, ("renders of other descriptions", ""): other}


@torch.no_grad()
def rendered_again(values: Tensor, seed: int) -> Tensor:
    """A render (3, 64, 64) uint8 of described objects (K, 6): the rotations, the lights and the camera are new."""
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.tensor(list(SIZES.values()))[values[:, 2].long() - 1]
    camera = torch.tensor(CAMERA_POSITION) + CLEVR.camera * (2 * torch.rand(3, generator=generator) - 1)
    scene = Scene(
        positions=unproject(values[:, :2], sizes, camera),
        sizes=sizes,
        shapes=values[:, 5].long() - 1,
        colors=values[:, 3].long() - 1,
        materials=values[:, 4].long() - 1,
        rotations=2 * torch.pi * torch.rand(len(values), generator=generator),
        camera=camera,
        lighting=sample_lighting(len(values), generator, CLEVR.lights),
    )
    return to_bytes(render(scene, (SIZE, SIZE)))


def samples(folder: Path, way: Way, model: Model, described: Sequence[Tensor], seed: int) -> Tensor:
    """Samples (N, 3, 64, 64) of described objects, or of their places for a model of places."""
    (width,) = model.conditioner.value_shape
    files = [
        drawn(folder / str(k), way, model, model.compose(values[:, :width]), seed + k)
        for k, values in enumerate(tqdm(described, desc=f"{len(described[0])} objects, {way}"))
    ]
    return ImageProcessor(size=(SIZE, SIZE))([Image.open(file) for file in files])


def report(network: SceneFeatures, kinds: Mapping[tuple[str, str], Tensor], common: Mapping[str, Any]) -> None:
    """Prints a line for each kind of image, compared with the renders."""
    for (name, way), images in kinds.items():
        if (name, way) != RENDERS:
            line = {"images": name, "way": way or None, "number": len(images), **common}
            print(json.dumps(line | compared(network, images, kinds[RENDERS], common["seed"])), flush=True)


def compared(network: SceneFeatures, images: Tensor, renders: Tensor, seed: int) -> dict[str, Any]:
    """FID, KID with its deviation over subsets of half of the images, and the ratio of gradients with its interval."""
    fid = FrechetDistance(network)
    kid = KernelDistance(network, subsets=SUBSETS, subset_size=max(2, len(images) // 2), seed=seed)
    for metric in (fid, kid):
        metric.update(renders, real=True)
        metric.update(images, real=False)
    mean, deviation = kid.compute()
    total, parts = GradientRatio(), [GradientRatio() for _ in images]
    total.update(images, renders)
    for part, image, other in zip(parts, images, renders, strict=True):
        part.update(image[None], other[None])
    ratio = float(total.compute())
    ends = bootstrap(parts, ratio, seed=seed)
    found = {"fid": round(float(fid.compute()), 3), "kid": round(float(mean), 4)}
    found |= {"kid_deviation": round(float(deviation), 4), "gradient": round(ratio, 4)}
    return {**found, "gradient_interval": None if ends is None else [round(end, 4) for end in ends]}


if __name__ == "__main__":
    main()
