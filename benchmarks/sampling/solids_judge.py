"""Train a classifier that reads the concepts of a picture of solids, to judge samples by what is not the model.

python benchmarks/sampling/solids_judge.py [--steps 2000] [-n 6000] [--held-out 600] [--seed 0] [-o runs/solids_judge]

It learns from rendered pictures of one to three solids, which are mirrored, blurred and given grain, as samples are
soft. Prints how often it reads all concepts of held-out pictures, their number given: as they are, and blurred.
`composed_prompts.py --judge OUT` reads samples by it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import TensorDataset

from benchmarks.common.options import parser
from benchmarks.common.training import report, trained
from energycomp.files import atomic_file, read_tensors, write_tensors
from energycomp.images import from_bytes, to_bytes
from energycomp.progress import progress
from energycomp_datasets.solids.solids import CONCEPTS, picture
from energycomp_datasets.synthetic import HELD_OUT
from energycomp_lab.training import Step

MOST = 3  # solids of a picture
SOFT = 1.2  # px, the deviation of the widest blur
GRAIN = 0.03


class Judge(nn.Module):
    """Logits (B, 12) of the concepts that pictures (B, 3, 64, 64) in [-1, 1] show."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 32, 64, 96, 128)
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.GroupNorm(8, after), nn.SiLU()]
            layers += [nn.Conv2d(after, after, 3, stride=2, padding=1), nn.GroupNorm(8, after), nn.SiLU()]
        self.body = nn.Sequential(*layers)
        self.concepts = nn.Conv2d(widths[-1], len(CONCEPTS), 1)

    def forward(self, images: Tensor) -> Tensor:
        """A concept is shown if it is somewhere."""
        return self.concepts(self.body(images)).flatten(2).amax(2)


def blurred(images: Tensor, deviation: float) -> Tensor:
    """Images under a Gaussian of some px.

    >>> blurred(torch.ones(1, 3, 8, 8), 1.0).round(decimals=4).unique()
    tensor([1.])
    """
    at = torch.arange(-3, 4)
    line = torch.exp(-at.square() / (2 * max(deviation, 0.1) ** 2))
    kernel = torch.outer(line, line) / line.sum() ** 2
    padded = functional.pad(images, (3, 3, 3, 3), mode="replicate")
    return functional.conv2d(padded, kernel.expand(images.shape[1], 1, 7, 7), groups=images.shape[1])


def loss(judge: nn.Module, batch: Sequence[Tensor], step: Step) -> Tensor:
    """Cross entropy of each concept, of pictures that are changed at random."""
    images, shown = batch
    images = from_bytes(images)
    chance = torch.rand(2, generator=step.generator)
    if chance[0] < 0.5:
        images = images.flip(-1)
    images = blurred(images, SOFT * float(chance[1]))
    images = images + GRAIN * torch.randn(images.shape, generator=step.generator)
    return functional.binary_cross_entropy_with_logits(judge(images), shown)


def drawn(path: Path, n: int, seed: int) -> TensorDataset:
    """n pictures (3, 64, 64) uint8 and the concepts that they show (12,), made once."""
    if not path.is_file():
        rng = np.random.default_rng(seed)
        images = torch.empty(n, 3, 64, 64, dtype=torch.uint8)
        shown = torch.zeros(n, len(CONCEPTS))
        for k in progress(range(n), "rendering"):
            chosen = rng.choice(len(CONCEPTS), 1 + k % MOST, replace=False)
            images[k] = to_bytes(picture([CONCEPTS[one] for one in chosen], rng))
            shown[k, chosen] = 1.0
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as temporary:
            write_tensors(temporary, {"images": images, "shown": shown})
    return TensorDataset(*(read_tensors(path)[name] for name in ("images", "shown")))


@cache
def load_judge(folder: Path) -> Judge:
    """The judge that `main` has trained."""
    judge = Judge()
    judge.load_state_dict(read_tensors(folder / "judge.safetensors"))
    return judge.eval()


@torch.no_grad()
def concepts_in(judge: Judge, image: Tensor, count: int) -> set[str]:
    """The concepts of a picture (3, 64, 64) in [-1, 1], their number given."""
    return {CONCEPTS[int(k)] for k in judge(image[None])[0].topk(count).indices}


@torch.no_grad()
def accuracy(judge: Judge, held: TensorDataset, deviation: float) -> dict[int, float]:
    """The share of blurred pictures all of whose concepts are read, by their number."""
    images, shown = held.tensors
    logits = torch.cat([judge(blurred(from_bytes(some), deviation)) for some in images.split(100)])
    counts = shown.sum(1).long()
    found = torch.zeros_like(shown)
    for row, count, best in zip(found, counts.tolist(), logits.argsort(1, descending=True), strict=True):
        row[best[:count]] = 1.0
    right = (found == shown).all(1).float()
    return {count: round(float(right[counts == count].mean()), 3) for count in range(1, MOST + 1)}


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes judge.safetensors and report.json."""
    made = parser(
        __doc__, steps=2000, n=(6000, "pictures to learn from"), held_out=(600, "other pictures"), seed=0,
        out="runs/solids_judge",
    )  # fmt: skip
    options = made.parse_args(arguments)
    data = drawn(options.out / f"learned-{options.n}.safetensors", options.n, options.seed)
    held = drawn(options.out / f"held-{options.held_out}.safetensors", options.held_out, HELD_OUT + options.seed)
    judge = trained(
        lambda: Judge().to(memory_format=torch.channels_last), loss, data, options.out / f"seed-{options.seed}",
        steps=options.steps, batch_size=32, learning_rate=2e-3, ema_decay=0.99, seed=options.seed,
        mixed_precision="bf16",
    )  # fmt: skip
    with atomic_file(options.out / "judge.safetensors") as temporary:
        write_tensors(temporary, {name: value.contiguous() for name, value in judge.state_dict().items()})
    right = {f"blur {deviation:g} px": accuracy(judge, held, deviation) for deviation in (0.0, 0.6, SOFT)}
    report(options.out / "report.json", {"steps": options.steps, "seed": options.seed, "all_read": right})


if __name__ == "__main__":
    main()
