"""`steer` on mixtures in the plane whose answer is exact, beside loops that people write, and beside azula.

python benchmarks/sampling/steer.py [-n 1000] [--steps 64] [--particles 8] [--repeats 5] [--tasks reward circle]

The network of all is D(x; sigma), E[x_0 | x] of a mixture of three normals. Prints for each task and method:

    W1      to n exact samples; the floor is between two of these
    missed  mean distance to the set, or of the observation in its noise, the root mean square, which should be 1
    NFE     evaluations of the network per sample, and those that were differentiated
    CPU     seconds

with standard errors over repeats. Methods:

    plain       ancestral steps (DDPM) and nothing else
    loop        particles, weighed by the change of f of the predicted x_0, resampled where half are left: FK steering
    PPR         predict, project, renoise, as often as there are particles, at each level (arXiv 2601.21033)
    SMC ...     `steer(constraint=)` with a tolerance of 0.05, and with exp(-d^2 / 2 s^2)
    azula ...   where azula is installed, with its defaults; of DPS the best zeta of those listed
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from itertools import pairwise
from typing import Any

import attrs
import torch
from torch import Tensor

from benchmarks.common.options import parser
from energycomp.testing import Ideal
from energycomp_samplers import constraint, observe, steer

MEANS = torch.tensor([[-1.0, 0.4], [1.0, 0.8], [0.2, -1.2]])
STD = 0.4
FIRST, LAST = 80.0, 0.005
LINE = 0.5  # u + v on the line
ZETAS = (0.1, 0.3, 1.0, 3.0)
GRID = 100_000  # draws of the mixture, or points of a curve, of which exact samples are picked


@attrs.frozen(eq=False)
class Task:
    """A target p(z) w(z) of the mixture p: `points` to pick exact samples from, with log weights.

    Args:
        energy: -log w, (B,), as a loop follows it.
        told: what `steer` is told.
        missed: how far samples are from what was asked for.
    """

    points: Tensor
    log_weights: Tensor
    energy: Callable[[Tensor], Tensor]
    told: dict[str, Any]
    missed: Callable[[Tensor], float]
    project: Callable[[Tensor], Tensor] | None = None
    seen: tuple[Callable[[Tensor], Tensor], Tensor, float] | None = None

    def sample(self, n: int, random: torch.Generator) -> Tensor:
        weights = (self.log_weights - self.log_weights.max()).exp()
        return self.points[torch.multinomial(weights, n, replacement=True, generator=random)].float()


def draw_prior(random: torch.Generator) -> Tensor:
    places = torch.randint(len(MEANS), (GRID,), generator=random)
    return MEANS[places] + STD * torch.randn(GRID, 2, generator=random)


def make_tasks() -> dict[str, Task]:
    prior = draw_prior(torch.Generator().manual_seed(100))

    def reward(z: Tensor) -> Tensor:
        return 2.0 * z[:, 0]

    def observed(f: Callable[[Tensor], Tensor], y: float, std: float) -> Task:
        def energy(z: Tensor) -> Tensor:
            return (f(z)[:, 0] - y).square() / (2.0 * std**2)

        def missed(z: Tensor) -> float:
            return float((2.0 * energy(z)).mean() ** 0.5)

        told = {"observation": observe(f, [y], std)}
        return Task(prior, -energy(prior).double(), energy, told, missed, seen=(f, torch.tensor([y]), std))

    def on(project: Callable[[Tensor], Tensor], curve: Callable[[Tensor], Tensor]) -> Task:
        points = curve(torch.linspace(-1.0, 1.0, GRID + 1, dtype=torch.float64)[:-1])
        density = (-(points[:, None] - MEANS).square().sum(2) / (2.0 * STD**2)).logsumexp(1)

        def distance(z: Tensor) -> Tensor:
            return (z - project(z)).norm(dim=1)

        def energy(z: Tensor) -> Tensor:
            return distance(z).square() / (2.0 * 0.05**2)

        return Task(points, density, energy, {"project": project}, lambda z: float(distance(z).mean()), project)

    return {
        "reward": Task(prior, reward(prior).double(), lambda z: -reward(z), {"reward": reward}, lambda _: 0.0),
        "linear": observed(lambda z: z.sum(1, keepdim=True), 0.8, 0.1),
        "bent": observed(lambda z: z.square().sum(1, keepdim=True), 1.0, 0.1),
        "circle": on(
            lambda z: z / z.norm(dim=1, keepdim=True),
            lambda t: torch.stack([(math.pi * t).cos(), (math.pi * t).sin()], 1),
        ),
        "line": on(
            lambda z: z - (z.sum(1, keepdim=True) - LINE) / 2.0,
            lambda t: torch.stack([LINE / 2.0 + 4.0 * t, LINE / 2.0 - 4.0 * t], 1),
        ),
    }


@attrs.define
class Counted:
    """The network, and how often it was asked."""

    network: Any = attrs.field(factory=lambda: Ideal(MEANS, STD, "x0", "ve"))
    calls: int = 0
    gradients: int = 0

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        self.calls += len(x)
        self.gradients += len(x) * x.requires_grad
        answer: Tensor = self.network(x, sigma)
        return answer


Method = Callable[[Counted, Tensor, Task, Any], Tensor]


def ancestral(x: Tensor, x0: Tensor, sigma: float, after: float, random: torch.Generator) -> Tensor:
    """x at the next noise level, by the posterior of DDPM."""
    kept = (after / sigma) ** 2
    return x0 + kept * (x - x0) + after * (1.0 - kept) ** 0.5 * torch.randn(x.shape, generator=random)


def levels(steps: int) -> list[float]:
    return [*torch.logspace(math.log10(FIRST), math.log10(LAST), steps).tolist(), 0.0]


def run_loop(network: Counted, x_T: Tensor, task: Task, options: Any, particles: int, projections: int = 0) -> Tensor:
    """What a person writes: FK steering of `particles` for each sample, or PPR."""
    n = len(x_T)
    random = torch.Generator().manual_seed(options.seed)
    x = torch.cat([x_T, FIRST * torch.randn((particles - 1) * n, 2, generator=random)])
    log_weights = torch.zeros(len(x))
    energy: Tensor | float = 0.0
    ends = levels(options.steps)
    for sigma, after in pairwise(ends):
        x0 = network(x, torch.full((len(x),), sigma))
        for _ in range(projections):
            # Predict, project, renoise
            x = task.project(x0) + sigma * torch.randn(x.shape, generator=random)  # type: ignore[misc]
            x0 = network(x, torch.full((len(x),), sigma))
        if projections:
            x0 = task.project(x0)  # type: ignore[misc]
        elif particles > 1:
            # Weigh by the change of the energy, and resample
            now = task.energy(x0)
            log_weights = log_weights + energy - now
            energy = now
            shares = log_weights.softmax(0)
            if 1.0 / shares.square().sum() < 0.5 * len(x) or after == 0.0:
                kept = torch.multinomial(shares, len(x), replacement=True, generator=random)
                x, x0, energy = x[kept], x0[kept], now[kept]
                log_weights = torch.zeros(len(x))
        x = ancestral(x, x0, sigma, after, random)
    return x[torch.randperm(len(x), generator=random)[:n]]


def run_steer(network: Counted, x_T: Tensor, options: Any, **told: Any) -> Tensor:
    sigmas = torch.tensor(levels(options.steps))
    return steer(network, x_T, sigmas=sigmas, particles=options.particles, generator=options.seed, **told)[0]


def soft(task: Task, std: float) -> Any:
    return constraint(lambda z: (z - task.project(z)).square().sum(1) / (2.0 * std**2))  # type: ignore[misc]


def near(task: Task) -> Any:
    return constraint(lambda z: torch.where((z - task.project(z)).norm(dim=1) < 0.05, 0.0, torch.inf))  # type: ignore[misc]


def methods_for(task: Task) -> dict[str, Method]:
    methods: dict[str, Method] = {
        "`steer`": lambda network, x, task, o: run_steer(network, x, o, **task.told),
        "plain": lambda network, x, task, o: run_loop(network, x, task, o, 1),
        "loop": lambda network, x, task, o: run_loop(network, x, task, o, o.particles),
    }
    if task.project is not None:
        methods["PPR"] = lambda network, x, task, o: run_loop(network, x, task, o, 1, o.particles - 1)
        methods["SMC within 0.05"] = lambda network, x, task, o: run_steer(network, x, o, constraint=near(task))
        for std in (0.05, 0.01):
            methods[f"SMC, s = {std:g}"] = lambda network, x, task, o, std=std: run_steer(  # type: ignore[misc]
                network, x, o, constraint=soft(task, std)
            )
    return methods | (azula_methods(task) if find_spec("azula") else {})


def azula_methods(task: Task) -> dict[str, Method]:
    """Samplers and denoisers of azula for rewards and observations."""
    denoise, guidance, sample = (import_module(f"azula.{name}") for name in ("denoise", "guidance", "sample"))
    covariance = import_module("azula.linalg.covariance")
    schedule = import_module("azula.noise").VESchedule(LAST, FIRST)

    class Own(denoise.Denoiser):  # type: ignore[misc, name-defined]
        def __init__(self, network: Counted) -> None:
            super().__init__()
            self.network, self.schedule = network, schedule

        def forward(self, x_t: Tensor, t: Tensor) -> Any:
            return denoise.DiracPosterior(self.network(x_t, schedule.sigma(t).expand(len(x_t))))

    def method(make: Callable[[Any, Any], Any], particles: int = 1) -> Method:
        def run(network: Counted, x_T: Tensor, _: Task, options: Any) -> Tensor:
            torch.manual_seed(options.seed)
            x = torch.cat([x_T, FIRST * torch.randn((particles - 1) * len(x_T), 2)])
            settings = {"steps": options.steps, "silent": True}
            x = make(Own(network), settings)(x)
            return x[torch.randperm(len(x))[: len(x_T)]]

        return run

    def twist(x0: Tensor, _: Tensor) -> Tensor:
        return -task.energy(x0)[:, None]

    if task.project is not None:
        return {}
    found = {"azula TDS": method(lambda own, settings: guidance.TDSSampler(own, twist, **settings), 8)}
    if task.seen is None:
        return found
    f, y, std = task.seen
    y = y[None]
    noise = covariance.IsotropicCovariance(torch.tensor(std**2))
    spread = covariance.IsotropicCovariance(torch.tensor(float(MEANS.var(0).mean()) + STD**2))
    make: dict[str, Callable[[Any], Any]] = {
        "MMPS": lambda own: guidance.MMPSDenoiser(own, y, f, noise),
        "TMPD": lambda own: guidance.TMPDenoiser(own, y, f, std**2),
        "DiffPIR": lambda own: guidance.DiffPIRDenoiser(own, y, f, std**2),
        "JFPS": lambda own: guidance.JFPSDenoiser(own, y, f, noise, spread),
    }
    for name, one in make.items():
        found[f"azula {name}"] = method(lambda own, settings, one=one: sample.DDPMSampler(one(own), **settings))
    for zeta in ZETAS:
        found[f"azula DPS, zeta = {zeta:g}"] = method(
            lambda own, settings, zeta=zeta: guidance.DPSSampler(own, y, f, zeta=zeta, **settings)
        )
    return found


def distance(x: Tensor, y: Tensor) -> float:
    """W1 between two sets of as many samples."""
    from scipy.optimize import linear_sum_assignment

    apart = torch.cdist(x.double(), y.double()).numpy()
    return float(apart[linear_sum_assignment(apart)].mean())


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints a table for each task."""
    tasks = make_tasks()
    options = parser(
        __doc__, n=(1000, "samples"), steps=64, particles=8, repeats=5, seed=0, tasks=list(tasks)
    ).parse_args(arguments)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    first = options.seed
    for name in options.tasks:
        task = tasks[name]
        random = torch.Generator().manual_seed(first)
        exact = [task.sample(options.n, random) for _ in range(options.repeats + 1)]
        floor = torch.tensor([distance(exact[-1], one) for one in exact[:-1]])
        print(f"\n{name}: floor {floor.mean():.3f}\n\n| method | W1 | missed | NFE | CPU s |")
        print("| --- | --- | --- | --- | --- |", flush=True)
        for label, method in methods_for(task).items():
            network = Counted()
            start = time.process_time()
            apart, missed = [], []
            for k in range(options.repeats):
                options.seed = first + k
                x_T = FIRST * torch.randn(options.n, 2, generator=torch.Generator().manual_seed(options.seed))
                try:
                    x = method(network, x_T, task, options).detach()
                except Exception as error:  # a method of a peer that does not take the task
                    print(f"| {label} | {type(error).__name__} | | | |")
                    break
                spent = time.process_time() - start
                x = x.nan_to_num(FIRST, FIRST, -FIRST)
                apart.append(distance(x, exact[k]))
                missed.append(task.missed(x))
            else:
                w1 = torch.tensor(apart)
                runs = options.n * options.repeats
                nfe = f"{network.calls / runs:.0f}" + (f", {network.gradients / runs:.0f}" if network.gradients else "")
                error_ = float(w1.std()) / len(w1) ** 0.5
                row = f"{w1.mean():.3f} ± {error_:.3f} | {sum(missed) / len(missed):.2g} | {nfe}"
                print(f"| {label} | {row} | {spent / options.repeats:.1f} |", flush=True)


if __name__ == "__main__":
    main()
