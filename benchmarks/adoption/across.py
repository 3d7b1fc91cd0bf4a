"""Adopted networks that draw, and read what other networks drew, with the timesteps that `check_adoption` proposes.

python benchmarks/adoption/across.py [-n 10] [--seed 0] [--runs runs/adoption]

The three networks of labelled digits of `networks.py`, which differ in architecture, prediction and process, draw `n`
images of each label, and each of them reads all. Then the network of a table draws `n` rows of each label, by the
scheduler of its adoption and by 1000 DDPM steps, as it was trained. Prints the share of labels that are read, and of
rows whose nearest row of the data has the label that was asked for.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

import energycomp
from benchmarks.adoption.mistakes import read
from benchmarks.adoption.strangers import TABLE, Stranger
from benchmarks.common.options import parser
from energycomp_adopt import check_adoption


def main() -> None:
    """Prints both tables."""
    parsed = parser(__doc__, n=(10, "samples of a label"), seed=0, runs=("runs/adoption", "folder of the networks"))
    options = parsed.parse_args()
    torch.set_num_threads(1)
    *digits, _, rows = TABLE
    folder, drawn, models = Path(options.runs), dict[str, Tensor](), dict[str, energycomp.Model]()
    for one in tqdm(digits, desc="drawing"):
        models[one.name] = check_adoption(one.adopted(folder), *one.samples(slice(0, 64)), seed=options.seed).model
        drawn[one.name] = draw(models[one.name], 10, options.n, options.seed)
    names, labels = list(models), torch.arange(10).repeat_interleave(options.n)
    print(f"| drawn by | {' | '.join(f'read by {name}' for name in names)} |\n|{' --- |' * (len(names) + 1)}")
    for name, images in drawn.items():
        print(f"| {name} | {' | '.join(f'{read(models[other], images, labels):.3f}' for other in names)} |")
    ways: dict[str, dict[str, Any]] = {
        "as adopted": {},
        "1000 DDPM steps": {"scheduler": "DDPMScheduler", "num_inference_steps": 1000},
    }
    for way, settings in ways.items():
        share = nearest(rows, rows.adopted(folder, **settings), options.n, options.seed)
        print(f"{rows.name}, {way}: the nearest row has the label of {share:.3f} of the samples")


def draw(model: energycomp.Model, labels: int, n: int, seed: int, output_type: str = "pt") -> Tensor:
    """Samples (labels n, ...), label after label."""
    settings: dict[str, Any] = {"generator": seed, "output_type": output_type, "progress": False}
    drawn = [energycomp.Composer(model(label)).sample(n, **settings) for label in range(labels)]
    return torch.cat([torch.as_tensor(each) for each in drawn])


def nearest(one: Stranger, model: energycomp.Model, n: int, seed: int) -> float:
    """The share of drawn rows whose nearest row of the data has the label that was asked for."""
    data, known = one.data()
    found = draw(model, 3, n, seed, "latent")
    labels = torch.arange(3).repeat_interleave(n)
    return float((known[torch.cdist(found.to(data), data).argmin(1)] == labels).double().mean())


if __name__ == "__main__":
    main()
