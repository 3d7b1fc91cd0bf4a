"""Samples of three objects that do not touch: a constraint of plain Python inside SMC, beside best-of at the same cost.

python benchmarks/parts/three_objects.py [-n 64] [--particles 32] [--steps 25] [--weight 6] [-o runs/three]

Three prompts of `text-composed` are composed; objects of such samples often merge, overlap or are missing. f counts
patches of colour, and is off by one for each object too many or too few, and for each that meets another. A judge that
shares nothing with f, a small network that learned from grey renders which pixels show objects and where two of them
meet, sees no colours. Prints how often it and f err on other renders, then one JSON line for each way: plain draws, the
best of 8 of them by f, and one swarm of SMC with the constraint, whose particles are all samples and cost what plain
draws cost. `apart` is the distance of pairs of samples (root mean square of pixels) over that of plain draws: copies
have 0.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from benchmarks.common.options import parser
from benchmarks.common.training import trained
from benchmarks.common.ways import mean_interval
from energycomp import Composer, load
from energycomp.images import from_bytes, grid, save_image, to_bytes
from energycomp.sampling import SamplingReport
from energycomp_datasets.solids.solids import CONCEPTS, picture_and_places
from energycomp_lab.training import Step
from energycomp_samplers import constraint
from energycomp_samplers.smc import SMC

PROMPTS = ("a red cube", "a blue sphere", "a green cylinder")
WANTED = 3  # objects
COLOURED, LEAST = 0.1, 40  # saturation of an object, and its least px of 64x64: lower ones count fragments
HUES = torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.9, 0.0], [0.0, 1.0, 0.0], [0.0, 0.2, 1.0]])
BEST_OF = 8
COUNTS = (0.1, 0.2, 0.5, 0.2)  # shares of renders with 1 to 4 objects


def wrong(images: Tensor) -> Tensor:
    """f: how far images (B, 3, H, W) in [0, 1] are from three separate objects, (B,)."""
    return torch.tensor([_wrong(image) for image in images.detach().float().cpu()], device=images.device)


def _wrong(image: Tensor) -> float:
    """Objects too many or too few, and those that share a region with others; an object is a patch of one hue."""
    chroma = image - image.amin(0)
    hue = torch.einsum("nc,chw->nhw", F.normalize(HUES, dim=1), F.normalize(chroma, dim=0)).argmax(0).numpy()
    coloured = (chroma.amax(0) > COLOURED).numpy()
    objects = sum(len(patches(coloured & (hue == one))) for one in range(len(HUES)))
    apart = len(patches(ndimage.binary_dilation(coloured)))
    return float(abs(objects - WANTED) + max(0, objects - apart))


def patches(mask: Any) -> list[int]:
    """The sizes of the connected parts of a mask (H, W), of `LEAST` px at least."""
    parts, count = ndimage.label(mask)
    return [size for size in np.bincount(parts.flatten(), minlength=count + 1)[1:].tolist() if size >= LEAST]


class Judge(nn.Module):
    """Grey images (B, 1, 64, 64) in [-1, 1] to log odds (B, 3, 64, 64) of background, object, and seam of two objects.

    >>> Judge()(torch.zeros(1, 1, 64, 64)).shape
    torch.Size([1, 3, 64, 64])
    """

    def __init__(self) -> None:
        super().__init__()
        self.fine, self.coarse, self.deep = _block(1, 8), _block(8, 24), _block(24, 48)
        self.up, self.out = _block(72, 24), nn.Sequential(_block(32, 16), nn.Conv2d(16, 3, 1))

    def forward(self, images: Tensor) -> Tensor:
        fine = self.fine(images)
        coarse = self.coarse(F.avg_pool2d(fine, 2))
        deep = F.interpolate(self.deep(F.avg_pool2d(coarse, 2)), scale_factor=2.0)
        up = F.interpolate(self.up(torch.cat([coarse, deep], 1)), scale_factor=2.0)
        odds: Tensor = self.out(torch.cat([fine, up], 1))
        return odds

    @torch.no_grad()
    def right(self, images: Tensor) -> Tensor:
        """Whether images (B, 3, H, W) in [-1, 1] show three objects that do not touch, (B,)."""
        return torch.tensor([is_right(kinds) for kinds in self(images.mean(1, keepdim=True)).argmax(1)])


def _block(before: int, after: int) -> nn.Module:
    layers = [nn.Conv2d(a, after, 3, padding=1) for a in (before, after)]
    return nn.Sequential(*(part for layer in layers for part in (layer, nn.GroupNorm(8, after), nn.SiLU())))


def is_right(kinds: Tensor) -> bool:
    """Whether a map (H, W) of background (0), objects (1) and seams (2) has three objects, each a region of its own."""
    return [len(patches(found.numpy())) for found in (kinds == 1, kinds > 0)] == [WANTED, WANTED]


def renders(n: int, seed: int) -> list[dict[str, Tensor]]:
    """Renders of 1 to 4 solids: images (3, 64, 64), uint8, and their maps for the judge (64, 64)."""
    rng, found = np.random.default_rng(seed), []
    for _ in tqdm(range(n), desc="rendering", leave=False):
        names = rng.choice(CONCEPTS, 1 + int(rng.choice(4, p=COUNTS)), replace=False)
        image, ids = picture_and_places(list(names), rng)
        numbers = ids[None, None].float() + 1  # those of a seam have another object in their neighbourhood
        high = F.max_pool2d(numbers, 3, 1, 1)
        low = -F.max_pool2d(-torch.where(numbers > 0, numbers, 9.0), 3, 1, 1)
        kinds = (numbers > 0).long() + ((numbers > 0) & (high > low))
        found.append({"image": to_bytes(image), "kinds": kinds[0, 0]})
    return found


def loss(network: nn.Module, batch: dict[str, Tensor], step: Step) -> Tensor:
    """Cross-entropy of pixels, of blurred, noised and mirrored images of any exposure."""
    images, kinds = from_bytes(batch["image"]).mean(1, keepdim=True), batch["kinds"]
    blur = F.avg_pool2d(images, 3, 1, 1, count_include_pad=False)
    images = torch.where(torch.rand(len(images), 1, 1, 1, generator=step.generator) < 0.5, images, blur)
    images = images * (1 + 0.2 * torch.randn(len(images), 1, 1, 1, generator=step.generator))
    images = images + 0.03 * torch.randn(images.shape, generator=step.generator)
    if torch.rand((), generator=step.generator) < 0.5:
        images, kinds = images.flip(3), kinds.flip(2)
    return F.cross_entropy(network(images), kinds)


def judge_of(folder: Path, n: int, seed: int) -> Judge:
    """The judge of a folder, trained where it is not there; prints how often it and f are right on other renders."""
    data = renders(n, seed)
    train, held_out = data[: n - n // 4], data[n - n // 4 :]
    made = trained(
        Judge, loss, train, folder / "judge", steps=240, batch_size=16, learning_rate=6e-3, seed=seed, ema_decay=0.96
    )
    images = from_bytes(torch.stack([one["image"] for one in held_out]))
    right = torch.tensor([is_right(one["kinds"]) for one in held_out])
    said = {"judge": made.right(images), "f": wrong((images + 1) / 2) == 0}
    line: dict[str, Any] = {"held_out": len(held_out), "right": int(right.sum())}
    for name, one in said.items():
        line |= {f"{name}_misses": int((right & ~one).sum()), f"{name}_false": int((one & ~right).sum())}
    print(json.dumps(line), flush=True)
    return made


def apart(images: Tensor) -> float:
    """The root mean square distance of pairs of images, per number."""
    return float(torch.pdist(images.flatten(1)).square().mean().sqrt()) / images[0].numel() ** 0.5


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints one JSON line for the judge, and one for each way."""
    given: dict[str, Any] = {
        "n": (64, "plain draws"),
        "particles": (32, "samples of the swarm"),
        "steps": 25,
        "weight": 6.0,
        "renders": 400,
        "seed": 0,
    }
    options = parser(__doc__, **given, out="runs/three").parse_args(arguments)
    model, judge = load("text-composed"), judge_of(options.out, options.renders, options.seed)
    composer = Composer([model(prompt) for prompt in PROMPTS])
    spent: list[SamplingReport] = []
    how = {"num_inference_steps": options.steps, "output_type": "pt", "report": spent.append, "progress": False}
    plain = composer.sample(options.n, scheduler="DDPMScheduler", generator=options.seed, **how)
    kept = wrong(plain).view(-1, BEST_OF).argmin(1) + torch.arange(0, options.n, BEST_OF)
    ways = {"plain": plain, f"best of {BEST_OF}": plain[kept]}
    sampler = SMC(weights="none", constraint=constraint(wrong, options.weight))
    ways["constraint"] = composer.sample(options.particles, sampler=sampler, generator=options.seed, **how)
    for (name, images), report in zip(ways.items(), [spent[0], *spent], strict=True):
        right = judge.right(images * 2 - 1)
        line: dict[str, Any] = {"way": name, "n": len(images), "seed": options.seed}
        line["three_none_touching"], line["interval"] = mean_interval(right)
        line["by_f"] = round(float((wrong(images) == 0).float().mean()), 3)
        calls = report.constraint_calls or options.n * (name.startswith("best"))
        line |= {"nfe": round(report.evaluations / len(images), 1), "calls_of_f": round(calls / len(images), 1)}
        line |= {"apart": round(apart(images) / apart(plain), 3)}
        print(json.dumps(line), flush=True)
        save_image(grid(images * 2 - 1, side=96), options.out / f"{name.replace(' ', '-')}.png", cells=len(images))


if __name__ == "__main__":
    main()
