"""How objects are laid out: a factor of two places and sizes, learned from scenes of CLEVR's placement rules.

A network tells pairs of one scene from pairs of two scenes, so that its logit is log p(a, b) / (p(a) p(b)) (noise
contrastive estimation), and minus this is the energy of a pair. `python -m energycomp_scenes.layouts` trains the
included weights in a minute.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from energycomp.files import read_tensors, write_tensors
from energycomp.inference import Prior, pairwise
from energycomp.models import load_weights
from energycomp.progress import progress
from energycomp.seeds import torch_seed
from energycomp_datasets.clevr.layout import object_values
from energycomp_datasets.clevr.scenes import sample_scene

SCENES = 2000
COUNTS = (2, 10)
STEPS = 2000
BATCH = 512
OPEN = 0.3
WEIGHTS = "layout.safetensors"


class PairNetwork(nn.Module):
    """Two objects (N, 3) each, x, y and the code of the size, to log p(a, b) / (p(a) p(b)), (N,)."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(8, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 1))

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        sizes = torch.stack([(2 * one[:, 2] - 3) * (one[:, 2] > 0) for one in (a, b)], dim=1)
        apart = 5 * (a - b)[:, :2]
        logits: Tensor = self.layers(torch.cat([a[:, :2], b[:, :2], apart, sizes], dim=1))[:, 0]
        return logits


@cache
def layout_prior() -> Prior:
    """The prior of pairs of objects that stand as in CLEVR, of values (N, K, 2 or more): for `infer(prior=)`.

    >>> near, apart = torch.tensor([[[0.5, 0.5], [0.52, 0.5]], [[0.5, 0.5], [0.7, 0.6]]])
    >>> bool(layout_prior().energy(near[None]) > layout_prior().energy(apart[None]) + 1)
    True
    """
    network = PairNetwork()
    load_weights(network, read_tensors(Path(str(files("energycomp_scenes") / WEIGHTS))), WEIGHTS)
    return prior_of(network)


def prior_of(network: PairNetwork) -> Prior:
    """The prior whose factors are minus the logits of a network."""
    network.requires_grad_(requires_grad=False)

    def laid_out(a: Tensor, b: Tensor) -> Tensor:
        width = 3 - min(a.shape[1], 3)  # a place alone has an open size
        a, b = (torch.nn.functional.pad(one[:, :3], (0, width)) for one in (a, b))
        return -network(a, b)

    return pairwise(laid_out)


def draw_layouts(scenes: int, seed: int = 0) -> list[Tensor]:
    """x, y and the code of the size (K, 3) of the objects of scenes, which are laid out and not rendered."""
    found = []
    for k in progress(range(scenes), "laying out", unit="scene"):
        generator = torch.Generator().manual_seed(seed * scenes + k)
        count = int(torch.randint(COUNTS[0], COUNTS[1] + 1, (), generator=generator))
        found.append(object_values(sample_scene(count, generator))[:, :3])
    return found


def train_network(scenes: Sequence[Tensor], *, seed: int = 0, steps: int = STEPS) -> PairNetwork:
    """The network of scenes (K, 3) each; 30 % of the sizes it sees are open."""
    generator = torch.Generator().manual_seed(seed)
    with torch_seed(seed):
        network = PairNetwork()
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    true = torch.cat([one[torch.combinations(torch.arange(len(one)), 2)] for one in scenes])  # (N, 2, 3)
    labels = torch.arange(2.0).flip(0).repeat_interleave(BATCH)
    for _ in progress(range(steps), "learning", unit="step"):
        one, other = torch.randint(len(true), (2, BATCH), generator=generator)
        pairs = torch.cat([true[one], torch.stack([true[one, 0], true[other, 1]], 1)])
        known = torch.rand(len(pairs), 2, generator=generator) > OPEN
        pairs = torch.cat([pairs[..., :2], pairs[..., 2:] * known[..., None]], dim=2)
        optimizer.zero_grad()
        binary_cross_entropy_with_logits(network(pairs[:, 0], pairs[:, 1]), labels).backward()
        optimizer.step()
        rate.step()
    return network


if __name__ == "__main__":
    made = train_network(draw_layouts(SCENES))
    write_tensors(Path(__file__).with_name(WEIGHTS), {name: one.detach() for name, one in made.state_dict().items()})
