"""Whether the timesteps that `check_adoption` proposes depend on the samples that it is given, and how labels are read.

python benchmarks/adoption/windows.py [--models dit,edm,flow] [-n 5] [--read 50] [--runs runs/adoption]

Each network is checked on `n` draws of 64 real digits, and on as many of what the next network drew. With each proposal
it reads other samples of the same kind, and with the default timesteps. Prints the shares that are read right.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from benchmarks.adoption.across import draw
from benchmarks.adoption.mistakes import read
from benchmarks.adoption.strangers import TABLE, Stranger
from benchmarks.common.options import parser
from energycomp_adopt import check_adoption

GIVEN = 64
Samples = tuple[Tensor, Tensor]  # and their labels


def main() -> None:
    """Prints a line for each network and kind of samples."""
    options = parser(
        __doc__,
        models=("dit,edm,flow", "names of networks of digits"),
        n=(5, "draws of samples"),
        read=(50, "samples that are read"),
        runs=("runs/adoption", "folder of the networks"),
    ).parse_args()
    torch.set_num_threads(1)
    folder, some = Path(options.runs), {one.name: one for one in TABLE if one.name in options.models.split(",")}
    print(
        "| read by | samples | default | read right with each proposal | timesteps |\n| --- | --- | --- | --- | --- |"
    )
    for name, other in zip(some, [*some][1:] + [*some][:1], strict=True):
        model = some[name].adopted(folder)
        kinds: dict[str, tuple[Samples, Samples]] = {"real": real(some[name], options.n, options.read)}
        if other != name:
            count = -(-(GIVEN * options.n + options.read) // 10)
            drawn = draw(some[other].adopted(folder, num_inference_steps=50), 10, count, 0)
            order = torch.randperm(len(drawn), generator=torch.Generator().manual_seed(0))
            x, labels = drawn[order], torch.arange(10).repeat_interleave(count)[order]
            first, rest = slice(0, options.read), slice(options.read, None)
            kinds[f"drawn by {other}"] = (x[first], labels[first]), (x[rest], labels[rest])
        for kind, (held, (x, labels)) in kinds.items():
            shares, windows = list[str](), list[str]()
            for draw_of in range(options.n):
                given = slice(GIVEN * draw_of, GIVEN * (draw_of + 1))
                proposed = check_adoption(model, x[given], labels[given], seed=draw_of).model
                shares.append(f"{read(proposed, *held):.2f}")
                windows.append(f"{proposed.defaults.timesteps}")
            usual = f"{read(model, *held):.2f}"
            print(f"| {name} | {kind} | {usual} | {', '.join(shares)} | {', '.join(windows)} |", flush=True)


def real(one: Stranger, n: int, read: int) -> tuple[Samples, Samples]:
    """Held-out samples that are read, as many as there are up to a number, and those that are given to the check."""
    held, known = one.samples()
    return (held[:read], known[:read]), one.samples(slice(0, GIVEN * n))


if __name__ == "__main__":
    main()
