"""Plans of 31 points from ten windows of 4, with a start, a goal and an obstacle. Prints the table of the README."""

import argparse
import statistics
from collections.abc import Callable
from typing import Any, Literal

import torch
from energycomp import Composer, Composition, on, window
from energycomp.components import Gaussian
from energycomp.sampling import SamplingReport
from energycomp_samplers import Canvas, constraint
from energycomp_samplers.mala import MALA
from energycomp_samplers.smc import SMC
from scipy.stats import t
from torch import Tensor

from energycomp_chain.walks import LENGTH, RING, distance, factors, is_legal, train

FACTORS, STRIDE = 10, LENGTH - 1
POINTS, RADIUS, NEAR = FACTORS * STRIDE + 1, 0.45, 0.1
MOVES = MALA(moves=1, nodes=2)


def plan(start: Tensor, goal: Tensor, cover: Literal["bethe", "mean", "sum"] = "bethe") -> Composition:
    """Ten windows that share a point with the next, and both ends (2,); the sum has no separators."""
    walk, point = factors()
    shape, parts = (2, POINTS), [window(i * STRIDE, LENGTH) for i in range(FACTORS)]
    shared = [(window(i * STRIDE, 1), point) for i in range(1, FACTORS)]
    if cover == "sum":
        whole = sum((on(part, walk, shape) for part in parts), Composition([]))
    else:
        whole = Canvas(shape, parts, cover=cover, separators=shared if cover == "bethe" else ()).join([walk] * FACTORS)
    noise = Gaussian(sample_shape=(2, 1), space="pixels")
    for place, at in ((0, start), (POINTS - 1, goal)):
        end = Gaussian(at[:, None], 1e-4, sample_shape=(2, 1), space="pixels")
        whole = whole + on(window(place, 1), end - noise, shape)
    return whole


def clear_of(place: Tensor) -> Callable[[Tensor], Tensor]:
    """The energy (B,) of plans for how far their steps enter an obstacle at a place (2,)."""
    return lambda x: 30.0 * (RADIUS + 0.1 - distance(x, place)).relu().sum(1)


def is_valid(x: Tensor, start: Tensor, goal: Tensor) -> Tensor:
    """Whether plans (B, 2, N) are legal and begin and end where they should, (B,)."""
    return is_legal(x) & ((x[:, :, 0] - start).norm(dim=1) < NEAR) & ((x[:, :, -1] - goal).norm(dim=1) < NEAR)


def main() -> None:
    """Trains if asked, and prints a markdown row for each way: means over seeds, with a 95 % interval of the t test."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", action="store_true")
    parser.add_argument("--ways", nargs="*", default=[])
    parser.add_argument("-n", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    if options.train:
        train()
    ddpm: dict[str, Any] = {"scheduler": "DDPMScheduler", "num_inference_steps": 100}
    smc: dict[str, Any] = {"sampler": SMC(), "num_inference_steps": 250}
    moved: dict[str, Any] = {"sampler": SMC(moves=MOVES), "num_inference_steps": 200}
    ways: list[tuple[str, Any, dict[str, Any], bool]] = [
        *((f"{cover}, DDPM", cover, ddpm, False) for cover in ("sum", "mean", "bethe")),
        ("sum, `smc`", "sum", smc, False),
        ("bethe, `smc`", "bethe", smc, False),
        ("bethe, `smc` with moves", "bethe", moved, False),
        ("obstacle", "bethe", moved, True),
    ]
    print("| way | valid | least of a seed | NFE | calls of f |\n| --- | --- | --- | --- | --- |")
    for name, cover, how, blocked in [way for way in ways if not options.ways or way[0] in options.ways]:
        shares, reports = [], list[SamplingReport]()
        for seed in range(options.seeds):
            angle = 2 * torch.pi * torch.rand((), generator=torch.Generator().manual_seed(seed))
            start, obstacle = (RING * torch.stack([(angle + a).cos(), (angle + a).sin()]) for a in (0.0, torch.pi / 2))
            given = dict(how)
            if blocked:
                given["sampler"] = SMC(moves=MOVES, constraint=constraint(clear_of(obstacle)))
            x = Composer(plan(start, -start, cover)).sample(
                options.n, generator=seed, output_type="latent", progress=False, report=reports.append, **given
            )
            valid = is_valid(x, start, -start)
            if blocked:
                valid &= (distance(x, obstacle) > RADIUS).all(1)
            shares.append(float(valid.double().mean()))
        spread = t.ppf(0.975, len(shares) - 1) * statistics.stdev(shares) / len(shares) ** 0.5
        spent, calls = reports[0].evaluations // options.n, reports[0].constraint_calls // options.n
        print(
            f"| {name} | {statistics.mean(shares):.3f} ± {spread:.3f} | {min(shares):.3f} | {spent:,} | {calls} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
