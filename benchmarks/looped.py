"""One composed prediction: a network call for each component, as peers do it, against one batch of distinct rows.

python benchmarks/looped.py [--components 5] [--batch 4] [--repeats 10]
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import torch
from torch import Tensor

from energycomp import load
from energycomp.evaluate import count_rows, predict


def main() -> None:
    """Prints rows and seconds of both ways, on one network in one run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="clevr", help="registered name or folder")
    parser.add_argument("--components", type=int, default=5)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=10)
    options = parser.parse_args()
    model = load(options.model)
    generator = torch.Generator().manual_seed(0)
    values = torch.rand(options.components, 2, generator=generator)
    leaves = [model.leaf(value[None]) for value in values]
    composition, u = model.compose(values), model.unconditional
    sample = torch.randn(options.batch, *model.denoiser.sample_shape, generator=generator)
    timestep = torch.full((options.batch,), 500.0)

    def looped() -> Tensor:
        base = predict(1.0 * u, sample, timestep)
        return base + sum(predict(1.0 * leaf, sample, timestep) - base for leaf in leaves)

    def ours() -> Tensor:
        return predict(composition, sample, timestep)

    with torch.no_grad():
        gap = float((looped() - ours()).abs().max())
        for name, way in (("looped", looped), ("energycomp", ours)):
            print(json.dumps({"way": name, **measure(way, options.repeats), "largest_difference": gap}))


def measure(way: Callable[[], Tensor], repeats: int) -> dict[str, float]:
    """Rows, trunk passes and the median seconds of a call."""
    with count_rows() as spent:
        way()
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        way()
        seconds.append(time.perf_counter() - started)
    return {"rows": spent.rows, "trunks": spent.trunks, "seconds": round(sorted(seconds)[repeats // 2], 4)}


if __name__ == "__main__":
    main()
