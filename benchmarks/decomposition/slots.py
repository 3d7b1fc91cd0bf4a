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

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from benchmarks.common import measure
from energycomp import load
from energycomp.decomposition import traverse
from energycomp.files import atomic_file
from energycomp.plugins import find
from energycomp_datasets.rooms.arrow_room import arrow_rooms
from energycomp_datasets.rooms.classifier import classifier_accuracy, load_classifier
from energycomp_datasets.shapes.features import shape_features
from energycomp_datasets.shapes.perceptual import FeatureNetwork, FrechetDistance
from energycomp_datasets.synthetic import HELD_OUT
from energycomp_lab.evaluation import ForegroundARI, SlotsUsed, bootstrap
from energycomp_slots.decomposer import SlotDecomposer

COMMAND = "python benchmarks/decomposition/slots.py"
JUDGED = 5000
CHUNK = 50
ENDS = (-2.0, 2.0)
MODELS = {
    "separating": ("slots", "slots-sprites"),
    "scenes": ("slots",),
    "distances": ("slots-sprites",),
    "more": ("slots-sprites",),
    "traversing": ("slots",),
}


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
    return {
        "ARI-FG": f"{float(ari.compute()):.3f}",
        "95 % interval": f"{low:.3f} to {high:.3f}",
        "MSE": f"{float(torch.cat(errors).mean()):.4f}",
        "slots used": f"{float(used.compute()):.2f} of {decomposer.slots}",
    }


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

    return {
        **{name: verdicts(each) for name, each in pictures.items()},
        "FID": f"{distance(JudgeFeatures().eval(), rooms.images, pictures['scenes']):.1f}",
    }


def sprites(n: int, seed: int) -> Tensor:
    """Held-out pictures (n, 3, 32, 32) of shapes."""
    examples = find("datasets", "slots-sprites")().examples("synthetic", count=n, seed=seed)
    return torch.stack([example.image for example in examples])


def compared(decomposer: SlotDecomposer, n: int, seed: int) -> dict[str, str]:
    """How far pictures of shapes are from held-out ones that were not encoded."""
    pictures, real, features = made(decomposer, sprites(n, seed), seed), sprites(n, seed + 1), shape_features()
    return {name: f"{distance(features, real, each):.2f}" for name, each in pictures.items()}


def distance(features: FeatureNetwork, real: Tensor, made: Tensor) -> float:
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


def table(rows: Mapping[str, Mapping[str, str]], note: str, path: Path) -> None:
    """A row a model, as markdown."""
    head = ("model", *next(iter(rows.values())))
    text = measure.table(head, [[name, *row.values()] for name, row in rows.items()], note)
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    print(text)


@torch.no_grad()
def main() -> None:
    """Writes separating.md, scenes.md, distances.md, more.md or traversing.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=tuple(MODELS))
    parser.add_argument("-n", type=int, default=300, help="pictures, or scenes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--models", nargs="+", help="names and folders")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("-o", "--out", type=Path, default=Path("runs/benchmarks"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    options.models = options.models or list(MODELS[options.what])
    command = f"`{COMMAND} {options.what} -n {options.n} --seed {options.seed} --models {' '.join(options.models)}`"
    models: dict[str, Any] = {name: load(name) for name in options.models}
    if options.what == "separating":
        rows = {
            name: separated(SlotDecomposer(model), "synthetic", options.n, options.seed)
            for name, model in models.items()
        }
        note = f"{command}: {options.n} held-out pictures of each world."
    elif options.what == "scenes":
        rows = {name: judged(SlotDecomposer(model), options.n, options.seed) for name, model in models.items()}
        accuracy = 100 * classifier_accuracy(JUDGED, seed=options.seed)
        sets = [arrow_rooms(np.random.default_rng([HELD_OUT, options.seed + k]), options.n).images for k in range(2)]
        note = (
            f"{command}: {options.n} pictures or scenes; right / wrong / invalid in per cent, by a judge that is right "
            f"about {accuracy:.2f} % of {JUDGED:,} held-out renders. FID in the judge's features, to as many renders; "
            f"of other renders it is {distance(JudgeFeatures().eval(), *sets):.1f}."
        )
    elif options.what == "distances":
        rows = {name: compared(SlotDecomposer(model), options.n, options.seed) for name, model in models.items()}
        other = distance(shape_features(), *(sprites(options.n, options.seed + k) for k in range(2)))
        note = (
            f"{command}: FID to {options.n} other held-out pictures, in the features of the counting network; "
            f"of as many held-out pictures it is {other:.2f}."
        )
    elif options.what == "traversing":
        rows = {name: traversed(SlotDecomposer(model), options.n, options.seed) for name, model in models.items()}
        note = (
            f"{command}: {options.n} held-out pictures, every slot in use; mean absolute change of brightness, of its "
            "range, as that number of the slot that moves the picture most goes from -2 to 2."
        )
    else:
        rows = {}
        for name, model in models.items():
            for count, slots in ((4, model.denoiser.network.slots), (5, model.denoiser.network.slots), (5, 7)):
                decomposer = SlotDecomposer(model, slots=slots)
                rows[f"{name}, {count} objects, {slots} slots"] = separated(
                    decomposer, f"synthetic:{count}", options.n, options.seed
                )
        note = f"{command}: {options.n} held-out pictures each; two to four objects were in those of training."
    table(rows, note, options.out / f"{options.what}.md")


if __name__ == "__main__":
    main()
