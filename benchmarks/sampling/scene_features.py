"""Train the network whose features compare images of scenes, and measure how well it counts.

python benchmarks/sampling/scene_features.py [--steps 2400] [--drawn 3000] [--seed 0] [-n 500] [-o runs/scene_features]

The network counts the objects of an image, and those of each word: large ones, red ones, cubes. It is trained on
rendered scenes of one to eight objects. Held-out images use the seed of `energycomp evaluate`. Prints one JSON line:
the shares of held-out images whose rounded counts are right. `described_quality.py` trains the network in the same way
where its weights are missing. A run that was stopped continues.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
from tqdm import tqdm

from benchmarks.common.options import parser
from benchmarks.common.training import trained
from energycomp.files import atomic_directory, fingerprint, read_tensors, write_tensors
from energycomp.images import from_bytes
from energycomp.manifest import verify
from energycomp.models import load_weights
from energycomp_datasets.clevr.layout import render_objects
from energycomp_datasets.clevr.scenes import ATTRIBUTES
from energycomp_datasets.synthetic import HELD_OUT
from energycomp_lab.training import Step

SIZE = 64
OBJECTS = (1, 8)  # of a scene
LABELS = (*(word for words in ATTRIBUTES.values() for word in words), "object")
FOLDER = Path("runs/scene_features")
DRAWN, STEPS, BATCH, RATE = 3000, 2400, 32, 2e-3
CELLS = 8  # of 4x4 pixels, about those that an object covers
WEIGHTS = "model.safetensors"


class SceneFeatures(nn.Module):
    """Images (B, 3, 64, 64) in [-1, 1] to features (B, F), for distances of sets of images.

    The features are sums over all places, and what is counted is linear in them: two objects count as one and one.

    Args:
        channels: at 1/2, 1/4 and 1/4 of the size; the last are F.

    >>> network = SceneFeatures().eval()
    >>> network(torch.zeros(2, 3, 64, 64)).shape, network.counts(torch.zeros(2, 3, 64, 64)).shape
    (torch.Size([2, 64]), torch.Size([2, 16]))
    """

    def __init__(self, channels: tuple[int, int, int] = (32, 64, 64)) -> None:
        super().__init__()
        first, second, third = channels
        self.num_features = third
        layers = (_layer(12, first), _layer(first, second, stride=2), _layer(second, second), _layer(second, third))
        self.maps = nn.Sequential(nn.PixelUnshuffle(2), *(module for layer in layers for module in layer))
        self.out = nn.Linear(third, len(LABELS))
        nn.init.zeros_(self.out.weight)  # a sum over all places would start far from the counts
        self.register_buffer("scale", torch.ones(third))

    def sums(self, images: Tensor) -> Tensor:
        """Sums of activations over all places (B, F), at least 0."""
        return self.maps(images).sum((2, 3)) / CELLS

    def forward(self, images: Tensor) -> Tensor:
        """Features (B, F), at least 0; `scale` makes their mean square 1 over the scenes of the training."""
        return self.sums(images) / self.scale

    def counts(self, images: Tensor) -> Tensor:
        """How many objects of each of `LABELS` there are, (B, 16), before rounding."""
        counts: Tensor = self.out(self.sums(images))
        return counts


def _layer(inside: int, out: int, *, stride: int = 1) -> tuple[nn.Module, nn.Module]:
    convolution = nn.Conv2d(inside, out, 3, stride=stride, padding=1)
    nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
    nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]
    return convolution, nn.ReLU()


def counts_of(values: Tensor) -> Tensor:
    """How many objects of each of `LABELS` are among some (K, 6), as `render_objects` has them.

    >>> counts_of(torch.tensor([[0.5, 0.5, 2, 2, 2, 1], [0.2, 0.5, 2, 3, 1, 1]])).int().tolist()
    [0, 2, 0, 1, 1, 0, 0, 0, 0, 0, 1, 1, 2, 0, 0, 2]
    """
    codes = zip(ATTRIBUTES.values(), values[:, 2 : 2 + len(ATTRIBUTES)].long().T, strict=True)
    found = [torch.bincount(code, minlength=len(words) + 1)[1:] for words, code in codes]
    return torch.cat([*found, torch.tensor([len(values)])]).float()


def labelled(size: int, *, seed: int) -> TensorDataset:
    """Images (3, 64, 64) uint8 of rendered scenes, and their counts (16,) of `LABELS`. Costs about 0.02 s per image."""
    images, counts = torch.empty(size, 3, SIZE, SIZE, dtype=torch.uint8), torch.empty(size, len(LABELS))
    for index in tqdm(range(size), desc="rendering", leave=False):
        images[index : index + 1], (values,) = render_objects(1, objects=OBJECTS, seed=seed, size=SIZE, start=index)
        counts[index] = counts_of(values)
    return TensorDataset(images, counts)


def counts_loss(network: nn.Module, batch: tuple[Tensor, Tensor], step: Step) -> Tensor:
    """Mean squared error of the counts, a loss for `energycomp.fit`; half of the batches are mirrored."""
    pictures, counts = batch
    mirrored = int(torch.randint(2, (), generator=step.generator))
    images = from_bytes(pictures.flip(3) if mirrored else pictures).contiguous(memory_format=torch.channels_last)
    return F.mse_loss(cast("SceneFeatures", network).counts(images), counts)


def scene_features(
    folder: Path = FOLDER, *, steps: int = STEPS, drawn: int = DRAWN, seed: int = 0
) -> tuple[SceneFeatures, str]:
    """The network, frozen and in eval mode, and its name with a digest of its weights; trained where it is missing.

    Training takes about 5 minutes on one core.
    """
    weights, network = folder / f"weights-{steps}-{drawn}-{seed}", SceneFeatures()
    if not weights.exists():
        data = labelled(drawn, seed=seed)
        made = trained(
            lambda: SceneFeatures().to(memory_format=torch.channels_last), counts_loss, data,
            folder / f"run-{steps}-{drawn}-{seed}", steps=steps, batch_size=BATCH, learning_rate=RATE, ema_decay=0.99,
            seed=seed, save_every=600,
        )  # fmt: skip
        with torch.no_grad():
            squares = [made.sums(from_bytes(images)).square() for images, _ in DataLoader(data, batch_size=BATCH)]
            made.scale.copy_(torch.cat(squares).mean(0).sqrt().clamp(min=1e-6))
        with atomic_directory(weights) as temporary:
            write_tensors(temporary / WEIGHTS, {name: one.contiguous() for name, one in made.state_dict().items()})
    verify(weights)
    tensors = read_tensors(weights / WEIGHTS)
    load_weights(network, tensors, str(weights))
    return network.requires_grad_(requires_grad=False).eval(), f"SceneFeatures-{fingerprint(tensors)[:8]}"


@torch.no_grad()
def accuracy(network: SceneFeatures, *, count: int, seed: int) -> dict[str, float]:
    """Shares of held-out images whose rounded counts are right: of the words of each attribute, of objects, of all."""
    right = []
    for pictures, true in DataLoader(labelled(count, seed=HELD_OUT + seed), batch_size=BATCH):
        right.append(network.counts(from_bytes(pictures)).round() == true)
    hits, begin, shares = torch.cat(right), 0, {}
    for name, words in {**ATTRIBUTES, "objects": LABELS[-1:]}.items():
        shares[name] = float(hits[:, begin : begin + len(words)].all(1).float().mean())
        begin += len(words)
    return {**shares, "all": float(hits.all(1).float().mean()), "label": float(hits.float().mean())}


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the line."""
    scenes = (DRAWN, "rendered scenes to train on")
    parsed = parser(__doc__, steps=STEPS, drawn=scenes, seed=0, n=(500, "held-out images"), out=str(FOLDER))
    options = parsed.parse_args(arguments)
    started = time.perf_counter()
    network, name = scene_features(options.out, steps=options.steps, drawn=options.drawn, seed=options.seed)
    line = {"features": name, "steps": options.steps, "batch": BATCH, "drawn": options.drawn, "seed": options.seed}
    line |= {"seconds": round(time.perf_counter() - started), "held_out": options.n}
    shares = accuracy(network, count=options.n, seed=options.seed)
    print(json.dumps(line | {part: round(share, 4) for part, share in shares.items()}), flush=True)


if __name__ == "__main__":
    main()
