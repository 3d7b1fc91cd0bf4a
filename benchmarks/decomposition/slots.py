"""Measure slots of images and generated scenes, in the manner of thesis Tables 3.1 to 3.4.

python benchmarks/decomposition/slots.py separating [-n 300] [--seed 0] [--models slots slots-sprites runs/plain/model]
python benchmarks/decomposition/slots.py scenes [-n 500] [--seed 0] [--models slots runs/slots-mlp/model]
python benchmarks/decomposition/slots.py distances [-n 500] [--seed 0] [--models slots-sprites]
python benchmarks/decomposition/slots.py more [-n 100] [--seed 0] [--models slots-sprites]
python benchmarks/decomposition/slots.py traversing [-n 20] [--seed 0] [--models slots]

Train plain Slot Attention with energycomp train slots --option plain=yes; add --option world=sprites for the second
world. Ablations: --option slots_from=mlp, slots_from=transformer, share_weights=no, share_initial=no.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from benchmarks.common.measure import table, write
from benchmarks.common.options import parser
from benchmarks.common.perceptual import FrechetDistance
from benchmarks.decomposition.corruptions import classifier_accuracy
from benchmarks.decomposition.features import shape_features
from energycomp import load
from energycomp.decomposition import traverse
from energycomp.plugins import find
from energycomp_datasets.rooms.arrow_room import arrow_rooms
from energycomp_datasets.rooms.classifier import load_classifier
from energycomp_datasets.synthetic import HELD_OUT
from energycomp_lab.evaluation import ForegroundARI, SlotsUsed, bootstrap
from energycomp_slots.decomposer import SlotDecomposer

COMMAND = "python benchmarks/decomposition/slots.py"
JUDGED = 5000
CHUNK = 50
ENDS = (-2.0, 2.0)


class JudgeFeatures(nn.Module):
    """What the judge of arrow rooms makes of pictures before it decides, for distances of sets."""

    num_features = 128

    def __init__(self) -> None:
        super().__init__()
        self.judge = load_classifier()

    def forward(self, images: Tensor) -> Tensor:
        """Features (B, 128) of pictures (B, 3, 32, 32) in [-1, 1]."""
        features: Tensor = self.judge.body(images)
        return features

    def layers(self, images: Tensor) -> Sequence[Tensor]:
        """The pictures themselves: sets are compared here, and no pairs."""
        return [images]


def separated(decomposer: SlotDecomposer, spec: str, n: int, seed: int) -> dict[str, str]:
    """How well masks fit the objects of n held-out pictures."""
    name = decomposer.model.name
    examples = find("datasets", name)().examples(spec, count=n, seed=seed)
    ari, used, parts, errors = ForegroundARI(), SlotsUsed(), [], []
    for start in tqdm(range(0, len(examples), CHUNK), desc=f"{name}, {spec}", leave=False):
        part = examples[start : start + CHUNK]
        pictures = torch.stack([example.image for example in part])
        found = decomposer.parts(decomposer.encode(pictures))
        errors.append((found.whole - pictures).square().mean((1, 2, 3)))
        for masks, example in zip(cast("Tensor", found.masks), part, strict=True):
            ari.update([masks], [example.masks])
            used.update([masks], [example.masks])
            one = ForegroundARI()
            one.update([masks], [example.masks])
            parts.append(one)
    low, high = bootstrap(parts, float(ari.compute()), seed=seed) or (np.nan, np.nan)
    found = {"ARI-FG": f"{float(ari.compute()):.3f}", "95 % interval": f"{low:.3f} to {high:.3f}"}
    found |= {"MSE": f"{float(torch.cat(errors).mean()):.4f}"}
    return {**found, "slots used": f"{float(used.compute()):.2f} of {decomposer.slots}"}


def made(decomposer: SlotDecomposer, images: Tensor, seed: int) -> dict[str, Tensor]:
    """Pictures made again, through the global latent too, and as many new scenes."""
    network, n = decomposer.network, len(images)
    generator = torch.Generator().manual_seed(seed)
    latents = decomposer.encode(images, generator=generator)
    noise = torch.randn(n, decomposer.slots, network.width, generator=generator)
    through = network.generate(network.summarise(network.encode(images))[0], noise)[0][0]
    plain = network.generate(torch.randn(n, network.global_width, generator=generator), noise)[0][0]
    return {
        "made again": decomposer.decode(latents),
        "through z_g": decomposer.decode(through),
        "scenes, z_g normal": decomposer.decode(plain),
        "scenes": decomposer.decode(decomposer.scenes(n, generator=torch.Generator().manual_seed(seed))),
    }


def judged(decomposer: SlotDecomposer, n: int, seed: int) -> dict[str, str]:
    """What becomes of the structure of arrow rooms."""
    rooms, judge = arrow_rooms(np.random.default_rng([HELD_OUT, seed]), n), load_classifier()
    pictures = made(decomposer, rooms.images, seed)

    def verdicts(pictures: Tensor) -> str:
        shares = torch.bincount(judge.verdicts(pictures), minlength=3) / len(pictures)
        return " / ".join(f"{100 * float(share):.1f}" for share in shares)

    fid = distance(JudgeFeatures().eval(), rooms.images, pictures["scenes"])
    return {**{name: verdicts(each) for name, each in pictures.items()}, "FID": f"{fid:.1f}"}


def sprites(n: int, seed: int) -> Tensor:
    """Held-out pictures (n, 3, 32, 32) of shapes."""
    examples = find("datasets", "slots-sprites")().examples("synthetic", count=n, seed=seed)
    return torch.stack([example.image for example in examples])


def compared(decomposer: SlotDecomposer, n: int, seed: int) -> dict[str, str]:
    """How far pictures of shapes are from held-out ones that were not encoded."""
    pictures, real, features = made(decomposer, sprites(n, seed), seed), sprites(n, seed + 1), shape_features()
    return {name: f"{distance(features, real, each):.2f}" for name, each in pictures.items()}


def distance(features: torch.nn.Module, real: Tensor, made: Tensor) -> float:
    """FID of two sets of pictures."""
    frechet = FrechetDistance(features)
    frechet.update(real, real=True)
    frechet.update(made, real=False)
    return float(frechet.compute())


def traversed(decomposer: SlotDecomposer, n: int, seed: int) -> dict[str, str]:
    """By how much brightness changes in a slot's mask and outside of it, as the number that moves most goes -2 to 2."""
    examples = find("datasets", decomposer.model.name)().examples("synthetic", count=n, seed=seed)
    inside, outside, count = [], [], 0
    for example in tqdm(examples, desc="traversing", leave=False):
        latents = decomposer.encode(example.image[None])
        for slot in _in_use(decomposer, latents):
            ends = torch.cat([end for dim in range(latents.shape[2]) for end in traverse(latents, slot, dim, ENDS)])
            parts = decomposer.parts(ends)
            change = (parts.whole[1::2] - parts.whole[::2]).abs().mean(1) / 2  # (D, H, W)
            most = int(change.mean((1, 2)).argmax())
            own = cast("Tensor", parts.masks)[2 * most : 2 * most + 2, slot].any(0)
            inside.append(change[most][own].mean())
            outside.append(change[most][~own].mean())
            count += 1
    means = (float(torch.stack(each).nanmean()) for each in (inside, outside))
    named = dict(zip(("changed inside the mask", "outside"), (f"{100 * mean:.2f} %" for mean in means), strict=True))
    return {"slots": str(count), **named}


def _in_use(decomposer: SlotDecomposer, latents: Tensor) -> list[int]:
    """Slots of a picture that are the strongest in 1 % of its pixels."""
    shares = cast("Tensor", decomposer.parts(latents).masks)[0].float().mean((1, 2))
    return [slot for slot, share in enumerate(shares.tolist()) if share >= 0.01]


Rows = dict[str, dict[str, str]]


def separating(models: Mapping[str, Any], n: int, seed: int) -> tuple[Rows, str]:
    """Table 3.1."""
    rows = {name: separated(SlotDecomposer(model), "synthetic", n, seed) for name, model in models.items()}
    return rows, f"{n} held-out images of each world."


def scenes(models: Mapping[str, Any], n: int, seed: int) -> tuple[Rows, str]:
    """Table 3.2, of arrow rooms."""
    rows = {name: judged(SlotDecomposer(model), n, seed) for name, model in models.items()}
    accuracy = 100 * classifier_accuracy(JUDGED, seed=seed)
    sets = [arrow_rooms(np.random.default_rng([HELD_OUT, seed + k]), n).images for k in range(2)]
    return rows, (
        f"{n} images or scenes; right / wrong / invalid in per cent, by a classifier that is right about "
        f"{accuracy:.2f} % of {JUDGED:,} held-out renders. FID in its features, to as many renders; of other renders "
        f"it is {distance(JudgeFeatures().eval(), *sets):.1f}."
    )


def distances(models: Mapping[str, Any], n: int, seed: int) -> tuple[Rows, str]:
    """Table 3.3, of sprites."""
    rows = {name: compared(SlotDecomposer(model), n, seed) for name, model in models.items()}
    other = distance(shape_features(), *(sprites(n, seed + k) for k in range(2)))
    return rows, (
        f"FID to {n} other held-out images, in the features of the counting network; of as many held-out images it is "
        f"{other:.2f}."
    )


def more(models: Mapping[str, Any], n: int, seed: int) -> tuple[Rows, str]:
    """More objects and slots than in training."""
    rows = {}
    for name, model in models.items():
        own = model.denoiser.network.slots
        for count, slots in ((4, own), (5, own), (5, 7)):
            title = f"{name}, {count} objects, {slots} slots"
            rows[title] = separated(SlotDecomposer(model, slots=slots), f"synthetic:{count}", n, seed)
    return rows, f"{n} held-out images each; two to four objects were in those of training."


def traversing(models: Mapping[str, Any], n: int, seed: int) -> tuple[Rows, str]:
    """What the numbers of a slot change."""
    rows = {name: traversed(SlotDecomposer(model), n, seed) for name, model in models.items()}
    return rows, (
        f"{n} held-out images, every slot in use; mean absolute change of brightness, of its range, as that number of "
        "the slot that moves the image most goes from -2 to 2."
    )


PARTS: dict[str, tuple[Callable[..., tuple[Rows, str]], tuple[str, ...]]] = {
    "separating": (separating, ("slots", "slots-sprites")),
    "scenes": (scenes, ("slots",)),
    "distances": (distances, ("slots-sprites",)),
    "more": (more, ("slots-sprites",)),
    "traversing": (traversing, ("slots",)),
}


@torch.no_grad()
def main() -> None:
    """Writes separating.md, scenes.md, distances.md, more.md or traversing.md."""
    made = parser(__doc__, n=(300, "images, or scenes"), seed=0, threads=1, out="runs/benchmarks")
    made.add_argument("what", choices=tuple(PARTS))
    made.add_argument("--models", nargs="+", help="names and folders")
    options = made.parse_args()
    torch.set_num_threads(options.threads)
    part, shipped = PARTS[options.what]
    chosen = options.models or shipped
    rows, note = part({name: load(name) for name in chosen}, options.n, options.seed)
    command = f"`{COMMAND} {options.what} -n {options.n} --seed {options.seed} --models {' '.join(chosen)}`"
    head = ("model", *next(iter(rows.values())))
    text = table(head, [[name, *row.values()] for name, row in rows.items()], f"{command}: {note}")
    write(options.out / options.what, text)


if __name__ == "__main__":
    main()
