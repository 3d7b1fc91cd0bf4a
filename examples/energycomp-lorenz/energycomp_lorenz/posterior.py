"""Posteriors of a long trajectory from composed windows, beside particle filters. Prints the table of the README."""

import argparse
import itertools
import statistics

import torch
from energycomp import Composer, Composition, crop, on, window
from energycomp.components import Gaussian
from energycomp.sampling import SamplingReport
from energycomp_samplers import Canvas
from energycomp_samplers.mala import MALA
from energycomp_samplers.smc import SMC
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from energycomp_lorenz.states import LENGTH, SCALE, SPREAD, bootstrap_filter, factors, train, trajectories

STRIDE, PARTICLES = LENGTH - 1, 100_000


def posterior(states: int, observed: dict[int, float]) -> Composition:
    """Windows that share a state with the next, and an observation of the first number at some states.

    An observation y of variance v is N(x; y, v) = N(x; y v' / v, v') / N(x; 0, 1) up to a constant, with
    1 / v' = 1 / v + 1: a part of mass 0, which adds no noise.
    """
    window5, state = factors()
    shape, variance = (3, states), float((SPREAD / SCALE[0]) ** 2)
    count, own = (states - 1) // STRIDE, 1 / (1 / variance + 1)
    parts = [window(i * STRIDE, LENGTH) for i in range(count)]
    shared = [(window(i * STRIDE, 1), state) for i in range(1, count)]
    whole = Canvas(shape, parts, cover="bethe", separators=shared).join([window5] * count)
    noise = Gaussian(sample_shape=(1, 1), space="pixels")
    for k, y in observed.items():
        seen = Gaussian(y * own / variance, own, sample_shape=(1, 1), space="pixels")
        whole = whole + on(crop(0, k, 1, 1), seen - noise, shape)
    return whole


def distance(a: Tensor, b: Tensor) -> float:
    """W1 between as many standardised states (n, 3) each."""
    costs = torch.cdist(a.double(), b.double())
    rows, columns = linear_sum_assignment(costs.numpy())
    return float(costs[rows, columns].mean())


def some(particles: Tensor, n: int, seed: int) -> Tensor:
    """As many of the particles, drawn without replacement."""
    return particles[torch.randperm(len(particles), generator=torch.Generator().manual_seed(seed))[:n]]


def main() -> None:
    """Trains if asked, and prints a markdown row for each seed and interval of observations."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", action="store_true")
    parser.add_argument("-n", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--swarm", type=int, default=1500, help="particles of smc, of which n are compared")
    parser.add_argument("--moves", type=int, default=6, help="Metropolis moves at each step")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--states", type=int, default=33)
    options = parser.parse_args()
    if options.train:
        train()
    print("| interval | seed | W1 | of two filters | ratio | NFE |\n" + "| --- " * 6 + "|")
    for seed, interval in itertools.product(range(options.seeds), (8, 16)):
        generator = torch.Generator().manual_seed(1000 + seed)
        truth = trajectories(1, options.states, generator)[0, 0]
        noisy = truth + SPREAD / SCALE[0] * torch.randn(options.states, generator=generator)
        observed = {k: float(noisy[k]) for k in range(interval, options.states, interval)}
        reports = list[SamplingReport]()
        x = Composer(posterior(options.states, observed)).sample(
            options.swarm,
            sampler=SMC(moves=MALA(moves=options.moves, nodes=2)),
            num_inference_steps=options.steps,
            generator=seed,
            output_type="latent",
            progress=False,
            report=reports.append,
        )
        generators = [torch.Generator().manual_seed(i) for i in range(3)]
        first, *others = (
            some(bootstrap_filter(observed, options.states, PARTICLES, own), options.n, i)
            for i, own in enumerate(generators)
        )
        apart, floor = (
            distance(first, some(x[:, :, -1], options.n, 0)),
            statistics.mean(distance(first, other) for other in others),
        )
        row = f"{apart:.3f} | {floor:.3f} | {apart / floor:.2f} | {reports[0].evaluations // options.swarm:,}"
        print(f"| {interval} | {seed} | {row} |", flush=True)


if __name__ == "__main__":
    main()
